"""The only code that talks to Postgres and DuckDB. It runs the SQL in sql/ and knows nothing of RPC or pages."""
