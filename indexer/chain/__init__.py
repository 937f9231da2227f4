"""
What the chain's bytes mean. Pure: no network, no database, no clock, no files.

The way through: `idl` reads an IDL, `program` compiles it, `transaction` reads what the RPC returned, `logs` says which
program printed what, and `events` brings them together. `columns` reads payloads by the million, into Arrow. `value` is
the format in which values leave the house.
"""
