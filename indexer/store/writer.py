"""
Transactions, events and the frontier into Postgres: one database transaction a batch, and replaying changes nothing.

The rows and the frontier that vouches for them are committed together, so that a crash leaves both or neither. What a
transaction means is decided before (indexer.chain), whether it is finalized too; this module only keeps the promises
that tables can keep. Account state is in accounts.py.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import psycopg
from psycopg import sql

from indexer.errors import DataError, RetryableError
from indexer.store.columns import pack_plain
from indexer.store.copy import COPY_ROWS_MIN, DO_NOTHING, Target, copy_new, copy_rows, insert_rows, pack_rows
from indexer.store.coverage import Proof, prove, select_start
from indexer.store.database import AsyncConnection, transaction
from indexer.store.partitions import RAW_TABLE, TableName, ensure_partitions
from indexer.store.queries import load_queries
from indexer.store.raw import RAW, compress_body, delete_bodies, delete_bodies_of, raw_rows
from indexer.store.typed import ESCAPE, ProgramTables, TypedTable, escape_text

Commitment: TypeAlias = Literal["confirmed", "finalized"]

# The kind of problem whose ordinal is the version of a transaction that no node showed us; its row has no fee.
UNSUPPORTED_VERSION = "unsupported_version"

QUERIES = load_queries("indexer")
REGISTRY = load_queries("registry")


class Event(Protocol):
    """An event as `indexer.chain.events.Event` has it."""

    @property
    def program_id(self) -> bytes: ...
    @property
    def name(self) -> str: ...
    @property
    def signature(self) -> bytes: ...
    @property
    def kind(self) -> str: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def block_time(self) -> int | None: ...
    @property
    def values(self) -> Mapping[str, Any]: ...


class Problem(Protocol):
    """What could not be read, as `indexer.chain.events.Problem` has it."""

    @property
    def program_id(self) -> bytes: ...
    @property
    def subject(self) -> bytes: ...
    @property
    def kind(self) -> str: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def detail(self) -> str: ...
    @property
    def slot(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """
    One transaction.

    Args:
        signature: 64 bytes.
        block_time: unix seconds, None where the node does not know it.
        err: the RPC's TransactionError as JSON text, None where the transaction succeeded.
        fee: lamports; None where the transaction was not read, as its version is above what we can read.
        complete: whether its logs were all there, so that no event can be missing.
        mentions: ids of the indexed programs among its accounts.
        blockhash: of the block that its slot held just before it was read, base58; None where that is not known.
    """

    signature: bytes
    slot: int
    block_time: int | None
    err: str | None
    fee: int | None
    compute_units: int | None
    commitment: Commitment
    complete: bool
    mentions: tuple[bytes, ...]
    blockhash: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """
    What is written together.

    Args:
        finalized: signature -> slot of stored transactions now known to be finalized there; unknown ones are left out
            of the count in `Written.promoted`.
        frontiers: program id -> slot up to which, with this batch, every finalized transaction since the old frontier
            is stored. Never moves back.
        generation: of the registry that the batch was decoded with; None where nobody changes it.
        again: the transactions were read again with other IDLs. What is stored of them is replaced; one that is stored
            in another slot is left out, and a commitment stays what it is.
        columns: events by the batch, by program id and name, each with the table it goes into, packed by columns.py; of
            transactions in the batch, finalized, no identity twice.
        raw: signature -> the body that its transaction was read from, JSON. Those without any are not stored raw.
        is_compressed: the bodies in `raw` are as `compress_body` gives them.
        coverage: ranges that, with this batch, are proven complete; a frontier follows where they reach it.
    """

    transactions: Sequence[TransactionRow] = ()
    events: Sequence[Event] = ()
    problems: Sequence[Problem] = ()
    finalized: Mapping[bytes, int] = field(default_factory=dict)
    frontiers: Mapping[bytes, int] = field(default_factory=dict)
    generation: int | None = None
    again: bool = False
    raw: Mapping[bytes, bytes] = field(default_factory=dict)
    coverage: Sequence[Proof] = field(default=(), kw_only=True)
    columns: Sequence["PackedEvents"] = ()
    is_compressed: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class PackedEvents:
    """Events of one type as a binary COPY: `count` rows in `chunks`; `slots` are those that occur."""

    table: TypedTable
    chunks: Sequence[bytes | memoryview]
    count: int
    slots: frozenset[int]
    escaped: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """
    What a batch changed; all zero where it was a replay.

    Args:
        transactions: inserted or changed.
        events: inserted.
        promoted: confirmed -> finalized by `Batch.finalized`.
        replaced: signatures that had been stored in another slot, or perhaps in another block of the same slot.
        refused: signatures whose stored row is finalized in another slot than the batch's confirmed one.
        escaped: strings that held a NUL; typed.py says how it is written.
    """

    transactions: int = 0
    events: int = 0
    promoted: int = 0
    replaced: tuple[bytes, ...] = ()
    refused: tuple[bytes, ...] = ()
    escaped: int = 0


async def write_batch(
    connection: AsyncConnection,
    batch: Batch,
    tables: Mapping[bytes, ProgramTables],
    *,
    finish: Callable[[AsyncConnection], Awaitable[None]] | None = None,
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

    Raises:
        DataError: an event of a program or type that has no table.
        RetryableError: the server went away; nothing of the batch is stored, or (lost while committing) all of it. Or
            the registry has changed since the batch was decoded: decode it again.
    """
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE, (
        "a batch is a transaction of its own"
    )
    transactions = _newest(batch.transactions)
    bodies = batch.raw if batch.is_compressed else await _compressed(batch.raw)
    refused_again: set[bytes] = set()
    partitioned = await ensure_partitions(connection, _wanted_partitions(batch, tables))
    async with transaction(connection):
        await _hold_registry(connection, batch.generation)
        frontiers = await _lock_frontiers(connection, batch, transactions.values())
        if batch.again:
            transactions, refused_again = await _clear_stored(connection, transactions)
        is_new = not batch.again and await _insert_new(connection, transactions, frontiers)
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
        events, escaped = await _insert_events(connection, batch.events, refused, tables, partitioned)
        for packed in batch.columns:
            events += await _insert_packed(connection, packed, partitioned, is_new=is_new)
            escaped += packed.escaped
        problems = [problem for problem in batch.problems if problem.subject not in refused]
        await insert_rows(connection, PROBLEMS, sorted(map(_problem_row, problems)))
        promoted = await _promote(connection, batch.finalized)
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


MENTIONS = Target(
    sql.Identifier("capstan", "mentions"),
    (("program_id", "bytea"), ("slot", "bigint"), ("signature", "bytea")),
    DO_NOTHING,
)
PROBLEMS = Target(
    sql.Identifier("capstan", "problems"),
    (
        ("program_id", "bytea"),
        ("subject", "bytea"),
        ("kind", "text"),
        ("ordinal", "bigint"),
        ("detail", "text"),
        ("slot", "bigint"),
    ),
    DO_NOTHING,
)
TRANSACTIONS = Target(
    sql.Identifier("capstan", "transactions"),
    (
        ("signature", "bytea"),
        ("slot", "bigint"),
        ("block_time", "timestamptz"),
        ("err", "text"),
        ("fee", "numeric(20,0)"),
        ("compute_units", "bigint"),
        ("commitment", "text"),
        ("complete", "boolean"),
        ("blockhash", "text"),
    ),
    sql.SQL(QUERIES["transaction_conflict"]),
)


async def _hold_registry(connection: AsyncConnection, generation: int | None) -> None:
    """Keep the registry as it is until the batch is committed, and prove that it is what the batch was decoded with."""
    if generation is None:
        return
    await connection.execute(REGISTRY["share_registry"])
    row = await (await connection.execute(REGISTRY["select_generation"])).fetchone()
    if row is None or row[0] != generation:
        raise RetryableError("the registry of IDLs has changed since these transactions were decoded")


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
    rows = list(map(_transaction_row, transactions.values()))
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


async def _lock_frontiers(
    connection: AsyncConnection, batch: Batch, transactions: Iterable[TransactionRow]
) -> dict[bytes, int]:
    """
    Read the frontiers of all programs in the batch, and hold them.

    A writer that moves a frontier waits for those that write below it, and they for it: otherwise a row could slip in
    below a frontier without being seen as late.
    """
    proven = {*batch.frontiers, *(proof.program_id for proof in batch.coverage)}
    programs = sorted({program_id for row in transactions for program_id in row.mentions} | proven)
    name = "lock_frontier" if proven else "share_frontier"
    for program_id in programs:
        await connection.execute(QUERIES[name], {"program_id": program_id})
    cursor = await connection.execute(QUERIES["select_frontiers"], {"program_ids": programs})
    return {bytes(program_id): int(slot) for program_id, slot in await cursor.fetchall()}


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


async def delete_dependents(connection: AsyncConnection, signatures: Collection[bytes]) -> None:
    """Delete everything that hangs on these transactions: events of every program, mentions, problems."""
    parameters = {"signatures": list(signatures)}
    cursor = await connection.execute(QUERIES["select_event_tables"])
    for schema_name, table_name in await cursor.fetchall():
        query = sql.SQL("delete from {} where signature = any(%(signatures)s)")
        await connection.execute(query.format(sql.Identifier(schema_name, table_name)), parameters)
    await connection.execute(QUERIES["delete_mentions"], parameters)
    await connection.execute(QUERIES["delete_problems"], parameters)


def _transaction_row(row: TransactionRow) -> tuple[Any, ...]:
    return (
        *(row.signature, row.slot, row.block_time, row.err, row.fee),
        *(row.compute_units, row.commitment, row.complete, row.blockhash),
    )


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
    return await insert_rows(connection, TRANSACTIONS, list(map(_transaction_row, rows)))


async def _insert_events(
    connection: AsyncConnection,
    events: Sequence[Event],
    refused: Collection[bytes],
    tables: Mapping[bytes, ProgramTables],
    partitioned: Set[TableName],
) -> tuple[int, int]:
    rows: dict[tuple[bytes, str, int], list[Sequence[Any]]] = defaultdict(list)
    columns: dict[tuple[bytes, str, int], TypedTable] = {}
    escaped = 0
    for event in events:
        if event.signature in refused:
            continue
        table = _event_table(tables, event)
        # Each version of an IDL has its own columns in the one table.
        key = (event.program_id, event.name, id(table))
        columns[key] = table
        row, strange = adapt_values(table, event.values)
        escaped += strange
        rows[key].append((event.signature, event.kind, event.ordinal, event.slot, event.block_time, *row))
    inserted = 0
    for key, table in sorted(columns.items(), key=lambda item: item[0]):
        name = TableName(table.schema_name, table.table_name)
        target = Target(table.identifier, table.typed_names, event_conflict(partitioned=name in partitioned))
        inserted += await insert_rows(connection, target, _distinct(rows[key]))
    return inserted, escaped


def event_conflict(*, partitioned: bool) -> sql.Composable:
    """What follows an INSERT of events. Only the time may be filled in later: a node may not know it at first."""
    return sql.SQL(QUERIES["event_conflict_in_partitions" if partitioned else "event_conflict"])


def _distinct(rows: list[Sequence[Any]]) -> list[Sequence[Any]]:
    """One row an identity, in order: a batch may hold what PubSub and the backfill both brought."""
    return [row for _, row in sorted({(row[0], row[1], row[2]): row for row in rows}.items())]


def _event_table(tables: Mapping[bytes, ProgramTables], event: Event) -> TypedTable:
    program = tables.get(event.program_id)
    table = program.event_table(event.name, event.slot) if program else None
    if table is None:
        raise DataError(
            f"there is no table for the event {event.name} of program {event.program_id.hex()}: ensure_tables was not "
            "run with this IDL"
        )
    return table


def adapt_values(table: TypedTable, values: Mapping[str, Any]) -> tuple[list[Any], int]:
    """Return decoded values in the order of the table's own columns, and how many had to be escaped for a NUL."""
    row = []
    escaped = 0
    for column in table.columns:
        value = values[column.field]
        if column.adapt is not None and value is not None:
            value = column.adapt(value)
            if column.pg_type in {"text", "jsonb"} and ESCAPE in value:
                escaped += 1
        row.append(value)
    return row, escaped


def _problem_row(problem: Problem) -> tuple[Any, ...]:
    detail = escape_text(problem.detail)
    return (problem.program_id, problem.subject, problem.kind, problem.ordinal, detail, problem.slot)


async def _promote(connection: AsyncConnection, finalized: Mapping[bytes, int]) -> int:
    if not finalized:
        return 0
    parameters = {"signatures": list(finalized), "slots": list(finalized.values())}
    await connection.execute(QUERIES["lock_transactions"], parameters)
    await connection.execute(QUERIES["note_late_promotions"], parameters)
    cursor = await connection.execute(QUERIES["promote_transactions"], parameters)
    return cursor.rowcount


async def promote(connection: AsyncConnection, finalized: Mapping[bytes, int]) -> int:
    """
    Mark stored transactions finalized, in a transaction of its own, and return how many changed.

    Args:
        finalized: signature -> the slot in which it is finalized. A row stored in another slot is not touched: fetch
            the transaction again and write it, which replaces it.
    """
    async with transaction(connection):
        return await _promote(connection, finalized)


async def select_known(connection: AsyncConnection, finalized: Mapping[bytes, int]) -> dict[bytes, bool]:
    """
    Return which of these signatures are stored in that slot, and whether their logs were complete.

    What is missing from the answer has to be fetched before a frontier may pass its slot.
    """
    parameters = {"signatures": list(finalized), "slots": list(finalized.values())}
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_known"], parameters)
        return {bytes(signature): bool(complete) for signature, complete in await cursor.fetchall()}


class StoredRow(NamedTuple):
    """What is stored of a transaction. `err` as JSON text; `is_read` is False where its version was above ours."""

    slot: int
    commitment: Commitment
    blockhash: str | None
    complete: bool
    err: str | None
    is_read: bool


async def select_stored(connection: AsyncConnection, signatures: Collection[bytes]) -> dict[bytes, StoredRow]:
    """Return what is stored of these transactions, in whatever slot."""
    cursor = await connection.execute(QUERIES["select_stored_rows"], {"signatures": list(signatures)})
    return {bytes(signature): StoredRow(*row) for signature, *row in await cursor.fetchall()}


async def select_unread(
    connection: AsyncConnection, program_ids: Collection[bytes], *, version_max: int, after: bytes, limit: int
) -> dict[bytes, int]:
    """
    Return signature -> slot of transactions that were not read, as their version was above ours then.

    Args:
        version_max: only up to this version.
        after: the last signature of the page before, b"" for the first one.
    """
    parameters = {
        "program_ids": list(program_ids),
        "version_max": version_max,
        "after": after,
        "limit": limit,
    }
    cursor = await connection.execute(QUERIES["select_unread"], parameters)
    return {bytes(signature): int(slot) for signature, slot in await cursor.fetchall()}


async def select_unfinalized(
    connection: AsyncConnection, program_id: bytes, slot_max: int, slot_min: int = 0
) -> dict[bytes, int]:
    """
    Return signature -> slot of the program's transactions from `slot_min` to `slot_max` that are only confirmed.

    Those that an enumeration of finalized signatures over these slots does not name were dropped by a fork; ask for
    their status before dropping them.
    """
    parameters = {"program_id": program_id, "slot_min": slot_min, "slot_max": slot_max}
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_unfinalized"], parameters)
        return {bytes(signature): int(slot) for signature, slot in await cursor.fetchall()}


async def drop_transactions(connection: AsyncConnection, dropped: Mapping[bytes, int]) -> int:
    """
    Take out transactions that a fork dropped, with everything that hangs on them, in one transaction.

    Args:
        dropped: signature -> the slot it was dropped from. One that has landed in another slot since, or is finalized,
            is left alone.

    Returns:
        How many transactions went.
    """
    async with transaction(connection):
        parameters = {"signatures": list(dropped), "slots": list(dropped.values())}
        await connection.execute(QUERIES["lock_transactions"], parameters)
        cursor = await connection.execute(QUERIES["delete_transactions"], parameters)
        gone = [bytes(row[0]) for row in await cursor.fetchall()]
        if gone:
            await delete_dependents(connection, gone)
            await delete_bodies_of(connection, {signature: dropped[signature] for signature in gone})
        return len(gone)


async def ensure_chain(connection: AsyncConnection, genesis_hash: str) -> None:
    """
    Make this database the one of the chain with that genesis hash (base58), or prove that it is.

    Raises:
        DataError: it belongs to another chain.
    """
    async with transaction(connection):
        await connection.execute(QUERIES["insert_chain"], {"genesis_hash": genesis_hash})
        cursor = await connection.execute(QUERIES["select_chain"])
        row = await cursor.fetchone()
    if row is None or row[0] != genesis_hash:
        raise DataError(
            f"this database belongs to the chain with genesis hash {row[0] if row else None}, and the RPC is of "
            f"{genesis_hash}: choose another database, or the RPC of that chain"
        )


async def select_chain(connection: AsyncConnection) -> str | None:
    """Return the genesis hash (base58) of this database's chain, None before the first."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_chain"])
        row = await cursor.fetchone()
    return str(row[0]) if row else None


async def select_frontier(connection: AsyncConnection, program_id: bytes) -> int | None:
    """Return the slot up to which every finalized transaction of the program is stored, None before the first."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_frontier"], {"program_id": program_id})
        row = await cursor.fetchone()
    return int(row[0]) if row else None


async def beat(
    connection: AsyncConnection,
    name: str,
    *,
    tip_slot: int | None = None,
    tip_time: int | None = None,
    error: str | None = None,
) -> None:
    """
    Say that the part called `name` is alive, and what it saw.

    Args:
        tip_slot: newest slot seen from the chain; None keeps the last one. Also `tip_time`.
        tip_time: the cluster's own clock at that slot, unix seconds.
        error: what went wrong just now, without secrets; kept until the next one.
    """
    seen = None if tip_time is None else datetime.fromtimestamp(tip_time, UTC)
    detail = None if error is None else escape_text(error)
    async with transaction(connection):
        await connection.execute(
            QUERIES["upsert_heartbeat"], {"name": name, "tip_slot": tip_slot, "tip_time": seen, "error": detail}
        )
