"""
The people of a localnet: who does what on its programs, and when.

A *cast* (one file each, `sessions.py` is the first) knows the users of one program and tells their lives as generators
of acts. `schedule.py` merges the lives of all casts by time; `history.py` plays the past into the ledger as fast as the
VM goes, `live.py` plays the present slot by slot. Everything follows from one seed: the same seed gives the same keys,
the same amounts and the same signatures.
"""
