"""
The dashboard's reader: the lake and the hot tail of Postgres as one, everything exactly once, for many threads.

Each query runs in one DuckDB transaction. It takes the Postgres snapshot first and the lake's after: what the exporter
moves in between is then seen in both, and the watermarks, read from the lake, leave it out of the hot side. The other
way round it would be seen in neither. All rights are those of a role that can only read.

A reader may be opened before there is a lake, or a program: it shows what is there, and finds the rest when it comes.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa
from duckdb.func import ARROW

from indexer.errors import DataError, RetryableError
from indexer.store.duck import DUCK_TYPES, attach_lake, attach_postgres, open_duckdb, quote_name, quote_text
from indexer.store.events_view import plan_duckdb_view, read_event_table
from indexer.store.keys import base58_columns, decode_key, encode_array, key_ranges
from indexer.store.lake import TRANSACTION_COLUMNS
from indexer.store.queries import Query, load_queries
from indexer.store.typed import OWN_COLUMNS

# How often a reader without a lake looks whether there is one.
LAKE_RETRY_S = 3.0
TRIES_MAX = 5
BATCH_ROWS = 50_000

VIEW_LINE = re.compile(r"^-- view: ([a-z][a-z0-9_]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _HotTable:
    """A typed table as the registry has it."""

    program: str
    schema_name: str
    table_name: str
    kind: str
    columns: tuple[tuple[str, str], ...]
    type_name: str
    registered: tuple[str, str]  # columns and versions as the registry has them, JSON


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the views were made for. Another shape means other views."""

    hot: tuple[_HotTable, ...]
    lake: frozenset[tuple[str, str]]


class _OtherShape(Exception):  # noqa: N818 - not an error: the views have to be made again
    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.shape = shape


class Reader:
    """Answers the named queries of one file of sql/queries/. Thread-safe: every query has a cursor of its own."""

    def __init__(self, dsn: str, lake_path: Path | None, queries: str) -> None:
        self._dsn = dsn
        self._lake_path = None if lake_path is None else lake_path.expanduser().resolve()
        self.queries = load_queries(queries)
        self._lock = threading.RLock()
        self._duck: duckdb.DuckDBPyConnection | None = None
        self._has_lake = False
        self._lake_tried_at = 0.0
        self._shape: _Shape | None = None

    @classmethod
    def open(cls, dsn: str, lake_path: Path | None = None, *, queries: str = "dashboard") -> "Reader":
        """
        Open a reader; nothing has to be there yet but the server.

        Args:
            dsn: `Database.for_role(DASHBOARD_ROLE)`.
            lake_path: may be left out, as the catalog knows it; given, a lake that lies elsewhere is refused.
            queries: the file of sql/queries/ to answer from.

        Raises:
            RetryableError: the server does not answer.
            SettingsError: the lake lies in another folder.
        """
        reader = cls(dsn, lake_path, queries)
        with reader._lock:
            reader._connect()
        return reader

    def query(self, name: str, **params: Any) -> pl.DataFrame:
        """
        Run one named query.

        Args:
            params: those that the query declares. A pubkey is 32 bytes or base58, a key_prefix the beginning of a
                base58 address ("" and None filter nothing).

        Returns:
            Its rows; keys and signatures in base58, other bytes in hex, sums as whole numbers.

        Raises:
            RetryableError: the database does not answer, or what the query is about has not been indexed yet.
            DataError: a parameter is not what the query declares.
        """
        query = self.queries.query(name)
        bound = {param: _bind(query, param, kind, params.pop(param, None)) for param, kind in query.params}
        assert not params, f"query {name!r} does not declare {sorted(params)}"
        return self._retrying(query.text, bound)

    def select(self, text: str) -> pl.DataFrame:
        """
        Run one SELECT of ours over the views; not for text that a visitor wrote.

        Raises:
            RetryableError: as `query`.
        """
        return self._retrying(text, {})

    def stream(self, text: str, params: Sequence[Any] = (), *, batch_rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """
        Run one SELECT that the operator wrote, and give its rows in frames of at most `batch_rows`; one at least.

        Everything is of one snapshot, and memory holds a frame or two whatever the result is. The databases are
        attached to be read only, so there is nothing that a statement could change in them.

        Args:
            params: of the text's `?`, in their order.

        Raises:
            DataError: the text is not one SELECT, or DuckDB refuses it; with DuckDB's own reason.
            RetryableError: the database does not answer, also in the middle of the rows.
        """
        for attempt in range(TRIES_MAX):
            started = False
            try:
                for frame in self._stream_once(text, params, batch_rows):
                    started = True
                    yield frame
            except _OtherShape as other:
                self._make_views(other.shape)
            except (duckdb.IOException, duckdb.InternalException, duckdb.ConnectionException) as error:
                with self._lock:
                    self._disconnect()
                if started or attempt + 1 == TRIES_MAX:
                    raise RetryableError(f"the database does not answer: {_first_line(error)}") from error
            except duckdb.Error as error:
                raise DataError(f"the query was refused: {_first_line(error)}") from error
            else:
                return
        raise RetryableError("the tables change while they are read: try again")

    def _stream_once(self, text: str, params: Sequence[Any], batch_rows: int) -> Iterator[pl.DataFrame]:
        cursor = self._connected().cursor()
        try:
            statements = cursor.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise DataError("one SELECT is expected, and nothing else")
            cursor.execute("BEGIN")
            for key, slot in self._take_snapshots(cursor).items():
                cursor.execute(f"SET VARIABLE {quote_name(_variable(key))} = {slot}")
            batches = cursor.execute(text, list(params) or None).to_arrow_reader(batch_rows)
            empty = True
            for batch in batches:
                empty = False
                yield base58_columns(_polars(pa.Table.from_batches([batch])))
            if empty:
                yield base58_columns(_polars(batches.schema.empty_table()))
        finally:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            cursor.close()

    def columns(self, view: str) -> dict[str, str]:
        """
        Return column -> DuckDB type of a view or table, "name" or "schema.name".

        Raises:
            DataError: there is none of that name; with those there are.
        """
        schema, _, name = view.rpartition(".")
        query = (
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_catalog = 'memory' ORDER BY table_schema, table_name, ordinal_position"
        )
        known: dict[str, dict[str, str]] = {}
        for frame in self.stream(query):
            for row_schema, row_name, column, duck_type in frame.iter_rows():
                shown = row_name if row_schema == "main" else f"{row_schema}.{row_name}"
                known.setdefault(shown, {})[column] = duck_type
        found = known.get(name if schema in ("", "main") else view)
        if found is None:
            views = [shown for shown in known if "." not in shown]
            raise DataError(
                f"there is no table or view {view!r}; there are {', '.join(views) or 'no views yet'}"
                f" and {len(known) - len(views)} typed tables, which SHOW ALL TABLES lists"
            )
        return found

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _retrying(self, text: str, params: Mapping[str, Any]) -> pl.DataFrame:
        problem: Exception | None = None
        for _ in range(TRIES_MAX):
            try:
                duck = self._connected()
                return self._run(duck, text, params)
            except _OtherShape as other:
                self._make_views(other.shape)
            except duckdb.CatalogException as error:
                # Another thread may just have made the views anew, of tables that this snapshot is too old for.
                problem = error
            except (duckdb.IOException, duckdb.InternalException, duckdb.ConnectionException) as error:
                # The server restarted, or DuckDB gave this instance up: a new one reads on.
                problem = error
                with self._lock:
                    self._disconnect()
        what = "not indexed yet" if isinstance(problem, duckdb.CatalogException) else "the database does not answer"
        raise RetryableError(f"{what}: {_first_line(problem)}") from problem

    def _connected(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._duck is None:
                self._connect()
            elif not self._has_lake and time.monotonic() - self._lake_tried_at > LAKE_RETRY_S:
                self._try_lake(self._duck)
            assert self._duck is not None
            return self._duck

    def _connect(self) -> None:
        self._disconnect()
        duck = open_duckdb()
        try:
            attach_postgres(duck, self._dsn, "hot")
            duck.create_function("base58", encode_array, ["BLOB"], "VARCHAR", type=ARROW)
        except BaseException:
            duck.close()
            raise
        self._duck = duck
        self._try_lake(duck)

    def _disconnect(self) -> None:
        if self._duck is not None:
            with contextlib.suppress(duckdb.Error):
                self._duck.close()
        self._duck, self._shape, self._has_lake = None, None, False

    def _try_lake(self, duck: duckdb.DuckDBPyConnection) -> None:
        """Attach the lake where there is one: its watermark table is the last thing its writer makes."""
        self._lake_tried_at = time.monotonic()
        duck.execute("CALL pg_clear_cache()")
        made = "select 1 from pg_namespace where nspname = 'lake_meta' and has_schema_privilege(oid, 'USAGE')"
        if not duck.execute(f"SELECT * FROM postgres_query('hot', {quote_text(made)})").fetchall():  # noqa: S608 - a constant
            return
        try:
            attach_lake(duck, self._dsn, self._lake_path, read_only=True)
            duck.execute("SELECT slot FROM lake.main.watermark").fetchall()
        except (RetryableError, duckdb.Error):
            with contextlib.suppress(duckdb.Error):
                duck.execute("DETACH lake")
            return
        self._has_lake = True

    def _run(self, duck: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any]) -> pl.DataFrame:
        cursor = duck.cursor()
        try:
            cursor.execute("BEGIN")
            watermarks = self._take_snapshots(cursor)
            for key, slot in watermarks.items():
                cursor.execute(f"SET VARIABLE {quote_name(_variable(key))} = {slot}")
            frame = cursor.execute(text, dict(params) or None).pl()
            cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        finally:
            cursor.close()
        return base58_columns(frame)

    def _take_snapshots(self, cursor: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], int]:
        """Hot first, then the lake: see the module's first lines. fetchall, or the Postgres transaction stays open."""
        rows = cursor.execute(
            "SELECT p.name, t.schema_name, t.table_name, t.kind, t.columns::VARCHAR, t.type_name, t.versions::VARCHAR "
            "FROM hot.capstan.typed_tables t JOIN hot.capstan.programs p USING (schema_name) "
            "ORDER BY p.registered_at, t.schema_name, t.table_name"
        ).fetchall()
        hot = tuple(
            _HotTable(
                program,
                schema,
                table,
                kind,
                tuple((name, pg_type) for _, name, pg_type in json.loads(columns)),
                type_name,
                (columns, versions),
            )
            for program, schema, table, kind, columns, type_name, versions in rows
        )
        watermarks: dict[tuple[str, str], int] = {}
        if self._has_lake:
            found = cursor.execute("SELECT schema_name, table_name, slot FROM lake.main.watermark").fetchall()
            watermarks = {(schema, table): slot for schema, table, slot in found}
        shape = _Shape(hot, frozenset(watermarks))
        if shape != self._shape:
            raise _OtherShape(shape)
        return watermarks

    def _make_views(self, shape: _Shape) -> None:
        with self._lock:
            if self._duck is None:
                return
            self._duck.execute("CALL pg_clear_cache()")
            for statement in plan_views(shape.hot, shape.lake):
                with contextlib.suppress(duckdb.CatalogException, duckdb.BinderException):
                    # A view over what is not there (another version of a program) is missing, and only that view.
                    self._duck.execute(statement)
            self._shape = shape


def plan_views(hot: Sequence[_HotTable], lake: frozenset[tuple[str, str]]) -> list[str]:
    """Return the statements that make every view: typed tables, `transactions`, `events`, and sql/analytics/."""
    statements = []
    for table in hot:
        statements.append(f"CREATE SCHEMA IF NOT EXISTS {quote_name(table.schema_name)}")
        own = OWN_COLUMNS["event" if table.kind == "event" else "account"]
        statements.append(_union_view(table.schema_name, table.table_name, (*own, *table.columns), lake))
    statements.append(_union_view("capstan", "transactions", TRANSACTION_COLUMNS, lake, view="transactions"))
    events = [
        read_event_table((table.program, table.type_name, table.schema_name, table.table_name, *table.registered))
        for table in hot
        if table.kind == "event"
    ]
    statements.append(plan_duckdb_view(events))
    schemas: dict[str, str] = {}
    for table in hot:
        schemas.setdefault(table.program, table.schema_name)
    for folder in sorted((resources.files("sql") / "analytics").iterdir(), key=lambda file: file.name):
        if folder.name.endswith(".sql"):
            statements += _analytics_views(folder.read_text("utf-8"), schemas)
    return statements


def _union_view(
    schema: str,
    table: str,
    columns: Sequence[tuple[str, str]],
    lake: frozenset[tuple[str, str]],
    view: str | None = None,
) -> str:
    name = quote_name(view) if view else f"{quote_name(schema)}.{quote_name(table)}"
    place = f"{quote_name(schema)}.{quote_name(table)}"
    casts = ", ".join(
        f"{quote_name(column)}::{DUCK_TYPES[pg_type]} AS {quote_name(column)}" for column, pg_type in columns
    )
    names = ", ".join(quote_name(column) for column, _ in columns)
    hot = f"SELECT {casts} FROM hot.{place}"  # noqa: S608 - quoted names, here and below
    if (schema, table) not in lake:
        return f"CREATE OR REPLACE VIEW {name} AS {hot}"
    above = f"slot > coalesce(getvariable({quote_text(_variable((schema, table)))}), -1)"
    # By name: the lake has the columns of another IDL version only after its next export.
    both = f"SELECT * FROM lake.{place} UNION ALL BY NAME {hot} WHERE {above}"  # noqa: S608
    return f"CREATE OR REPLACE VIEW {name} AS SELECT {names} FROM ({both})"  # noqa: S608


def _variable(key: tuple[str, str]) -> str:
    return f"watermark {key[0]}.{key[1]}"


def _analytics_views(text: str, schemas: Mapping[str, str]) -> list[str]:
    """Split a file of sql/analytics/ and put the schemas of the programs that a view needs into its text."""
    parts = VIEW_LINE.split(text)
    statements = []
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        needed = re.findall(r"^-- needs: (\w+)$", body, re.MULTILINE)
        if any(program not in schemas for program in needed):
            continue
        for program in needed:
            body = body.replace("{" + program + "}", quote_name(schemas[program]))  # noqa: PLW2901 - the text as it goes in
        statements.append(f"CREATE OR REPLACE VIEW {quote_name(name)} AS {body}")
    return statements


def _bind(query: Query, param: str, kind: str, value: Any) -> Any:
    try:
        if value is None:
            return None
        match kind:
            case "pubkey":
                return value if isinstance(value, bytes) else decode_key(value)
            case "key_prefix":
                return [{"first": first, "last": last} for first, last in key_ranges(value)] if value else None
            case "int":
                return int(value)
            case "text":
                return str(value)
    except ValueError as error:
        raise DataError(f"{param}={value!r} is no {kind} ({error}), which the query {query.name} asks for") from None
    raise AssertionError(f"query {query.name} declares the unknown type {kind!r}")


def _polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
