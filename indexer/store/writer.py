"""
Transactions, events and the frontier into Postgres: one database transaction a batch, and replaying changes nothing.

The rows and the frontier that vouches for them are committed together, so that a crash leaves both or neither. What a
transaction means is decided before (indexer.chain), whether it is finalized too; this module only keeps the promises
that tables can keep. Account state is in accounts.py.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace

import psycopg

from indexer.store.batch import Batch, PackedEvents, TransactionRow, Written
from indexer.store.columns import pack_plain
from indexer.store.copy import COPY_ROWS_MIN, Target, copy_new, copy_rows, insert_rows, pack_rows
from indexer.store.coverage import Proof, prove, select_start
from indexer.store.database import AsyncConnection, transaction
from indexer.store.holds import hold_registry, lock_frontiers
from indexer.store.partitions import RAW_TABLE, TableName, ensure_partitions
from indexer.store.queries import load_queries
from indexer.store.raw import RAW, compress_body, delete_bodies, raw_rows
from indexer.store.rows import (
    MENTIONS,
    PROBLEMS,
    TRANSACTIONS,
    event_conflict,
    insert_events,
    problem_row,
    transaction_row,
)
from indexer.store.stored import delete_dependents, promote_inside, select_stored
from indexer.store.typed import ProgramTables

QUERIES = load_queries("indexer")


async def write_batch(
    connection: AsyncConnection,
    batch: Batch,
    tables: Mapping[bytes, ProgramTables],
    *,
    finish: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    perhaps_new: bool = True,
) -> Written:
    """
    Write a batch in one transaction. Replaying it changes nothing.

    A known signature in another slot, or another block of it, replaces its transaction and events, unless the stored
    one is finalized and the batch's is not. A finalized row never becomes confirmed again, a complete one never
    incomplete.

    Args:
        connection: of `connect`, not in a transaction.
        tables: from `ensure_tables`, by program id; every event's program must be in it.
        finish: what else belongs into the same database transaction; last, and an error in it undoes everything.
        perhaps_new: False where it is known that some of the transactions are stored.

    Raises:
        DataError: an event of a program or type that has no table.
        RetryableError: the server went away; nothing of the batch is stored, or (lost while committing) all of it. Or
            the registry has changed since the batch was decoded: decode it again.
    """
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE, (
        "a batch is a transaction of its own"
    )
    transactions = _newest(batch.transactions)
    bodies = await _compressed(batch.raw)
    refused_again: set[bytes] = set()
    partitioned = await ensure_partitions(connection, _wanted_partitions(batch, tables))
    async with transaction(connection):
        await hold_registry(connection, batch.generation)
        proven = {*batch.frontiers, *(proof.program_id for proof in batch.coverage)}
        mentioned = {program_id for row in transactions.values() for program_id in row.mentions}
        frontiers = await lock_frontiers(connection, mentioned, proven)
        if batch.again:
            transactions, refused_again = await _clear_stored(connection, transactions)
        is_new = perhaps_new and not batch.again and await _insert_new(connection, transactions, frontiers)
        moved = {} if is_new else await _select_moved(connection, transactions)
        refused = {signature for signature, (stored, _) in moved.items() if _is_stale(transactions[signature], stored)}
        elsewhere = {signature for signature in refused if moved[signature][1] != transactions[signature].slot}
        replaced = tuple(signature for signature in moved if signature not in refused)
        refused |= refused_again
        if replaced:
            await delete_dependents(connection, replaced)
            await delete_bodies(connection, "delete_raw_of_replaced", replaced)
        for signature in refused:
            transactions.pop(signature, None)
        changed = len(transactions)
        if not is_new:
            late = _late(transactions, frontiers)
            changed = await _upsert_transactions(connection, transactions.values(), late)
        await _insert_mentions_and_bodies(connection, transactions, bodies, is_new=is_new)
        events, escaped = await insert_events(connection, batch.events, refused, tables, partitioned)
        for packed in batch.columns:
            events += await _insert_packed(connection, packed, partitioned, is_new=is_new)
            escaped += packed.escaped
        problems = [problem for problem in batch.problems if problem.subject not in refused]
        await insert_rows(connection, PROBLEMS, sorted(map(problem_row, problems)))
        promoted = await promote_inside(connection, batch.finalized)
        for proof in await _proofs(connection, batch, frontiers):
            await prove(connection, proof)
        if finish is not None:
            await finish(connection)
    return Written(changed, events, promoted, replaced, tuple(elsewhere | refused_again), escaped)


def _wanted_partitions(batch: Batch, tables: Mapping[bytes, ProgramTables]) -> dict[TableName, set[int]]:
    """Return the slots of a batch's rows by table; an event without a table is refused later."""
    wanted: dict[TableName, set[int]] = defaultdict(set)
    if batch.raw:
        wanted[RAW_TABLE] = {row.slot for row in batch.transactions}
    slots: dict[tuple[bytes, str], set[int]] = defaultdict(set)
    for event in batch.events:
        slots[event.program_id, event.name].add(event.slot)
    for (program_id, name), seen in slots.items():
        program = tables.get(program_id)
        table = program.events.get(name) if program else None
        if table is not None:
            wanted[TableName(table.schema_name, table.table_name)] |= seen
    for packed in batch.columns:
        wanted[TableName(packed.table.schema_name, packed.table.table_name)] |= packed.slots
    return wanted


async def _clear_stored(
    connection: AsyncConnection, transactions: Mapping[bytes, TransactionRow]
) -> tuple[dict[bytes, TransactionRow], set[bytes]]:
    """
    Delete what hangs on transactions that were read again, and tell the lake. Return them as they are to be written.

    Also those that are left out: stored in another slot by now, or only confirmed when read and not stored any more.
    """
    slots = {"signatures": list(transactions), "slots": [row.slot for row in transactions.values()]}
    await connection.execute(QUERIES["lock_transactions"], slots)
    stored = await select_stored(connection, list(transactions))
    kept: dict[bytes, TransactionRow] = {}
    for signature, row in transactions.items():
        known = stored.get(signature)
        if known is None and row.commitment == "finalized":
            kept[signature] = row
        elif known is not None and known.slot == row.slot:
            kept[signature] = replace(row, commitment=known.commitment, blockhash=known.blockhash)
    await delete_dependents(connection, list(kept))
    finalized = [signature for signature, row in kept.items() if row.commitment == "finalized"]
    await connection.execute(QUERIES["note_late"], {"signatures": finalized})
    return kept, set(transactions) - set(kept)


def _newest(rows: Iterable[TransactionRow]) -> dict[bytes, TransactionRow]:
    """One row a signature: a finalized one wins, then the last. In order, so that writers at once do not dead-lock."""
    newest: dict[bytes, TransactionRow] = {}
    for row in rows:
        known = newest.get(row.signature)
        if known is None or known.commitment == "confirmed" or row.commitment == "finalized":
            newest[row.signature] = row
    return dict(sorted(newest.items()))


def _is_stale(row: TransactionRow, stored: str) -> bool:
    return stored == "finalized" and row.commitment == "confirmed"


def _is_late(slot: int, mentions: Sequence[bytes], frontiers: Mapping[bytes, int], commitment: str) -> bool:
    """Whether some frontier vouched for this slot before the row was here: the lake may have exported it already."""
    return commitment == "finalized" and any(slot <= frontiers.get(program_id, -1) for program_id in mentions)


def _late(transactions: Mapping[bytes, TransactionRow], frontiers: Mapping[bytes, int]) -> set[bytes]:
    return {s for s, row in transactions.items() if _is_late(row.slot, row.mentions, frontiers, row.commitment)}


async def _compressed(raw: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Compress bodies before the database transaction begins; many of them, beside what else this process does."""
    if len(raw) < COPY_ROWS_MIN:
        return {signature: compress_body(body) for signature, body in raw.items()}
    return await asyncio.to_thread(lambda: {signature: compress_body(body) for signature, body in raw.items()})


async def _insert_new(
    connection: AsyncConnection, transactions: Mapping[bytes, TransactionRow], frontiers: Mapping[bytes, int]
) -> bool:
    """
    Insert transactions if none of them is stored, and return whether that was so.

    Most batches that are not small are all new: then nothing has to be looked up, and nothing that hangs on them can be
    there. Otherwise nothing was done.
    """
    if len(transactions) < COPY_ROWS_MIN:
        return False
    rows = list(map(transaction_row, transactions.values()))
    if not await copy_new(connection, TRANSACTIONS, pack_plain(TRANSACTIONS.types, rows)):
        return False
    late = _late(transactions, frontiers)
    if late:
        await connection.execute(QUERIES["note_late"], {"signatures": sorted(late)})
    return True


async def _insert_mentions_and_bodies(
    connection: AsyncConnection,
    transactions: Mapping[bytes, TransactionRow],
    bodies: Mapping[bytes, bytes],
    *,
    is_new: bool,
) -> None:
    mentions = [(key, row.slot, row.signature) for row in transactions.values() for key in row.mentions]
    slots = {s: row.slot for s, row in transactions.items() if row.mentions and s in bodies}
    kept = raw_rows(slots, bodies)
    if not is_new:
        await insert_rows(connection, MENTIONS, mentions)
        await insert_rows(connection, RAW, kept)
        return
    if mentions:
        await _add(connection, MENTIONS, pack_plain(MENTIONS.types, mentions))
    if kept:
        await _add(connection, RAW, pack_rows(RAW.types, kept))


async def _insert_packed(
    connection: AsyncConnection, packed: PackedEvents, partitioned: Set[TableName], *, is_new: bool
) -> int:
    name = TableName(packed.table.schema_name, packed.table.table_name)
    conflict = event_conflict(partitioned=name in partitioned)
    target = Target(packed.table.identifier, packed.table.typed_names, conflict)
    if is_new and await copy_new(connection, target, packed.chunks):
        return packed.count
    return await copy_rows(connection, target, packed.chunks)


async def _add(connection: AsyncConnection, target: Target, chunks: Sequence[bytes | memoryview]) -> None:
    """Insert what hangs on new transactions; what is there all the same stays."""
    if not await copy_new(connection, target, chunks):
        await copy_rows(connection, target, chunks)


async def _proofs(connection: AsyncConnection, batch: Batch, frontiers: Mapping[bytes, int]) -> list[Proof]:
    """Return everything that the batch proves; a frontier stands for what lies between the old one and it."""
    proofs = list(batch.coverage)
    for program_id, slot in sorted(batch.frontiers.items()):
        known = frontiers.get(program_id)
        first = await select_start(connection, program_id) if known is None else known + 1
        if first <= slot:
            proofs.append(Proof(program_id, first, slot, "signatures"))
    return proofs


async def _select_moved(
    connection: AsyncConnection, rows: Mapping[bytes, TransactionRow]
) -> dict[bytes, tuple[str, int]]:
    """Return the stored commitment and slot of signatures that are stored as another execution."""
    parameters = {
        "signatures": list(rows),
        "slots": [row.slot for row in rows.values()],
        "blockhashes": [row.blockhash for row in rows.values()],
        "finals": [row.commitment == "finalized" for row in rows.values()],
        "completes": [row.complete for row in rows.values()],
    }
    cursor = await connection.execute(QUERIES["select_moved"], parameters)
    return {bytes(signature): (str(commitment), int(slot)) for signature, commitment, slot in await cursor.fetchall()}


async def _upsert_transactions(
    connection: AsyncConnection, rows: Collection[TransactionRow], late: Collection[bytes]
) -> int:
    completed = [row.signature for row in rows if row.complete]
    # What had been noted about absent logs, or a body that could not be read, is over. New problems come after this.
    over = {"signatures": completed, "read": [row.signature for row in rows if row.fee is not None]}
    await connection.execute(QUERIES["delete_problems_of_completed"], over)
    await delete_bodies(connection, "delete_raw_of_completed", completed)
    if late:
        # Before the upsert: only what differs from the stored row is news to the lake.
        await connection.execute(
            QUERIES["note_late_transactions"],
            {
                "signatures": [row.signature for row in rows if row.signature in late],
                "completes": [row.complete for row in rows if row.signature in late],
                "reads": [row.fee is not None for row in rows if row.signature in late],
                "slots": [row.slot for row in rows if row.signature in late],
            },
        )
    return await insert_rows(connection, TRANSACTIONS, list(map(transaction_row, rows)))
