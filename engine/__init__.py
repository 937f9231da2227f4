"""
Process 2: it acts on what the indexer has seen, and moves money.

Rules decide (pure), adapters know the programs, the ledger remembers before anything happens, and one sender signs and
sends. Every step may be the last one before a crash; the ledger makes that harmless.
"""
