"""
Backfills at work: one lister a backfill, any number of workers, in any number of processes.

Everything that has to outlive a process is in the database: the listing with its cursor, the jobs, what is done. A
process that is killed leaves leases that run out, and nothing else to be cleaned up. Memory holds a page of the listing
and a job for each worker, however long the history is.
"""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from solders.signature import Signature

from indexer import metrics
from indexer.coverage import Prepared, Settler
from indexer.errors import CapstanError, RetryableError, SettingsError
from indexer.intake import Programs
from indexer.sources import node
from indexer.sources.rpc import Caller
from indexer.store.coverage import Means, Proof, Range, select_cursor
from indexer.store.database import AsyncConnection, Pool, session
from indexer.store.jobs import (
    Backfill,
    BackfillProgress,
    Job,
    LeaseLostError,
    Step,
    claim_job,
    claim_listing,
    complete_job,
    finish_backfills,
    insert_steps,
    open_backfill,
    release_job,
    release_listing,
    renew_job,
    select_progress,
)
from indexer.store.typed import ProgramTables

LEASE_S = 15.0
WORKERS = 3
# Slots of a job whose means is blocks.
BLOCK_SLOTS_PER_JOB = 64
BLOCK_JOBS_TOGETHER = 200
POLL_S = 0.1
WATCH_S = 0.5
PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 5.0

log = structlog.get_logger("indexer.backfill")


class Progress(Protocol):
    """Where the work is shown."""

    def backfilled(self, progress: BackfillProgress) -> None:
        """All open backfills together are so far."""

    def worked(self, transactions: int) -> None:
        """This process has done a job with so many."""


@dataclass(slots=True)
class Backfills:
    """
    What a process does for the open backfills of its programs.

    Args:
        lease_s: after which a process that says nothing counts as dead.
        workers: jobs at the same time.
        failures_max: failures in a row after which `run` gives up; None goes on for ever.
    """

    rpc: Caller
    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]
    lease_s: float = LEASE_S
    workers: int = WORKERS
    failures_max: int | None = None
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}")

    async def open(self, means: Means, from_slot: int | None, to_slot: int | None) -> int:
        """
        Open what of a range is neither proven nor being filled, and return how many backfills that took.

        Args:
            from_slot: None for slot 0.
            to_slot: None for the newest finalized one.

        Raises:
            SettingsError: there is no such range.
        """
        finalized = await node.fetch_slot(self.rpc, "finalized")
        span = checked_range(from_slot, to_slot, finalized)
        opened = 0
        async with session(self.pool) as connection:
            if means == "blocks":
                return await open_backfill(connection, list(self.programs), means, span)
            for program_id in self.programs:
                opened += await open_backfill(connection, [program_id], means, span)
        return opened

    async def run(self, progress: Progress) -> int:
        """
        Work until no backfill of our programs is open, together with whoever else does. Return the transactions done.

        Raises:
            DataError: chain, IDL and database disagree.
            RetryableError: too many failures in a row.
        """
        done = [0] * self.workers
        failed: list[CapstanError] = []
        try:
            async with asyncio.TaskGroup() as parts:
                others = [parts.create_task(self._list_on()), parts.create_task(self._watch(progress))]
                workers = [parts.create_task(self._work_on(n, done, progress)) for n in range(self.workers)]
                await asyncio.wait(workers)
                for other in others:
                    other.cancel()
        except* CapstanError as group:
            failed = [error for error in group.exceptions if isinstance(error, CapstanError)]
        if failed:
            raise failed[0]
        return sum(done)

    async def is_open(self) -> bool:
        """Return whether any backfill of our programs is open."""
        async with session(self.pool) as connection:
            await finish_backfills(connection, list(self.programs))
            return (await select_progress(connection, list(self.programs))).backfills > 0

    async def _watch(self, progress: Progress) -> None:
        while True:
            try:
                async with session(self.pool) as connection:
                    progress.backfilled(await select_progress(connection, list(self.programs)))
            except RetryableError as error:
                log.info("the progress is not known just now", error=str(error))
            await asyncio.sleep(WATCH_S)

    # --- listing ------------------------------------------------------------------------------------------------------

    async def _list_on(self) -> None:
        failures = 0
        while True:
            try:
                async with session(self.pool) as connection:
                    backfill = await claim_listing(connection, list(self.programs), self.holder, self.lease_s)
                if backfill is not None:
                    await self._list(backfill)
                failures = 0
                await asyncio.sleep(POLL_S)
            except RetryableError as error:
                failures += 1
                await self._pause("a listing", error, failures)

    async def _list(self, backfill: Backfill) -> None:
        """Walk a listing until it is at its end, or so far ahead that its jobs should be done first."""
        problem: str | None = None
        try:
            steps = self._block_steps(backfill) if backfill.means == "blocks" else self._signature_steps(backfill)
            async for some in steps:
                async with session(self.pool) as connection:
                    go_on = await insert_steps(connection, backfill.backfill_id, self.holder, self.lease_s, some)
                if not go_on:
                    break
        except LeaseLostError:
            return
        except RetryableError as error:
            problem = str(error)
            raise
        finally:
            async with session(self.pool) as connection:
                await release_listing(connection, backfill.backfill_id, self.holder, problem)

    async def _signature_steps(self, backfill: Backfill) -> AsyncIterator[Sequence[Step]]:
        rpc = self.rpc.pinned()
        await _check_finalized(rpc, backfill.to_slot)
        (program_id,) = backfill.program_ids
        cursor = backfill.cursor
        if cursor is None:
            async with session(self.pool) as connection:
                known = await select_cursor(connection, program_id, backfill.open_to)
            cursor = None if known is None else str(Signature(known))
        async for listed in node.list_signatures(
            rpc,
            program_id,
            commitment="finalized",
            from_slot=backfill.from_slot,
            to_slot=backfill.open_to,
            cursor=cursor,
        ):
            await node.check_reach(rpc, listed)
            found = {bytes(Signature.from_string(info.signature)): info.slot for info in listed.infos}
            yield [Step(listed.from_slot, listed.to_slot, found, listed.cursor)]

    async def _block_steps(self, backfill: Backfill) -> AsyncIterator[Sequence[Step]]:
        await _check_finalized(self.rpc.pinned(), backfill.to_slot)
        ends = range(backfill.open_to, backfill.from_slot - 1, -BLOCK_SLOTS_PER_JOB)
        for start in range(0, len(ends), BLOCK_JOBS_TOGETHER):
            yield [
                Step(max(backfill.from_slot, end - BLOCK_SLOTS_PER_JOB + 1), end, None, None)
                for end in ends[start : start + BLOCK_JOBS_TOGETHER]
            ]

    # --- working ------------------------------------------------------------------------------------------------------

    async def _work_on(self, number: int, done: list[int], progress: Progress) -> None:
        program_ids = list(self.programs)
        failures = 0
        while True:
            try:
                async with session(self.pool) as connection:
                    job = await claim_job(connection, program_ids, self.holder, self.lease_s)
                if job is None:
                    if not await self.is_open():
                        return
                    await asyncio.sleep(POLL_S)
                    continue
                count = await self._do(job)
                done[number] += count
                progress.worked(count)
                failures = 0
            except LeaseLostError:
                log.info("a job went to somebody else", holder=self.holder)
            except RetryableError as error:
                failures += 1
                await self._pause("a job", error, failures)

    async def _pause(self, what: str, error: RetryableError, failures: int) -> None:
        if self.failures_max is not None and failures >= self.failures_max:
            raise error
        log.warning(f"{what} is tried again soon", error=str(error))
        await asyncio.sleep(min(PAUSE_S_MIN * 2 ** min(failures, 10), PAUSE_S_MAX))

    async def _do(self, job: Job) -> int:
        """Do a job and return how many transactions are in it."""
        settler = Settler(self.pool, self.programs, self.tables)
        try:
            async with self._kept(job):
                prepared = await self._prepare(settler, job)
                count = len(prepared.read.transactions) if job.signatures is None else len(job.signatures)

                async def finish(connection: AsyncConnection) -> None:
                    await complete_job(connection, job, self.holder, count)

                settled = await settler.write(prepared, finish=finish)
                metrics.TRANSACTIONS.labels("backfill").inc(settled.transactions)
        except RetryableError as error:
            async with session(self.pool) as connection:
                await release_job(connection, job, self.holder, str(error))
            raise
        except asyncio.CancelledError:
            with contextlib.suppress(RetryableError):  # the lease runs out by itself
                async with session(self.pool) as connection:
                    await release_job(connection, job, self.holder, "its process was stopped")
            raise
        if settled.dropped:
            log.warning("a fork took transactions away", dropped=settled.dropped, slot=job.to_slot)
        return count

    async def _prepare(self, settler: Settler, job: Job) -> Prepared:
        rpc = self.rpc.pinned()
        proofs = [Proof(program_id, job.from_slot, job.to_slot, job.means) for program_id in job.program_ids]
        if job.means == "blocks":
            return await settler.prepare_blocks(rpc, proofs)
        return await settler.prepare(rpc, proofs[0], job.listed, listed_here=False)

    @asynccontextmanager
    async def _kept(self, job: Job) -> AsyncIterator[None]:
        """Renew the lease as long as the work goes on."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self.lease_s / 3)
                try:
                    async with session(self.pool) as connection:
                        await renew_job(connection, job, self.holder, self.lease_s)
                except RetryableError as error:
                    log.info("a lease was not renewed", error=str(error))

        renewal = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewal.cancel()


async def _check_finalized(rpc: Caller, slot: int) -> None:
    """A node that is behind would list less than there is."""
    finalized = await node.fetch_slot(rpc, "finalized")
    if finalized < slot:
        raise rpc.distrust(f"{rpc.shown_url} has finalized slot {finalized} only, and {slot} is asked for")


def checked_range(from_slot: int | None, to_slot: int | None, finalized: int) -> Range:
    """
    Return the range that was asked for.

    Raises:
        SettingsError: it is empty, negative, or not final yet.
    """
    first = 0 if from_slot is None else from_slot
    last = finalized if to_slot is None else to_slot
    if first < 0:
        raise SettingsError(f"--from {first} is no slot: the first one is 0")
    if last > finalized:
        raise SettingsError(f"--to {last} is not final yet: the newest finalized slot is {finalized}")
    if first > finalized:
        raise SettingsError(f"--from {first} is not final yet: the newest finalized slot is {finalized}")
    if first > last:
        raise SettingsError(f"--from {first} lies above --to {last}: exchange them")
    return Range(first, last)
