"""Backfills: long ranges in jobs, done once whoever does them, by signatures or by blocks."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import psycopg
import pytest
import stamina

from indexer.backfill import Backfills, checked_range
from indexer.errors import RetryableError, SettingsError
from indexer.frontier import Frontier
from indexer.intake import read_bodies
from indexer.sources.rpc import Rpc
from indexer.store.audit import Stored, read_postgres
from indexer.store.coverage import Means, Proven, select_coverage
from indexer.store.database import INDEXER_ROLE, Database, Pool, connect, open_pool, session
from indexer.store.holds import select_frontier
from indexer.store.jobs import BackfillProgress
from indexer.store.registry import ensure_tables
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch
from tests.fixtures.scripted_node import PROGRAM, Entry, ScriptedNode

ID = PROGRAM.program_id
PROGRAMS = {ID: PROGRAM}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


@dataclass
class Seen:
    """Keeps what the progress was told."""

    worked_on: list[int] = field(default_factory=list)
    shown: list[BackfillProgress] = field(default_factory=list)
    twice: asyncio.Event = field(default_factory=asyncio.Event)

    def worked(self, transactions: int) -> None:
        self.worked_on.append(transactions)
        if len(self.worked_on) == 2:
            self.twice.set()

    def backfilled(self, progress: BackfillProgress) -> None:
        self.shown.append(progress)


@dataclass
class Rig:
    """A scripted node and a real database."""

    node: ScriptedNode
    rpc: Rpc
    pool: Pool
    tables: Mapping[bytes, ProgramTables]
    database: Database

    def backfills(self, *, workers: int = 3) -> Backfills:
        return Backfills(self.rpc, self.pool, PROGRAMS, self.tables, lease_s=60.0, workers=workers, failures_max=2)

    async def coverage(self) -> list[Proven]:
        async with session(self.pool) as connection:
            return await select_coverage(connection, ID)

    async def frontier(self) -> int | None:
        async with session(self.pool) as connection:
            return await select_frontier(connection, ID)

    async def hear(self, entry: Entry, blockhash: str | None) -> None:
        body = httpx.Response(200, json=entry.body(PROGRAM)).content
        hashes = {} if blockhash is None else {entry.slot: blockhash}
        read = read_bodies([body], PROGRAMS, "confirmed", blockhashes=hashes)
        async with session(self.pool) as connection:
            await write_batch(connection, read.batch(finalized={}, frontiers={}), self.tables)

    def stored(self) -> Stored:
        return read_postgres(self.database.dsn)

    def count(self, table: str) -> int:
        with psycopg.connect(self.database.dsn) as connection:
            row = connection.execute(f"select count(*) from capstan.{table}").fetchone()
        assert row is not None
        return int(row[0])


@asynccontextmanager
async def rig(database: Database, node: ScriptedNode) -> AsyncIterator[Rig]:
    async with await connect(database.dsn) as owner:
        tables = {ID: await ensure_tables(owner, PROGRAM)}
    async with (
        open_pool(database.for_role(INDEXER_ROLE), size_max=12) as pool,
        Rpc("http://node:1", transport=httpx.MockTransport(node)) as rpc,
    ):
        yield Rig(node, rpc, pool, tables, database)


def history(count: int, *, per_slot: int = 3, **more: int) -> ScriptedNode:
    """A chain with so many transactions, slots without a block between them, and its last slot finalized."""
    entries = [Entry(n, 10 + 2 * (n // per_slot), amount=n) for n in range(1, count + 1)]
    last = entries[-1].slot if entries else 10
    skipped = set(range(11, last, 4))
    return ScriptedNode(entries, finalized_slot=more.get("finalized_slot", last), skipped=skipped)


def amounts(stored: Stored) -> list[int]:
    return sorted(int(event.values["amount"]) for event in stored.events.values())


@pytest.mark.parametrize("means", ["signatures", "blocks"])
async def test_a_history_is_stored_once_and_proven(database: Database, means: Means) -> None:
    """Either means ends in the same rows, one range of coverage, the frontier at its end, and no job left."""
    node = history(2_400 if means == "signatures" else 300)
    last = node.finalized_slot
    async with rig(database, node) as it:
        assert await it.backfills().open(means, None, None) == 1
        seen = Seen()
        assert await it.backfills().run(seen) == len(node.entries)
        assert amounts(it.stored()) == [entry.number for entry in node.entries]
        assert all(t.finalized for t in it.stored().transactions.values())
        assert await it.coverage() == [Proven(0, last, means)]
        assert await it.frontier() == last
        assert it.count("jobs") == 0
        assert sum(seen.worked_on) == len(node.entries)
        before, asked = it.stored(), len(node.asked)
        assert await it.backfills().open(means, 0, last) == 0
        assert node.asked[asked:] == ["getSlot"]
        assert it.stored() == before


async def test_two_at_once_do_each_piece_once(database: Database) -> None:
    """Two processes' worth of workers share the jobs; no transaction is fetched twice."""
    node = history(3_300)
    async with rig(database, node) as it:
        await it.backfills().open("signatures", None, None)
        done = await asyncio.gather(it.backfills().run(Seen()), it.backfills().run(Seen()))
        assert sum(done) == 3_300
        assert node.asked.count("getTransaction") == 3_300
        assert await it.coverage() == [Proven(0, node.finalized_slot, "signatures")]


async def test_a_stop_leaves_what_is_done_and_the_next_goes_on(database: Database) -> None:
    """Cancelled in the middle, the work goes on from the cursor and the open jobs, and fetches nothing again."""
    node = history(3_500)
    async with rig(database, node) as it:
        await it.backfills().open("signatures", None, None)
        seen = Seen()
        work = asyncio.create_task(it.backfills(workers=1).run(seen))
        await seen.twice.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        stored = it.count("transactions")
        assert 0 < stored < 3_500
        node.asked.clear()
        await it.backfills().run(Seen())
        assert it.count("transactions") == 3_500
        assert node.asked.count("getTransaction") == 3_500 - stored
        assert await it.coverage() == [Proven(0, node.finalized_slot, "signatures")]


async def test_a_part_is_proven_as_an_island(database: Database) -> None:
    """A range in the middle moves no frontier; filling the rest asks for the rest only."""
    node = history(1_500)
    async with rig(database, node) as it:
        await it.backfills().open("signatures", 200, 399)
        await it.backfills().run(Seen())
        assert await it.coverage() == [Proven(200, 399, "signatures")]
        assert await it.frontier() is None
        known = it.count("transactions")
        assert known == sum(200 <= entry.slot <= 399 for entry in node.entries)
        node.asked.clear()
        assert await it.backfills().open("signatures", None, None) == 2
        await it.backfills().run(Seen())
        assert node.asked.count("getTransaction") == 1_500 - known
        assert await it.frontier() == node.finalized_slot


async def test_a_long_gap_of_the_frontier_becomes_a_backfill(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too long to hold is left to jobs, and the frontier goes on above it meanwhile."""
    monkeypatch.setattr("indexer.frontier.INLINE_PAGES_MAX", 1)
    node = history(2_500)
    async with rig(database, node) as it:
        frontier = Frontier(it.rpc, it.pool, PROGRAMS, it.tables)
        advanced = await frontier.advance()
        assert (advanced.backfills, advanced.transactions) == (1, 0)
        assert (await frontier.advance()).backfills == 0
        first = node.finalized_slot
        node.entries.append(Entry(9_000, first + 5, amount=9_000))
        node.finalized_slot = first + 5
        assert (await frontier.advance()).transactions == 1
        assert await it.coverage() == [Proven(first + 1, first + 5, "signatures")]
        await it.backfills().run(Seen())
        assert await it.frontier() == first + 5
        assert it.count("transactions") == 2_501


@pytest.mark.parametrize("means", ["signatures", "blocks"])
async def test_what_a_fork_left_behind_is_settled(database: Database, means: Means) -> None:
    """Confirmed rows in the range are promoted, replaced or dropped as the finalized chain says."""
    node = history(30)
    same, other, gone = node.entries[3], node.entries[10], Entry(77, 21, amount=777)
    async with rig(database, node) as it:
        await it.hear(same, node.blockhash(same.slot))
        await it.hear(replace(other, amount=1_000_000), "another-block")
        await it.hear(gone, "another-block")
        await it.backfills().open(means, None, None)
        await it.backfills().run(Seen())
        assert amounts(it.stored()) == [entry.number for entry in node.entries]
        assert all(t.finalized for t in it.stored().transactions.values())


async def test_a_block_that_is_hidden_stops_the_proof(database: Database) -> None:
    """The node says "skipped, or missing" and leaves it out of its list; its child names it as parent."""
    node = history(300)
    hidden = node.entries[150].slot
    node.hidden.add(hidden)
    async with rig(database, node) as it:
        await it.backfills().open("blocks", None, None)
        with pytest.raises(RetryableError, match=f"does not have the block of slot {hidden}"):
            await it.backfills().run(Seen())
        assert not any(p.from_slot <= hidden <= p.to_slot for p in await it.coverage())
        node.hidden.clear()
        await it.backfills().run(Seen())
        assert await it.coverage() == [Proven(0, node.finalized_slot, "blocks")]
        assert amounts(it.stored()) == [entry.number for entry in node.entries]


async def test_a_range_that_ends_without_a_block_is_proven_from_above(database: Database) -> None:
    """The next block's parentSlot says that the last slots are empty; where there is none yet, nothing does."""
    node = ScriptedNode([Entry(1, 5), Entry(2, 9)], finalized_slot=9, skipped={6, 7, 8})
    async with rig(database, node) as it:
        await it.backfills().open("blocks", 0, 7)
        await it.backfills().run(Seen())
        assert await it.coverage() == [Proven(0, 7, "blocks")]
        assert it.count("transactions") == 1


async def test_a_node_that_lags_lists_nothing(database: Database) -> None:
    """A listing by a node that is behind the range would leave out its end."""
    node = history(100)
    async with rig(database, node) as it:
        await it.backfills().open("signatures", None, None)
        node.odd["getSlot"] = 20
        with pytest.raises(RetryableError, match="has finalized slot 20 only"):
            await it.backfills().run(Seen())
        assert await it.coverage() == []
        del node.odd["getSlot"]
        await it.backfills().run(Seen())
        assert it.count("transactions") == 100


async def test_a_job_that_fails_keeps_its_reason(database: Database) -> None:
    """What is listed and cannot be fetched leaves its job open, with the sentence that says why."""
    node = history(50)
    node.absent.add(node.entries[20].signature)
    async with rig(database, node) as it:
        await it.backfills().open("signatures", None, None)
        with pytest.raises(RetryableError, match="as finalized and does not have it"):
            await it.backfills().run(Seen())
        with psycopg.connect(database.dsn) as connection:
            rows = connection.execute("select last_error from capstan.jobs where state = 'open'").fetchall()
        assert len(rows) == 1
        assert "does not have it" in rows[0][0]
        slot = node.entries[20].slot
        assert not any(p.from_slot <= slot <= p.to_slot for p in await it.coverage())


@pytest.mark.parametrize(
    ("first", "last", "sentence"),
    [
        (9, 5, "lies above"),
        (-1, 5, "is no slot"),
        (0, 101, "not final yet"),
        (101, None, "not final yet"),
    ],
)
def test_a_range_that_is_none_is_told_in_one_sentence(first: int, last: int | None, sentence: str) -> None:
    """Before anything is opened."""
    with pytest.raises(SettingsError, match=sentence):
        checked_range(first, last, 100)
