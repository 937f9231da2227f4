"""
Whole files of finalized transactions, batch by batch, into Postgres or straight into the lake.

For history that somebody has as files: no node is asked. What a file says it has is stored; that it has everything of
some slots (`Covers`) only the operator can say, and without that no frontier moves. A line that is no transaction is
counted and told, and everything around it goes on. A load that was killed goes on where it was; reading a part again
changes nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import pyarrow as pa
import structlog

from indexer.errors import SettingsError
from indexer.prepared import Prepared, prepare
from indexer.registry import Registry
from indexer.sources.base import BodyBatch, Place, Source
from indexer.store.batch import Batch, PackedEvents
from indexer.store.bulk import Bulk, occurring_partitions, pack_bulk, write_bulk
from indexer.store.columns import join, pack_events
from indexer.store.coverage import Proof
from indexer.store.database import Pool, make_durable, session
from indexer.store.files import FileProgress, count_hot_between, select_file, select_other_programs, upsert_file
from indexer.store.holds import select_frontier
from indexer.store.lake import Lake
from indexer.store.lake_load import LakeLoad, LoadBatch, event_table
from indexer.store.writer import write_batch

# Lines that go into the lake in one transaction: each leaves a file a table, and is what a killed load reads again.
LAKE_BYTES = 256 << 20
# Batches that are read at a time.
READERS = 2
NO_BODIES: pa.BinaryArray = pa.array([], pa.binary())
# Batches that are written into Postgres at the same time.
WRITERS = 2
# So many bad lines are told one by one.
TOLD_LINES_MAX = 20

log = structlog.get_logger("indexer.archive")


class Covers(NamedTuple):
    """The slots of which the files have every finalized transaction of the programs, as the operator says."""

    from_slot: int
    to_slot: int

    @classmethod
    def read(cls, text: str) -> "Covers":
        """Read FROM:TO. Raises SettingsError where it is not that."""
        first, _, last = text.partition(":")
        if not (first.isdigit() and last.isdigit() and int(first) <= int(last) < 2**63):
            raise SettingsError(f"--covers {text!r} is no range of slots: write it as FROM:TO")
        return cls(int(first), int(last))


@dataclass(slots=True)
class Loaded:
    """What a load did: transactions and events read, lines that were none, and how long it took."""

    transactions: int = 0
    events: int = 0
    bad_lines: int = 0
    seconds: float = 0.0


Made = TypeVar("Made")


class Ready(NamedTuple, Generic[Made]):
    """A batch of lines, and what is written of it."""

    prepared: Prepared
    batch: Made


class Written(NamedTuple):
    """Batches that were committed together, and how many events they had."""

    group: Sequence[Prepared]
    events: int


@dataclass(slots=True)
class Archive:
    """Loads sources into one database, or its lake."""

    pool: Pool
    programs: Registry
    covers: Covers | None = None
    on_batch: Callable[[Loaded], None] = lambda _: None
    loaded: Loaded = field(default_factory=Loaded)

    async def to_postgres(self, sources: Sequence[Source]) -> Loaded:
        """
        Store everything in Postgres; the exporter takes it from there, as far as the frontiers reach.

        Raises:
            SettingsError: a source cannot be read, or what it covers does not follow what is there.
            RetryableError: the database went away. Load again: it goes on where it was.
        """
        if self.covers is not None:
            for program_id in self.programs:
                async with session(self.pool) as connection:
                    frontier = await select_frontier(connection, program_id)
                _check_follows(self.covers, frontier, "what is proven so far")
        await self._load(sources, "postgres", self._bulk, self._write_bulks)
        await self._prove()
        async with session(self.pool) as connection:
            await make_durable(connection)
        return self.loaded

    async def to_lake(self, sources: Sequence[Source], lake: Lake) -> Loaded:
        """
        Store everything in the lake alone, but for what could not be read, which is shown from Postgres.

        Raises:
            SettingsError: what the sources cover is not said, does not follow what is in the lake, or is in Postgres.
            RetryableError: the database went away. Load again: it goes on where it was.
        """
        covers = await self._check_lake(lake)
        load = LakeLoad(lake, covers.to_slot)

        await self._load(sources, "lake", self._lake_batch, partial(self._write_lake, load))
        await self._prove()
        return self.loaded

    async def _write_lake(self, load: LakeLoad, read: AsyncIterator[Ready[LoadBatch]]) -> AsyncGenerator[Written]:
        """Write groups of batches, each in one lake transaction; the writing thread takes a batch when it wants one."""
        groups = _Groups(read, LAKE_BYTES)
        while await groups.begin():
            count = await asyncio.to_thread(load.write, groups.batches())
            problems = [problem for prepared in groups.taken for problem in prepared.problems]
            async with session(self.pool) as connection:
                await write_batch(connection, Batch(problems=problems), self.programs.tables)
            yield Written(groups.taken, count)

    async def _check_lake(self, lake: Lake) -> Covers:
        if self.covers is None:
            raise SettingsError(
                "--lake-only moves the lake's watermarks: say with --covers FROM:TO what the files have"
            )
        watermarks = await asyncio.to_thread(lake.watermarks)
        reached = min(watermarks.values(), default=None)
        _check_follows(self.covers, reached, "what is in the lake")
        async with session(self.pool) as connection:
            others = await select_other_programs(connection, list(self.programs))
            if others:
                raise SettingsError(
                    f"this database indexes {', '.join(others)} as well: load the lake alone for all programs at once"
                )
            after = -1 if reached is None else reached
            hot = await count_hot_between(connection, after, self.covers.to_slot)
        if hot:
            raise SettingsError(
                f"PostgreSQL holds {hot:,} transactions of the slots {after + 1:,} to {self.covers.to_slot:,} that are "
                "not in the lake yet: load these files without --lake-only"
            )
        return self.covers

    async def _prove(self) -> None:
        if self.covers is not None:
            proofs = [Proof(program_id, *self.covers, "file") for program_id in self.programs]
            async with session(self.pool) as connection:
                await write_batch(connection, Batch(coverage=proofs), self.programs.tables)

    async def _load(
        self,
        sources: Sequence[Source],
        target: str,
        make: Callable[[Prepared], Made],
        write: Callable[[AsyncIterator[Ready[Made]]], AsyncGenerator[Written]],
    ) -> None:
        started = time.monotonic()
        for source in sources:
            async with session(self.pool) as connection:
                progress = await select_file(connection, source.identity, target)
            if progress.done:
                log.info("was read before", file=source.name, transactions=progress.transactions)
                continue
            place = Place(progress.bytes_read, progress.lines_read)
            async with aclosing(self._ready(source, place, make)) as read, aclosing(write(read)) as written:
                async for group, events in written:
                    self._tell(source, group)
                    self.loaded.events += events
                    transactions = sum(map(len, group))
                    bad_lines = sum(len(prepared.errors) for prepared in group)
                    self.loaded.transactions += transactions
                    self.loaded.bad_lines += bad_lines
                    progress = FileProgress(
                        group[-1].next.offset,
                        group[-1].next.lines,
                        progress.transactions + transactions,
                        progress.bad_lines + bad_lines,
                    )
                    # Durable with what comes after it; what it is about came before it.
                    await self._remember(source, target, progress, is_durable=False)
                    self.loaded.seconds = time.monotonic() - started
                    self.on_batch(self.loaded)
            done = FileProgress(
                progress.bytes_read, progress.lines_read, progress.transactions, progress.bad_lines, done=True
            )
            await self._remember(source, target, done)
        self.loaded.seconds = time.monotonic() - started

    async def _ready(
        self, source: Source, place: Place, make: Callable[[Prepared], Made]
    ) -> AsyncGenerator[Ready[Made]]:
        """Read the next batches, and make of them what is written, while the last one is written."""
        batches = source.batches(place)
        ahead: deque[asyncio.Future[Ready[Made]]] = deque()

        def read(batch: BodyBatch) -> Ready[Made]:
            prepared = prepare(batch, self.programs)
            return Ready(prepared, make(prepared))

        async def begin() -> None:
            while len(ahead) < READERS and (batch := await asyncio.to_thread(next, batches, None)) is not None:
                ahead.append(asyncio.ensure_future(asyncio.to_thread(read, batch)))

        try:
            await begin()
            while ahead:
                given = [await ahead.popleft()]
                await begin()
                # Not held here while it is written.
                yield given.pop()
        finally:
            if ahead:
                await asyncio.wait(ahead)

    def _bulk(self, prepared: Prepared) -> Bulk:
        return _bulk(prepared, self.programs)

    def _lake_batch(self, prepared: Prepared) -> LoadBatch:
        return _lake_batch(prepared, self.programs)

    async def _write_bulks(self, read: AsyncIterator[Ready[Bulk]]) -> AsyncGenerator[Written]:
        """Write several batches at a time, and tell of them in order: while one waits for a disk, others go on."""
        writing: deque[tuple[Prepared, asyncio.Task[int]]] = deque()

        async def oldest() -> Written:
            prepared, task = writing.popleft()
            return Written([prepared], await task)

        try:
            async for prepared, bulk in read:
                # A transaction that comes again is written after the one before, which it may replace.
                while len(writing) >= WRITERS or any(prepared.shares_any(other) for other, _ in writing):
                    yield await oldest()
                writing.append((prepared, asyncio.create_task(self._write_bulk(bulk))))
            while writing:
                yield await oldest()
        finally:
            for _, task in writing:
                task.cancel()
            await asyncio.gather(*(task for _, task in writing), return_exceptions=True)

    async def _write_bulk(self, bulk: Bulk) -> int:
        async with session(self.pool) as connection:
            await write_bulk(connection, bulk, self.programs.tables, is_durable=False)
        return bulk.event_count

    async def _remember(self, source: Source, target: str, progress: FileProgress, *, is_durable: bool = True) -> None:
        async with session(self.pool) as connection:
            await upsert_file(connection, source.identity, target, source.name, progress, is_durable=is_durable)

    def _tell(self, source: Source, group: Sequence[Prepared]) -> None:
        errors = [error for prepared in group for error in prepared.errors]
        for told, error in enumerate(errors, self.loaded.bad_lines):
            if told < TOLD_LINES_MAX:
                log.warning("not a transaction", file=source.name, line=error.line + 1, reason=error.reason)


class _Groups(Generic[Made]):
    """
    Batches of together about `bytes_max`, group by group; in a group no transaction comes twice.

    A group is begun in the loop and taken in a thread, batch by batch, so that few are ever in memory.
    """

    def __init__(self, read: AsyncIterator[Ready[Made]], bytes_max: int) -> None:
        self._read = read
        self._bytes_max = bytes_max
        self._loop = asyncio.get_running_loop()
        self._next: Ready[Made] | None = None
        # What was taken of the group, without what is large.
        self.taken: list[Prepared] = []

    async def begin(self) -> bool:
        """Begin a group; False where nothing is left."""
        self.taken = []
        self._next = self._next or await self._following()
        return self._next is not None

    def batches(self) -> Iterator[Made]:
        """Take the group."""
        held = 0
        while self._next is not None and held < self._bytes_max:
            prepared = self._next.prepared
            if any(prepared.shares_any(other) for other in self.taken):
                return
            batch = [self._next.batch]
            self._next = None
            held += prepared.bodies.nbytes
            self.taken.append(replace(prepared, bodies=NO_BODIES, mentions={}, events=[]))
            del prepared
            yield batch.pop()
            if held < self._bytes_max:
                self._next = asyncio.run_coroutine_threadsafe(self._following(), self._loop).result()

    async def _following(self) -> Ready[Made] | None:
        return await anext(self._read, None)


def _check_follows(covers: Covers, reached: int | None, what: str) -> None:
    if reached is not None and covers.from_slot > reached + 1:
        raise SettingsError(
            f"the files cover slots from {covers.from_slot:,} and {what} ends at {reached:,}: load what lies between "
            "first"
        )


def _bulk(prepared: Prepared, registry: Registry) -> Bulk:
    packed = []
    for found in prepared.events:
        table = found.table(registry.tables)
        columns, escaped = pack_events(table, found.program, found.events)
        count = len(found.events.rows)
        slots = occurring_partitions(found.events.identity.column("slot").to_numpy())
        packed.append(PackedEvents(table, join(columns, count), count, slots, escaped))
    return pack_bulk(
        prepared.table,
        prepared.bodies,
        prepared.mentions,
        packed,
        problems=prepared.problems,
        generation=prepared.generation,
    )


def _lake_batch(prepared: Prepared, registry: Registry) -> LoadBatch:
    events: dict[tuple[str, str], list[pa.Table]] = {}
    for found in prepared.events:
        typed = found.table(registry.tables)
        key = (typed.schema_name, typed.table_name)
        events.setdefault(key, []).append(event_table(typed, found.program, found.events))
    mentions: dict[bytes, pa.BooleanArray] = {key: pa.array(flags) for key, flags in prepared.mentions.items()}
    return LoadBatch(pa.Table.from_batches([prepared.table]), prepared.bodies, mentions, events)
