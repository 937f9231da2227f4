"""
Raw transactions: getTransaction bodies as the node sent them; a new IDL means decoding again, not fetching again.

In Postgres they lie compressed, one row a transaction, written in the transaction that writes what they say. In the
lake each program has a table of its own, `raw_transactions`, of plain JSON: Parquet compresses many together better
than each alone. Reading both as one is done here; what bodies mean is the caller's business.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql

from indexer.errors import DataError, RetryableError
from indexer.store.columns import Fixed
from indexer.store.copy import COPY_HEADER, COPY_TRAILER, DO_NOTHING, Target
from indexer.store.database import CONNECT_TIMEOUT_S, AsyncConnection, first_line, mask_dsn
from indexer.store.duck import attach_lake, open_duckdb, quote_name
from indexer.store.partitions import RAW_TABLE
from indexer.store.queries import load_queries

QUERIES = load_queries("storage")

LAKE_TABLE_NAME = "raw_transactions"
# The slots read in one snapshot; as many as give about a batch, within these.
WINDOW_SLOTS_MIN, WINDOW_SLOTS_MAX = 64, 1 << 20
LZ4 = pa.Codec("lz4_raw")
# No answer of a node comes near it; a damaged length must not allocate more.
BODY_BYTES_MAX = 1 << 28
# In front of a body's block: its length when it is not compressed.
BODY_HEAD_BYTES = 4
# Two a row, in what is sent as one piece: about a megabyte.
CHUNK_PARTS = 1_024

Ints: TypeAlias = NDArray[np.int64]
# pyarrow's annotations tell arrays of every type apart; which type it is, is said where it is used.
Array: TypeAlias = Any

RAW = Target(
    sql.Identifier(*RAW_TABLE),
    (("slot", "bigint"), ("signature", "bytea"), ("body", "bytea")),
    DO_NOTHING,
)


class RawBody(NamedTuple):
    """
    One stored body.

    Args:
        signature: 64 bytes.
        block_time: unix seconds, or None.
        body: JSON as getTransaction answered it.
        finalized: False where the transaction is stored and only confirmed yet.
    """

    signature: bytes
    slot: int
    block_time: int | None
    body: bytes
    finalized: bool


def compress_body(body: bytes) -> bytes:
    """Return a body as `capstan.raw_transactions` holds it: its length (u32, little-endian), and an LZ4 block."""
    # Bodies stay here until the lake has them, where zstd sees many together; alone, zstd takes six times as long.
    return len(body).to_bytes(BODY_HEAD_BYTES, "little") + LZ4.compress(body, asbytes=True)


def decompress_body(data: bytes) -> bytes:
    """
    Return the body that `compress_body` was given.

    Raises:
        DataError: not what `compress_body` gives.
    """
    size = int.from_bytes(data[:4], "little")
    if len(data) < 5 or size > BODY_BYTES_MAX:
        raise DataError(
            f"a stored body of {len(data)} bytes, which begin with {data[:4].hex()!r}, was not stored by us"
        )
    try:
        return LZ4.decompress(data[4:], size, asbytes=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"a stored body cannot be decompressed: {error}") from None


def pack_bodies(keys: Fixed, bodies: Array, rows: Ints) -> list[bytes | memoryview]:
    """
    Return a whole binary COPY of `RAW`, each body as `compress_body` gives it.

    Args:
        keys: slot and signature of each row, n.
        bodies: binary: JSON.
        rows: int64, (n,): which of the bodies belong to the keys.
    """
    offsets = np.frombuffer(bodies.buffers()[1], np.int32, len(bodies) + 1, bodies.offset * 4)
    starts, ends = offsets[rows], offsets[rows + 1]
    data = memoryview(bodies.buffers()[2] or b"")
    blocks = [
        LZ4.compress(data[start:end], asbytes=True) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    # What comes before a block: the number of columns, slot, signature, length of the column, length of the body.
    number = np.broadcast_to(np.frombuffer(len(RAW.columns).to_bytes(2, "big"), np.uint8), (len(rows), 2))
    sizes = np.fromiter(map(len, blocks), np.int64, len(blocks)) + BODY_HEAD_BYTES
    lengths = [sizes.astype(">i4"), (ends - starts).astype("<u4")]
    heads = np.concatenate([number, keys.data, *(values.view(np.uint8).reshape(-1, 4) for values in lengths)], axis=1)
    width = heads.shape[1]
    run = memoryview(np.ascontiguousarray(heads).tobytes())
    parts: list[bytes | memoryview] = [b""] * (2 * len(blocks))
    parts[0::2] = [run[at : at + width] for at in range(0, len(run), width)]
    parts[1::2] = blocks
    # Not as one: memory of this size is used again, and what was just written is still near the processor.
    chunks = [b"".join(parts[at : at + CHUNK_PARTS]) for at in range(0, len(parts), CHUNK_PARTS)]
    return [COPY_HEADER, *chunks, COPY_TRAILER]


def raw_rows(slots: Mapping[bytes, int], bodies: Mapping[bytes, bytes]) -> list[tuple[int, bytes, bytes]]:
    """
    Return rows of `RAW` in the order of its key.

    Args:
        slots: signature -> slot.
        bodies: signature -> compressed body; those of other signatures are left out.
    """
    return sorted((slot, signature, bodies[signature]) for signature, slot in slots.items())


async def delete_bodies(connection: AsyncConnection, name: str, signatures: Collection[bytes]) -> None:
    """Delete bodies inside the caller's transaction by the query `name`, which says of which transactions."""
    if signatures:
        await connection.execute(QUERIES[name], {"signatures": list(signatures)})


async def delete_bodies_of(connection: AsyncConnection, slots: Mapping[bytes, int]) -> None:
    """Delete the bodies of these transactions, signature -> slot, inside the caller's transaction."""
    parameters = {"signatures": list(slots), "slots": sorted(set(slots.values()))}
    await connection.execute(QUERIES["delete_raw"], parameters)


# --- reading --------------------------------------------------------------------------------------------------------


def iterate_bodies(
    dsn: str,
    program_id: bytes,
    from_slot: int,
    to_slot: int,
    *,
    batch_rows: int = 1_000,
    lake_path: Path | None = None,
) -> Iterator[list[RawBody]]:
    """
    Give the stored bodies of a program's transactions in [from_slot, to_slot], each once, by rising ranges of slots.

    Lake and hot rows are read as one: what the exporter moves meanwhile is seen in one of them. Slots that come after
    the start are left out. Each range is a snapshot of its own, so that a long walk holds no long transaction; inside
    a range the order is any. Memory is bounded by `batch_rows` bodies.

    Sync: call it in a thread. No transaction is open between the last batch of a range and the next one's first, but
    one is inside a range: consume in minutes, not hours.

    Args:
        dsn: of a role that reads `capstan` and the lake's catalog.

    Raises:
        DataError: no such program, or a stored body cannot be read.
        RetryableError: the database or the lake went away; begin again where the last batch ended.
    """
    with _opened(dsn, program_id, lake_path) as reading:
        first, last = reading.bounds()
        start, end = max(from_slot, first), min(to_slot, last)
        width = WINDOW_SLOTS_MIN * 64
        while start <= end:
            window_end = min(start + width - 1, end)
            count = 0
            for batch in reading.read(start, window_end, batch_rows):
                count += len(batch)
                yield batch
            start = window_end + 1
            if count < batch_rows // 2:
                width = min(width * 2, WINDOW_SLOTS_MAX)
            elif count > batch_rows * 2:
                width = max(width // 2, WINDOW_SLOTS_MIN)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One program's bodies in both stores; `duck` is None where there is no lake yet."""

    hot: psycopg.Connection[Any]
    duck: duckdb.DuckDBPyConnection | None
    program_id: bytes
    schema_name: str

    @property
    def _lake_table(self) -> str:
        return f"lake.{quote_name(self.schema_name)}.{quote_name(LAKE_TABLE_NAME)}"

    def bounds(self) -> tuple[int, int]:
        """Return the first and the last slot of which there are bodies; (0, -1) where there are none."""
        found = list(self.hot.execute(QUERIES["select_raw_bounds"], {"program_id": self.program_id}).fetchall())
        if self.duck is not None and self._watermark() >= 0:
            found += self.duck.execute(f"SELECT min(slot), max(slot) FROM {self._lake_table}").fetchall()  # noqa: S608 - a quoted name
        slots = [int(slot) for row in found for slot in row if slot is not None]
        return (min(slots), max(slots)) if slots else (0, -1)

    def read(self, from_slot: int, to_slot: int, batch_rows: int) -> Iterator[list[RawBody]]:
        """Give what is there now. The hot snapshot is taken first, as reader.py says why."""
        span = {"from_slot": from_slot, "to_slot": to_slot}
        with self.hot.transaction():
            self.hot.execute("set transaction isolation level repeatable read read only")
            late = [bytes(row[0]) for row in self.hot.execute(QUERIES["select_late_raw"], span)]
            watermark = -1
            if self.duck is not None:
                with _rolled_back(self.duck):
                    watermark = self._watermark()
                    if from_slot <= watermark:
                        yield from self._cold(self.duck, from_slot, min(to_slot, watermark), late, batch_rows)
            if to_slot > watermark or late:
                parameters = {**span, "program_id": self.program_id, "watermark": watermark, "late": late}
                yield from self._hot(parameters, batch_rows)

    def _watermark(self) -> int:
        assert self.duck is not None
        # A lake that is just being made has a catalog before it has this table; asked first, as an error would end the
        # transaction.
        made = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'watermark'"
        if not self.duck.execute(made).fetchall():
            return -1
        rows = self.duck.execute(
            "SELECT slot FROM lake.main.watermark WHERE schema_name = ? AND table_name = ?",
            [self.schema_name, LAKE_TABLE_NAME],
        ).fetchall()
        return int(rows[0][0]) if rows else -1

    def _cold(
        self, duck: duckdb.DuckDBPyConnection, from_slot: int, to_slot: int, late: Sequence[bytes], batch_rows: int
    ) -> Iterator[list[RawBody]]:
        reader = duck.execute(
            f"SELECT signature, slot, epoch(block_time)::BIGINT AS block_time, body FROM {self._lake_table} "  # noqa: S608 - a quoted name
            "WHERE slot BETWEEN ? AND ? AND NOT list_contains(?::BLOB[], signature)",
            [from_slot, to_slot, list(late)],
        ).to_arrow_reader(batch_rows)
        for batch in reader:
            columns = [batch.column(number).to_pylist() for number in range(4)]
            yield [
                RawBody(signature, slot, block_time, body, finalized=True)
                for signature, slot, block_time, body in zip(*columns, strict=True)
            ]

    def _hot(self, parameters: Mapping[str, Any], batch_rows: int) -> Iterator[list[RawBody]]:
        with self.hot.cursor(name="bodies", binary=True) as cursor:
            cursor.itersize = batch_rows
            cursor.execute(QUERIES["select_raw"], parameters)
            while rows := cursor.fetchmany(batch_rows):
                yield [
                    RawBody(bytes(signature), slot, block_time, decompress_body(bytes(body)), finalized)
                    for signature, slot, block_time, body, finalized in rows
                ]


@contextmanager
def _opened(dsn: str, program_id: bytes, lake_path: Path | None) -> Iterator[_Reading]:
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as hot:
            row = hot.execute(QUERIES["select_program_schema"], {"program_id": program_id}).fetchone()
            if row is None:
                raise DataError(f"the program {program_id.hex()} is not indexed in this database: index it first")
            duck = None
            there = hot.execute(QUERIES["lake_is_there"]).fetchone()
            if there is not None and there[0]:
                duck = open_duckdb()
            try:
                if duck is not None:
                    attach_lake(duck, dsn, lake_path, read_only=True)
                yield _Reading(hot, duck, program_id, str(row[0]))
            finally:
                if duck is not None:
                    duck.close()
    except (psycopg.OperationalError, duckdb.Error) as error:
        raise RetryableError(f"bodies in {mask_dsn(dsn)} cannot be read just now: {first_line(error)}") from error


@contextmanager
def _rolled_back(duck: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """A transaction that only reads, ended however its reader ends."""
    duck.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(duckdb.Error):
            duck.execute("ROLLBACK")
