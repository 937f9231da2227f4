"""
Deep history straight into the lake: columns of transactions, events and bodies, a lake transaction a batch.

A load says beforehand which slots it is of, and the watermarks pass them in its first transaction: what the hot side
has or gets there is never exported, so it must have nothing there that the load does not bring. That is checked by the
caller (archive.py). A batch replaces what the lake has of its transactions, so that one that is loaded again, or comes
twice, is there once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from indexer.chain.arrays.arrow import root_fields
from indexer.chain.arrays.values import column_values
from indexer.chain.batch import EventColumns
from indexer.chain.program import Program
from indexer.store.duck import DUCK_TYPES, quote_name
from indexer.store.lake import Lake, LakeTable
from indexer.store.typed import OWN_COLUMNS, TypedTable, escape_text


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """
    What goes into the lake together; no signature twice.

    Args:
        transactions: columns signature, slot, block_time (unix seconds), err, fee, compute_units, complete.
        events: by schema and table, from `event_table`; versions of an IDL have columns of their own.
        bodies: program id -> columns signature, slot, block_time, body of those that mention it.
    """

    transactions: pa.Table
    events: Mapping[tuple[str, str], Sequence[pa.Table]]
    bodies: Mapping[bytes, pa.Table]


class LakeLoad:
    """Loads into an open lake whose exporter rests meanwhile."""

    def __init__(self, lake: Lake, to_slot: int) -> None:
        self._lake = lake
        self._to_slot = to_slot
        # The highest slot of which the lake may have something; None until it was asked.
        self._highest: int | None = None

    def write(self, batches: Sequence[LoadBatch]) -> int:
        """
        Commit batches together, and return how many events they had.

        Args:
            batches: no signature in two of them.

        Raises:
            RetryableError: the database went away; nothing was committed, or all of it.
        """
        return self._lake.in_transaction(lambda duck: self._write(duck, batches))

    def _write(self, duck: duckdb.DuckDBPyConnection, batches: Sequence[LoadBatch]) -> int:
        tables = self._lake.registered_tables(self._to_slot)
        self._lake.claim(tables, self._to_slot)
        transactions = pa.concat_tables([batch.transactions for batch in batches])
        span = _span(transactions)
        if span is None:
            return 0
        if self._highest is None:
            row = duck.execute("SELECT max(slot) FROM lake.capstan.transactions").fetchone()
            self._highest = -1 if row is None or row[0] is None else int(row[0])
        known = (span[0], min(span[1], self._highest))
        count = 0
        duck.register("loaded_signatures", transactions.select(["signature", "slot"]))
        try:
            for table in tables:
                if known[0] <= known[1]:
                    _delete(duck, table, known)
                arrow = _rows_of(table, batches, transactions)
                if arrow is None:
                    continue
                _insert(duck, table, arrow)
                if table.program_id is not None and not table.is_raw:
                    count += arrow.num_rows
        finally:
            duck.unregister("loaded_signatures")
        self._highest = max(self._highest, span[1])
        return count


def _rows_of(table: LakeTable, batches: Sequence[LoadBatch], transactions: pa.Table) -> pa.Table | None:
    if table.program_id is None:
        return transactions
    found = [batch.bodies[table.program_id] for batch in batches if table.is_raw and table.program_id in batch.bodies]
    found += [part for batch in batches for part in batch.events.get(table.key, ())]
    return pa.concat_tables(found, promote_options="default") if found else None


def _delete(duck: duckdb.DuckDBPyConnection, table: LakeTable, span: tuple[int, int]) -> None:
    # A finalized transaction has one slot: the files whose slots are elsewhere are not even looked at.
    duck.execute(
        f"DELETE FROM {table.quoted} WHERE slot BETWEEN ? AND ? "  # noqa: S608 - quoted name, here and below
        "AND signature IN (SELECT signature FROM loaded_signatures WHERE slot BETWEEN ? AND ?)",
        [*span, *span],
    )


def _insert(duck: duckdb.DuckDBPyConnection, table: LakeTable, arrow: pa.Table) -> None:
    slots = arrow.column("slot").to_numpy()
    order = "" if (slots[1:] >= slots[:-1]).all() else "ORDER BY slot"
    there = [(name, pg_type) for name, pg_type in table.columns if name in arrow.column_names]
    values = ", ".join(_cast(name, pg_type) for name, pg_type in there)
    names = ", ".join(quote_name(name) for name, _ in there)
    duck.register("loaded_rows", arrow)
    try:
        duck.execute(f"INSERT INTO {table.quoted} ({names}) SELECT {values} FROM loaded_rows {order}")  # noqa: S608
    finally:
        duck.unregister("loaded_rows")


def event_table(table: TypedTable, program: Program, found: EventColumns) -> pa.Table:
    """Return events as the lake holds them: what Postgres has as text or jsonb is text, NUL escaped."""
    fields = {field.name: field for field in root_fields(program.events[table.type_name].type) or ()}
    columns: dict[str, Any] = {name: found.identity.column(name) for name, _ in OWN_COLUMNS["event"]}
    columns["kind"] = columns["kind"].cast(pa.string())
    for column in table.columns:
        if column.field not in fields:  # of another version of the IDL
            columns[column.name] = pa.nulls(len(found.rows))
            continue
        array: Any = found.values.column(column.field)
        is_plain = column.pg_type not in {"text", "jsonb"}
        if column.pg_type == "text" and pa.types.is_decimal(array.type):
            array = array.cast(pa.string())
        elif column.pg_type == "text" and pa.types.is_string(array.type):
            array = pa.array([None if text is None else escape_text(text) for text in array.to_pylist()], pa.string())
        elif not is_plain:
            values = column_values(fields[column.field].type, array)
            adapt = column.adapt
            array = pa.array([v if v is None or adapt is None else adapt(v) for v in values], pa.string())
        columns[column.name] = array
    return pa.table(columns)


def _cast(name: str, pg_type: str) -> str:
    quoted = quote_name(name)
    if pg_type == "timestamptz":
        return f"to_timestamp({quoted}::BIGINT)"
    return f"{quoted}::{DUCK_TYPES[pg_type]}"


def _span(transactions: pa.Table) -> tuple[int, int] | None:
    if transactions.num_rows == 0:
        return None
    slots = transactions.column("slot").to_numpy()
    return int(slots.min()), int(slots.max())
