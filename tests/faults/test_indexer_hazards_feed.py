"""What goes wrong on the way from the node's PubSub to the tables: nothing of it costs a row, or brings a wrong one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer import live
from indexer.catchup import CatchUp
from indexer.idls import home_programs
from indexer.sources import node
from indexer.store.audit import read_lake
from indexer.store.coverage import Means, Range
from indexer.store.database import Database
from indexer.store.verify import LakeView
from indexer.verify import Verifier
from tests.fixtures.hazard_rig import AUTHORITY, HazardNode, Rig, Told, add_key, indexing, self_call
from tests.fixtures.scripted_node import PROGRAM, PROGRAM_ADDRESS, Entry

MEANS: tuple[Means, ...] = ("signatures", "blocks")
OTHER = next(program for program in home_programs().values() if program.program_id != PROGRAM.program_id)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


async def test_a_pubsub_that_dies_in_silence_is_left_for_a_new_one(database: Database, tmp_path: Path) -> None:
    """An open connection that says nothing is given up, and what it kept to itself is listed on the next one."""
    node = HazardNode([Entry(1, 3)], finalized_slot=3)
    async with indexing(database, tmp_path, node, silence_s_max=0.4) as it, it.following():
        await it.until(lambda: it.amounts() == [1])
        node.entries.append(Entry(2, 7, amount=2))  # confirmed, and no word of it
        await it.until(lambda: it.amounts() == [1, 2])
        assert len(it.socket.subscribed) > 1
        assert all(len(connection) == 3 for connection in it.socket.subscribed[:-1])
        assert "has been silent for 0.4 s" in it.errors()


async def test_notifications_are_hints_and_nothing_more(database: Database, tmp_path: Path) -> None:
    """Repeated, out of order, missing or of no transaction at all: each row once, and no frontier moves by them."""
    node = HazardNode(finalized_slot=3)
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.frontier() == 3)
        node.entries += [Entry(number, 4 + number, amount=number) for number in (1, 2, 3)]
        for number in (2, 1, 2, 1):
            entry = node.entries[number - 1]
            await it.socket.tell_logs(entry.signature, entry.slot)
        await it.socket.tell_logs("1" * 64, 6)
        await it.until(lambda: it.amounts() == [1, 2])
        assert it.frontier() == 3, "a notification proves nothing"
        node.finalized_slot = 9
        await it.until(lambda: it.frontier() == 9)
        assert it.amounts() == [1, 2, 3], "the one that nobody spoke of is listed"
        assert "1" * 64 not in node.fetched


async def test_a_subscription_names_one_program_and_what_logs_lack_is_fetched(
    database: Database, tmp_path: Path
) -> None:
    """One subscription a program; an event that only stands in an inner instruction comes with the transaction."""

    def by_self_call(body: dict[str, Any]) -> None:
        call = self_call(7, add_key(body, AUTHORITY))
        body["meta"]["innerInstructions"] = [{"index": 0, "instructions": [call]}]

    node = HazardNode(finalized_slot=3)
    async with indexing(database, tmp_path, node, programs=(PROGRAM, OTHER)) as it, it.following():
        (subscriptions,) = it.socket.subscribed
        named = [params[0]["mentions"] for method, params in subscriptions if method == "logsSubscribe"]
        assert named == [[PROGRAM_ADDRESS], [str(Pubkey(OTHER.program_id))]]
        entry = Told(1, 5, amount=None, change=by_self_call)
        node.entries.append(entry)
        await it.socket.tell_logs(entry.signature, entry.slot)
        await it.until(lambda: it.identities(entry) == [("cpi", 0)])
        assert it.amounts() == [7]


async def test_a_transaction_that_is_not_there_yet_is_asked_for_again(database: Database, tmp_path: Path) -> None:
    """Null right after the log is a matter of time: it is fetched again with growing pauses, and nobody else waits."""
    node = HazardNode(finalized_slot=3)
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.frontier() == 3)
        node.entries += [Entry(1, 5, amount=1), Entry(2, 6, amount=2)]
        node.null_asks[node.entries[0].signature] = 3
        for entry in node.entries:
            await it.socket.tell_logs(entry.signature, entry.slot)
        await it.until(lambda: it.amounts() == [1, 2])
        assert node.fetched.count(node.entries[0].signature) == 4
        assert it.frontier() == 3


async def test_a_transaction_that_never_comes_holds_the_frontier_and_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed gives it up, the listing does not: the frontier stays below it, and the status names the signature."""
    monkeypatch.setattr(live, "ABSENT_RETRIES_MAX", 2)
    node = HazardNode([Entry(1, 5)], finalized_slot=3)
    missing = node.entries[0].signature
    node.absent.add(missing)
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.socket.tell_logs(missing, 5)
        await it.until(lambda: node.fetched.count(missing) >= 3)
        node.finalized_slot = 9
        await it.until(lambda: f"lists {missing} as finalized and does not have it" in it.errors())
        assert it.frontier() == 3
        node.absent.clear()
        await it.until(lambda: it.frontier() == 9)
        assert it.amounts() == [1]


def of_versions(*, finalized_slot: int) -> HazardNode:
    """A chain on which two transactions are of a version that nobody knows yet: one among others, one by itself."""

    def first(body: dict[str, Any]) -> None:
        body["version"] = 1

    failed = {"InstructionError": [0, {"Custom": 1}]}
    entries = [Told(1, 5, change=first, version=1), Told(2, 12, amount=2, version=2), Entry(3, 12, amount=3)]
    entries += [Told(4, 14, amount=4, version=2, err=failed), Entry(5, 15, amount=5)]
    return HazardNode(entries, finalized_slot=finalized_slot)


def unread(it: Rig) -> list[tuple[Any, ...]]:
    """What is stored of transactions that were not read."""
    return it.sql(
        "select t.slot, t.err, extract(epoch from block_time)::bigint, fee, complete, kind, ordinal "
        "from capstan.transactions t join capstan.mentions m using (signature) "
        "join capstan.problems p on p.subject = t.signature and p.program_id = m.program_id order by 1"
    )


def lake_slots(it: Rig) -> dict[int, bool]:
    """The slots of the lake's transactions, and whether everything in them was read."""
    signatures = [bytes(Signature.from_string(entry.signature)) for entry in it.node.entries]
    view = LakeView.open(it.database.dsn)
    assert view is not None
    with view:
        rows = view.find(signatures).values()
    return {row.slot: all(other.read for other in rows if other.slot == row.slot) for row in rows}


FAILED = '{"InstructionError":[0,{"Custom":1}]}'
UNREAD = [
    (12, None, 1_700_000_012, None, False, "unsupported_version", 2),
    (14, FAILED, 1_700_000_014, None, False, "unsupported_version", 2),
]


async def test_a_version_above_the_ceiling_is_kept_as_known_and_read_by_a_newer_version(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says what the node says of it, a problem names its version, everything around it is stored."""
    chain = of_versions(finalized_slot=20)
    async with indexing(database, tmp_path, chain) as it:
        await it.catch_up()
        assert (it.amounts(), it.frontier()) == ([1, 3, 5], 20)
        assert unread(it) == UNREAD
        status = it.status()
        assert status.incomplete == 2
        assert [(p.kind, p.total, p.newest_slot) for p in status.problems] == [("unsupported_version", 2, 14)]
        assert lake_slots(it) == {5: True, 12: False, 14: False, 15: True}
        chain.fetched.clear()
        await it.catch_up()
        assert chain.fetched == [], "the same version asks for nothing again"
    monkeypatch.setattr(node, "TRANSACTION_VERSION_MAX", 2)
    async with indexing(database, tmp_path, chain) as it:
        await it.catch_up()
        assert (it.amounts(), it.status().incomplete, it.status().problems) == ([1, 2, 3, 5], 0, [])
        assert it.sql("select count(*) from capstan.transactions where fee is null") == [(0,)]
        assert lake_slots(it) == {5: True, 12: True, 14: True, 15: True}
        events = read_lake(database.dsn).events.values()
        assert sorted(int(event.values["amount"]) for event in events) == [1, 2, 3, 5]


async def test_a_version_above_the_ceiling_does_not_stop_the_feed(database: Database, tmp_path: Path) -> None:
    """The feed passes over it, stores what came with it, and leaves it to the listing."""
    chain = of_versions(finalized_slot=3)
    async with indexing(database, tmp_path, chain) as it, it.following():
        await it.until(lambda: it.frontier() == 3)
        for entry in chain.entries:
            await it.socket.tell_logs(entry.signature, entry.slot)
        await it.until(lambda: it.amounts() == [1, 3, 5])
        assert unread(it) == []
        chain.finalized_slot = 20
        await it.until(lambda: it.frontier() == 20)
        assert unread(it) == UNREAD


async def test_a_block_with_a_version_above_the_ceiling_is_read_one_by_one(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node shows nothing of such a block: what it lists of it is fetched, and a repair asks for the rest again."""
    chain = of_versions(finalized_slot=20)
    async with indexing(database, tmp_path, chain) as it:
        backfills = it.indexer.backfills
        assert await backfills.open("blocks", 0, 20) == 1
        await backfills.run(CatchUp())
        assert (it.amounts(), it.frontier()) == ([1, 3, 5], 20)
        assert unread(it) == UNREAD
        verifier = Verifier(it.indexer.rpc, it.indexer.pool, it.indexer.programs, it.indexer.tables, database.dsn)
        for means in MEANS:
            report = await verifier.verify(Range(0, 20), means, repair=True)
            assert (report.is_clean, report.checked, len(report.unread), report.fetched) == (True, 5, 2, 0)
            assert unread(it) == UNREAD
        monkeypatch.setattr(node, "TRANSACTION_VERSION_MAX", 2)
        report = await verifier.verify(Range(0, 20), "signatures", repair=True)
        assert (len(report.unread), report.fetched) == (0, 2)
        assert (it.amounts(), unread(it)) == ([1, 2, 3, 5], [])
