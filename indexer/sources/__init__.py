"""
Where transactions and accounts come from: a node's JSON-RPC and its PubSub.

Nothing here knows Postgres or what the bytes mean. Everything here may fail, and says which kind of failure it was.
"""
