"""
A local Solana chain for demo and tests: the real SVM and real programs behind Solana's own JSON-RPC and PubSub.

`chain.py` is the ledger, without sockets; `server.py` gives it ports and lets its slots tick.
"""
