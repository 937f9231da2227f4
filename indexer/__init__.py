"""
Process 1, and the floor that the other two stand on.

It hauls transactions and accounts in from the chain, makes sense of their bytes, and keeps them in Postgres and the
lake. Acting on what is stored is the engine's job, showing it the dashboard's.
"""
