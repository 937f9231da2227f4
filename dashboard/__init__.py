"""
Process 3: what Capstan knows, as pages for people.

Streamlit pages over `indexer.store.reader`, with a role that can only read. One page answers one question. Nothing here
writes, signs or talks to the chain, and no page asks any other server for anything.
"""
