"""
Transactions that are stored: which are, which become finalized, and which a fork took.

Each in a database transaction of its own, but for what is said to be inside the caller's. New ones come by `writer.py`.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from psycopg import sql

from indexer.store.batch import Commitment
from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries
from indexer.store.raw import delete_bodies_of

QUERIES = load_queries("indexer")


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


async def select_known(connection: AsyncConnection, finalized: Mapping[bytes, int]) -> dict[bytes, bool]:
    """
    Return which of these signatures are stored in that slot, and whether their logs were complete.

    What is missing from the answer has to be fetched before a frontier may pass its slot.
    """
    parameters = {"signatures": list(finalized), "slots": list(finalized.values())}
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_known"], parameters)
        return {bytes(signature): bool(complete) for signature, complete in await cursor.fetchall()}


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


async def promote(connection: AsyncConnection, finalized: Mapping[bytes, int]) -> int:
    """
    Mark stored transactions finalized, in a transaction of its own, and return how many changed.

    Args:
        finalized: signature -> the slot in which it is finalized. A row stored in another slot is not touched: fetch
            the transaction again and write it, which replaces it.
    """
    async with transaction(connection):
        return await promote_inside(connection, finalized)


async def promote_inside(connection: AsyncConnection, finalized: Mapping[bytes, int]) -> int:
    """Do what `promote` does inside the caller's transaction."""
    if not finalized:
        return 0
    parameters = {"signatures": list(finalized), "slots": list(finalized.values())}
    await connection.execute(QUERIES["lock_transactions"], parameters)
    await connection.execute(QUERIES["note_late_promotions"], parameters)
    cursor = await connection.execute(QUERIES["promote_transactions"], parameters)
    return cursor.rowcount


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


async def delete_dependents(connection: AsyncConnection, signatures: Collection[bytes]) -> None:
    """Delete everything that hangs on these transactions: events of every program, mentions, problems."""
    parameters = {"signatures": list(signatures)}
    cursor = await connection.execute(QUERIES["select_event_tables"])
    for schema_name, table_name in await cursor.fetchall():
        query = sql.SQL("delete from {} where signature = any(%(signatures)s)")
        await connection.execute(query.format(sql.Identifier(schema_name, table_name)), parameters)
    await connection.execute(QUERIES["delete_mentions"], parameters)
    await connection.execute(QUERIES["delete_problems"], parameters)
