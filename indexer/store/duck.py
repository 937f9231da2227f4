"""
DuckDB as the lake's writer and its readers use it: in memory, its extensions loaded, the databases attached.

The extensions come from the wheels duckdb-extension-ducklake and duckdb-extension-postgres-scanner, so no network is
needed; DuckDB checks their signatures. What is asked of a connection is lake.py's and reader.py's business.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path

import duckdb

from indexer.errors import RetryableError, SettingsError

LAKE_SCHEMA = "lake_meta"
"""The schema of the Postgres database that holds the lake's catalog."""

DUCK_TYPES: Mapping[str, str] = {
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "numeric(20,0)": "UBIGINT",
    "boolean": "BOOLEAN",
    "double precision": "DOUBLE",
    "bytea": "BLOB",
    "text": "VARCHAR",
    "jsonb": "VARCHAR",
    "timestamptz": "TIMESTAMPTZ",
}
"""The lake's type for each Postgres type of a typed table."""


def open_duckdb(*, threads: int = 2, memory_limit: str = "1GB") -> duckdb.DuckDBPyConnection:
    """
    Return an in-memory DuckDB that can attach Postgres and DuckLake.

    Raises:
        SettingsError: an extension is neither installed as a wheel nor to be had from the network.
    """
    connection = duckdb.connect(
        config={"threads": threads, "memory_limit": memory_limit, "autoinstall_known_extensions": "false"}
    )
    for name in ("ducklake", "postgres_scanner"):
        _load_extension(connection, name)
    connection.execute("SET TimeZone = 'UTC'")
    # One COPY with the filter in it instead of page ranges over the whole table: it uses the index on slot, and the
    # transaction's own snapshot and connection.
    connection.execute("SET pg_use_ctid_scan = false")
    return connection


def _load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    try:
        package = importlib.import_module(f"duckdb_extension_{name}")
        folder = Path(str(package.__file__)).parent / "extensions" / f"v{duckdb.__version__}"
        path = folder / f"{name}.duckdb_extension"
    except ModuleNotFoundError:
        path = None
    try:
        if path is not None and path.exists():
            connection.execute(f"LOAD {quote_text(str(path))}")
        else:
            connection.execute(f"INSTALL {name}")
            connection.execute(f"LOAD {name}")
    except duckdb.Error as error:
        raise SettingsError(
            f"DuckDB's extension {name} cannot be loaded ({_first_line(error)}): install the package "
            f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
        ) from error


def attach_postgres(connection: duckdb.DuckDBPyConnection, dsn: str, name: str) -> None:
    """Attach the hot tables, to be read only. RetryableError where the server does not answer."""
    execute(connection, f"ATTACH {quote_text(dsn)} AS {quote_name(name)} (TYPE postgres, READ_ONLY)")


def attach_lake(
    connection: duckdb.DuckDBPyConnection, dsn: str, data_path: Path | None, *, read_only: bool, name: str = "lake"
) -> None:
    """
    Attach the lake whose catalog is in the database at `dsn`.

    Args:
        data_path: absolute; where a writer makes the lake if there is none. A reader may leave it out, as the catalog
            knows it.

    Raises:
        SettingsError: the lake that is there lies in another folder.
        RetryableError: the server does not answer, or there is no lake to read yet.
    """
    options = f"METADATA_SCHEMA {quote_text(LAKE_SCHEMA)}"
    if data_path is not None:
        options += f", DATA_PATH {quote_text(f'{data_path}/')}"
    if read_only:
        options += ", READ_ONLY"
    execute(connection, f"ATTACH {quote_text(f'ducklake:postgres:{dsn}')} AS {quote_name(name)} ({options})")


def execute(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a statement; what is not our bug becomes RetryableError, without the DSN that DuckDB's messages quote."""
    try:
        connection.execute(statement)
    except duckdb.Error as error:
        elsewhere = re.search(r'existing data path in the catalog "(.*?)"', str(error))
        if elsewhere:
            raise SettingsError(
                f"the lake of this database lies in {elsewhere[1].rstrip('/')}: choose that folder"
            ) from None
        raise RetryableError(f"DuckDB cannot reach the database: {_without_dsn(error)}") from None


def _without_dsn(error: duckdb.Error) -> str:
    return _first_line(error).split('"', 1)[0].strip().rstrip(":")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def quote_name(name: str) -> str:
    """Return an identifier in DuckDB's quotes."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("'", "''") + "'"
