"""
Any program's tables for readers that know no IDL: what there is, how much of it a day, and the newest rows.

The texts are made here from the registry (`capstan.typed_tables`), every name quoted; what a row means stands in the
IDL. The home programs' own pages ask named queries instead.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import polars as pl

from indexer.store.duck import quote_name, quote_text

Kind = Literal["event", "account"]

NUMERIC_TYPES = frozenset({"smallint", "integer", "bigint", "numeric(20,0)", "double precision"})


class Selecting(Protocol):
    """What is needed of `indexer.store.reader.Reader`."""

    def select(self, text: str) -> pl.DataFrame:
        """Run one SELECT over the views."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """
    A typed table as the registry has it.

    Args:
        type_name: the event's or account's name in the IDL.
        columns: (column, Postgres type) of the IDL's fields.
    """

    program: str
    kind: Kind
    type_name: str
    schema_name: str
    table_name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def quoted(self) -> str:
        """The view of lake and hot tail together."""
        return f"{quote_name(self.schema_name)}.{quote_name(self.table_name)}"

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that can be added up."""
        return tuple(name for name, pg_type in self.columns if pg_type in NUMERIC_TYPES)


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """An indexed program. `program_id` in base58; `frontier_slot` None before the first proof."""

    name: str
    program_id: str
    schema_name: str
    frontier_slot: int | None


def select_programs(reader: Selecting) -> list[ProgramRow]:
    """Return the indexed programs, oldest registration first."""
    frame = reader.select(
        "SELECT p.name, p.program_id, p.schema_name, f.slot AS frontier_slot FROM hot.capstan.programs p "
        "LEFT JOIN hot.capstan.frontiers f USING (program_id) ORDER BY p.registered_at, p.name"
    )
    return [ProgramRow(*row) for row in frame.iter_rows()]


def select_tables(reader: Selecting, schema_name: str) -> list[Table]:
    """Return a program's tables, events first, by name."""
    frame = reader.select(
        "SELECT p.name, t.kind, t.type_name, t.schema_name, t.table_name, t.columns::VARCHAR AS columns "  # noqa: S608 - quoted
        "FROM hot.capstan.typed_tables t JOIN hot.capstan.programs p USING (schema_name) "
        f"WHERE t.schema_name = {quote_text(schema_name)} ORDER BY t.kind DESC, t.type_name"
    )
    return [
        Table(program, kind, type_name, schema, table, _columns(columns))
        for program, kind, type_name, schema, table, columns in frame.iter_rows()
    ]


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, pg_type) for _, name, pg_type, *_ in json.loads(text))


def count_rows(reader: Selecting, tables: Sequence[Table]) -> dict[str, int]:
    """Return rows by type name: events there ever were, accounts that are open."""
    parts = [
        f"SELECT {quote_text(t.type_name)} AS name, count(*) AS n FROM {t.quoted}"  # noqa: S608 - quoted names, here and below
        + (" WHERE closed_slot IS NULL" if t.kind == "account" else "")
        for t in tables
    ]
    return dict(reader.select(" UNION ALL ".join(parts)).iter_rows()) if parts else {}


def count_per_day(reader: Selecting, events: Sequence[Table]) -> pl.DataFrame:
    """Return (name, day, n) of events whose time is known, oldest day first."""
    if not events:
        return pl.DataFrame(schema={"name": pl.String, "day": pl.Date, "n": pl.Int64})
    parts = [
        f"SELECT {quote_text(t.type_name)} AS name, block_time::DATE AS day FROM {t.quoted} "  # noqa: S608
        "WHERE block_time IS NOT NULL"
        for t in events
    ]
    return reader.select(
        f"SELECT name, day, count(*) AS n FROM ({' UNION ALL '.join(parts)}) GROUP BY ALL ORDER BY day, name"  # noqa: S608
    )


def sum_per_day(reader: Selecting, event: Table, column: str) -> pl.DataFrame:
    """
    Return (day, total, n): what one numeric column of an event adds up to.

    Whole numbers stay whole (DECIMAL(38, 0)); floats stay floats.
    """
    assert column in event.numbers, f"{event.type_name} has no number {column}"
    pg_type = dict(event.columns)[column]
    total = "sum({0})" if pg_type == "double precision" else "sum({0}::DECIMAL(38, 0))::DECIMAL(38, 0)"
    return reader.select(
        f"SELECT block_time::DATE AS day, {total.format(quote_name(column))} AS total, count(*) AS n "  # noqa: S608
        f"FROM {event.quoted} WHERE block_time IS NOT NULL GROUP BY day ORDER BY day"
    )


def select_newest(reader: Selecting, table: Table, *, limit: int, offset: int = 0) -> pl.DataFrame:
    """Return a table's rows, newest slot first; keys and signatures in base58."""
    order = "slot DESC, signature, ordinal" if table.kind == "event" else "slot DESC, address"
    return reader.select(f"SELECT * FROM {table.quoted} ORDER BY {order} LIMIT {int(limit)} OFFSET {int(offset)}")  # noqa: S608


def count_problems(reader: Selecting, schema_name: str) -> dict[str, int]:
    """Return how much of a program could not be read, by kind."""
    frame = reader.select(
        "SELECT q.kind, count(*) AS n FROM hot.capstan.problems q JOIN hot.capstan.programs p USING (program_id) "  # noqa: S608
        f"WHERE p.schema_name = {quote_text(schema_name)} GROUP BY q.kind ORDER BY n DESC, q.kind"
    )
    return dict(frame.iter_rows())
