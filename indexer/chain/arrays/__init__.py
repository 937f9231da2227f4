"""Many payloads at once: the types of an IDL compiled into array operations. The door is `indexer.chain.columns`."""
