"""
Everything that is stored, in a form that another witness can be compared with.

Values are JSON-safe and exact: integers as decimal strings, pubkeys in base58, so that the comparison needs neither an
IDL nor this project's decoder. For databases of a size that fits in memory: demos and tests.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.errors import RetryableError
from indexer.store.database import CONNECT_TIMEOUT_S, first_line, mask_dsn
from indexer.store.duck import attach_lake, open_duckdb, quote_name
from indexer.store.queries import load_queries

QUERIES = load_queries("audit")

Values = Mapping[str, Any]


class EventKey(NamedTuple):
    """An event's identity; `signature` in base58."""

    signature: str
    kind: str
    ordinal: int


class StoredEvent(NamedTuple):
    """`name` is "program.EventName"; `values` by IDL field name."""

    name: str
    slot: int
    values: Values


class StoredAccount(NamedTuple):
    """An open account; `name` is "program.AccountName"."""

    name: str
    lamports: int
    values: Values


class StoredTransaction(NamedTuple):
    """`failed` where the chain refused it; `indexed_at_ns` is the database's wall clock when it was first stored."""

    slot: int
    failed: bool
    finalized: bool
    indexed_at_ns: int


@dataclass(frozen=True)
class Stored:
    """One store's whole content; the lake holds events only."""

    transactions: Mapping[str, StoredTransaction] = field(default_factory=dict)
    events: Mapping[EventKey, StoredEvent] = field(default_factory=dict)
    accounts: Mapping[str, StoredAccount] = field(default_factory=dict)
    problems: int = 0


class Progress(NamedTuple):
    """How far the indexer is: the lowest frontier (None before the first), all transactions, and unfinalized ones."""

    frontier: int | None
    transactions: int
    unfinalized: int


class _Table(NamedTuple):
    program: str
    type_name: str
    schema_name: str
    table_name: str
    columns: Sequence[Sequence[str]]


def read_progress(dsn: str) -> Progress:
    """Return how far the indexer is; cheap enough to ask every second."""
    with _connected(dsn) as connection:
        row = connection.execute(QUERIES["progress"]).fetchone()
    assert row is not None
    return Progress(*row)


def read_postgres(dsn: str) -> Stored:
    """Return everything in PostgreSQL, of one snapshot."""
    with _connected(dsn) as connection:
        connection.execute("set transaction isolation level repeatable read read only")
        transactions = {
            _signature(signature): StoredTransaction(slot, failed, finalized, indexed_at_ns)
            for signature, slot, failed, finalized, indexed_at_ns in connection.execute(QUERIES["transactions"])
        }
        events: dict[EventKey, StoredEvent] = {}
        accounts: dict[str, StoredAccount] = {}
        for table in _tables(connection, "event"):
            identity = ["signature", "kind", "ordinal", "slot"]
            for row in connection.execute(_select(table, identity, where="true")):
                _add_event(events, table, row)
        for table in _tables(connection, "account"):
            for address, lamports, *values in connection.execute(
                _select(table, ["address", "lamports"], where="closed_slot is null")
            ):
                name = f"{table.program}.{table.type_name}"
                accounts[str(Pubkey(address))] = StoredAccount(name, int(lamports), _named(table, values))
        counted = connection.execute(QUERIES["problems"]).fetchone()
    return Stored(transactions, events, accounts, counted[0] if counted else 0)


def read_lake(dsn: str) -> Stored:
    """
    Return the events in the lake.

    Raises:
        RetryableError: there is no lake yet.
    """
    with _connected(dsn) as connection:
        tables = _tables(connection, "event")
    events: dict[EventKey, StoredEvent] = {}
    with open_duckdb(threads=2) as duck:
        attach_lake(duck, dsn, None, read_only=True)
        found = duck.execute(
            "select schema_name, table_name, list(column_name) from duckdb_columns() "
            "where database_name = 'lake' group by all"
        )
        present = {(schema, name): set(columns) for schema, name, columns in found.fetchall()}
        for table in tables:
            there = present.get((table.schema_name, table.table_name))
            if there is None:
                continue
            columns = ["signature", "kind", "ordinal", "slot", *(column for _, column, _ in table.columns)]
            # One of another IDL version comes with the next export.
            chosen = ", ".join(quote_name(column) if column in there else "null" for column in columns)
            source = f"lake.{quote_name(table.schema_name)}.{quote_name(table.table_name)}"
            for row in duck.execute(f"select {chosen} from {source}").fetchall():  # noqa: S608 -- quoted names
                _add_event(events, table, row)
    return Stored(events=events)


def count_intents(dsn: str) -> dict[str, int]:
    """Return how many of the engine's intents are in which state."""
    with _connected(dsn) as connection:
        return dict(connection.execute(QUERIES["intents"]).fetchall())


@contextmanager
def _connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise RetryableError(f"{mask_dsn(dsn)} does not answer: {first_line(error)}") from error


def _tables(connection: psycopg.Connection[Any], kind: str) -> list[_Table]:
    rows = connection.execute(QUERIES["typed_tables"], {"kind": kind}).fetchall()
    return [_Table(*row) for row in rows]


def _select(table: _Table, own: Iterable[str], *, where: LiteralString) -> sql.Composed:
    names = [*own, *(column for _, column, _ in table.columns)]
    return sql.SQL("select {} from {} where {}").format(
        sql.SQL(", ").join(sql.Identifier(name) for name in names),
        sql.Identifier(table.schema_name, table.table_name),
        sql.SQL(where),
    )


def _add_event(events: dict[EventKey, StoredEvent], table: _Table, row: Sequence[Any]) -> None:
    signature, kind, ordinal, slot, *values = row
    key = EventKey(_signature(signature), kind, ordinal)
    assert key not in events, f"{key} stands in two tables"
    events[key] = StoredEvent(f"{table.program}.{table.type_name}", slot, _named(table, values))


def _named(table: _Table, values: Sequence[Any]) -> dict[str, Any]:
    """By field; of a field with several columns, as its type has changed, the one that has a value."""
    named: dict[str, Any] = {}
    for (field_, _, _), value in zip(table.columns, values, strict=True):
        named[field_] = _exact(value) if value is not None else named.get(field_)
    return named


def _exact(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | Decimal):
        return str(int(value))
    if isinstance(value, bytes | memoryview):
        raw = bytes(value)
        return str(Pubkey(raw)) if len(raw) == Pubkey.LENGTH else raw.hex()
    return value


def _signature(raw: bytes) -> str:
    return str(Signature(bytes(raw)))
