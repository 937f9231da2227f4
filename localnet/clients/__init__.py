"""
The home programs' interfaces, written down a second time.

Instructions, accounts and events here are plain `struct` formats, apart from the IDLs and from `indexer.chain`: traffic
is made with them and the indexer's results are compared with them, so that one mistake cannot hide in both.
"""
