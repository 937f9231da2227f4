"""
Raw transactions: getTransaction bodies as the node sent them, so that a new IDL means decoding again, not fetching again.

In Postgres they lie compressed, one row a transaction, written in the transaction that writes what they say. In the
lake each program has a table of its own, `raw_transactions`, as JSON text, which Parquet compresses better than one
body alone can be. Reading both as one is done here; what bodies mean is the caller's business.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import pyarrow as pa
from psycopg import sql

from indexer.errors import DataError
from indexer.store.copy import DO_NOTHING, Target, insert_rows
from indexer.store.database import AsyncConnection
from indexer.store.partitions import RAW_TABLE
from indexer.store.queries import load_queries

QUERIES = load_queries("storage")

LAKE_TABLE_NAME = "raw_transactions"
# The slots read in one snapshot; as many as give about a batch, within these.
WINDOW_SLOTS_MIN, WINDOW_SLOTS_MAX = 64, 1 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

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
    """Return a body as `capstan.raw_transactions` holds it."""
    return pa.compress(body, codec="zstd", asbytes=True)  # type: ignore[no-any-return] # bytes, as asked for


def decompress_body(data: bytes) -> bytes:
    """
    Return the body that `compress_body` was given.

    Raises:
        DataError: not a zstd frame that says how long its content is.
    """
    size = _content_size(data)
    try:
        return pa.decompress(data, size, codec="zstd", asbytes=True)  # type: ignore[no-any-return] # bytes, as asked for
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"a stored body cannot be decompressed: {error}") from None


def _content_size(data: bytes) -> int:
    """Read the frame header's content size: RFC 8878, 3.1.1.1."""
    if data[:4] != ZSTD_MAGIC or len(data) < 6:
        raise DataError(f"a stored body begins with {data[:4].hex()!r}, which is no zstd frame")
    flags = data[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    if not width:
        raise DataError("a stored body does not say how long it is")
    size = int.from_bytes(data[start : start + width], "little")
    return size + 256 if width == 2 else size


async def insert_bodies(connection: AsyncConnection, slots: Mapping[bytes, int], bodies: Mapping[bytes, bytes]) -> int:
    """
    Store the bodies of these transactions inside the caller's transaction; one that is there stays.

    Args:
        slots: signature -> slot.
        bodies: signature -> JSON; those of other signatures are left out.
    """
    rows = sorted((slot, signature, compress_body(bodies[signature])) for signature, slot in slots.items())
    return await insert_rows(connection, RAW, rows)


async def delete_bodies(connection: AsyncConnection, name: str, signatures: Collection[bytes]) -> None:
    """Delete bodies inside the caller's transaction by the query `name`, which says of which transactions."""
    if signatures:
        await connection.execute(QUERIES[name], {"signatures": list(signatures)})


async def delete_bodies_of(connection: AsyncConnection, slots: Mapping[bytes, int]) -> None:
    """Delete the bodies of these transactions, signature -> slot, inside the caller's transaction."""
    parameters = {"signatures": list(slots), "slots": sorted(set(slots.values()))}
    await connection.execute(QUERIES["delete_raw"], parameters)
