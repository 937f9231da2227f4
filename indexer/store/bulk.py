"""
Finalized transactions by the thousand into Postgres: packed as columns beforehand, and copied straight into the tables.

What is copied this way must be new, which the history in a file nearly always is. Where one row is there already
nothing of the batch stays, and it is written as rows instead, which resolves every conflict (writer.py): slower, with
the same result. What a batch promises is the same either way: one database transaction, and a replay changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import errors

from indexer.store.batch import Batch, PackedEvents, Problem, TransactionRow, Written
from indexer.store.columns import Fixed, Packed, beside, join, pack_column, pack_constant, pack_nulls
from indexer.store.copy import DO_NOTHING, Target, copy_into, insert_rows
from indexer.store.database import AsyncConnection, transaction
from indexer.store.holds import hold_registry, lock_frontiers
from indexer.store.partitions import PARTITION_SLOTS, RAW_TABLE, TableName, ensure_partitions
from indexer.store.queries import load_queries
from indexer.store.raw import RAW, pack_bodies
from indexer.store.rows import MENTIONS, PROBLEMS, TRANSACTIONS, problem_row
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch

QUERIES = load_queries("indexer")

Flags: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Array: TypeAlias = Any
Chunks: TypeAlias = Sequence[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Bulk:
    """
    A batch as binary COPYs, and what it was made of, for the case that it has to be written as rows.

    Args:
        transactions, mentions, bodies: a whole COPY each, or nothing where there are no rows.
        events: as in `Batch.columns`.
        slots: of the partitions that bodies go into.
        table, plain, mentioning: n rows, bodies and mentions as `pack_bulk` was given them.
    """

    transactions: Chunks
    mentions: Chunks
    bodies: Chunks
    events: Sequence[PackedEvents]
    problems: Sequence[Problem]
    generation: int | None
    slots: frozenset[int]
    table: pa.RecordBatch
    plain: Array
    mentioning: Mapping[bytes, Flags]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def event_count(self) -> int:
        """The number of events."""
        return sum(packed.count for packed in self.events)

    def as_rows(self) -> Batch:
        """Return the same as rows."""
        rows = list(_rows(self.table, self.mentioning))
        raw = {row.signature: body for row, body in zip(rows, self.plain.to_pylist(), strict=True)}
        return Batch(rows, problems=self.problems, raw=raw, columns=self.events, generation=self.generation)

    def late(self, frontiers: Mapping[bytes, int]) -> list[bytes]:
        """Return the signatures of transactions in slots that a frontier of theirs vouched for already."""
        slots = self.table.column("slot").to_numpy()
        is_late = np.zeros(len(self), np.bool_)
        for program_id, slot in frontiers.items():
            is_late |= self.mentioning[program_id] & (slots <= slot)
        signatures: Array = self.table.column("signature")
        return sorted(signatures.filter(pa.array(is_late)).to_pylist())


def pack_bulk(
    table: pa.RecordBatch,
    bodies: Array,
    mentions: Mapping[bytes, Flags],
    events: Sequence[PackedEvents],
    *,
    problems: Sequence[Problem] = (),
    generation: int | None = None,
) -> Bulk:
    """
    Pack finalized transactions, each signature once.

    Args:
        table: n rows: signature (64 bytes), slot, block_time (unix seconds), err, fee, compute_units, complete.
        bodies: binary, (n,): JSON.
        mentions: by program id: bool, (n,), whether the transaction mentions it. Bodies of those that mention none are
            not stored.
        events: of these transactions.
        problems, generation: as in `Batch`.
    """
    count = table.num_rows
    # In the order of the keys: neighbours in an index are inserted together, and writers of the same rows at the same
    # time do not dead-lock. Mentions have an index by signature, too, and their own lies by slot anyway.
    by_signature = np.asarray(pc.sort_indices(table.column("signature")), np.int64)
    keys = _keys(table, by_signature)
    mentioned = []
    is_kept = np.zeros(count, np.bool_)
    for program_id, flags in sorted(mentions.items()):
        is_kept |= flags
        mine = Fixed(keys.data[flags[by_signature]], None, keys.fields)
        mentioned.append(beside([pack_constant("bytea", program_id, len(mine.data)), mine]))
    slots = table.column("slot").to_numpy()
    order = np.argsort(slots[by_signature], kind="stable")
    order = order[is_kept[by_signature[order]]]
    return Bulk(
        join(_transaction_columns(table.take(by_signature)), count) if count else (),
        _stacked(mentioned) if len(order) else (),
        pack_bodies(Fixed(keys.data[order]), bodies, by_signature[order]) if len(order) else (),
        events,
        problems,
        generation,
        occurring_partitions(slots[is_kept]),
        table,
        bodies,
        mentions,
    )


def _stacked(blocks: Sequence[Fixed]) -> Chunks:
    """Return rows of the same columns, one block behind the other, as a whole COPY."""
    data = np.concatenate([block.data for block in blocks])
    return join([Fixed(data, None, blocks[0].fields)], len(data))


def occurring_partitions(slots: Ints) -> frozenset[int]:
    """Return one slot of each partition that rows in these slots go into."""
    return frozenset((np.unique(slots // PARTITION_SLOTS) * PARTITION_SLOTS).tolist())


def _keys(table: pa.RecordBatch, order: Ints) -> Fixed:
    """Slot and signature, in that order of rows."""
    slots = pack_column("bigint", table.column("slot").take(order))
    signatures = pack_column("bytea", table.column("signature").take(order))
    assert isinstance(slots, Fixed), "its type has one width"
    assert isinstance(signatures, Fixed), "its type has one width"
    return beside([slots, signatures])


def _transaction_columns(table: pa.RecordBatch) -> list[Packed]:
    count = table.num_rows
    constants = {"commitment": pack_constant("text", "finalized", count), "blockhash": pack_nulls(count)}
    return [
        constants[name] if name in constants else pack_column(pg_type, table.column(name))
        for name, pg_type in TRANSACTIONS.columns
    ]


def _rows(table: pa.RecordBatch, mentions: Mapping[bytes, Flags]) -> Iterator[TransactionRow]:
    names = ("signature", "slot", "block_time", "err", "fee", "compute_units", "complete")
    columns = [table.column(name).to_pylist() for name in names]
    for row, (signature, slot, block_time, err, fee, units, complete) in enumerate(zip(*columns, strict=True)):
        ids = tuple(program_id for program_id, flags in mentions.items() if flags[row])
        yield TransactionRow(signature, slot, block_time, err, fee, units, "finalized", complete, ids)


async def write_bulk(
    connection: AsyncConnection, bulk: Bulk, tables: Mapping[bytes, ProgramTables], *, is_durable: bool = True
) -> Written:
    """
    Write a batch in one database transaction, as `write_batch` writes its rows. Replaying it changes nothing.

    Args:
        connection: of `connect`, not in a transaction.
        tables: from `ensure_tables`, by program id.
        is_durable: as of `transaction`.

    Raises:
        RetryableError: the server went away; nothing of the batch is stored, or (lost while committing) all of it. Or
            the registry has changed since the batch was decoded: decode it again.
    """
    wanted: dict[TableName, set[int]] = defaultdict(set)
    wanted[RAW_TABLE] |= bulk.slots
    for packed in bulk.events:
        wanted[TableName(packed.table.schema_name, packed.table.table_name)] |= packed.slots
    await ensure_partitions(connection, wanted)
    try:
        async with transaction(connection, is_durable=is_durable):
            await _copy(connection, bulk)
    except errors.UniqueViolation:
        return await write_batch(connection, bulk.as_rows(), tables, perhaps_new=False)
    return Written(len(bulk), bulk.event_count, escaped=sum(packed.escaped for packed in bulk.events))


async def _copy(connection: AsyncConnection, bulk: Bulk) -> None:
    await hold_registry(connection, bulk.generation)
    mentioned = [program_id for program_id, flags in bulk.mentioning.items() if flags.any()]
    frontiers = await lock_frontiers(connection, mentioned, ())
    for target, chunks in ((TRANSACTIONS, bulk.transactions), (MENTIONS, bulk.mentions), (RAW, bulk.bodies)):
        if chunks:
            await copy_into(connection, target, chunks)
    for packed in bulk.events:
        target = Target(packed.table.identifier, packed.table.typed_names, DO_NOTHING)
        await copy_into(connection, target, packed.chunks)
    late = bulk.late(frontiers)
    if late:
        await connection.execute(QUERIES["note_late"], {"signatures": late})
    await insert_rows(connection, PROBLEMS, sorted(map(problem_row, bulk.problems)))
