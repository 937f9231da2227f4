"""
Stored transactions decoded again with the registry as it is now: what an IDL that came late should have said.

Raw bodies come in batches, from the lake and the hot tables; each batch replaces, in one database transaction, the
events and problems of its transactions, of all programs, and tells the lake's exporter. Repeating it changes nothing,
so a crash anywhere is answered by running it again, also while an indexer runs. Accounts are not kept raw: an indexer
fetches them again by itself when the registry changes.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from indexer.errors import RetryableError
from indexer.intake import read_bodies
from indexer.registry import Registry
from indexer.store.batch import Commitment
from indexer.store.database import Pool, session
from indexer.store.raw import RawBody
from indexer.store.writer import write_batch

# How often a batch is decoded anew because the registry changed under it.
TRIES_MAX = 5

OnBatch = Callable[["Redecoded"], None]


@dataclass(frozen=True, slots=True)
class Redecoded:
    """
    What was done so far.

    Args:
        transactions: decoded again.
        events: written; of all programs in those transactions.
        problems: what still cannot be read.
        left_out: transactions that were dropped or moved to another slot in the meantime; nothing of them was changed.
        slot: of the newest transaction so far, None before the first.
    """

    transactions: int = 0
    events: int = 0
    problems: int = 0
    left_out: int = 0
    slot: int | None = None


async def redecode(pool: Pool, registry: Registry, bodies: Iterator[list[RawBody]], on_batch: OnBatch) -> Redecoded:
    """
    Decode bodies again and replace what is stored of their transactions.

    Args:
        registry: of ALL programs of the database: what is replaced is everything a transaction holds.
        bodies: in batches; read in a thread.
        on_batch: told after each batch.

    Raises:
        DataError: a stored body cannot be read.
        RetryableError: the database went away; what is done is done, and running it again does the rest.
    """
    done = Redecoded()
    while (batch := await asyncio.to_thread(next, bodies, None)) is not None:
        for commitment in ("confirmed", "finalized"):
            some = [body for body in batch if body.finalized == (commitment == "finalized")]
            if some:
                done = _sum(done, await _write(pool, registry, some, commitment))
        on_batch(done)
    return done


async def _write(pool: Pool, registry: Registry, bodies: Iterable[RawBody], commitment: Commitment) -> Redecoded:
    """Decode and write; where the registry has changed since, once more with what it is then."""
    for attempt in range(TRIES_MAX):
        read = await asyncio.to_thread(read_bodies, [raw.body for raw in bodies], registry, commitment)
        batch = replace(read.batch(finalized={}, frontiers={}), again=True)
        async with session(pool) as connection:
            try:
                written = await write_batch(connection, batch, registry.tables)
            except RetryableError:
                if attempt + 1 == TRIES_MAX or connection.closed or not await registry.reload(connection):
                    raise
                continue
        left_out = set(written.refused)
        return Redecoded(
            len(read.transactions) - len(left_out),
            written.events,
            sum(problem.subject not in left_out for problem in read.problems),
            len(left_out),
            max(row.slot for row in read.transactions),
        )
    raise AssertionError("the last attempt returns or raises")


def _sum(one: Redecoded, other: Redecoded) -> Redecoded:
    return Redecoded(
        one.transactions + other.transactions,
        one.events + other.events,
        one.problems + other.problems,
        one.left_out + other.left_out,
        max(slot for slot in (one.slot, other.slot, -1) if slot is not None),
    )
