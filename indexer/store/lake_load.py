"""
Deep history straight into the lake: columns of transactions, events and bodies, many batches a lake transaction.

A load says beforehand which slots it is of, and the watermarks pass them in its first transaction: what the hot side
has or gets there is never exported, so it must have nothing there that the load does not bring. That is checked by the
caller (archive.py). A batch replaces what the lake has of its transactions, so that one that is loaded again, or comes
twice, is there once.

Bodies are most of the bytes: they are written while the next batches are read, so that few are ever in memory. Events
wait for the end of the transaction, as each insert is a file, and small files are what makes a lake slow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from indexer.chain.arrays.arrow import root_fields
from indexer.chain.arrays.values import column_values
from indexer.chain.batch import EventColumns
from indexer.chain.program import Program
from indexer.store.duck import DUCK_TYPES, quote_name
from indexer.store.lake import Lake, LakeTable
from indexer.store.typed import ESCAPE, OWN_COLUMNS, TypedTable, escape_text

# Bodies that are written together: a file a program.
BODIES_BYTES = 64 << 20

# The column that says which rows are inserted; no field's name has blanks.
CHOSEN = "is chosen"


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """
    What goes into the lake together; no signature twice.

    Args:
        transactions: columns signature, slot, block_time (unix seconds), err, fee, compute_units, complete.
        bodies: binary, one for each transaction.
        mentions: by program id: bool, for each transaction, whether it mentions the program.
        events: by schema and table, from `event_table`; versions of an IDL have columns of their own.
    """

    transactions: pa.Table
    bodies: pa.BinaryArray
    mentions: Mapping[bytes, pa.BooleanArray]
    events: Mapping[tuple[str, str], Sequence[pa.Table]]


class LakeLoad:
    """Loads into an open lake whose exporter rests meanwhile."""

    def __init__(self, lake: Lake, to_slot: int) -> None:
        self._lake = lake
        self._to_slot = to_slot
        # The highest slot of which the lake had something before this load; None until it was asked.
        self._highest: int | None = None
        self._is_own = False

    def write(self, batches: Iterable[LoadBatch]) -> int:
        """
        Commit batches together, and return how many events they had.

        Args:
            batches: no signature in two of them. They are taken one by one, in this thread, and forgotten as soon as
                they can be.

        Raises:
            RetryableError: the database went away; nothing was committed, or all of it.
        """
        count = self._lake.in_transaction(lambda duck: self._write(duck, batches))
        self._is_own = True
        return count

    def _write(self, duck: duckdb.DuckDBPyConnection, batches: Iterable[LoadBatch]) -> int:
        tables = self._lake.registered_tables(self._to_slot)
        self._lake.claim(tables, self._to_slot)
        if self._highest is None:
            self._highest = _highest_slot(duck, tables)
        events: dict[tuple[str, str], list[pa.Table]] = {}
        transactions: list[pa.Table] = []
        waiting: list[LoadBatch] = []
        held = 0
        for batch in batches:
            for key, found in batch.events.items():
                events.setdefault(key, []).extend(found)
            transactions.append(batch.transactions)
            waiting.append(batch)
            held += batch.bodies.nbytes
            if held >= BODIES_BYTES:
                self._write_bodies(duck, tables, waiting)
                waiting, held = [], 0
            # Or it would be kept until the next one is there.
            del batch
        self._write_bodies(duck, tables, waiting)
        for table in tables:
            if not table.is_raw:
                found = transactions if table.program_id is None else events.get(table.key, [])
                if found:
                    _insert(duck, table, pa.concat_tables(found, promote_options="default"))
        return sum(part.num_rows for found in events.values() for part in found)

    def _write_bodies(
        self, duck: duckdb.DuckDBPyConnection, tables: Sequence[LakeTable], batches: Sequence[LoadBatch]
    ) -> None:
        """Write the bodies of some batches; what the lake has of their transactions goes first, from every table."""
        if not batches:
            return
        transactions = pa.concat_tables([batch.transactions for batch in batches])
        self._delete_known(duck, tables, transactions)
        bodies = transactions.select(["signature", "slot", "block_time"])
        bodies = bodies.append_column("body", pa.chunked_array([batch.bodies for batch in batches]))
        for table in tables:
            if table.is_raw and table.program_id is not None:
                flags = pa.chunked_array([batch.mentions[table.program_id] for batch in batches])
                if pc.any(flags).as_py():
                    _insert(duck, table, bodies.append_column(CHOSEN, flags))

    def _delete_known(
        self, duck: duckdb.DuckDBPyConnection, tables: Sequence[LakeTable], transactions: pa.Table
    ) -> None:
        if transactions.num_rows == 0:
            return
        assert self._highest is not None, "it was asked for when the transaction began"
        slots = transactions.column("slot").to_numpy()
        first, last = int(slots.min()), int(slots.max())
        duck.register("loaded_signatures", transactions.select(["signature", "slot"]))
        try:
            if first > self._highest:
                # All that the lake may have of these slots came by this load, with their transactions.
                span = (first, last)
                if not self._is_own or not _is_any_known(duck, span):
                    return
            elif not self._is_own:
                span = (first, min(last, self._highest))
            else:
                span = (first, last)
            for table in tables:
                _delete(duck, table, span)
        finally:
            duck.unregister("loaded_signatures")


def _highest_slot(duck: duckdb.DuckDBPyConnection, tables: Sequence[LakeTable]) -> int:
    """Return the highest slot of which any table has something, -1 where there is nothing."""
    highest = " UNION ALL ".join(f"SELECT max(slot) AS slot FROM {table.quoted}" for table in tables)  # noqa: S608 - quoted names, here and below
    row = duck.execute(f"SELECT max(slot) FROM ({highest})").fetchone()  # noqa: S608
    return -1 if row is None or row[0] is None else int(row[0])


def _is_any_known(duck: duckdb.DuckDBPyConnection, span: tuple[int, int]) -> bool:
    found = duck.execute(
        "SELECT 1 FROM lake.capstan.transactions WHERE slot BETWEEN ? AND ? "
        "AND signature IN (SELECT signature FROM loaded_signatures) LIMIT 1",
        list(span),
    ).fetchall()
    return bool(found)


def _delete(duck: duckdb.DuckDBPyConnection, table: LakeTable, span: tuple[int, int]) -> None:
    # A finalized transaction has one slot: the files whose slots are elsewhere are not even looked at.
    duck.execute(
        f"DELETE FROM {table.quoted} WHERE slot BETWEEN ? AND ? "  # noqa: S608
        "AND signature IN (SELECT signature FROM loaded_signatures WHERE slot BETWEEN ? AND ?)",
        [*span, *span],
    )


def _insert(duck: duckdb.DuckDBPyConnection, table: LakeTable, rows: pa.Table) -> None:
    slots = rows.column("slot").to_numpy()
    chosen = f"WHERE {quote_name(CHOSEN)}" if CHOSEN in rows.column_names else ""
    order = "" if (slots[1:] >= slots[:-1]).all() else "ORDER BY slot"
    there = [(name, pg_type) for name, pg_type in table.columns if name in rows.column_names]
    values = ", ".join(_cast(name, pg_type) for name, pg_type in there)
    names = ", ".join(quote_name(name) for name, _ in there)
    # DuckDB finds `rows` by its name here: what is registered is kept until the transaction ends.
    duck.execute(f"INSERT INTO {table.quoted} ({names}) SELECT {values} FROM rows {chosen} {order}")  # noqa: S608


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
            array = _escaped(array)
        elif not is_plain:
            values = column_values(fields[column.field].type, array)
            adapt = column.adapt
            array = pa.array([v if v is None or adapt is None else adapt(v) for v in values], pa.string())
        columns[column.name] = array
    return pa.table(columns)


def _escaped(texts: Any) -> Any:
    if not any(pc.any(pc.match_substring(texts, special)).as_py() for special in ("\0", ESCAPE)):
        return texts
    return pa.array([None if text is None else escape_text(text) for text in texts.to_pylist()], pa.string())


def _cast(name: str, pg_type: str) -> str:
    quoted = quote_name(name)
    if pg_type == "timestamptz":
        return f"to_timestamp({quoted}::BIGINT)"
    return f"{quoted}::{DUCK_TYPES[pg_type]}"
