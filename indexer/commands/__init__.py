"""
The commands that read: what is indexed, and, for whoever has bytes and an IDL and no database, what those say.

Nothing here decodes or queries by itself: `indexer.chain` and `indexer.store` do. These modules read arguments and
lines, and write lines, tables and files.
"""
