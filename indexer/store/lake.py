"""
The lake's one writer: finalized rows from Postgres into DuckLake, rows and watermark in one lake transaction.

What a watermark has passed is in the lake exactly once: the rows are read in one Postgres snapshot, bounded by the
proven frontier, and committed with the watermark or not at all. Late rows (`capstan.late_transactions`) replace by
signature. Reading the lake is reader.py's business.

Sync, because DuckDB is: call it with asyncio.to_thread. A first export of 30 days takes a second or two.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import duckdb
import psycopg
import pyarrow as pa
from duckdb.func import PythonUDFType
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from indexer.errors import RetryableError
from indexer.store.database import CONNECT_TIMEOUT_S, DASHBOARD_ROLE, ENGINE_ROLE, first_line, mask_dsn, writable_folder
from indexer.store.duck import (
    DUCK_TYPES,
    LAKE_SCHEMA,
    attach_lake,
    attach_postgres,
    open_duckdb,
    quote_name,
    quote_text,
)
from indexer.store.queries import load_queries
from indexer.store.raw import LAKE_TABLE_NAME as RAW_TABLE_NAME
from indexer.store.raw import decompress_body
from indexer.store.retention import GRACE_S, Pruned, Retention
from indexer.store.typed import OWN_COLUMNS
from indexer.store.upkeep import Upkeep

# Whoever writes the lake of one database.
LAKE_LOCK = 0x0CA9_57A6
LOCK_WAIT_S_MAX = 10.0
# Small files that a table may gather before they are merged.
MERGE_EVERY = 30
# Of zstd. The lower one makes a quarter more bytes of bodies, in half the time.
COMPRESSION_LEVEL, BULK_COMPRESSION_LEVEL = 3, 1
# Rows in a row group: DuckDB's usual 122,880 bodies would all be held in memory, and hashed for a dictionary that never
# comes to be. Rows come by slot, so that a filter reads fewer of them, too.
GROUP_ROWS = 10_240
# Rows of the watermark table that one statement may write: so many are kept in the catalog, more would be a file.
INLINED_ROWS_MAX = 10
# Late transactions replaced in one export; the rest waits for the next.
LATE_MAX = 50_000

T = TypeVar("T")

QUERIES = load_queries("lake")
TRANSACTION_COLUMNS = (
    ("signature", "bytea"),
    ("slot", "bigint"),
    ("block_time", "timestamptz"),
    ("err", "text"),
    ("fee", "numeric(20,0)"),
    ("compute_units", "bigint"),
    ("complete", "boolean"),
)
RAW_COLUMNS = (("signature", "bytea"), ("slot", "bigint"), ("block_time", "timestamptz"), ("body", "bytea"))


@dataclass(frozen=True, slots=True)
class LakeTable:
    """
    A table of the lake and the hot one it continues.

    Args:
        columns: (column, Postgres type) in order.
        frontier: its new watermark.
        program_id: None for the transactions, which are everybody's.
        pruned: up to this slot the hot side holds only what was written again since.
    """

    schema_name: str
    table_name: str
    columns: tuple[tuple[str, str], ...]
    frontier: int
    program_id: bytes | None = None
    pruned: int = -1

    @property
    def key(self) -> tuple[str, str]:
        """What the watermark table calls it."""
        return (self.schema_name, self.table_name)

    @property
    def quoted(self) -> str:
        """Its name in the lake."""
        return f"lake.{quote_name(self.schema_name)}.{quote_name(self.table_name)}"

    @property
    def is_raw(self) -> bool:
        """Whether it holds bodies, which one hot table has for all programs."""
        return self.table_name == RAW_TABLE_NAME


class Late(NamedTuple):
    """
    A late transaction.

    Args:
        slot: where it is stored now; None where it is not.
        programs: those it mentions there, in hex with blanks between.
        has_body: whether its body is there too.
    """

    signature: bytes
    noted_us: int
    slot: int | None
    programs: str
    has_body: bool

    def replaces_in(self, table: LakeTable) -> bool:
        """Whether the hot side has all of what this table of the lake should hold of the transaction."""
        if self.slot is None or table.program_id is None:
            return self.slot is not None
        if table.is_raw:
            return self.has_body and table.program_id.hex() in self.programs
        return self.slot > table.pruned or table.program_id.hex() in self.programs


@dataclass(frozen=True, slots=True)
class Exported:
    """
    What an export committed.

    Args:
        rows: (schema, table) -> rows written, late ones included; tables without any are left out.
        watermarks: (schema, table) -> slot, all of them as they are now.
        late: how many late transactions were replaced.
        seconds: how long it took.
    """

    rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    watermarks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    late: int = 0
    seconds: float = 0.0


class Lake:
    """An open lake, to be written. Not thread-safe: one export at a time."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, lock: psycopg.Connection[Any], merge_every: int) -> None:
        self._duck = duck
        self._lock = lock
        self._upkeep = Upkeep(duck, lock, merge_every)
        self._abandoned = False
        self._widths: dict[tuple[str, str], int] = {}

    @classmethod
    def open(cls, dsn: str, data_path: Path, *, merge_every: int = MERGE_EVERY, bulk: bool = False) -> "Lake":
        """
        Attach the lake whose catalog is in the database at `dsn`, made where it is missing.

        Args:
            dsn: of the indexer's role; migrated.
            data_path: where the Parquet files go.
            bulk: for a load of deep history, beside which another thread reads: fast, and in little memory.

        Raises:
            SettingsError: the folder cannot be written, or the database's lake lies elsewhere.
            RetryableError: the database does not answer, or another process writes this lake.
        """
        folder = writable_folder(data_path).resolve()
        try:
            lock = _claim(dsn)
            try:
                _prepare_catalog(lock)
                return cls(_attach(dsn, folder, bulk=bulk), lock, merge_every)
            except BaseException:
                lock.close()
                raise
        except psycopg.OperationalError as error:
            raise RetryableError(f"{mask_dsn(dsn)} does not answer: {first_line(error)}") from error

    def export(self, frontier_slot: int | None = None) -> Exported:
        """
        Bring the lake up to the frontiers in one lake transaction.

        Args:
            frontier_slot: no further than this; the proven frontiers in Postgres bound it in any case.

        Raises:
            RetryableError: the database went away; nothing was committed, or all of it. Close this lake and open it
                again.
        """
        started = time.monotonic()
        try:
            self._duck.execute("BEGIN")
            try:
                exported, late = self._export(frontier_slot)
                self._duck.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._forget_late(late)
            seconds = time.monotonic() - started
            if exported.rows:
                self._upkeep.tend()
        except (duckdb.Error, psycopg.OperationalError) as error:
            # A connection that is cut inside DuckDB comes out as nearly any of its errors, BinderException too.
            self._abandoned = isinstance(error, duckdb.FatalException | duckdb.InternalException)
            raise RetryableError(f"the lake was not exported: {first_line(error)}") from error
        return Exported(exported.rows, exported.watermarks, exported.late, seconds)

    def in_transaction(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """
        Do `work` in one lake transaction, and look after the files behind it.

        Raises:
            RetryableError: the database went away; nothing was committed, or all of it. Close this lake and open it
                again.
        """
        try:
            self._duck.execute("BEGIN")
            try:
                result = work(self._duck)
                self._duck.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._upkeep.tend()
        except (duckdb.Error, psycopg.OperationalError) as error:
            self._abandoned = isinstance(error, duckdb.FatalException | duckdb.InternalException)
            raise RetryableError(f"the lake was not written: {first_line(error)}") from error
        return result

    def claim(self, tables: Sequence[LakeTable], to_slot: int) -> None:
        """Make these tables where they are missing and move their watermarks up to `to_slot`, in a transaction."""
        watermarks = self._watermarks()
        for table in tables:
            if table.key not in watermarks:
                self._create_table(table)
            else:
                self._add_columns(table)
        moved = {table.key: to_slot for table in tables if watermarks.get(table.key, -1) < to_slot}
        self._move_watermarks(watermarks, moved)

    def watermarks(self) -> dict[tuple[str, str], int]:
        """Return (schema, table) -> the slot up to which the lake has it."""
        return self._watermarks()

    def merge(self) -> None:
        """Merge small files, and delete what was replaced longer ago than a reader may read."""
        self._upkeep.merge_all()

    def prune(self, age_s: float, grace_s: float = GRACE_S) -> Pruned:
        """
        Take out of Postgres what is older than `age_s` and has been in the lake for `grace_s`; see retention.py.

        Raises:
            RetryableError: the database went away. Close this lake and open it again.
        """
        try:
            watermarks = [(*key, slot) for key, slot in self._watermarks().items()]
            return Retention(self._duck, self._lock, age_s, grace_s).prune(watermarks)
        except (duckdb.Error, psycopg.OperationalError) as error:
            self._abandoned = isinstance(error, duckdb.FatalException | duckdb.InternalException)
            raise RetryableError(f"old rows were not taken out of the database: {first_line(error)}") from error

    def close(self) -> None:
        """
        Let go of the lake.

        A DuckDB that has given itself up, as it does when its catalog's connection is cut at the wrong moment, aborts
        the process when it is destroyed. Such a one is kept, never to be used again, until the process ends.
        """
        if self._abandoned:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._duck))
        else:
            self._duck.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _export(self, frontier_slot: int | None) -> tuple[Exported, list[Late]]:
        # The first query fixes the Postgres snapshot: frontiers, late rows and everything exported are of one moment.
        tables = self._plan(frontier_slot)
        late = [Late(*row) for row in self._hot(QUERIES["select_late"].format(limit=LATE_MAX))]
        watermarks = self._watermarks()
        rows: dict[tuple[str, str], int] = {}
        moved: dict[tuple[str, str], int] = {}
        for table in tables:
            old = watermarks.get(table.key)
            if old is None:
                self._create_table(table)
            else:
                self._add_columns(table)
            if late and old is not None:
                self._delete_late(table, [one.signature for one in late if one.replaces_in(table)])
            if late or old is None or old < table.frontier:
                written = self._insert_rows(table, -1 if old is None else old, late[-1].noted_us if late else None)
                if written:
                    rows[table.key] = written
            if old is None or old < table.frontier:
                moved[table.key] = table.frontier
        self._move_watermarks(watermarks, moved)
        return Exported(rows, {**watermarks, **moved}, len(late)), late

    def _plan(self, frontier_slot: int | None) -> list[LakeTable]:
        """The tables whose programs have a frontier; transactions go as far as every program is proven."""
        found = self._hot(QUERIES["select_frontiers"])
        bounded = {
            schema: (program_id, slot if frontier_slot is None else min(slot, frontier_slot), pruned)
            for schema, program_id, slot, pruned in found
            if slot is not None
        }
        tables = self._tables_of(bounded)
        if bounded and len(bounded) == len(found):
            slot = min(slot for _, slot, _ in bounded.values())
            tables.append(LakeTable("capstan", "transactions", TRANSACTION_COLUMNS, slot))
        return tables

    def registered_tables(self, to_slot: int) -> list[LakeTable]:
        """Return every table that the lake has or will have, as if all programs were proven up to `to_slot`."""
        found = self._hot(QUERIES["select_frontiers"])
        tables = self._tables_of({schema: (program_id, to_slot, pruned) for schema, program_id, _, pruned in found})
        return [*tables, LakeTable("capstan", "transactions", TRANSACTION_COLUMNS, to_slot)]

    def _tables_of(self, programs: Mapping[str, tuple[bytes, int, int]]) -> list[LakeTable]:
        """Tables of events and bodies by their programs' schemas, each with (program id, frontier, pruned)."""
        tables = []
        for schema, table, columns in self._hot(QUERIES["select_event_tables"]):
            if schema in programs:
                own = OWN_COLUMNS["event"]
                fields = [(name, pg_type) for name, pg_type in zip(columns[::2], columns[1::2], strict=True)]
                program_id, slot, pruned = programs[schema]
                tables.append(LakeTable(schema, table, (*own, *fields), slot, program_id, pruned))
        for schema, (program_id, slot, pruned) in programs.items():
            tables.append(LakeTable(schema, RAW_TABLE_NAME, RAW_COLUMNS, slot, program_id, pruned))
        return tables

    def _hot(self, query: str) -> list[Any]:
        statement = f"SELECT * FROM postgres_query('hot', {quote_text(query)})"  # noqa: S608 - a named query of ours
        return self._duck.execute(statement).fetchall()

    def _watermarks(self) -> dict[tuple[str, str], int]:
        rows = self._duck.execute("SELECT schema_name, table_name, slot FROM lake.main.watermark").fetchall()
        return {(schema, table): slot for schema, table, slot in rows}

    def _create_table(self, table: LakeTable) -> None:
        columns = ", ".join(f"{quote_name(name)} {DUCK_TYPES[pg_type]}" for name, pg_type in table.columns)
        self._duck.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote_name(table.schema_name)}")
        self._duck.execute(f"CREATE TABLE {table.quoted} ({columns})")
        # Not partitioned: rows come in the order of slots, so that files know the range of their rows anyway. And an
        # insert of several files, one of them with nothing but NULL in a column, leaves DuckLake 1.0 with a range for
        # that column that the next insert overwrites: what was there before is then hidden from every filter on it.

    def _add_columns(self, table: LakeTable) -> None:
        """Give a table the columns that another version of its IDL has brought; in Postgres they are the last, too."""
        if self._widths.get(table.key) == len(table.columns):
            return
        found = self._duck.execute(f"SELECT column_name FROM (DESCRIBE {table.quoted})").fetchall()  # noqa: S608 - quoted name
        there = {str(name) for (name,) in found}
        for name, pg_type in table.columns:
            if name not in there:
                self._duck.execute(f"ALTER TABLE {table.quoted} ADD COLUMN {quote_name(name)} {DUCK_TYPES[pg_type]}")
        self._widths[table.key] = len(table.columns)

    def _delete_late(self, table: LakeTable, signatures: Sequence[bytes]) -> None:
        if not signatures:
            return
        self._duck.execute(
            f"DELETE FROM {table.quoted} WHERE signature IN (SELECT unnest(?::BLOB[]))",  # noqa: S608 - quoted name
            [list(signatures)],
        )

    def _insert_rows(self, table: LakeTable, old: int, noted_us: int | None) -> int:
        """Insert what is finalized above `old`, and where `noted_us` says so the late rows noted up to then."""
        what = "select_raw" if table.is_raw else "select_finalized"
        query = QUERIES[what if noted_us is None else f"{what}_late"]
        text = (
            sql.SQL(query)
            .format(
                columns=sql.SQL(", ").join(sql.Identifier("e", name) for name, _ in table.columns),
                table=sql.Identifier(table.schema_name, table.table_name),
                after=sql.Literal(old),
                upto=sql.Literal(max(old, table.frontier)),
                noted_us=sql.Literal(noted_us),
                pruned=sql.Literal(table.pruned),
                program_id=sql.Literal(table.program_id or b""),
            )
            .as_string(None)
        )
        values = ", ".join(
            f"{_READ_BODY}(body)" if table.is_raw and name == "body" else f"{quote_name(name)}::{DUCK_TYPES[pg_type]}"
            for name, pg_type in table.columns
        )
        inserted = self._duck.execute(
            f"INSERT INTO {table.quoted} SELECT {values} FROM postgres_query('hot', {quote_text(text)})"  # noqa: S608 - quoted names
        ).fetchall()
        return int(inserted[0][0])

    def _move_watermarks(self, watermarks: Mapping[tuple[str, str], int], moved: Mapping[tuple[str, str], int]) -> None:
        slots: dict[tuple[bool, int], list[tuple[str, str]]] = {}
        for key, slot in moved.items():
            slots.setdefault((key in watermarks, slot), []).append(key)
        for (is_known, slot), keys in slots.items():
            for start in range(0, len(keys), INLINED_ROWS_MAX):
                self._move_watermark(keys[start : start + INLINED_ROWS_MAX], slot, is_known=is_known)

    def _move_watermark(self, keys: Sequence[tuple[str, str]], slot: int, *, is_known: bool) -> None:
        """At most INLINED_ROWS_MAX of them, as more would become a file. A statement for each would take far longer."""
        rows = ", ".join(["(?::VARCHAR, ?::VARCHAR)"] * len(keys))
        if is_known:
            statement = f"UPDATE lake.main.watermark SET slot = ?::BIGINT WHERE (schema_name, table_name) IN ({rows})"  # noqa: S608 - marks
        else:
            statement = f"INSERT INTO lake.main.watermark SELECT *, ?::BIGINT FROM (VALUES {rows})"  # noqa: S608 - marks
        self._duck.execute(statement, [slot, *(name for key in keys for name in key)])

    def _forget_late(self, late: Sequence[Late]) -> None:
        """Strike off what the lake has now; what was noted again since stays. A crash before this only repeats work."""
        if late:
            parameters = {"signatures": [one.signature for one in late], "noted_us": [one.noted_us for one in late]}
            self._lock.execute(QUERIES["delete_late"], parameters)

    def _roll_back(self) -> None:
        self._widths.clear()
        with contextlib.suppress(duckdb.Error):  # the error that brought us here says more
            self._duck.execute("ROLLBACK")


def _claim(dsn: str) -> psycopg.Connection[Any]:
    """Return the connection whose session lock makes us the one writer; it goes with the process, however that ends."""
    connection = psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
    deadline = time.monotonic() + LOCK_WAIT_S_MAX
    while True:
        row = connection.execute("select pg_try_advisory_lock(%s)", (LAKE_LOCK,)).fetchone()
        if row and row[0]:
            return connection
        if time.monotonic() > deadline:
            connection.close()
            raise RetryableError(f"another process writes the lake of {mask_dsn(dsn)}: stop it, or wait for its end")
        time.sleep(0.2)  # one that was killed is noticed by the server a moment later


def _prepare_catalog(connection: psycopg.Connection[Any]) -> None:
    """Make the catalog's schema and see to it that readers may read tables which DuckLake makes there later."""
    schema = sql.Identifier(LAKE_SCHEMA)
    connection.execute(sql.SQL("create schema if not exists {}").format(schema))
    found = connection.execute(
        "select rolname from pg_roles where rolname = any(%s)", ([DASHBOARD_ROLE, ENGINE_ROLE],)
    ).fetchall()
    for (role,) in found:
        names = {"schema": schema, "role": sql.Identifier(role)}
        for grant in (
            "grant usage on schema {schema} to {role}",
            "grant select on all tables in schema {schema} to {role}",
            "alter default privileges in schema {schema} grant select on tables to {role}",
        ):
            connection.execute(sql.SQL(grant).format(**names))


# The lake's bodies are plain: Parquet compresses many of them together.
_READ_BODY = "capstan_read_body"


def _read_bodies(bodies: Any) -> pa.BinaryArray:
    return pa.array([decompress_body(body) for body in bodies.to_pylist()], pa.binary())


def _attach(dsn: str, folder: Path, *, bulk: bool) -> duckdb.DuckDBPyConnection:
    # A second thread would make bulk inserts dearer by a third, and its buffers.
    duck = open_duckdb(threads=1) if bulk else open_duckdb()
    try:
        duck.create_function(_READ_BODY, _read_bodies, ["BLOB"], "BLOB", type=PythonUDFType.ARROW)
        # After a backfill the planner has no statistics yet, takes the tables for small and joins them row by row.
        options = f"{conninfo_to_dict(dsn).get('options') or ''} -c enable_nestloop=off"
        attach_postgres(duck, make_conninfo(dsn, options=options.strip()), "hot")
        attach_lake(duck, dsn, folder, read_only=False)
        # Inlined data has traps (lost quotes, live readers broken by a flush), so only the watermark is kept inline:
        # there it makes a commit of milliseconds.
        duck.execute("CALL lake.set_option('data_inlining_row_limit', 0)")
        duck.execute("CALL lake.set_option('parquet_compression', 'zstd')")
        # Said anew by whoever opens the lake: a file that is merged later is compressed again.
        level = BULK_COMPRESSION_LEVEL if bulk else COMPRESSION_LEVEL
        duck.execute(f"CALL lake.set_option('parquet_compression_level', {level})")
        duck.execute("CALL lake.set_option('target_file_size', '128MB')")
        duck.execute(f"CALL lake.set_option('parquet_row_group_size', {GROUP_ROWS})")
        duck.execute(
            "CREATE TABLE IF NOT EXISTS lake.main.watermark (schema_name VARCHAR, table_name VARCHAR, slot BIGINT)"
        )
        duck.execute(f"CALL lake.set_option('data_inlining_row_limit', {INLINED_ROWS_MAX}, table_name => 'watermark')")
    except BaseException:
        duck.close()
        raise
    return duck
