"""
Typed tables: one per event and one per account type of a program, planned from its IDLs.

This module decides names and column types; registry.py makes the tables. What is written into them is writer.py's and
accounts.py's business; `capstan.programs` and `capstan.typed_tables` are how readers find them without an IDL.

A table holds the columns of all versions of its IDL. A field keeps its column as long as the column can hold it; where
its type has changed it gets another one, and none is ever dropped: what an old row says stays readable.

PostgreSQL holds no NUL character in text or jsonb, and borsh strings may have one. The escape is U+241B: NUL becomes
U+241B "0", and U+241B itself is doubled, so that nothing is lost and ordinary text stays as it is.
"""

import dataclasses
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
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

Kind: TypeAlias = Literal["event", "account"]
Adapt: TypeAlias = Callable[[Any], Any]
# How a column's value becomes what indexer.chain.value calls the edge format. "digits" is a number that is shown as a
# string, "wide" one that is stored as text already; "list" are bytes that are shown as numbers.
Form: TypeAlias = Literal["number", "digits", "wide", "bool", "string", "pubkey", "hex", "list", "float", "json"]

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


@dataclass(frozen=True, slots=True)
class Column:
    """A field's column. `adapt` turns a decoded value into what the column takes; None where it is that already."""

    field: str
    name: str
    pg_type: str
    adapt: Adapt | None = dataclasses.field(default=None, compare=False, repr=False)
    form: Form = "json"


@dataclass(frozen=True, slots=True)
class KnownTable:
    """
    A table that is there.

    Args:
        columns: (IDL field, column, Postgres type), those of all versions.
        versions: from_slot -> (IDL field, column, form) of each field that the version has.
    """

    kind: Kind
    type_name: str
    table_name: str
    columns: tuple[tuple[str, str, str], ...]
    versions: Mapping[int, tuple[tuple[str, str, Form], ...]]

    def forms(self) -> dict[str, Form]:
        """The form of each column that some version uses."""
        return {column: form for fields in self.versions.values() for _, column, form in fields}


@dataclass(frozen=True, slots=True)
class TypedTable:
    """
    A generated table as one version of the IDL sees it.

    `columns` are those of the version's fields, in IDL order; `absent` are columns that only other versions have;
    `names` has our own before those of the fields.
    """

    kind: Kind
    type_name: str
    schema_name: str
    table_name: str
    columns: tuple[Column, ...]
    absent: tuple[tuple[str, str], ...] = ()

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
        """All columns with their Postgres types, our own first."""
        return (*OWN_COLUMNS[self.kind], *((column.name, column.pg_type) for column in self.columns))

    def registry_columns(self) -> list[list[str]]:
        """What `capstan.typed_tables.columns` holds of a new table: [[IDL field, column, Postgres type], ...]."""
        return [[column.field, column.name, column.pg_type] for column in self.columns]

    def registry_version(self) -> list[list[str]]:
        """What `capstan.typed_tables.versions` holds beside a from_slot: [[IDL field, column, form], ...]."""
        return [[column.field, column.name, column.form] for column in self.columns]


@dataclass(frozen=True, slots=True)
class VersionTables:
    """The tables as one version of an IDL, valid from `from_slot`, sees them; by IDL name."""

    from_slot: int
    events: Mapping[str, TypedTable]
    accounts: Mapping[str, TypedTable]


@dataclass(frozen=True, slots=True)
class ProgramTables:
    """
    Where one program's events and accounts go.

    Args:
        versions: by from_slot, at least one.
        events: every event of any version by IDL name, each as the newest version that has it sees it. Also `accounts`.
    """

    program_id: bytes
    schema_name: str
    versions: tuple[VersionTables, ...]
    events: Mapping[str, TypedTable]
    accounts: Mapping[str, TypedTable]

    def event_table(self, name: str, slot: int) -> TypedTable | None:
        """Return where an event goes that was decoded with the IDL of its slot, None where that IDL has none such."""
        return self._version(slot).events.get(name)

    def account_table(self, name: str, slot: int | None = None) -> TypedTable | None:
        """Return where an account goes that was decoded with the IDL of that slot; None: the newest that has it."""
        return self.accounts.get(name) if slot is None else self._version(slot).accounts.get(name)

    def _version(self, slot: int) -> VersionTables:
        if len(self.versions) == 1:
            return self.versions[0]
        return self.versions[version_index([version.from_slot for version in self.versions], slot)]


def version_index(from_slots: Sequence[int], slot: int) -> int:
    """Return which of the versions, sorted by from_slot, is valid at `slot`: before the first it is the first."""
    return max(bisect_right(from_slots, slot) - 1, 0)


def group_tables(
    program_id: bytes, schema_name: str, versions: Sequence[tuple[int, Sequence[TypedTable]]]
) -> ProgramTables:
    """Return the tables of one program by version, kind and IDL name; `versions` are (from_slot, tables), sorted."""
    grouped = tuple(
        VersionTables(
            from_slot,
            {table.type_name: table for table in tables if table.kind == "event"},
            {table.type_name: table for table in tables if table.kind == "account"},
        )
        for from_slot, tables in versions
    )
    events: dict[str, TypedTable] = {}
    accounts: dict[str, TypedTable] = {}
    for version in grouped:
        events |= version.events
        accounts |= version.accounts
    return ProgramTables(program_id, schema_name, grouped, events, accounts)


def plan_tables(
    program: Program, schema_name: str | None = None, known: Sequence[KnownTable] = (), from_slot: int = 0
) -> tuple[TypedTable, ...]:
    """
    Return the tables that `program` needs, events first, in IDL order.

    Args:
        schema_name: where another schema than the program's own name is needed.
        known: the tables that are there; a type that has one keeps it, and its columns.
        from_slot: of this version of the IDL.
    """
    schema = schema_name or cut_identifier(snake_case(program.name) or "program")
    there = {(table.kind, table.type_name): table for table in known}
    taken = {table.table_name.casefold() for table in known}
    tables = []
    types: list[tuple[Kind, str, Fields]] = [("event", t.name, t.fields) for t in program.events.values()]
    types += [("account", t.name, t.fields) for t in program.accounts.values()]
    for kind, name, fields in types:
        table = there.get((kind, name))
        table_name = table.table_name if table else unique_identifier(f"{kind}_{snake_case(name)}", taken)
        columns = plan_columns(kind, fields, table, from_slot)
        mine = {column.name for column in columns}
        absent = tuple((name, pg_type) for _, name, pg_type in table.columns if name not in mine) if table else ()
        tables.append(TypedTable(kind, name, schema, table_name, columns, absent))
    return tuple(tables)


def plan_columns(kind: Kind, fields: Fields, known: KnownTable | None = None, from_slot: int = 0) -> tuple[Column, ...]:
    """
    Return one column a field. A name that is ours, or differs from another in case only, gets underscores.

    Of a table that is there a field takes the column it has; a field whose type does not fit there any more gets a new
    one, `amount_2`.
    """
    taken = {name for name, _ in OWN_COLUMNS[kind]} | {
        name.casefold() for _, name, _ in (known.columns if known else ())
    }
    columns = []
    for part in fields_of(fields):
        pg_type, form, adapt = plan_type(part)
        name = _known_column(known, part.name, pg_type, form, from_slot) if known else None
        if name is None:
            plain = snake_case(part.name) or "_"
            again = known is not None and any(field == part.name for field, _, _ in known.columns)
            name = _numbered_identifier(plain, taken) if again else unique_identifier(plain, taken)
        columns.append(Column(part.name, name, pg_type, adapt, form))
    return tuple(columns)


def _known_column(known: KnownTable, field: str, pg_type: str, form: Form, from_slot: int) -> str | None:
    types = {name: known_type for _, name, known_type in known.columns}
    for name_of, name, _ in known.versions.get(from_slot, ()):
        if name_of == field and types[name] == pg_type:
            return name
    forms = known.forms()
    for name_of, name, known_type in known.columns:
        if name_of != field or known_type != pg_type:
            continue
        # A number too wide for a number is text as well, and is not to be mixed with what people wrote.
        if pg_type != "text" or forms.get(name, form) == form:
            return name
    return None


def plan_type(part: Field) -> tuple[str, Form, Adapt | None]:
    """Return the Postgres type for a field, its form, and what its values need before they fit."""
    type_ = resolve(part.type)
    inner = resolve(type_.inner) if isinstance(type_, Option | COption) else type_
    simple = _simple_type(inner)
    if simple is not None:
        return simple
    return "jsonb", "json", _adapt_json(type_)


def _simple_type(type_: Type) -> tuple[str, Form, Adapt | None] | None:
    match type_:
        case Integer():
            return _integer_type(type_)
        case Bool():
            return "boolean", "bool", None
        case String():
            return "text", "string", escape_text
        case Pubkey():
            return "bytea", "pubkey", None
        case Bytes():
            return "bytea", "hex", None
        case Array(U8(), _):
            return "bytea", "list", None
        case F32() | F64():
            return "double precision", "float", None
        case _:
            return None


def _integer_type(type_: Integer) -> tuple[str, Form, Adapt | None]:
    if type_.bits > 64:
        return "text", "wide", str
    if type_.bits == 64:
        return ("bigint" if type_.signed else "numeric(20,0)"), "digits", None
    value_bits = type_.bits - type_.signed
    if value_bits > 31:
        return "bigint", "number", None
    return ("integer" if value_bits > 15 else "smallint"), "number", None


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


def _numbered_identifier(name: str, taken: set[str]) -> str:
    """Return `name_2`, or with the first number that is free, and add it to `taken`."""
    number = 2
    while cut_identifier(f"{name}_{number}").casefold() in taken:
        number += 1
    return unique_identifier(f"{name}_{number}", taken)
