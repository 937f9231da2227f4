"""The contract between the processes, as text: migrations, named queries, analytics views. `indexer.store` runs it."""
