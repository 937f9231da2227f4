"""Columns of transactions become the COPY bytes that their rows would, in the order of the tables' keys."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.store.bulk import pack_bulk
from indexer.store.copy import pack_rows
from indexer.store.raw import RAW, compress_body
from indexer.store.rows import MENTIONS, TRANSACTIONS

PROGRAMS = (b"\x02" * 32, b"\x01" * 32)

transactions = st.fixed_dictionaries(
    {
        "signature": st.binary(min_size=64, max_size=64)
        | st.sampled_from([bytes(63) + b"\1", b"\xff" * 64, bytes(64)]),
        "slot": st.integers(0, 5) | st.integers(0, 2**62),
        "block_time": st.none() | st.integers(0, 2**33),
        "err": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        "fee": st.integers(0, 2**62),
        "compute_units": st.none() | st.integers(0, 2**62),
        "complete": st.booleans(),
        "body": st.binary(max_size=40) | st.integers(0, 5_000).map(lambda size: b"ab" * size),
        "mentions": st.sets(st.sampled_from(PROGRAMS)),
    }
)
TYPES = {
    "signature": pa.binary(64),
    "slot": pa.int64(),
    "block_time": pa.int64(),
    "err": pa.string(),
    "fee": pa.int64(),
    "compute_units": pa.int64(),
    "complete": pa.bool_(),
}


@settings(deadline=None)
@given(st.lists(transactions, max_size=12, unique_by=lambda row: row["signature"]), st.data())
def test_columns_are_packed_as_their_rows_are(made: list[dict[str, Any]], data: st.DataObject) -> None:
    """Also where the columns are a slice of longer ones."""
    first = data.draw(st.integers(0, len(made)))
    columns: list[Any] = [pa.array([row[name] for row in made], pa_type) for name, pa_type in TYPES.items()]
    bodies: Any = pa.array([row["body"] for row in made], pa.binary())
    rows = made[first:]
    bulk = pack_bulk(
        pa.RecordBatch.from_arrays(columns, list(TYPES)).slice(first),
        bodies.slice(first),
        {key: np.array([key in row["mentions"] for row in rows], np.bool_) for key in PROGRAMS},
        [],
    )
    full = [{**row, "commitment": "finalized", "blockhash": None} for row in rows]
    stored = [tuple(row[name] for name, _ in TRANSACTIONS.columns) for row in full]
    mentioned = [(key, row["slot"], row["signature"]) for key in PROGRAMS for row in rows if key in row["mentions"]]
    kept = [(row["slot"], row["signature"], compress_body(row["body"])) for row in rows if row["mentions"]]
    expected = [
        (TRANSACTIONS, sorted(stored, key=lambda row: row[0])),
        (MENTIONS, sorted(mentioned, key=lambda row: (row[0], row[2]))),
        (RAW, sorted(kept)),
    ]
    for chunks, (target, ordered) in zip((bulk.transactions, bulk.mentions, bulk.bodies), expected, strict=True):
        assert b"".join(chunks) == (b"".join(pack_rows(target.types, ordered)) if ordered else b"")
