"""
The decoder as commands, for whoever has bytes and an IDL and no database: payloads, transactions, IDLs.

Nothing here decodes: `indexer.chain` does. These modules read arguments and lines, and write lines and tables.
"""
