"""
The frontier: up to which slot everything is stored, and what moves it on.

Gaps between the finalized slot and what the coverage ledger has are listed; a short one is settled at once, a long one
becomes a backfill that any process may work on. The ledger moves the frontier in the Postgres transaction that stores
the rows. An error moves nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from solders.signature import Signature

from indexer.coverage import Prepared, Settled, Settler, slots_of
from indexer.intake import Programs
from indexer.sources import node
from indexer.sources.node import Listed
from indexer.sources.rpc import Caller
from indexer.store.coverage import Proof, Range, select_cursor, select_start, select_uncovered
from indexer.store.database import Pool, session
from indexer.store.jobs import open_backfill
from indexer.store.typed import ProgramTables

# A gap that is listed in so many pages is settled at once; a longer one becomes a backfill.
INLINE_PAGES_MAX = 5


class Progress(Protocol):
    """Where a long enumeration reports to."""

    def listed(self, signatures: int) -> None:
        """So many signatures are listed."""

    def stored(self, done: int, total: int) -> None:
        """So many of one program's are stored."""

    def finished(self) -> None:
        """Everything is."""


class Silent:
    """Reports nowhere: the steps of a live indexer are short."""

    def listed(self, signatures: int) -> None:
        """Say nothing."""

    def stored(self, done: int, total: int) -> None:
        """Say nothing."""

    def finished(self) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """
    What one step did.

    Args:
        transactions: newly fetched, so the live feed had missed them, or had them of another block.
        dropped: taken away by a fork.
        touched: account -> slot of the newest of those transactions that could write it.
        backfills: opened, for gaps too long to be settled here.
    """

    slot: int
    transactions: int = 0
    dropped: int = 0
    touched: Mapping[bytes, int] = field(default_factory=dict)
    backfills: int = 0


@dataclass(frozen=True, slots=True)
class Frontier:
    """
    Moves the frontiers of some programs on one chain in one database.

    Args:
        on_settled: told of each step once it is committed, also where a later one fails.
    """

    rpc: Caller
    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]
    on_settled: Callable[[Settled], None] = lambda _: None

    async def advance(self, progress: Progress = Silent()) -> Advanced:  # noqa: B008 -- it has no state
        """
        Prove everything up to the chain's finalized slot, program by program, but for what backfills are open for.

        Raises:
            RetryableError: the node did not answer, or not completely. What was stored until then stays, and is enough
                to go on from.
        """
        # One node: a listing and the status that confirms what it lacks must be of one and the same.
        rpc = self.rpc.pinned()
        # Asked before listing: a listing can only prove slots that were final when it began.
        slot = await node.fetch_slot(rpc, "finalized")
        fetched = dropped = backfills = 0
        touched: dict[bytes, int] = {}
        for program_id in self.programs:
            for gap in await self._gaps(program_id, slot):
                steps = await self._list(rpc, program_id, gap, progress)
                if steps is None:
                    async with session(self.pool) as connection:
                        backfills += await open_backfill(connection, [program_id], "signatures", gap)
                    continue
                for done in await self._settle(rpc, program_id, steps, progress):
                    fetched += done.transactions
                    dropped += done.dropped
                    _touch(touched, done.touched)
        progress.finished()
        return Advanced(slot, fetched, dropped, touched, backfills)

    async def _gaps(self, program_id: bytes, slot: int) -> list[Range]:
        async with session(self.pool) as connection:
            start = await select_start(connection, program_id)
            if start > slot:
                return []
            return await select_uncovered(connection, program_id, start, slot, with_backfills=True)

    async def _list(self, rpc: Caller, program_id: bytes, gap: Range, progress: Progress) -> list[Listed] | None:
        """Return everything in the gap, lowest slots first, or None where that is too much to hold."""
        async with session(self.pool) as connection:
            cursor = await select_cursor(connection, program_id, gap.to_slot)
        steps: list[Listed] = []
        async for step in node.list_signatures(
            rpc,
            program_id,
            commitment="finalized",
            from_slot=gap.from_slot,
            to_slot=gap.to_slot,
            cursor=None if cursor is None else str(Signature(cursor)),
        ):
            await node.check_reach(rpc, step)
            steps.append(step)
            if len(steps) > INLINE_PAGES_MAX:
                return None
            progress.listed(sum(len(known.infos) for known in steps))
        return steps[::-1]

    async def _settle(
        self, rpc: Caller, program_id: bytes, steps: Sequence[Listed], progress: Progress
    ) -> list[Settled]:
        settler = Settler(self.pool, self.programs, self.tables)
        total = sum(len(step.infos) for step in steps)
        stored = 0
        settled: list[Settled] = []

        def prepare(number: int) -> asyncio.Task[Prepared]:
            step = steps[number]
            proof = Proof(program_id, step.from_slot, step.to_slot, "signatures")
            # The first step looks at everything below, too: what came late and confirmed must not stay so for ever.
            swept = Range(0, step.to_slot) if number == 0 else None
            return asyncio.create_task(settler.prepare(rpc, proof, slots_of(step.infos), swept=swept))

        upcoming = prepare(0)
        try:
            for number, step in enumerate(steps):
                prepared = await upcoming
                if number + 1 < len(steps):  # the next step travels while this one is written
                    upcoming = prepare(number + 1)
                settled.append(await settler.write(prepared))
                self.on_settled(settled[-1])
                stored += len(step.infos)
                progress.stored(stored, total)
        finally:
            upcoming.cancel()
        return settled


def _touch(touched: dict[bytes, int], more: Mapping[bytes, int]) -> None:
    for address, slot in more.items():
        touched[address] = max(slot, touched.get(address, 0))
