"""What goes wrong on the way from the node's PubSub to the tables: nothing of it costs a row, or brings a wrong one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
from solders.pubkey import Pubkey

from indexer import live
from indexer.errors import DataError
from indexer.idls import home_programs
from indexer.store.database import Database
from tests.fixtures.hazard_rig import AUTHORITY, HazardNode, Told, add_key, indexing, self_call
from tests.fixtures.scripted_node import PROGRAM, PROGRAM_ADDRESS, Entry

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


async def test_a_version_above_the_ceiling_stops_instead_of_being_left_out(database: Database, tmp_path: Path) -> None:
    """Version 1 is asked for and read; of a version that nobody knows yet the node's refusal ends the process."""

    def first(body: dict[str, Any]) -> None:
        body["version"] = 1

    node = HazardNode([Told(1, 5, change=first, version=1)], finalized_slot=9)
    async with indexing(database, tmp_path, node) as it:
        await it.prove()
        assert (it.amounts(), it.frontier()) == ([1], 9)
        node.entries.append(Told(2, 12, version=2))
        node.finalized_slot = 20
        with pytest.raises(DataError, match="-32015"):
            await it.prove()
        assert (it.amounts(), it.frontier()) == ([1], 9)
