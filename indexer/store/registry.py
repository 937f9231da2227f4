"""
The registry in PostgreSQL: each program's IDLs by the slot from which they are valid, and the tables they need.

Whatever changes here is one transaction: the IDL, the tables and columns it brings, the view over all events, and a
new generation. It waits for the batches that are being written and they for it, so that nothing decoded with the older
registry is committed after it; a batch that comes too late is decoded again (writer.py). Columns are added and never
dropped; what they are called is typed.py's business.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from psycopg import sql

from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import DataError
from indexer.store.database import DASHBOARD_ROLE, ENGINE_ROLE, INDEXER_ROLE, AsyncConnection, transaction
from indexer.store.events_view import plan_postgres_view, read_event_table
from indexer.store.queries import load_queries
from indexer.store.same_layout import difference, same_layout
from indexer.store.typed import (
    OWN_COLUMNS,
    RESERVED_SCHEMAS,
    Column,
    KnownTable,
    ProgramTables,
    TypedTable,
    cut_identifier,
    escape_text,
    group_tables,
    plan_tables,
    unescape_text,
    unique_identifier,
)
from indexer.chain.value import snake_case

QUERIES = load_queries("registry")

# Whoever makes tables for one database at a time.
TABLES_LOCK = 0x0CA9_57A5
# A table that somebody reads for longer is not waited for: everybody else would wait behind us.
LOCK_TIMEOUT = "20s"
SLOT_MAX = 2**63 - 1

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


class Version(NamedTuple):
    """A program by one of its IDLs, valid from that slot up to the next version's."""

    from_slot: int
    program: Program


class Registered(NamedTuple):
    """
    The registry as it was at one moment.

    Args:
        generation: grows with every change.
        versions: program id -> its versions by from_slot.
        tables: program id -> where its events and accounts go.
    """

    generation: int
    versions: Mapping[bytes, tuple[Version, ...]]
    tables: Mapping[bytes, ProgramTables]


class Added(NamedTuple):
    """
    What `add_version` did.

    Args:
        replaced: another IDL had been valid from the same slot.
        known: this very IDL had been; nothing was changed.
        changes: one sentence for each table or column that was made.
        to_slot: the last slot for which the version is valid, None where no later version follows.
        stored: transactions of the program in that range that had been decoded with another IDL.
    """

    from_slot: int
    to_slot: int | None
    replaced: bool
    known: bool
    changes: tuple[str, ...]
    stored: int


async def ensure_tables(connection: AsyncConnection, program: Program) -> ProgramTables:
    """
    Register `program` from slot 0 on, unless its IDL is registered already, and return the tables of all its versions.

    An IDL that decodes as the newest registered one does (other docs, other instructions) takes its place.

    Raises:
        DataError: another IDL is registered for the program.
        RetryableError: the server went away, or a table was busy for too long.
    """
    async with transaction(connection):
        await _lock_tables(connection)
        text, digest = _stored_text(program)
        versions = await _select_versions(connection, program.program_id)
        if not versions:
            await connection.execute(QUERIES["lock_registry"])
            schema = await _make_schema(connection, program)
            await _store_version(connection, program, schema, 0, newest=True)
            versions = [_Stored(0, text, digest)]
            await connection.execute(QUERIES["raise_generation"])
        elif all(version.digest != digest for version in versions):
            newest = versions[-1]
            registered = _compile(program.program_id, newest)
            if not same_layout(program, registered):
                raise DataError(_refusal(program, registered))
            schema, _ = await _select_program(connection, program.program_id)
            await connection.execute(QUERIES["lock_registry"])
            await _store_version(connection, program, schema, newest.from_slot, newest=True)
            versions[-1] = _Stored(newest.from_slot, text, digest)
            await connection.execute(QUERIES["raise_generation"])
        compiled = [
            Version(v.from_slot, program if v.digest == digest else _compile(program.program_id, v)) for v in versions
        ]
        schema, _ = await _select_program(connection, program.program_id)
        tables, _ = await _evolve(connection, schema, compiled)
    return tables


async def add_version(connection: AsyncConnection, program: Program, from_slot: int) -> Added:
    """
    Register the IDL of `program` as valid from `from_slot` on, up to the next version that is there.

    Args:
        connection: of the operator's own login, not in a transaction.

    Raises:
        RetryableError: the server went away, or a table was busy for too long; nothing was changed.
    """
    async with transaction(connection):
        await _lock_tables(connection)
        await connection.execute(QUERIES["lock_registry"])
        text, digest = _stored_text(program)
        versions = await _select_versions(connection, program.program_id)
        at = [version for version in versions if version.from_slot == from_slot]
        later = [version.from_slot for version in versions if version.from_slot > from_slot]
        to_slot = min(later) - 1 if later else None
        if at and at[0].digest == digest:
            return Added(from_slot, to_slot, replaced=False, known=True, changes=(), stored=0)
        if versions:
            schema, _ = await _select_program(connection, program.program_id)
        else:
            schema = await _make_schema(connection, program)
        await _store_version(connection, program, schema, from_slot, newest=not later)
        versions = sorted([*(v for v in versions if v not in at), _Stored(from_slot, text, digest)])
        compiled = [
            Version(v.from_slot, program if v.from_slot == from_slot else _compile(program.program_id, v))
            for v in versions
        ]
        _, changes = await _evolve(connection, schema, compiled, renewed=from_slot)
        await connection.execute(QUERIES["raise_generation"])
        parameters = {
            "program_id": program.program_id,
            "from_slot": from_slot,
            "to_slot": SLOT_MAX if to_slot is None else to_slot,
        }
        row = await (await connection.execute(QUERIES["count_transactions"], parameters)).fetchone()
    return Added(from_slot, to_slot, bool(at), known=False, changes=tuple(changes), stored=int(row[0]) if row else 0)


async def select_generation(connection: AsyncConnection) -> int:
    """Return the registry's generation: another one than before means that something has changed."""
    async with transaction(connection):
        return await _generation(connection)


async def load_registered(connection: AsyncConnection, program_ids: Collection[bytes] | None = None) -> Registered:
    """
    Return the registry: of these programs, or of all.

    Raises:
        DataError: a stored IDL cannot be read by this version of Capstan.
    """
    versions: dict[bytes, list[Version]] = {}
    tables: dict[bytes, ProgramTables] = {}
    schemas: dict[bytes, str] = {}
    async with transaction(connection):
        await connection.execute("set transaction isolation level repeatable read")
        generation = await _generation(connection)
        wanted = None if program_ids is None else list(program_ids)
        cursor = await connection.execute(QUERIES["select_all_idls"], {"program_ids": wanted})
        for program_id, schema, from_slot, text in await cursor.fetchall():
            stored = _Stored(int(from_slot), str(text), b"")
            schemas[bytes(program_id)] = str(schema)
            compiled = _compile(bytes(program_id), stored)
            versions.setdefault(bytes(program_id), []).append(Version(stored.from_slot, compiled))
        for program_id, schema in schemas.items():
            known = await _select_tables(connection, schema)
            tables[program_id] = _group(program_id, schema, versions[program_id], known)
    return Registered(generation, {key: tuple(value) for key, value in versions.items()}, tables)


async def select_tip(connection: AsyncConnection, program_id: bytes) -> int | None:
    """Return the newest slot that is known of, from the chain or of the program's rows; None where there is none."""
    async with transaction(connection):
        row = await (await connection.execute(QUERIES["select_tip"], {"program_id": program_id})).fetchone()
    return None if row is None or row[0] is None else int(row[0])


# --- IDLs ------------------------------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    from_slot: int
    text: str  # escaped
    digest: bytes


def _stored_text(program: Program) -> tuple[str, bytes]:
    text = escape_text(program.idl.text)
    return text, hashlib.sha256(text.encode()).digest()


def _compile(program_id: bytes, stored: _Stored) -> Program:
    source = f"the registered IDL from slot {stored.from_slot} on"
    return Program.from_idl(load_idl(unescape_text(stored.text), source=source), program_id)


def _refusal(program: Program, registered: Program) -> str:
    return (
        f"the IDL {program.idl.source} of {program.name} is not the registered one ({difference(registered, program)}): "
        f"run `capstan idl add {program.idl.source} --from-slot SLOT`, with the first slot in which the upgraded "
        "program ran, or index with the IDL that is registered"
    )


async def _generation(connection: AsyncConnection) -> int:
    row = await (await connection.execute(QUERIES["select_generation"])).fetchone()
    assert row is not None, "the migration made it"
    return int(row[0])


async def _select_versions(connection: AsyncConnection, program_id: bytes) -> list[_Stored]:
    cursor = await connection.execute(QUERIES["select_idls"], {"program_id": program_id})
    return [_Stored(int(slot), str(text), bytes(digest)) for slot, text, digest in await cursor.fetchall()]


async def _select_program(connection: AsyncConnection, program_id: bytes) -> tuple[str, bytes]:
    row = await (await connection.execute(QUERIES["select_program"], {"program_id": program_id})).fetchone()
    assert row is not None, "who has versions is registered"
    return str(row[0]), bytes(row[1])


async def _store_version(
    connection: AsyncConnection, program: Program, schema: str, from_slot: int, *, newest: bool
) -> None:
    text, digest = _stored_text(program)
    parameters = {
        "program_id": program.program_id,
        "name": program.name,
        "schema_name": schema,
        "idl": text,
        "idl_sha256": digest,
        "from_slot": from_slot,
    }
    if newest:
        await connection.execute(QUERIES["upsert_program"], parameters)
    await connection.execute(QUERIES["upsert_idl"], parameters)


# --- tables ----------------------------------------------------------------------------------------------------------


async def _lock_tables(connection: AsyncConnection) -> None:
    await connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    await connection.execute("select pg_advisory_xact_lock(%s)", (TABLES_LOCK,))


async def _make_schema(connection: AsyncConnection, program: Program) -> str:
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


async def _select_tables(connection: AsyncConnection, schema: str) -> list[KnownTable]:
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


def _group(program_id: bytes, schema: str, versions: Sequence[Version], known: Sequence[KnownTable]) -> ProgramTables:
    planned = [(v.from_slot, plan_tables(v.program, schema, known, v.from_slot)) for v in versions]
    return group_tables(program_id, schema, planned)


async def _evolve(
    connection: AsyncConnection, schema: str, versions: Sequence[Version], *, renewed: int | None = None
) -> tuple[ProgramTables, list[str]]:
    """
    Make what the versions need and the schema lacks; return the tables, and what was done.

    Args:
        renewed: from_slot of a version whose IDL is another one now; its columns are chosen anew.
    """
    changes: list[str] = []
    known = {(table.kind, table.type_name): table for table in await _select_tables(connection, schema)}
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
    for key, table in known.items():
        if before.get(key) != table:
            await connection.execute(QUERIES["update_table"], _table_row(schema, table))
    if known != before:
        await _grant(connection, schema)
    await _make_events_view(connection)
    return _group(versions[0].program.program_id, schema, versions, tuple(known.values())), changes


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
    return KnownTable(
        table.kind, table.type_name, table.table_name, (*columns, *more), dict(sorted(versions.items()))
    )


def _table_row(schema: str, table: KnownTable) -> dict[str, Any]:
    return {
        "schema_name": schema,
        "table_name": table.table_name,
        "columns": json.dumps(table.columns),
        "versions": json.dumps(list(table.versions.items())),
    }


async def _add_columns(
    connection: AsyncConnection, table: TypedTable, known: KnownTable, from_slot: int
) -> list[str]:
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
    before = [pg_type for field, _, pg_type in known.columns if field == column.field]
    if not before:
        return f"new field {column.field} ({column.pg_type})"
    return f"field {column.field} has another type ({before[-1]} became {column.pg_type})"


async def _create_table(connection: AsyncConnection, table: TypedTable) -> None:
    own = {name for name, _ in OWN_COLUMNS[table.kind]}
    lines = [
        sql.SQL("{} {} {}").format(
            sql.Identifier(name), sql.SQL(pg_type), sql.SQL(CONSTRAINTS.get(name, "") if name in own else "")
        )
        for name, pg_type in table.typed_names
    ]
    key = "signature, kind, ordinal" if table.kind == "event" else "address"
    await connection.execute(
        sql.SQL("create table {} ({}, primary key ({}))").format(
            table.identifier, sql.SQL(", ").join(lines), sql.SQL(key)
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
    select = plan_postgres_view([read_event_table(*row) for row in await cursor.fetchall()])
    digest = hashlib.sha256(select.as_string(connection).encode()).hexdigest()
    row = await (await connection.execute(QUERIES["select_view"])).fetchone()
    if row is not None and row[0] == digest:
        return
    if row is None or not row[1]:
        log.warning("the view capstan.events is as it was: only the login that migrated the database can change it")
        return
    await connection.execute(sql.SQL("create or replace view capstan.events as {}").format(select))
    await connection.execute(sql.SQL("comment on view capstan.events is {}").format(sql.Literal(digest)))
