"""
Backfills and jobs: long ranges cut into pieces that any number of processes work on, and that outlive all of them.

A listing is walked by one process at a time, a job is done by one; both by a lease on the database's clock, so that
whoever is killed is followed by another. What is done is said in the transaction that stores it, by its holder alone.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from indexer.store.coverage import Means, Range, select_uncovered
from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries

# A listing stops while so many jobs wait: each holds about a thousand signatures in the database.
JOBS_AHEAD_MAX = 2_000
# A job that failed is left alone for so long, times its attempts.
PAUSE_S = 0.5

QUERIES = load_queries("jobs")
LOCK = load_queries("indexer")["lock_frontier"]


class LeaseLostError(Exception):
    """Somebody else works on it by now; nothing of this is to be committed."""


class Backfill(NamedTuple):
    """
    An open backfill.

    Args:
        listed_from: jobs exist from here to `to_slot`; None before the first.
        cursor: signature (base58) before which the listing of signatures goes on.
    """

    backfill_id: int
    program_ids: list[bytes]
    means: Means
    from_slot: int
    to_slot: int
    listed_from: int | None
    cursor: str | None

    @property
    def open_to(self) -> int:
        """The highest slot that is not listed yet."""
        return self.to_slot if self.listed_from is None else self.listed_from - 1


class Job(NamedTuple):
    """A piece of a backfill. `signatures` (64 bytes) and their `slots` are None for blocks."""

    job_id: int
    backfill_id: int
    program_ids: list[bytes]
    means: Means
    from_slot: int
    to_slot: int
    signatures: list[bytes] | None
    slots: list[int] | None

    @property
    def listed(self) -> dict[bytes, int]:
        """Signature -> slot."""
        return dict(zip(map(bytes, self.signatures or ()), self.slots or (), strict=True))


class Step(NamedTuple):
    """A listed piece: slots, what was found there, and the cursor to go on from."""

    from_slot: int
    to_slot: int
    listed: dict[bytes, int] | None
    cursor: str | None


class BackfillProgress(NamedTuple):
    """How far all open backfills are together. `listed` and `done` count transactions."""

    slots: int
    slots_listed: int
    slots_done: int
    listed: int
    done: int
    jobs_open: int
    backfills: int


async def open_backfill(connection: AsyncConnection, program_ids: Sequence[bytes], means: Means, span: Range) -> int:
    """
    Open backfills for what of `span` is neither proven for all programs nor filled already; return how many.

    In a transaction of its own.
    """
    async with transaction(connection):
        wanted: set[Range] = set()
        for program_id in sorted(program_ids):
            await connection.execute(LOCK, {"program_id": program_id})
            wanted |= set(await select_uncovered(connection, program_id, *span, with_backfills=True))
        ranges = _joined(wanted)
        parameters = {
            "program_ids": sorted(program_ids),
            "means": means,
            "from_slots": [r.from_slot for r in ranges],
            "to_slots": [r.to_slot for r in ranges],
        }
        await connection.execute(QUERIES["insert_backfills"], parameters)
    return len(ranges)


def _joined(ranges: Collection[Range]) -> list[Range]:
    """Return ranges that cover the same slots and do not touch."""
    joined: list[Range] = []
    for span in sorted(ranges):
        if joined and span.from_slot <= joined[-1].to_slot + 1:
            joined[-1] = Range(joined[-1].from_slot, max(joined[-1].to_slot, span.to_slot))
        else:
            joined.append(span)
    return joined


async def select_open_backfills(connection: AsyncConnection, program_ids: Collection[bytes]) -> list[Backfill]:
    """Return the open backfills that need none but these programs, oldest first."""
    cursor = await connection.execute(QUERIES["select_open_backfills"], {"program_ids": list(program_ids)})
    return [_backfill(row) for row in await cursor.fetchall()]


async def claim_listing(
    connection: AsyncConnection, program_ids: Collection[bytes], holder: str, lease_s: float
) -> Backfill | None:
    """Take over a listing that nobody walks, None where there is none to do now."""
    parameters = {
        "program_ids": list(program_ids),
        "holder": holder,
        "lease_s": lease_s,
        "jobs_ahead_max": JOBS_AHEAD_MAX,
    }
    async with transaction(connection):
        row = await (await connection.execute(QUERIES["claim_listing"], parameters)).fetchone()
    return None if row is None else _backfill(row)


def _backfill(row: Sequence[object]) -> Backfill:
    known = Backfill(*row)  # type: ignore[arg-type] # as the query has them
    return known._replace(program_ids=[bytes(program_id) for program_id in known.program_ids])


async def insert_steps(
    connection: AsyncConnection, backfill_id: int, holder: str, lease_s: float, steps: Sequence[Step]
) -> bool:
    """
    Store listed pieces as jobs, with the cursor, in one transaction. Return whether the listing may go on now.

    Raises:
        LeaseLostError: somebody else walks this listing.
    """
    go_on = True
    async with transaction(connection):
        for step in steps:
            signatures = None if step.listed is None else list(step.listed)
            job = {
                "backfill_id": backfill_id,
                "from_slot": step.from_slot,
                "to_slot": step.to_slot,
                "signatures": signatures,
                "slots": None if step.listed is None else list(step.listed.values()),
                "transactions": None if signatures is None else len(signatures),
            }
            noted = {
                "backfill_id": backfill_id,
                "from_slot": step.from_slot,
                "to_slot": step.to_slot,
                "cursor": step.cursor,
                "holder": holder,
                "lease_s": lease_s,
                "jobs_ahead_max": JOBS_AHEAD_MAX,
            }
            row = await (await connection.execute(QUERIES["note_listing"], noted)).fetchone()
            if row is None:
                raise LeaseLostError
            go_on = bool(row[0])
            await connection.execute(QUERIES["insert_job"], job)
    return go_on


async def release_listing(connection: AsyncConnection, backfill_id: int, holder: str, error: str | None) -> None:
    """Let somebody else walk the listing."""
    async with transaction(connection):
        parameters = {"backfill_id": backfill_id, "holder": holder, "error": error}
        await connection.execute(QUERIES["release_listing"], parameters)


async def claim_job(
    connection: AsyncConnection, program_ids: Collection[bytes], holder: str, lease_s: float
) -> Job | None:
    """Take the lowest open job that nobody holds, None where there is none now."""
    parameters = {"program_ids": list(program_ids), "holder": holder, "lease_s": lease_s}
    async with transaction(connection):
        row = await (await connection.execute(QUERIES["claim_job"], parameters)).fetchone()
    if row is None:
        return None
    job = Job(*row)
    return job._replace(program_ids=[bytes(program_id) for program_id in job.program_ids])


async def renew_job(connection: AsyncConnection, job: Job, holder: str, lease_s: float) -> bool:
    """Keep a job for longer; False where it is somebody else's by now."""
    async with transaction(connection):
        parameters = {"job_id": job.job_id, "holder": holder, "lease_s": lease_s}
        return await (await connection.execute(QUERIES["renew_job"], parameters)).fetchone() is not None


async def release_job(connection: AsyncConnection, job: Job, holder: str, error: str) -> None:
    """Give a job back that failed, to be tried again after a pause."""
    async with transaction(connection):
        parameters = {"job_id": job.job_id, "holder": holder, "error": error, "pause_s": PAUSE_S}
        await connection.execute(QUERIES["release_job"], parameters)


async def complete_job(connection: AsyncConnection, job: Job, holder: str, transactions: int) -> None:
    """
    Say inside the caller's transaction that a job is done.

    Raises:
        LeaseLostError: it is not ours any more.
    """
    parameters = {"job_id": job.job_id, "holder": holder, "transactions": transactions}
    if await (await connection.execute(QUERIES["complete_job"], parameters)).fetchone() is None:
        raise LeaseLostError


async def finish_backfills(connection: AsyncConnection, program_ids: Collection[bytes]) -> int:
    """Close the backfills of which everything is done, and return how many."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["finish_backfills"], {"program_ids": list(program_ids)})
        return len(await cursor.fetchall())


async def select_progress(connection: AsyncConnection, program_ids: Collection[bytes]) -> BackfillProgress:
    """Return how far the open backfills are."""
    cursor = await connection.execute(QUERIES["select_progress"], {"program_ids": list(program_ids)})
    row = await cursor.fetchone()
    assert row is not None
    return BackfillProgress(*map(int, row))
