"""
Typed tables in PostgreSQL: made, widened for another version of an IDL, registered, and shown in one view.

Everything here happens inside the transaction of registry.py, which says what is valid from which slot. Columns are
added and never dropped; which ones a version needs, and what they are called, is planned in typed.py.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import structlog
from psycopg import sql

from indexer.chain.program import Program
from indexer.chain.value import snake_case
from indexer.store.database import DASHBOARD_ROLE, ENGINE_ROLE, INDEXER_ROLE, AsyncConnection
from indexer.store.events_view import plan_postgres_view, read_event_table
from indexer.store.queries import load_queries
from indexer.store.typed import (
    OWN_COLUMNS,
    RESERVED_SCHEMAS,
    Column,
    KnownTable,
    ProgramTables,
    TypedTable,
    cut_identifier,
    group_tables,
    plan_tables,
    unique_identifier,
)

QUERIES = load_queries("registry")

# Whoever makes tables for one database at a time.
TABLES_LOCK = 0x0CA9_57A5
# A table that somebody reads for longer is not waited for: everybody else would wait behind us.
LOCK_TIMEOUT = "20s"

# Of our own columns; a field's column may be empty, as another version of the IDL may not have it.
CONSTRAINTS = {
    "signature": "not null",
    "kind": "not null",
    "ordinal": "not null",
    "slot": "not null",
    "address": "not null",
    "lamports": "not null",
    "updated_at": "not null default clock_timestamp()",
}

log = structlog.get_logger(__name__)


class Version(Protocol):
    """A program by one of its IDLs, as registry.py has it."""

    @property
    def from_slot(self) -> int: ...
    @property
    def program(self) -> Program: ...


async def lock_tables(connection: AsyncConnection) -> None:
    """Make us the only one who makes tables here, until the transaction ends."""
    await connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    await connection.execute("select pg_advisory_xact_lock(%s)", (TABLES_LOCK,))


async def make_schema(connection: AsyncConnection, program: Program) -> str:
    """Make a schema for a new program, and return its name."""
    schema = await _free_schema(connection, program)
    await connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    return schema


async def _free_schema(connection: AsyncConnection, program: Program) -> str:
    """The program's name, unless it is ours, PostgreSQL's, or anybody else's in this database."""
    name = cut_identifier(snake_case(program.name) or "program")
    cursor = await connection.execute("select nspname from pg_namespace")
    taken = {str(row[0]).casefold() for row in await cursor.fetchall()} | RESERVED_SCHEMAS
    if name not in taken and not name.startswith("pg_"):
        return name
    suffix = program.program_id.hex()[:8]
    return unique_identifier(f"{name.removeprefix('pg_')}_{suffix}", taken)


async def select_tables(connection: AsyncConnection, schema: str) -> list[KnownTable]:
    """Return the registered tables of a program."""
    cursor = await connection.execute(QUERIES["select_tables"], {"schema_name": schema})
    return [
        KnownTable(
            kind,
            type_name,
            table_name,
            tuple((field, column, pg_type) for field, column, pg_type in columns),
            {int(slot): tuple((field, column, form) for field, column, form in fields) for slot, fields in versions},
        )
        for kind, type_name, table_name, columns, versions in await cursor.fetchall()
    ]


def group_versions(
    program_id: bytes, schema: str, versions: Sequence[Version], known: Sequence[KnownTable]
) -> ProgramTables:
    """Return the tables as each version sees them, which must have been made."""
    planned = [(v.from_slot, plan_tables(v.program, schema, known, v.from_slot)) for v in versions]
    return group_tables(program_id, schema, planned)


async def evolve_tables(
    connection: AsyncConnection, schema: str, versions: Sequence[Version], *, renewed: int | None = None
) -> tuple[ProgramTables, list[str]]:
    """
    Make what the versions need and the schema lacks; return the tables, and what was done.

    Args:
        renewed: from_slot of a version whose IDL is another one now; its columns are chosen anew.
    """
    changes: list[str] = []
    known = {(table.kind, table.type_name): table for table in await select_tables(connection, schema)}
    if renewed is not None:
        known = {key: _without(table, renewed) for key, table in known.items()}
    before = dict(known) if renewed is None else {}
    for version in versions:
        for table in plan_tables(version.program, schema, tuple(known.values()), version.from_slot):
            key = (table.kind, table.type_name)
            if key in known:
                changes += await _add_columns(connection, table, known[key], version.from_slot)
            else:
                await _create_table(connection, table)
                changes.append(f"new {table.kind} {table.type_name}: table {schema}.{table.table_name}")
            known[key] = _with(known.get(key), table, version.from_slot)
    for key, there in known.items():
        if before.get(key) != there:
            await connection.execute(QUERIES["update_table"], _table_row(schema, there))
    if known != before:
        await _grant(connection, schema)
    await _make_events_view(connection)
    return group_versions(versions[0].program.program_id, schema, versions, tuple(known.values())), changes


def _without(table: KnownTable, from_slot: int) -> KnownTable:
    versions = {slot: fields for slot, fields in table.versions.items() if slot != from_slot}
    return KnownTable(table.kind, table.type_name, table.table_name, table.columns, versions)


def _with(known: KnownTable | None, table: TypedTable, from_slot: int) -> KnownTable:
    """The table as it is once this version's fields have their columns."""
    columns = known.columns if known else ()
    there = {name for _, name, _ in columns}
    more = tuple((c.field, c.name, c.pg_type) for c in table.columns if c.name not in there)
    mine = tuple((column.field, column.name, column.form) for column in table.columns)
    versions = {**(known.versions if known else {}), from_slot: mine}
    return KnownTable(table.kind, table.type_name, table.table_name, (*columns, *more), dict(sorted(versions.items())))


def _table_row(schema: str, table: KnownTable) -> dict[str, Any]:
    return {
        "schema_name": schema,
        "table_name": table.table_name,
        "columns": json.dumps(table.columns),
        "versions": json.dumps(list(table.versions.items())),
    }


async def _add_columns(connection: AsyncConnection, table: TypedTable, known: KnownTable, from_slot: int) -> list[str]:
    there = {name for _, name, _ in known.columns}
    changes = []
    for column in table.columns:
        if column.name in there:
            continue
        statement = sql.SQL("alter table {} add column {} {}").format(
            table.identifier, sql.Identifier(column.name), sql.SQL(column.pg_type)
        )
        await connection.execute(statement)
        reason = _reason(column, known)
        parameters = {
            "schema_name": table.schema_name,
            "table_name": table.table_name,
            "column_name": column.name,
            "field": column.field,
            "from_slot": from_slot,
            "reason": reason,
        }
        await connection.execute(QUERIES["insert_column_change"], parameters)
        place = f"{table.schema_name}.{table.table_name}.{column.name}"
        changes.append(f"{table.kind} {table.type_name}: {reason}: column {place}")
    # A field that is gone says so, because a rename looks the same: one column ends and another begins.
    now = {column.field for column in table.columns}
    if changes:
        last = max((slot for slot in known.versions if slot < from_slot), default=None)
        gone = [field for field, _, _ in known.versions[last] if field not in now] if last is not None else []
        changes += [f"{table.kind} {table.type_name}: field {field} is gone, its column stays" for field in gone]
    return changes


def _reason(column: Column, known: KnownTable) -> str:
    before = [(name, pg_type) for field, name, pg_type in known.columns if field == column.field]
    if not before:
        return f"new field {column.field} ({column.pg_type})"
    name, pg_type = before[-1]
    old = known.forms().get(name, "unknown")
    return f"field {column.field} has another type ({old} as {pg_type} became {column.form} as {column.pg_type})"


async def _create_table(connection: AsyncConnection, table: TypedTable) -> None:
    own = {name for name, _ in OWN_COLUMNS[table.kind]}
    lines = [
        sql.SQL("{} {} {}").format(
            sql.Identifier(name), sql.SQL(pg_type), sql.SQL(CONSTRAINTS.get(name, "") if name in own else "")
        )
        for name, pg_type in table.typed_names
    ]
    # A key of a partitioned table has to have the slot in it; partitions are made as rows come (partitions.py).
    key, rest = (
        ("signature, kind, ordinal, slot", "partition by range (slot)") if table.kind == "event" else ("address", "")
    )
    await connection.execute(
        sql.SQL("create table {} ({}, primary key ({})) {}").format(
            table.identifier, sql.SQL(", ").join(lines), sql.SQL(key), sql.SQL(rest)
        )
    )
    await connection.execute(sql.SQL("create index on {} (slot)").format(table.identifier))
    row = {
        "schema_name": table.schema_name,
        "table_name": table.table_name,
        "kind": table.kind,
        "type_name": table.type_name,
        "columns": json.dumps(table.registry_columns()),
        "versions": "[]",
    }
    await connection.execute(QUERIES["insert_table"], row)


async def _grant(connection: AsyncConnection, schema: str) -> None:
    """Let the other roles read, and the indexer write where the operator's own login made the tables."""
    cursor = await connection.execute(
        "select rolname from pg_roles where rolname = any(%s)", ([INDEXER_ROLE, ENGINE_ROLE, DASHBOARD_ROLE],)
    )
    roles = [str(row[0]) for row in await cursor.fetchall()]
    for role in roles:
        names = {"schema": sql.Identifier(schema), "role": sql.Identifier(role)}
        await connection.execute(sql.SQL("grant usage on schema {schema} to {role}").format(**names))
        right = "select, insert, update, delete" if role == INDEXER_ROLE else "select"
        await connection.execute(
            sql.SQL("grant {right} on all tables in schema {schema} to {role}").format(right=sql.SQL(right), **names)
        )


async def _make_events_view(connection: AsyncConnection) -> None:
    """Make `capstan.events` anew where it would be another one; its columns are the same, so grants stay."""
    cursor = await connection.execute(QUERIES["select_event_tables"])
    select = plan_postgres_view([read_event_table(row) for row in await cursor.fetchall()])
    digest = hashlib.sha256(select.as_string(connection).encode()).hexdigest()
    row = await (await connection.execute(QUERIES["select_view"])).fetchone()
    if row is not None and row[0] == digest:
        return
    if row is not None and not row[1]:
        log.warning("the view capstan.events is as it was: only the login that migrated the database can change it")
        return
    await connection.execute(sql.SQL("create or replace view capstan.events as {}").format(select))
    await connection.execute(sql.SQL("comment on view capstan.events is {}").format(sql.Literal(digest)))
