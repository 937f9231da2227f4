"""
The coverage ledger: which slots of a program are proven complete, and the frontier that follows from it.

A range is proven in the database transaction that stores the rows it vouches for, under the program's frontier lock,
which the caller holds. How something is proven (by signatures, by blocks, by a file) is decided elsewhere; here ranges
are added, never taken away, and neighbours proven by the same means become one.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries

Means: TypeAlias = Literal["signatures", "blocks", "file"]

QUERIES = load_queries("coverage")


class Range(NamedTuple):
    """Slots from one to another, both inclusive."""

    from_slot: int
    to_slot: int


class Proven(NamedTuple):
    """A range of the ledger, and how it was proven."""

    from_slot: int
    to_slot: int
    means: str


class Proof(NamedTuple):
    """With the batch that carries this, every finalized transaction of the program in these slots is stored."""

    program_id: bytes
    from_slot: int
    to_slot: int
    means: Means


async def prove(connection: AsyncConnection, proof: Proof) -> None:
    """
    Add to the ledger what of a proof it does not have yet, and let the frontier follow.

    Inside the caller's transaction, which holds the program's frontier lock.
    """
    assert 0 <= proof.from_slot <= proof.to_slot, f"an empty range proves nothing: {proof}"
    program = {"program_id": proof.program_id}
    span = {**program, "from_slot": proof.from_slot, "to_slot": proof.to_slot}
    cursor = await connection.execute(QUERIES["select_touching"], span)
    known = [Proven(*row) for row in await cursor.fetchall()]
    wanted = join_ranges(known, Proven(proof.from_slot, proof.to_slot, proof.means))
    gone = [proven.from_slot for proven in known if proven not in wanted]
    new = [proven for proven in wanted if proven not in known]
    if gone:
        await connection.execute(QUERIES["delete_ranges"], {**program, "from_slots": gone})
    if new:
        from_slots, to_slots, means = (list(column) for column in zip(*new, strict=True))
        rows = {"from_slots": from_slots, "to_slots": to_slots, "means": means}
        await connection.execute(QUERIES["insert_ranges"], {**program, **rows})
        await connection.execute(QUERIES["follow_coverage"], program)


def join_ranges(known: Sequence[Proven], added: Proven) -> list[Proven]:
    """
    Return the ranges that stand for `known` and `added` together: what is known keeps its means.

    Args:
        known: sorted, without overlap.
    """
    parts: list[Proven] = []
    at = added.from_slot
    for proven in known:
        end = min(proven.from_slot - 1, added.to_slot)
        if at <= end:
            parts.append(Proven(at, end, added.means))
        parts.append(proven)
        at = max(at, proven.to_slot + 1)
    if at <= added.to_slot:
        parts.append(Proven(at, added.to_slot, added.means))
    joined: list[Proven] = []
    for part in sorted(parts):
        last = joined[-1] if joined else None
        if last is not None and last.means == part.means and last.to_slot + 1 == part.from_slot:
            joined[-1] = last._replace(to_slot=part.to_slot)
        else:
            joined.append(part)
    return joined


async def select_start(connection: AsyncConnection, program_id: bytes) -> int:
    """Return the slot at which the program's history starts: 0, or what the operator said."""
    cursor = await connection.execute(QUERIES["select_start"], {"program_id": program_id})
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def start_history(connection: AsyncConnection, program_id: bytes, slot: int) -> None:
    """Say that the program's history starts at `slot`, in a transaction of its own; an earlier start stays."""
    async with transaction(connection):
        await connection.execute(QUERIES["upsert_start"], {"program_id": program_id, "slot": slot})
        await connection.execute(QUERIES["follow_coverage"], {"program_id": program_id})


async def select_coverage(connection: AsyncConnection, program_id: bytes) -> list[Proven]:
    """Return the program's ranges in order."""
    cursor = await connection.execute(QUERIES["select_coverage"], {"program_id": program_id})
    return [Proven(*row) for row in await cursor.fetchall()]


async def select_uncovered(
    connection: AsyncConnection, program_id: bytes, from_slot: int, to_slot: int, *, with_backfills: bool
) -> list[Range]:
    """
    Return what of [from_slot, to_slot] is not proven, in order.

    Args:
        with_backfills: leave out what an open backfill fills.
    """
    parameters = {
        "program_id": program_id,
        "from_slot": from_slot,
        "to_slot": to_slot,
        "with_backfills": with_backfills,
    }
    cursor = await connection.execute(QUERIES["select_uncovered"], parameters)
    return [Range(*row) for row in await cursor.fetchall()]


async def select_cursor(connection: AsyncConnection, program_id: bytes, slot: int) -> bytes | None:
    """Return a finalized signature of the program above `slot`, as near as there is one."""
    cursor = await connection.execute(QUERIES["select_cursor"], {"program_id": program_id, "slot": slot})
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])
