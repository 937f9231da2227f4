"""
What a batch relies on while it is written, held until its database transaction ends: frontiers, and the registry.
"""

from collections.abc import Collection, Iterable

from indexer.errors import RetryableError
from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries

QUERIES = load_queries("indexer")
REGISTRY = load_queries("registry")


async def hold_registry(connection: AsyncConnection, generation: int | None) -> None:
    """Keep the registry as it is until the batch is committed, and prove that it is what the batch was decoded with."""
    if generation is None:
        return
    await connection.execute(REGISTRY["share_registry"])
    row = await (await connection.execute(REGISTRY["select_generation"])).fetchone()
    if row is None or row[0] != generation:
        raise RetryableError("the registry of IDLs has changed since these transactions were decoded")


async def lock_frontiers(
    connection: AsyncConnection, mentioned: Iterable[bytes], proven: Collection[bytes]
) -> dict[bytes, int]:
    """
    Read the frontiers of these programs, and hold them until the transaction ends.

    A writer that moves a frontier waits for those that write below it, and they for it: otherwise a row could slip in
    below a frontier without being seen as late. Those that move none do not wait for each other.

    Args:
        mentioned: programs of which there are transactions in the batch.
        proven: programs whose frontier may move with it.
    """
    programs = sorted({*mentioned, *proven})
    name = "lock_frontier" if proven else "share_frontier"
    for program_id in programs:
        await connection.execute(QUERIES[name], {"program_id": program_id})
    cursor = await connection.execute(QUERIES["select_frontiers"], {"program_ids": programs})
    return {bytes(program_id): int(slot) for program_id, slot in await cursor.fetchall()}


async def select_frontier(connection: AsyncConnection, program_id: bytes) -> int | None:
    """Return the slot up to which every finalized transaction of the program is stored, None before the first."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_frontier"], {"program_id": program_id})
        row = await cursor.fetchone()
    return int(row[0]) if row else None
