"""
Rows as the tables take them: the tables' columns in the order of their COPY, and events by the table of their type.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

from psycopg import sql

from indexer.errors import DataError
from indexer.store.batch import Event, Problem, TransactionRow
from indexer.store.copy import DO_NOTHING, Target, insert_rows
from indexer.store.database import AsyncConnection
from indexer.store.partitions import TableName
from indexer.store.queries import load_queries
from indexer.store.typed import ESCAPE, ProgramTables, TypedTable, escape_text

QUERIES = load_queries("indexer")

MENTIONS = Target(
    sql.Identifier("capstan", "mentions"),
    (("program_id", "bytea"), ("slot", "bigint"), ("signature", "bytea")),
    DO_NOTHING,
)
PROBLEMS = Target(
    sql.Identifier("capstan", "problems"),
    (
        ("program_id", "bytea"),
        ("subject", "bytea"),
        ("kind", "text"),
        ("ordinal", "bigint"),
        ("detail", "text"),
        ("slot", "bigint"),
    ),
    DO_NOTHING,
)
TRANSACTIONS = Target(
    sql.Identifier("capstan", "transactions"),
    (
        ("signature", "bytea"),
        ("slot", "bigint"),
        ("block_time", "timestamptz"),
        ("err", "text"),
        ("fee", "numeric(20,0)"),
        ("compute_units", "bigint"),
        ("commitment", "text"),
        ("complete", "boolean"),
        ("blockhash", "text"),
    ),
    sql.SQL(QUERIES["transaction_conflict"]),
)


def transaction_row(row: TransactionRow) -> tuple[Any, ...]:
    """Return a transaction in the order of `TRANSACTIONS`."""
    return (
        *(row.signature, row.slot, row.block_time, row.err, row.fee),
        *(row.compute_units, row.commitment, row.complete, row.blockhash),
    )


def problem_row(problem: Problem) -> tuple[Any, ...]:
    """Return a problem in the order of `PROBLEMS`, NUL escaped."""
    detail = escape_text(problem.detail)
    return (problem.program_id, problem.subject, problem.kind, problem.ordinal, detail, problem.slot)


async def insert_events(
    connection: AsyncConnection,
    events: Sequence[Event],
    refused: Collection[bytes],
    tables: Mapping[bytes, ProgramTables],
    partitioned: Set[TableName],
) -> tuple[int, int]:
    """
    Insert events inside the caller's transaction; return how many were inserted, and how many strings were escaped.

    Args:
        refused: signatures whose events are left out.
        partitioned: the tables in which a conflict is found by another key.

    Raises:
        DataError: an event of a program or type that has no table.
    """
    rows: dict[tuple[bytes, str, int], list[Sequence[Any]]] = defaultdict(list)
    columns: dict[tuple[bytes, str, int], TypedTable] = {}
    escaped = 0
    for event in events:
        if event.signature in refused:
            continue
        table = _event_table(tables, event)
        # Each version of an IDL has its own columns in the one table.
        key = (event.program_id, event.name, id(table))
        columns[key] = table
        row, strange = adapt_values(table, event.values)
        escaped += strange
        rows[key].append((event.signature, event.kind, event.ordinal, event.slot, event.block_time, *row))
    inserted = 0
    for key, table in sorted(columns.items(), key=lambda item: item[0]):
        name = TableName(table.schema_name, table.table_name)
        target = Target(table.identifier, table.typed_names, event_conflict(partitioned=name in partitioned))
        inserted += await insert_rows(connection, target, _distinct(rows[key]))
    return inserted, escaped


def event_conflict(*, partitioned: bool) -> sql.Composable:
    """What follows an INSERT of events. Only the time may be filled in later: a node may not know it at first."""
    return sql.SQL(QUERIES["event_conflict_in_partitions" if partitioned else "event_conflict"])


def _distinct(rows: list[Sequence[Any]]) -> list[Sequence[Any]]:
    """One row an identity, in order: a batch may hold what PubSub and the backfill both brought."""
    return [row for _, row in sorted({(row[0], row[1], row[2]): row for row in rows}.items())]


def _event_table(tables: Mapping[bytes, ProgramTables], event: Event) -> TypedTable:
    program = tables.get(event.program_id)
    table = program.event_table(event.name, event.slot) if program else None
    if table is None:
        raise DataError(
            f"there is no table for the event {event.name} of program {event.program_id.hex()}: ensure_tables was not "
            "run with this IDL"
        )
    return table


def adapt_values(table: TypedTable, values: Mapping[str, Any]) -> tuple[list[Any], int]:
    """Return decoded values in the order of the table's own columns, and how many had to be escaped for a NUL."""
    row = []
    escaped = 0
    for column in table.columns:
        value = values[column.field]
        if column.adapt is not None and value is not None:
            value = column.adapt(value)
            if column.pg_type in {"text", "jsonb"} and ESCAPE in value:
                escaped += 1
        row.append(value)
    return row, escaped
