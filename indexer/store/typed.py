"""
Typed tables: one per event and one per account type of a program, generated from its IDL and registered.

This module decides names and column types, and makes the tables. What is written into them is writer.py's and
accounts.py's business; the registry (`capstan.programs`, `capstan.typed_tables`) is how readers find them without an
IDL.

PostgreSQL holds no NUL character in text or jsonb, and borsh strings may have one. The escape is U+241B: NUL becomes
U+241B "0", and U+241B itself is doubled, so that nothing is lost and ordinary text stays as it is.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from psycopg import sql

from indexer.chain.program import Program
from indexer.chain.types import (
    F32,
    F64,
    U8,
    Array,
    Bool,
    Bytes,
    COption,
    Field,
    Fields,
    Integer,
    Option,
    Pubkey,
    String,
    Type,
    fields_of,
    resolve,
)
from indexer.chain.value import json_encoder, snake_case
from indexer.errors import DataError
from indexer.store.database import DASHBOARD_ROLE, ENGINE_ROLE, INDEXER_ROLE, AsyncConnection, transaction

Kind: TypeAlias = Literal["event", "account"]
Adapt: TypeAlias = Callable[[Any], Any]

IDENTIFIER_BYTES_MAX = 63  # PostgreSQL cuts longer names without a word
# Ours, PostgreSQL's, and the names of DuckDB's own databases and of those that a reader attaches.
RESERVED_SCHEMAS = frozenset(
    {
        "capstan",
        "engine",
        "public",
        "lake_meta",
        "information_schema",
        "main",
        "temp",
        "memory",
        "system",
        "hot",
        "lake",
    }
)
# Whoever makes tables for one database at a time.
TABLES_LOCK = 0x0CA9_57A5

ESCAPE = "\u241b"

OWN_COLUMNS: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "event": (
        ("signature", "bytea"),
        ("kind", "text"),
        ("ordinal", "bigint"),
        ("slot", "bigint"),
        ("block_time", "timestamptz"),
    ),
    "account": (
        ("address", "bytea"),
        ("slot", "bigint"),
        ("lamports", "numeric(20,0)"),
        ("closed_slot", "bigint"),
        ("updated_at", "timestamptz"),
    ),
}

# Of our own columns; a field's column may be empty, as a later IDL may not have it.
CONSTRAINTS = {
    "signature": "not null",
    "kind": "not null",
    "ordinal": "not null",
    "slot": "not null",
    "address": "not null",
    "lamports": "not null",
    "updated_at": "not null default clock_timestamp()",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A field's column. `adapt` turns a decoded value into what the column takes; None where it is that already."""

    field: str
    name: str
    pg_type: str
    adapt: Adapt | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TypedTable:
    """A generated table. `columns` are those of the IDL's fields; `names` has our own before them."""

    kind: Kind
    type_name: str
    schema_name: str
    table_name: str
    columns: tuple[Column, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """The table's quoted name with its schema."""
        return sql.Identifier(self.schema_name, self.table_name)

    @property
    def names(self) -> tuple[str, ...]:
        """All column names in the order of the table."""
        return tuple(name for name, _ in self.typed_names)

    @property
    def typed_names(self) -> tuple[tuple[str, str], ...]:
        """All columns with their Postgres types in the order of the table."""
        return (*OWN_COLUMNS[self.kind], *((column.name, column.pg_type) for column in self.columns))

    def registry_columns(self) -> list[list[str]]:
        """What `capstan.typed_tables.columns` holds: [[IDL field, column, Postgres type], ...]."""
        return [[column.field, column.name, column.pg_type] for column in self.columns]


@dataclass(frozen=True, slots=True)
class ProgramTables:
    """Where one program's events and accounts go, by IDL name."""

    program_id: bytes
    schema_name: str
    events: Mapping[str, TypedTable]
    accounts: Mapping[str, TypedTable]


def plan_tables(program: Program, schema_name: str | None = None) -> tuple[TypedTable, ...]:
    """
    Return the tables that `program` needs, events first, in IDL order.

    Args:
        schema_name: where another schema than the program's own name is needed.
    """
    schema = schema_name or cut_identifier(snake_case(program.name) or "program")
    taken: set[str] = set()
    tables = []
    types: list[tuple[Kind, str, Fields]] = [("event", t.name, t.fields) for t in program.events.values()]
    types += [("account", t.name, t.fields) for t in program.accounts.values()]
    for kind, name, fields in types:
        table_name = unique_identifier(f"{kind}_{snake_case(name)}", taken)
        tables.append(TypedTable(kind, name, schema, table_name, plan_columns(kind, fields)))
    return tuple(tables)


def plan_columns(kind: Kind, fields: Fields) -> tuple[Column, ...]:
    """Return one column a field. A name that is ours, or differs from another in case only, gets underscores."""
    taken = {name for name, _ in OWN_COLUMNS[kind]}
    columns = []
    for part in fields_of(fields):
        pg_type, adapt = plan_type(part)
        columns.append(Column(part.name, unique_identifier(snake_case(part.name) or "_", taken), pg_type, adapt))
    return tuple(columns)


def plan_type(part: Field) -> tuple[str, Adapt | None]:
    """Return the Postgres type for a field and what its values need before they fit."""
    type_ = resolve(part.type)
    inner = resolve(type_.inner) if isinstance(type_, Option | COption) else type_
    simple = _simple_type(inner)
    if simple is not None:
        return simple
    return "jsonb", _adapt_json(type_)


def _simple_type(type_: Type) -> tuple[str, Adapt | None] | None:
    match type_:
        case Integer():
            return _integer_type(type_)
        case Bool():
            return "boolean", None
        case String():
            return "text", escape_text
        case Pubkey() | Bytes() | Array(U8(), _):
            return "bytea", None
        case F32() | F64():
            return "double precision", None
        case _:
            return None


def _integer_type(type_: Integer) -> tuple[str, Adapt | None]:
    if type_.bits > 64:
        return "text", str
    if type_.bits == 64 and not type_.signed:
        return "numeric(20,0)", None
    value_bits = type_.bits - type_.signed
    if value_bits > 31:
        return "bigint", None
    return ("integer" if value_bits > 15 else "smallint"), None


def _adapt_json(type_: Type) -> Adapt:
    encode = json_encoder(type_)

    def adapt(value: Any) -> str:
        text = json.dumps(encode(value), ensure_ascii=False, separators=(",", ":"))
        # A NUL is written by json as the escape \u0000; strings that have none, which is nearly all, pay nothing more.
        if "\\u0000" in text or ESCAPE in text:
            text = json.dumps(_escape_json(json.loads(text)), ensure_ascii=False, separators=(",", ":"))
        return text

    return adapt


def _escape_json(value: Any) -> Any:
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, list):
        return [_escape_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _escape_json(item) for key, item in value.items()}
    return value


def escape_text(text: str) -> str:
    """Return `text` without NUL; `unescape_text` gives it back exactly."""
    if "\0" not in text and ESCAPE not in text:
        return text
    return text.replace(ESCAPE, ESCAPE * 2).replace("\0", ESCAPE + "0")


def unescape_text(text: str) -> str:
    """Return what `escape_text` was given."""
    if ESCAPE not in text:
        return text
    parts = text.split(ESCAPE * 2)
    return ESCAPE.join(part.replace(ESCAPE + "0", "\0") for part in parts)


def cut_identifier(name: str) -> str:
    """Return `name`, or where it is longer than PostgreSQL's 63 bytes its beginning and a hash of all of it."""
    encoded = name.encode()
    if len(encoded) <= IDENTIFIER_BYTES_MAX:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: IDENTIFIER_BYTES_MAX - 9].decode(errors="ignore") + "_" + digest


def unique_identifier(name: str, taken: set[str]) -> str:
    """Return a name that is not in `taken` (DuckDB does not tell case apart), and add it there."""
    name = cut_identifier(name)
    while name.casefold() in taken:
        name = cut_identifier(name + "_")
    taken.add(name.casefold())
    return name


def group_tables(program_id: bytes, schema_name: str, tables: Iterable[TypedTable]) -> ProgramTables:
    """Return the tables of one program by kind and IDL name."""
    tables = tuple(tables)
    return ProgramTables(
        program_id,
        schema_name,
        {table.type_name: table for table in tables if table.kind == "event"},
        {table.type_name: table for table in tables if table.kind == "account"},
    )


# --- making them -----------------------------------------------------------------------------------------------------


async def ensure_tables(connection: AsyncConnection, program: Program) -> ProgramTables:
    """
    Make and register the tables that `program` lacks, and return all of them.

    A new event or account type is added. Existing tables stay as they are.

    Raises:
        DataError: a type that is registered has other fields in this IDL.
    """
    async with transaction(connection):
        await connection.execute("select pg_advisory_xact_lock(%s)", (TABLES_LOCK,))
        schema = await _registered_schema(connection, program.program_id)
        if schema is None:
            schema = await _free_schema(connection, program)
            await connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        await _register_program(connection, program, schema)
        tables = plan_tables(program, schema)
        known = await _registered_columns(connection, schema)
        for table in tables:
            columns = known.get((table.kind, table.type_name))
            if columns is None:
                await _create_table(connection, table)
            elif columns != table.registry_columns():
                raise DataError(
                    f"the IDL of {program.name} has other fields for the {table.kind} {table.type_name} "
                    f"({_difference(columns, table.registry_columns())}) than the tables in schema {schema!r}: "
                    "index it into another database, or use the IDL that the tables were made from"
                )
        await _grant(connection, schema)
    return group_tables(program.program_id, schema, tables)


def _difference(known: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> str:
    for before, after in zip(known, wanted, strict=False):
        if list(before) != list(after):
            return f"{before[0]} as {before[2]} has become {after[0]} as {after[2]}"
    longer = known if len(known) > len(wanted) else wanted
    return f"{longer[min(len(known), len(wanted))][0]} is {'gone' if longer is known else 'new'}"


async def _registered_schema(connection: AsyncConnection, program_id: bytes) -> str | None:
    cursor = await connection.execute("select schema_name from capstan.programs where program_id = %s", (program_id,))
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def _free_schema(connection: AsyncConnection, program: Program) -> str:
    """The program's name, unless it is ours, PostgreSQL's, or anybody else's in this database."""
    name = cut_identifier(snake_case(program.name) or "program")
    cursor = await connection.execute("select nspname from pg_namespace")
    taken = {str(row[0]).casefold() for row in await cursor.fetchall()} | RESERVED_SCHEMAS
    if name not in taken and not name.startswith("pg_"):
        return name
    suffix = program.program_id.hex()[:8]
    return unique_identifier(f"{name.removeprefix('pg_')}_{suffix}", taken)


async def _register_program(connection: AsyncConnection, program: Program, schema: str) -> None:
    text = escape_text(program.idl.text)
    await connection.execute(
        "insert into capstan.programs as p (program_id, name, schema_name, idl, idl_sha256) "
        "values (%s, %s, %s, %s, %s) "
        "on conflict (program_id) do update set name = excluded.name, idl = excluded.idl, "
        "idl_sha256 = excluded.idl_sha256 where p.idl_sha256 <> excluded.idl_sha256",
        (program.program_id, program.name, schema, text, hashlib.sha256(text.encode()).digest()),
    )


async def _registered_columns(connection: AsyncConnection, schema: str) -> dict[tuple[str, str], list[list[str]]]:
    cursor = await connection.execute(
        "select kind, type_name, columns from capstan.typed_tables where schema_name = %s", (schema,)
    )
    return {(kind, type_name): columns for kind, type_name, columns in await cursor.fetchall()}


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
    await connection.execute(
        "insert into capstan.typed_tables (schema_name, table_name, kind, type_name, columns) "
        "values (%s, %s, %s, %s, %s)",
        (table.schema_name, table.table_name, table.kind, table.type_name, json.dumps(table.registry_columns())),
    )


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
