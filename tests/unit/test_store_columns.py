"""Columns become the same COPY bytes that their rows would, whatever the IDL."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.chain.batch import IDENTITY_SCHEMA, EventColumns
from indexer.chain.program import Program
from indexer.store.columns import join, pack_column, pack_events
from indexer.store.copy import pack_rows
from indexer.store.rows import adapt_values
from indexer.store.typed import plan_tables
from tests.fixtures.random_idls import programs_with_rows

Case = tuple[Program, list[tuple[str, dict[str, Any]]]]


def identity_of(count: int, draw: Any) -> pa.RecordBatch:
    """Return identities with times that are known and times that are not."""
    kinds = [draw(st.sampled_from(["log", "cpi", "recovered"])) for _ in range(count)]
    rows = {
        "signature": [draw(st.binary(min_size=64, max_size=64)) for _ in range(count)],
        "kind": pa.array(kinds, pa.string()).dictionary_encode().cast(IDENTITY_SCHEMA.field("kind").type),
        "ordinal": [draw(st.integers(0, 2**40)) for _ in range(count)],
        "slot": [draw(st.integers(0, 2**62)) for _ in range(count)],
        "block_time": [draw(st.none() | st.integers(0, 2**33)) for _ in range(count)],
    }
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, IDENTITY_SCHEMA.field(name).type)  # type: ignore[call-overload] # stubs
        for name, value in rows.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=IDENTITY_SCHEMA)


@settings(max_examples=150, deadline=None)
@given(programs_with_rows(), st.data())
def test_events_are_packed_as_their_rows_are(case: Case, data: Any) -> None:
    """Random types, nested and nullable ones too; also when the columns are a slice of longer ones."""
    program, rows = case
    payloads = [program.encode_event(name, values) for name, values in rows]
    tables = {table.type_name: table for table in plan_tables(program) if table.kind == "event"}
    for name, group in program.decode_events(payloads).groups.items():
        count = len(group.rows)
        identity = identity_of(count, data.draw)
        first = data.draw(st.integers(0, count - 1)) if count else 0
        table = tables[name]
        found = EventColumns(group.rows[first:], identity.slice(first), group.values.slice(first))
        packed, escaped = pack_events(table, program, found)
        expected, strange = [], 0
        for place in range(first, count):
            _, values, _ = program.decode_event(payloads[group.rows[place]])
            row, one = adapt_values(table, values)
            strange += one
            expected.append([*(column[place].as_py() for column in identity.columns), *row])
        pg_types = [pg_type for _, pg_type in table.typed_names]
        assert b"".join(join(packed, count - first)) == b"".join(pack_rows(pg_types, expected))
        assert escaped == strange


@pytest.mark.parametrize(
    ("pg_type", "arrow", "values"),
    [
        ("smallint", pa.uint8(), [0, 255, None]),
        ("integer", pa.int32(), [-(2**31), 2**31 - 1]),
        ("bigint", pa.uint32(), [2**32 - 1, None, 0]),
        ("numeric(20,0)", pa.uint64(), [0, 9_999, 10_000, 2**64 - 1, None]),
        ("boolean", pa.bool_(), [True, None, False]),
        ("double precision", pa.float32(), [0.5, None, float("-inf")]),
        ("bytea", pa.binary(3), [b"abc", None, b"\0\0\0"]),
        ("bytea", pa.binary(0), [b"", None]),
        ("bytea", pa.binary(), [b"", b"\0" * 300, None]),
        ("text", pa.string(), ["", "ü", None, "long" * 99]),
        ("text", pa.string(), ["same", "size"]),
        ("timestamptz", pa.int64(), [0, 1_700_000_000, None]),
    ],
)
@pytest.mark.parametrize("start", [0, 1])
def test_each_type_and_its_nulls(pg_type: str, arrow: Any, values: list[Any], start: int) -> None:
    """Alone, with and without nulls, and sliced."""
    for kept in (values, [value for value in values if value is not None]):
        column = pack_column(pg_type, pa.array(kept, arrow).slice(start))
        rows = [[value] for value in kept[start:]]
        assert b"".join(join([column], len(rows))) == b"".join(pack_rows([pg_type], rows))


@example(0)
@given(st.integers(0, 2**64 - 1))
def test_every_u64_is_the_same_number_both_ways(value: int) -> None:
    """Packed with array operations and one by one."""
    column = pack_column("numeric(20,0)", pa.array(np.array([value], np.uint64)))
    assert b"".join(join([column], 1)) == b"".join(pack_rows(["numeric(20,0)"], [[value]]))


def test_no_rows_are_an_empty_copy() -> None:
    """Header and trailer, and nothing between."""
    empty = [pack_column("text", pa.array([], pa.string())), pack_column("bigint", pa.array([], pa.int64()))]
    assert b"".join(join(empty, 0)) == b"".join(pack_rows(["text", "bigint"], []))
