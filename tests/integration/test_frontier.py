"""The frontier: it moves by complete enumeration alone, together with the rows, and never on an error."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import psycopg
import pytest
import stamina

from indexer.errors import RetryableError
from indexer.frontier import Frontier
from indexer.intake import read_bodies
from indexer.sources.rpc import Rpc
from indexer.store.audit import Stored, read_postgres
from indexer.store.coverage import start_history
from indexer.store.database import Database, Pool, connect, open_pool, session
from indexer.store.holds import select_frontier
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch
from tests.fixtures.scripted_node import PROGRAM, Entry, ScriptedNode

PROGRAMS = {PROGRAM.program_id: PROGRAM}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


@dataclass
class Rig:
    """A scripted node, a real database, and the frontier between them."""

    node: ScriptedNode
    frontier: Frontier
    database: Database
    pool: Pool

    async def slot(self) -> int | None:
        async with session(self.pool) as connection:
            return await select_frontier(connection, PROGRAM.program_id)

    def stored(self) -> Stored:
        return read_postgres(self.database.dsn)

    async def hear(self, *entries: Entry, blockhashes: Mapping[int, str] | None = None) -> None:
        """Store transactions as the live feed does: confirmed, with the blockhashes of now unless others are given."""
        bodies = [httpx.Response(200, json=entry.body(PROGRAM)).content for entry in entries]
        hashes = {entry.slot: self.node.blockhash(entry.slot) for entry in entries}
        read = read_bodies(bodies, PROGRAMS, "confirmed", blockhashes=hashes if blockhashes is None else blockhashes)
        async with session(self.pool) as connection:
            await write_batch(connection, read.batch(finalized={}, frontiers={}), self.frontier.tables)


@asynccontextmanager
async def rig(database: Database, node: ScriptedNode) -> AsyncIterator[Rig]:
    async with await connect(database.dsn) as owner:
        tables = {PROGRAM.program_id: await ensure_tables(owner, PROGRAM)}
    async with (
        open_pool(database.dsn) as pool,
        Rpc("http://node:1", transport=httpx.MockTransport(node)) as rpc,
    ):
        yield Rig(node, Frontier(rpc, pool, PROGRAMS, tables), database, pool)


def numbers(stored: Stored) -> list[int]:
    return sorted(int(event.values["amount"]) for event in stored.events.values())


async def test_the_first_enumeration_stores_everything_and_moves(database: Database) -> None:
    """From nothing to the finalized slot in one step; what is above it waits."""
    node = ScriptedNode([Entry(n, 10 + n // 3, amount=n) for n in range(1, 2_500)], finalized_slot=600)
    async with rig(database, node) as it:
        advanced = await it.frontier.advance()
        final = [entry.number for entry in node.entries if entry.slot <= 600]
        assert (advanced.slot, advanced.transactions) == (600, len(final))
        assert numbers(it.stored()) == final
        assert await it.slot() == 600


async def test_running_it_twice_changes_nothing(database: Database) -> None:
    """A second run fetches no transaction and leaves every row as it was, also its time of arrival."""
    node = ScriptedNode([Entry(n, n) for n in range(1, 40)], finalized_slot=50)
    async with rig(database, node) as it:
        await it.frontier.advance()
        before = it.stored()
        with psycopg.connect(database.dsn) as connection:
            connection.execute("truncate capstan.frontiers, capstan.coverage")  # as if all of it had to be proven again
        node.asked.clear()
        advanced = await it.frontier.advance()
        assert advanced.transactions == 0
        assert "getTransaction" not in node.asked
        assert it.stored() == before


async def test_a_listed_transaction_that_cannot_be_fetched_stops_the_frontier(database: Database) -> None:
    """null for a finalized signature is a node that lags, never a transaction that does not exist."""
    node = ScriptedNode([Entry(n, n) for n in range(1, 1_200)], finalized_slot=2_000)
    missing = node.entries[800]
    node.absent.add(missing.signature)
    async with rig(database, node) as it:
        with pytest.raises(RetryableError, match=r"lists .* as finalized and does not have it"):
            await it.frontier.advance()
        reached = await it.slot()
        assert reached is not None
        assert reached < missing.slot
        assert numbers(it.stored()) == [1] * reached
        node.absent.clear()
        await it.frontier.advance()
        assert len(it.stored().transactions) == 1_199
        assert await it.slot() == 2_000


@pytest.mark.parametrize("method", ["getSlot", "getSignaturesForAddress", "getTransaction"])
async def test_an_rpc_error_moves_nothing(database: Database, method: str) -> None:
    """Whatever fails, the frontier stays where it was."""
    node = ScriptedNode([Entry(1, 5)], finalized_slot=10, broken={method})
    async with rig(database, node) as it:
        with pytest.raises(RetryableError):
            await it.frontier.advance()
        assert await it.slot() is None
        assert it.stored().transactions == {}


async def test_confirmed_rows_are_promoted_without_being_fetched_again(database: Database) -> None:
    """What the live feed brought is only marked when the finalized chain lists it in the same slot."""
    node = ScriptedNode([Entry(1, 5), Entry(2, 6)], finalized_slot=0)
    async with rig(database, node) as it:
        await it.hear(*node.entries)
        assert [t.finalized for t in it.stored().transactions.values()] == [False, False]
        node.finalized_slot = 9
        advanced = await it.frontier.advance()
        assert advanced.transactions == 0
        assert [t.finalized for t in it.stored().transactions.values()] == [True, True]


async def test_a_fork_takes_its_rows_with_it(database: Database) -> None:
    """A confirmed transaction that the finalized chain does not have goes, with its events; others stay."""
    lost, kept = Entry(1, 5, amount=111), Entry(2, 6, amount=222)
    node = ScriptedNode([kept], finalized_slot=0)
    async with rig(database, node) as it:
        await it.hear(lost, kept)
        assert numbers(it.stored()) == [111, 222]
        node.finalized_slot = 9
        advanced = await it.frontier.advance()
        assert advanced.dropped == 1
        assert numbers(it.stored()) == [222]
        assert list(it.stored().transactions) == [kept.signature]


async def test_a_signature_that_lands_again_in_another_slot_is_moved(database: Database) -> None:
    """After a fork the same signature stands once, in its new slot, with the events of that slot."""
    node = ScriptedNode([Entry(1, 8, amount=8)], finalized_slot=0)
    async with rig(database, node) as it:
        await it.hear(Entry(1, 5, amount=8))
        node.finalized_slot = 9
        await it.frontier.advance()
        (event,) = it.stored().events.values()
        (transaction,) = it.stored().transactions.values()
        assert (event.slot, transaction.slot, transaction.finalized) == (8, 8, True)


async def test_accounts_of_missed_transactions_are_named(database: Database) -> None:
    """What the live feed missed may have closed an account, and no notification ever says so: it is fetched again."""
    heard, missed = Entry(1, 5), Entry(2, 6)
    async with rig(database, ScriptedNode([heard, missed], finalized_slot=9)) as it:
        await it.hear(heard)
        advanced = await it.frontier.advance()
        payer = bytes([7]) * 32
        assert dict(advanced.touched) == {payer: 6}


async def test_failed_transactions_are_stored_and_their_events_are_not(database: Database) -> None:
    """Failed transactions carry logs; what they say did not happen."""
    failed = Entry(1, 5, err={"InstructionError": [0, {"Custom": 6001}]})
    node = ScriptedNode([failed], finalized_slot=9)
    async with rig(database, node) as it:
        await it.frontier.advance()
        (transaction,) = it.stored().transactions.values()
        assert transaction.failed
        assert it.stored().events == {}


async def test_an_unreadable_event_is_counted_and_the_rest_goes_on(database: Database) -> None:
    """A data line that the IDL does not know is a problem row, not an end."""
    node = ScriptedNode([Entry(1, 5, amount=1), Entry(2, 5, amount=2), Entry(3, 6, amount=3)], finalized_slot=9)
    original = Entry.body

    def spoiled(self: Entry, _program: object) -> dict[str, object]:
        body = original(self, PROGRAM)
        if self.number == 2:
            body["meta"]["logMessages"][1] = "Program data: AAECAwQFBgcICQ=="
        return body

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Entry, "body", spoiled)
        async with rig(database, node) as it:
            await it.frontier.advance()
            assert numbers(it.stored()) == [1, 3]
            assert it.stored().problems == 1
            assert await it.slot() == 9


async def test_the_same_slot_with_another_block_is_fetched_again(database: Database) -> None:
    """The same signature in the same slot, executed differently there: what is final is what the final block says."""
    heard, final = Entry(1, 5, amount=111), Entry(1, 5, amount=222)
    node = ScriptedNode([heard], finalized_slot=0)
    async with rig(database, node) as it:
        await it.hear(heard)
        node.entries, node.blockhashes[5] = [final], "another-block"
        node.finalized_slot = 9
        advanced = await it.frontier.advance()
        assert numbers(it.stored()) == [222]
        assert (advanced.transactions, dict(advanced.touched)) == (1, {bytes([7]) * 32: 5})
        assert [t.finalized for t in it.stored().transactions.values()] == [True]


async def test_a_success_that_failed_in_the_final_block_leaves_no_events(database: Database) -> None:
    """Its events did not happen; the transaction stays, as failed."""
    heard, final = Entry(1, 5, amount=111), Entry(1, 5, err={"InstructionError": [0, {"Custom": 1}]})
    node = ScriptedNode([heard], finalized_slot=0)
    async with rig(database, node) as it:
        await it.hear(heard)
        node.entries, node.blockhashes[5] = [final], "another-block"
        node.finalized_slot = 9
        await it.frontier.advance()
        assert numbers(it.stored()) == []
        assert [(t.finalized, t.failed) for t in it.stored().transactions.values()] == [(True, True)]


@pytest.mark.parametrize("lost", ["never known", "not shown"])
async def test_a_block_that_cannot_be_named_proves_nothing(database: Database, lost: str) -> None:
    """Without both blockhashes the body is fetched again, at finalized."""
    heard, final = Entry(1, 5, amount=111), Entry(1, 5, amount=222)
    node = ScriptedNode([final], finalized_slot=9)
    if lost == "not shown":
        node.hidden.add(5)
    async with rig(database, node) as it:
        await it.hear(heard, blockhashes={} if lost == "never known" else None)
        await it.frontier.advance()
        assert numbers(it.stored()) == [222]


async def test_a_final_row_that_the_listing_lacks_is_not_dropped(database: Database) -> None:
    """Two answers are needed to drop; where the second one contradicts the first, the row is promoted."""
    node = ScriptedNode([Entry(1, 5), Entry(2, 6)], finalized_slot=0)
    async with rig(database, node) as it:
        await it.hear(*node.entries)
        node.finalized_slot = 9
        node.odd["getSignaturesForAddress"] = []
        advanced = await it.frontier.advance()
        assert advanced.dropped == 0
        assert [t.finalized for t in it.stored().transactions.values()] == [True, True]


async def test_what_pubsub_brings_late_changes_no_final_row(database: Database) -> None:
    """A confirmed body of a dropped block that arrives after the final one has nothing to say."""
    final, stale = Entry(1, 5, amount=222), Entry(1, 5, amount=111)
    async with rig(database, ScriptedNode([final], finalized_slot=9)) as it:
        await it.frontier.advance()
        before = it.stored()
        await it.hear(stale, blockhashes={5: "a-dropped-block"})
        assert it.stored() == before


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("getSlot", "7"),
        ("getSlot", None),
        ("getSignaturesForAddress", {"a": 1}),
        ("getSignaturesForAddress", [{"signature": "x", "slot": 1}, {"signature": "y", "slot": 2}]),
        ("getSignatureStatuses", {"value": []}),
        ("getSignatureStatuses", {"context": {"slot": 9}, "value": []}),
        ("getBlock", {"blockhash": 7}),
    ],
)
async def test_an_answer_of_another_shape_moves_nothing(database: Database, method: str, answer: object) -> None:
    """What cannot be read is asked again later, and names the node."""
    node = ScriptedNode([Entry(1, 5)], finalized_slot=9, odd={method: answer})
    async with rig(database, node) as it:
        await it.hear(Entry(1, 5), Entry(2, 5))
        with pytest.raises(RetryableError, match="http://node:1"):
            await it.frontier.advance()
        assert await it.slot() is None


async def test_a_node_that_threw_its_past_away_proves_nothing_about_it(database: Database) -> None:
    """An empty page where the node keeps no blocks any more is not the beginning; who says where to start, goes on."""
    node = ScriptedNode([Entry(1, 500)], finalized_slot=900, odd={"getFirstAvailableBlock": 400})
    async with rig(database, node) as it:
        with pytest.raises(RetryableError, match="keeps no blocks below slot 400"):
            await it.frontier.advance()
        assert await it.slot() is None
        async with session(it.pool) as connection:
            await start_history(connection, PROGRAM.program_id, 400)
        await it.frontier.advance()
        assert await it.slot() == 900
