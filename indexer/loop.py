"""
The indexer as a process: what runs side by side, and what happens when a part of it fails.

A part that meets a RetryableError is started again after a pause, and the error is shown; a DataError ends the process,
because going on would store what is wrong. Stopping may happen anywhere: every step is one database transaction.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from indexer import metrics
from indexer.accounts import Accounts
from indexer.backfill import Backfills
from indexer.catchup import CatchUp
from indexer.coverage import Settled
from indexer.errors import RetryableError
from indexer.frontier import Frontier, Silent
from indexer.health import Health
from indexer.intake import Programs
from indexer.live import Live
from indexer.registry import Registry
from indexer.settings import IndexerSettings
from indexer.sources import node
from indexer.sources.rpc import Caller
from indexer.store.database import Pool, session
from indexer.store.holds import select_frontier
from indexer.store.identity import beat, ensure_chain
from indexer.store.lake import Exported, Lake
from indexer.store.status import read_status
from indexer.store.typed import ProgramTables
from indexer.unread import read_again

NAME = "indexer"
BEAT_INTERVAL_S = 1.0
# Counting what could not be read looks at all of it.
MEASURE_INTERVAL_S = 30.0
PRUNE_INTERVAL_S = 60.0
REPAIR_INTERVAL_S = 0.2
PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 5.0
# How often in a row a job or listing may fail before `catch_up` says so and ends.
FAILURES_MAX = 4
BACKFILL_POLL_S = 1.0

log = structlog.get_logger("indexer")


@dataclass(slots=True)
class Indexer:
    """The parts of one indexer, and their common end."""

    settings: IndexerSettings
    rpc: Caller
    pool: Pool
    open_lake: Callable[[], Lake]
    programs: Programs
    tables: Mapping[bytes, ProgramTables]
    frontier: Frontier = field(init=False)
    backfills: Backfills = field(init=False)
    accounts: Accounts = field(init=False)
    live: Live = field(init=False)
    health: Health = field(default_factory=Health)
    _lake: Lake | None = None
    _lake_slot: int | None = None
    _pruned_at: float = 0.0
    _exporting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.frontier = Frontier(self.rpc, self.pool, self.programs, self.tables, self._owe_accounts)
        self.backfills = Backfills(
            self.rpc,
            self.pool,
            self.programs,
            self.tables,
            lease_s=self.settings.lease_s,
            workers=self.settings.workers,
        )
        self.accounts = Accounts(self.rpc, self.pool, self.programs, self.tables)
        self.live = Live(
            self.rpc,
            self.settings.pubsub_url,
            self.pool,
            self.programs,
            self.tables,
            self.accounts,
            self.settings.silence_s_max,
        )

    async def catch_up(self, progress: CatchUp) -> None:
        """
        Prove and store everything up to the finalized slot, bring the lake there, and return.

        A long gap becomes a backfill, which others may work on, too; open ones are joined.
        """
        self.backfills.failures_max = FAILURES_MAX
        await self.frontier.advance(progress)
        while await self.backfills.is_open():
            await self.backfills.run(progress)
            await self.frontier.advance(progress)
        try:
            await self.read_again()
        except RetryableError as error:  # it was not there before, and may be asked for at any other start
            log.warning("what was of a version too new is not read yet", error=str(error))
        await self.accounts.snapshot()
        await self.export()
        try:
            await self.beat()
        except RetryableError as error:  # everything is stored: that the clock is not known does not undo it
            log.warning("the cluster's clock is not known", error=str(error))

    async def run(self, progress: CatchUp) -> None:
        """
        Follow the chain for ever; cancel to stop.

        Raises:
            DataError: chain, IDL and database disagree.
        """
        async with asyncio.TaskGroup() as parts:
            for name, part in (
                ("pubsub", self.live.listen),
                # Two, so that a slot's last transactions do not wait until its first ones are stored.
                ("transactions", self.live.store_transactions),
                ("transactions", self.live.store_transactions),
                ("touched", self.live.refetch_states),
                ("accounts", self.live.store_states),
                ("repair", self._repair_on),
                ("resync", self._resync),
                ("heartbeat", self._beat_on),
                ("metrics", self._measure_on),
                ("export", self._export_on),
                ("registry", self._follow_registry),
                ("unread", self._read_again_once),
            ):
                parts.create_task(self._keep(name, part), name=name)
            parts.create_task(self._keep("frontier", lambda: self._advance_on(progress)), name="frontier")
            parts.create_task(self._keep("backfill", lambda: self._backfill_on(progress)), name="backfill")

    async def export(self) -> Exported:
        """
        Bring the lake up to the frontier. One export at a time; a stop waits for the one under way.

        Raises:
            RetryableError: the database went away. The lake is opened anew for the next export: its connections, and
                with them its claim to be the only writer, do not come back by themselves.
        """
        async with self._exporting:
            work = asyncio.ensure_future(asyncio.to_thread(self._export_once))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise

    def _export_once(self) -> Exported:
        if self._lake is None:
            self._lake = self.open_lake()
        try:
            exported = self._lake.export()
            self._prune(self._lake)
        except RetryableError:
            self.close()
            raise
        return exported

    def _prune(self, lake: Lake) -> None:
        age_s = self.settings.retention_s
        if age_s is None or time.monotonic() - self._pruned_at < PRUNE_INTERVAL_S:
            return
        self._pruned_at = time.monotonic()
        pruned = lake.prune(age_s)
        if pruned.missing:
            log.warning("old rows stay: the lake lacks some of them, and is given them now", rows=pruned.missing)
        if pruned.ranges:
            log.info("old rows are in the lake only", ranges=pruned.ranges)

    def close(self) -> None:
        """Let go of the lake; nothing may be exporting."""
        if self._lake is not None:
            lake, self._lake = self._lake, None
            lake.close()

    async def beat(self, error: str | None = None) -> None:
        """Say in the database that we are alive, and how far the chain is."""
        clock = await node.fetch_clock(self.rpc, "confirmed")
        async with session(self.pool) as connection:
            await beat(connection, NAME, tip_slot=clock.slot, tip_time=clock.unix_time, error=error)
            frontiers = {key: await select_frontier(connection, key) for key in self.programs}
        self._measure(clock.slot, frontiers)

    def _measure(self, tip_slot: int, frontiers: Mapping[bytes, int | None]) -> None:
        lags = {key: max(tip_slot - slot, 0) for key, slot in frontiers.items() if slot is not None}
        metrics.TIP_SLOT.set(tip_slot)
        for key, lag in lags.items():
            name = self.programs[key].name
            metrics.FRONTIER_SLOT.labels(name).set(tip_slot - lag)
            metrics.LAG_SLOTS.labels(name).set(lag)
        for queue, depth in self.live.depths().items():
            metrics.QUEUE_DEPTH.labels(queue).set(depth)
        if self._lake_slot is not None and lags:
            metrics.EXPORT_LAG_SLOTS.set(max(tip_slot - max(lags.values()) - self._lake_slot, 0))
        self.health.connected = self.live.connected.is_set()
        metrics.CONNECTED.set(self.health.connected)
        self.health.beat(max(lags.values(), default=None))

    async def measure(self) -> None:
        """Set the gauges that `capstan status` has the numbers for: gaps, jobs, what could not be read."""
        assert isinstance(self.pool.conninfo, str), "open_pool gives a text, not what would make one"
        status = await asyncio.to_thread(read_status, self.pool.conninfo)
        tip_slot = max((part.tip_slot or 0 for part in status.parts), default=0)
        for row in status.programs:
            # What lies behind the newest proof is no gap yet: it is the lag.
            gaps = [gap for gap in status.gaps if gap.program == row.name and gap.to_slot < tip_slot]
            metrics.GAPS.labels(row.name).set(len(gaps))
        metrics.OPEN_JOBS.set(sum(backfill.jobs_open for backfill in status.backfills))
        metrics.INCOMPLETE.set(status.incomplete)
        metrics.PROBLEMS.clear()
        for problem in status.problems:
            metrics.PROBLEMS.labels(problem.program, problem.kind).set(problem.total)

    async def _measure_on(self) -> None:
        while True:
            await self.measure()
            await asyncio.sleep(MEASURE_INTERVAL_S)

    async def _advance_on(self, progress: CatchUp) -> None:
        first = True
        started_at = asyncio.get_running_loop().time()
        while True:
            advanced = await self.frontier.advance(progress if first else Silent())
            if first:
                seconds = max(asyncio.get_running_loop().time() - started_at, 0.001)
                rate = round(advanced.transactions / seconds)
                log.info("backfilled", transactions=advanced.transactions, seconds=round(seconds, 2), per_second=rate)
            metrics.TRANSACTIONS.labels("enumeration").inc(advanced.transactions)
            metrics.FORKED.inc(advanced.dropped)
            self.health.caught_up = True
            if advanced.dropped:
                log.warning("a fork took transactions away", dropped=advanced.dropped, slot=advanced.slot)
            first = False
            await asyncio.sleep(self.settings.enumerate_interval_s)

    async def read_again(self) -> None:
        """Read what an earlier version of this code could not."""
        count = await read_again(self.rpc, self.pool, self.programs, self.tables)
        metrics.TRANSACTIONS.labels("enumeration").inc(count)
        if count:
            log.info("read what was of a version too new", transactions=count)

    async def _read_again_once(self) -> None:
        await self.read_again()
        await asyncio.Event().wait()

    def _owe_accounts(self, settled: Settled) -> None:
        """What a listing brought, or a fork took, or nobody could read, no notification may ever tell of."""
        self.accounts.owe(settled.touched, everything=settled.dropped > 0 or settled.unread > 0)

    async def _repair_on(self) -> None:
        while True:
            await self.accounts.repair()
            await asyncio.sleep(REPAIR_INTERVAL_S)

    async def _backfill_on(self, progress: CatchUp) -> None:
        while True:
            if await self.backfills.is_open():
                started_at = asyncio.get_running_loop().time()
                count = await self.backfills.run(progress)
                progress.finished()
                seconds = max(asyncio.get_running_loop().time() - started_at, 0.001)
                log.info("backfilled", transactions=count, seconds=round(seconds, 2), per_second=round(count / seconds))
                self.accounts.owe({}, everything=True)
            await asyncio.sleep(BACKFILL_POLL_S)

    async def _resync(self) -> None:
        """On every connection, the first too: what happened before it is not in it."""
        while True:
            await self.live.connected.wait()
            count = await self.accounts.snapshot()
            rpc = self.rpc.pinned()
            finalized = await node.fetch_slot(rpc, "finalized")
            for program_id in self.programs:
                recent = await node.fetch_signatures(
                    rpc, program_id, commitment="confirmed", after_slot=finalized, up_to_slot=2**63 - 1
                )
                await self.live.want({info.signature: info.slot for info in recent})
            log.info("following", accounts=count, finalized_slot=finalized)
            await self.live.disconnected.wait()

    async def _beat_on(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_INTERVAL_S)

    async def _follow_registry(self) -> None:
        """Take up IDLs that are added: they decode what comes from now on, and all account state anew."""
        accounts_stale = False
        while isinstance(self.programs, Registry):
            async with session(self.pool) as connection:
                if await self.programs.reload(connection):
                    log.info("the registry of IDLs has changed", generation=self.programs.generation)
                    accounts_stale = True
            if accounts_stale:
                try:
                    await self.accounts.snapshot()
                    accounts_stale = False
                except RetryableError as error:
                    await self._remember("registry", error)
            await asyncio.sleep(BEAT_INTERVAL_S)
        await asyncio.Event().wait()

    async def _export_on(self) -> None:
        while True:
            await asyncio.sleep(self.settings.export_interval_s)
            exported = await self.export()
            self._lake_slot = min(exported.watermarks.values(), default=None)
            metrics.EXPORT_SECONDS.observe(exported.seconds)
            metrics.EXPORTED_ROWS.inc(sum(exported.rows.values()))
            if exported.rows:
                log.info("exported to the lake", rows=sum(exported.rows.values()), seconds=round(exported.seconds, 3))

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run `part` again whenever it fails in a way that may pass."""
        pause_s = PAUSE_S_MIN
        loop = asyncio.get_running_loop()
        while True:
            started_at = loop.time()
            try:
                await part()
            except RetryableError as error:
                metrics.ERRORS.labels(name).inc()
                log.warning("tried again soon", part=name, error=str(error))
                await self._remember(name, error)
            pause_s = PAUSE_S_MIN if loop.time() - started_at > PAUSE_S_MAX else min(pause_s * 2, PAUSE_S_MAX)
            await asyncio.sleep(pause_s)

    async def _remember(self, name: str, error: RetryableError) -> None:
        try:
            async with session(self.pool) as connection:
                await beat(connection, NAME, error=f"{name}: {error}")
                await beat(connection, f"{NAME}/{name}", error=str(error))
        except RetryableError:
            log.warning("the database cannot be told", part=name)


async def check_chain(rpc: Caller, pool: Pool, programs: Programs) -> None:
    """
    Prove before anything is written that this database, this chain and these programs belong together.

    Raises:
        DataError: the database holds another chain.
        SettingsError: a program is not there.
        RetryableError: the node does not answer.
    """
    genesis_hash = await node.fetch_genesis_hash(rpc)
    for program_id in programs:
        await node.check_program(rpc, program_id)
    async with session(pool) as connection:
        await ensure_chain(connection, genesis_hash)
