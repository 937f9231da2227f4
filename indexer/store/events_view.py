"""
The view `events`: every event of every program in one shape, its fields as one JSON value in the edge format.

Pure: from the registered tables to the text of the view, once for PostgreSQL and once for DuckDB. The value is what
indexer.chain.value gives for the decoded event, by the IDL version of the event's slot. Two things JSON columns do not
hold: the order of fields, and a NUL inside a string, which stays escaped as typed.py says.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import sql

from indexer.store.duck import quote_name, quote_text
from indexer.store.typed import ESCAPE, Form

# Fields in one call: a function of PostgreSQL takes at most 100 arguments.
FIELDS_MAX = 50

Fields = Sequence[tuple[str, str, Form]]


class EventTable(NamedTuple):
    """
    A registered event table.

    Args:
        columns: (column, Postgres type), those of all versions.
        versions: (from_slot, fields) with (IDL field, column, form) of each field, sorted.
    """

    program: str
    name: str
    schema_name: str
    table_name: str
    columns: Mapping[str, str]
    versions: Sequence[tuple[int, Fields]]


def read_event_table(row: Sequence[Any]) -> EventTable:
    """Return (program, name, schema, table, columns, versions) as registered; the jsonb as text or read already."""
    program, name, schema_name, table_name, columns, versions = row
    columns = json.loads(columns) if isinstance(columns, str) else columns
    versions = json.loads(versions) if isinstance(versions, str) else versions
    types = {column: pg_type for _, column, pg_type in columns}
    listed = [(int(from_slot), [(f, c, form) for f, c, form in fields]) for from_slot, fields in versions]
    return EventTable(program, name, schema_name, table_name, types, listed)


def plan_postgres_view(tables: Sequence[EventTable]) -> sql.Composable:
    """Return the SELECT of `capstan.events`. Each table is a branch, so that a filter on program or name leaves one."""
    if not tables:
        return sql.SQL(POSTGRES_EMPTY)
    branches = [
        sql.SQL(
            "select {program}::text as program, {name}::text as name, e.signature, e.slot, e.block_time, e.kind, "
            "e.ordinal, {value} as value from {table} e"
        ).format(
            program=sql.Literal(table.program),
            name=sql.Literal(table.name),
            value=_postgres_value(table),
            table=sql.Identifier(table.schema_name, table.table_name),
        )
        for table in tables
    ]
    return sql.SQL(POSTGRES_VIEW).format(sql.SQL(" union all ").join(branches))


# An event without a row in `transactions` was finalized, exported and pruned.
POSTGRES_VIEW = """
select e.program, e.name, capstan.base58(e.signature) as signature, e.slot, e.block_time, e.kind, e.ordinal,
       coalesce(t.commitment, 'finalized') as commitment, e.value
from ({}) e
left join capstan.transactions t on t.signature = e.signature and t.commitment = 'confirmed'
"""
POSTGRES_EMPTY = """
select null::text as program, null::text as name, null::text as signature, null::bigint as slot,
       null::timestamptz as block_time, null::text as kind, null::bigint as ordinal, null::text as commitment,
       null::jsonb as value
where false
"""


def _postgres_value(table: EventTable) -> sql.Composable:
    texts = [(from_slot, _postgres_object(fields)) for from_slot, fields in table.versions]
    if not texts:
        return sql.SQL("'{}'::jsonb")
    if len(texts) == 1:
        return texts[0][1]
    cases = [
        sql.SQL("when e.slot >= {} then {}").format(sql.Literal(from_slot), value)
        for from_slot, value in reversed(texts[1:])
    ]
    return sql.SQL("case {} else {} end").format(sql.SQL(" ").join(cases), texts[0][1])


def _postgres_object(fields: Fields) -> sql.Composable:
    pairs = [
        sql.SQL("{}::text, {}").format(sql.Literal(field), _POSTGRES_FORMS[form](sql.Identifier("e", column)))
        for field, column, form in fields
    ]
    parts = [pairs[start : start + FIELDS_MAX] for start in range(0, len(pairs), FIELDS_MAX)] or [[]]
    return sql.SQL(" || ").join(sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(part)) for part in parts)


def _postgres(text: str) -> Callable[[sql.Identifier], sql.Composable]:
    return lambda column: sql.SQL(text).format(column)


_POSTGRES_FORMS: Mapping[Form, Callable[[sql.Identifier], sql.Composable]] = {
    "number": _postgres("{0}"),
    "digits": _postgres("{0}::text"),
    "wide": _postgres("{0}"),
    "bool": _postgres("{0}"),
    "string": _postgres(f"replace({{0}}, '{ESCAPE}{ESCAPE}', '{ESCAPE}')"),
    "pubkey": _postgres("capstan.base58({0})"),
    "hex": _postgres("encode({0}, 'hex')"),
    "list": _postgres("capstan.byte_list({0})"),
    "float": _postgres("capstan.json_float({0})"),
    "json": _postgres(f"replace({{0}}::text, '{ESCAPE}{ESCAPE}', '{ESCAPE}')::jsonb"),
}


def plan_duckdb_view(tables: Sequence[EventTable]) -> str:
    """
    Return the statement that makes the reader's `events`, over the views of the typed tables and `transactions`.

    It calls `base58(BLOB)`, which the reader defines.
    """
    branches = [
        f"SELECT {quote_text(table.program)} AS program, {quote_text(table.name)} AS name, signature, slot, "  # noqa: S608 - quoted
        f"block_time, kind, ordinal, {_duckdb_value(table)} AS value "
        f"FROM {quote_name(table.schema_name)}.{quote_name(table.table_name)}"
        for table in tables
    ]
    return DUCKDB_VIEW.format(" UNION ALL ".join(branches) or DUCKDB_EMPTY)


DUCKDB_VIEW = """
CREATE OR REPLACE VIEW events AS
SELECT e.program, e.name, base58(e.signature) AS signature, e.slot, e.block_time, e.kind, e.ordinal,
       coalesce(t.commitment, 'finalized') AS commitment, e.value
FROM ({}) e
LEFT JOIN (SELECT signature, commitment FROM hot.capstan.transactions WHERE commitment = 'confirmed') t
  ON t.signature = e.signature
"""
DUCKDB_EMPTY = """
SELECT NULL::VARCHAR AS program, NULL::VARCHAR AS name, NULL::BLOB AS signature, NULL::BIGINT AS slot,
       NULL::TIMESTAMPTZ AS block_time, NULL::VARCHAR AS kind, NULL::BIGINT AS ordinal, NULL::JSON AS value
WHERE false
"""


def _duckdb_value(table: EventTable) -> str:
    texts = [(from_slot, _duckdb_object(fields)) for from_slot, fields in table.versions]
    if not texts:
        return "json_object()"
    if len(texts) == 1:
        return texts[0][1]
    cases = " ".join(f"WHEN slot >= {from_slot} THEN {value}" for from_slot, value in reversed(texts[1:]))
    return f"CASE {cases} ELSE {texts[0][1]} END"


def _duckdb_object(fields: Fields) -> str:
    pairs = (f"{quote_text(field)}, {_DUCKDB_FORMS[form].format(quote_name(column))}" for field, column, form in fields)
    return f"json_object({', '.join(pairs)})"


_DUCKDB_FORMS: Mapping[Form, str] = {
    "number": "{0}",
    "digits": "{0}::VARCHAR",
    "wide": "{0}",
    "bool": "{0}",
    "string": f"replace({{0}}, '{ESCAPE}{ESCAPE}', '{ESCAPE}')",
    "pubkey": "base58({0})",
    "hex": "lower(hex({0}))",
    "list": "list_transform(range(octet_length({0})), lambda i: ('0x' || substr(hex({0}), 2 * i + 1, 2))::UTINYINT)",
    "float": "CASE WHEN isfinite({0}) THEN to_json({0}) WHEN isnan({0}) THEN '\"NaN\"'::JSON "
    "WHEN {0} > 0 THEN '\"Infinity\"'::JSON WHEN {0} < 0 THEN '\"-Infinity\"'::JSON END",
    "json": f"replace({{0}}, '{ESCAPE}{ESCAPE}', '{ESCAPE}')::JSON",
}
