"""What account state suffers on its way: states that are skipped, late, or of one slot, and closures nobody reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
from solders.pubkey import Pubkey

from indexer import live
from indexer.store.database import Database
from tests.fixtures.hazard_rig import CLUSTER_TIME, SYSTEM, HazardNode, Told, account, indexing, vault
from tests.fixtures.scripted_node import Entry

FIRST, SECOND, WALLET = (str(Pubkey(bytes([n]) * 32)) for n in (9, 10, 11))


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


def writing(*addresses: str) -> Any:
    """Return what makes a body name these accounts as writable."""

    def change(body: dict[str, Any]) -> None:
        message = body["transaction"]["message"]
        message["accountKeys"][1:1] = list(addresses)
        message["instructions"][0]["programIdIndex"] += len(addresses)

    return change


async def test_the_last_of_several_writes_in_a_slot_is_kept(database: Database, tmp_path: Path) -> None:
    """Nothing orders the states of one slot over RPC: a notification is a hint, and the account is asked for again."""
    node = HazardNode(finalized_slot=3, accounts={FIRST: account(vault(1))})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.deposited() == [1])
        entry = Told(1, 6, amount=3, change=writing(FIRST))
        node.entries.append(entry)
        node.accounts[FIRST] = account(vault(3))
        await it.socket.tell_account(FIRST, 6, account(vault(2)))  # between two writes of the slot
        await it.until(lambda: it.deposited() == [2])
        await it.socket.tell_logs(entry.signature, entry.slot)
        await it.until(lambda: it.deposited() == [3])
        await it.socket.tell_account(FIRST, 5, account(vault(1)))  # late, of an older slot
        await it.socket.tell_account(SECOND, 6, account(vault(8)))
        await it.until(lambda: it.deposited() == [3, 8])
        assert it.amounts() == [3]


async def test_a_closure_that_nobody_reports_is_found(database: Database, tmp_path: Path) -> None:
    """programSubscribe is silent about the end of an account: the writable accounts of what is seen are asked for."""
    node = HazardNode(finalized_slot=3, accounts={a: account(vault(n)) for n, a in enumerate((FIRST, SECOND), 1)})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.deposited() == [1, 2])
        entry = Told(1, 6, change=writing(FIRST, WALLET))
        node.entries.append(entry)
        del node.accounts[FIRST]
        node.accounts[WALLET] = account(b"", owner=SYSTEM)
        await it.socket.tell_logs(entry.signature, entry.slot)
        await it.until(lambda: it.deposited() == [2])
        closed = it.sql(
            "select closed_slot, total_deposited from ephemeral_vault.account_ephemeral_vault where address = %s",
            bytes(Pubkey.from_string(FIRST)),
        )
        assert [(slot, int(total)) for slot, total in closed] == [(6, 1)], "its last state stays to be read"


async def test_a_closure_that_the_feed_missed_is_found_by_the_listing(database: Database, tmp_path: Path) -> None:
    """No log, no account notification: what the listing brings is asked for, too."""
    node = HazardNode(finalized_slot=3, accounts={FIRST: account(vault(1))})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.deposited() == [1])
        node.entries.append(Told(1, 6, change=writing(FIRST)))
        del node.accounts[FIRST]
        node.finalized_slot = 9
        await it.until(lambda: it.deposited() == [])


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "listed"])
async def test_accounts_that_cannot_be_asked_for_now_are_asked_for_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, heard: bool
) -> None:
    """A closure is not forgotten because the node refuses the accounts just then, however long that lasts."""
    monkeypatch.setattr(live, "ABSENT_RETRIES_MAX", 0)
    node = HazardNode(finalized_slot=3, accounts={FIRST: account(vault(1))})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.deposited() == [1] and it.frontier() == 3)
        entry = Told(1, 6, change=writing(FIRST))
        node.entries.append(entry)
        del node.accounts[FIRST]
        node.broken.add("getMultipleAccounts")
        if heard:
            await it.socket.tell_logs(entry.signature, entry.slot)
            await it.until(lambda: it.amounts() == [1])
        node.finalized_slot = 9
        await it.until(lambda: it.frontier() == 9 and node.asked.count("getMultipleAccounts") > 3)
        assert it.deposited() == [1]
        node.broken.clear()
        await it.until(lambda: it.deposited() == [])


async def test_states_of_a_fork_go_also_where_the_node_fails_just_then(database: Database, tmp_path: Path) -> None:
    """The snapshot that a fork asks for is owed until it is taken."""
    lost = Told(1, 5, change=writing(FIRST))
    node = HazardNode([lost], finalized_slot=3, accounts={FIRST: account(vault(111))})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.socket.tell_logs(lost.signature, lost.slot)
        await it.until(lambda: it.amounts() == [1] and it.deposited() == [111])
        node.broken.add("getProgramAccounts")
        node.entries, node.accounts = [], {}
        node.finalized_slot = 9
        await it.until(lambda: it.frontier() == 9 and "getProgramAccounts" in node.asked[-20:])
        assert (it.amounts(), it.deposited()) == ([], [111])
        node.broken.clear()
        await it.until(lambda: it.deposited() == [])


async def test_a_program_s_accounts_are_asked_for_as_a_whole_only_on_connecting(
    database: Database, tmp_path: Path
) -> None:
    """getProgramAccounts is dear: once a connection; what changes is asked for by address, a hundred at a time."""
    node = HazardNode(finalized_slot=3, accounts={FIRST: account(vault(1))})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.until(lambda: it.deposited() == [1] and it.frontier() == 3)
        snapshots = node.asked.count("getProgramAccounts")
        for number in range(1, 31):
            node.accounts[FIRST] = account(vault(100 + number))
            entry = Told(number, 5 + number, amount=number, change=writing(FIRST))
            node.entries.append(entry)
            await it.socket.tell_logs(entry.signature, entry.slot)
        await it.until(lambda: it.deposited() == [130])
        node.finalized_slot = 60
        await it.until(lambda: it.frontier() == 60)
        assert node.asked.count("getProgramAccounts") == snapshots <= 2
    together = [params[0] for method, params in node.options if method == "getMultipleAccounts"]
    assert max(map(len, together)) <= 100


async def test_a_rate_holds_every_call_of_a_batch(database: Database, tmp_path: Path) -> None:
    """`--rpc-rate` counts the calls inside a batch: no request asks for more than a second allows."""
    node = HazardNode([Entry(n, 4 + n, amount=n) for n in range(1, 61)], finalized_slot=80)
    async with indexing(database, tmp_path, node, rate=50) as it:
        await it.prove()
        assert it.amounts() == list(range(1, 61))
    assert 30 < max(node.batches) <= 50


async def test_an_account_that_cannot_be_read_is_counted(database: Database, tmp_path: Path) -> None:
    """Of another type or cut short: a problem with its address, and the accounts around it are stored."""
    node = HazardNode(finalized_slot=3)
    node.accounts = {FIRST: account(bytes(80)), SECOND: account(vault(2)[:-1]), WALLET: account(vault(5))}
    async with indexing(database, tmp_path, node) as it:
        await it.prove()
        await it.indexer.accounts.snapshot()
        assert it.deposited() == [5]
        kinds = {problem.kind: problem.total for problem in it.status().problems}
        assert kinds == {"unknown_discriminator": 1, "short_payload": 1}
        subjects = {str(Pubkey(bytes(subject))) for (subject,) in it.sql("select subject from capstan.problems")}
        assert subjects == {FIRST, SECOND}


async def test_the_tip_has_the_cluster_s_time(database: Database, tmp_path: Path) -> None:
    """However wrong this machine's clock is, how far the chain is comes from the Clock sysvar."""
    node = HazardNode([Entry(1, 5)], finalized_slot=7)
    async with indexing(database, tmp_path, node) as it:
        await it.indexer.beat()
        ((tip_slot, tip_time),) = it.sql(
            "select tip_slot, extract(epoch from tip_time)::bigint from capstan.heartbeats where name = 'indexer'"
        )
        assert (tip_slot, tip_time) == (7, CLUSTER_TIME + 7)
