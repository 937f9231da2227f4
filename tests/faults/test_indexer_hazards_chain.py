"""What goes wrong between a node's chain and the tables: refusals, broken answers, absent blocks, disorder, forks."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina
from solders.pubkey import Pubkey

from indexer.catchup import CatchUp
from indexer.errors import RetryableError
from indexer.sources.rpc import Rpc
from indexer.store.coverage import Means
from indexer.store.database import Database
from tests.fixtures.hazard_rig import HazardNode, Rig, Told, account, data_line, indexing, vault
from tests.fixtures.scripted_node import Entry

ATTEMPTS = 12
MEANS: tuple[Means, ...] = ("signatures", "blocks")
NOT_NOW_CODES = [-32001, -32004, -32005, -32011, -32014, -32016, -32019, -32603]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


async def backfill(it: Rig, means: Means) -> None:
    """Fill from the beginning to the newest finalized slot, and give up where it fails twice in a row."""
    it.indexer.backfills.failures_max = 2
    await it.indexer.backfills.open(means, None, None)
    await it.indexer.backfills.run(CatchUp())


async def test_signatures_of_a_slot_in_any_order_are_all_stored(database: Database, tmp_path: Path) -> None:
    """A node that orders a slot otherwise on every page costs nothing: slots at a page's edge are read whole."""
    entries = [Entry(number, 10 + number // 90, amount=number) for number in range(1, 2_600)]
    node = HazardNode(entries, finalized_slot=60, order=random.Random(5))
    async with indexing(database, tmp_path, node) as it:
        await it.prove()
        assert it.amounts() == list(range(1, 2_600))
        assert it.frontier() == 60
    pages = [params[1] for method, params in node.options if method == "getSignaturesForAddress"]
    assert len(pages) > 2
    assert not any("until" in page for page in pages), "an unknown `until` would answer the newest page"


async def test_a_cursor_that_the_node_forgot_ends_no_history(database: Database, tmp_path: Path) -> None:
    """An empty page after an unknown `before` looks like the beginning of time; the frontier does not believe it."""

    class Forgetful(HazardNode):
        def _page(self, options: dict[str, object]) -> list[dict[str, object]]:
            if "before" in options:
                self.forgotten.add(str(options["before"]))
                return []
            return super()._page(options)

    entries = [Entry(number, 10 + number, amount=number) for number in range(1, 1_300)]
    node = Forgetful(entries, finalized_slot=1_400)
    async with indexing(database, tmp_path, node) as it:
        with pytest.raises(RetryableError, match="no longer knows"):
            await it.prove()
        assert it.frontier() is None
        assert it.amounts() == []


async def test_what_a_node_cannot_answer_now_is_asked_again(database: Database, tmp_path: Path) -> None:
    """Codes of nodes that lag, are busy or cannot reach their archive: asked again, and never taken for nothing."""
    node = HazardNode([Entry(1, 5, amount=1), Entry(2, 6, amount=2)], finalized_slot=9)
    for method in ("getSlot", "getSignaturesForAddress", "getTransaction", "getProgramAccounts"):
        node.refusals[method] = list(NOT_NOW_CODES)
    async with indexing(database, tmp_path, node) as it:
        await it.catch_up()
        assert (it.amounts(), it.frontier()) == ([1, 2], 9)
    assert not any(node.refusals.values())


@pytest.mark.parametrize("code", [-32007, -32009])
async def test_a_slot_is_empty_only_where_a_later_block_says_so(database: Database, tmp_path: Path, code: int) -> None:
    """A node's "skipped, or missing" proves nothing: the slot stays open until a later block's parentSlot decides."""
    node = HazardNode([Entry(1, 5, amount=1), Entry(2, 7, amount=2)], finalized_slot=12, hidden_code=code)
    node.skipped, node.hidden = {6, 8, 9}, {7}
    async with indexing(database, tmp_path, node) as it:
        with pytest.raises(RetryableError, match="does not have the block of slot 7, and its children name it"):
            await backfill(it, "blocks")
        assert it.frontier() is None
        assert any("slot 7" in (backfill.last_error or "") for backfill in it.status().backfills)
        node.hidden.clear()
        await backfill(it, "blocks")
        assert (it.amounts(), it.frontier()) == ([1, 2], 12)


@pytest.mark.parametrize("lacks", ["a block", "a transaction", "the past"])
async def test_another_endpoint_has_what_the_first_one_lacks(database: Database, tmp_path: Path, lacks: str) -> None:
    """A node that answers, and does not have what it must have, is left for the next one; nothing stays open."""
    entries = [Entry(1, 5, amount=1), Entry(2, 7, amount=2)]
    first, second = (HazardNode(list(entries), finalized_slot=12) for _ in range(2))
    match lacks:
        case "a block":
            first.hidden.add(7)
        case "a transaction":
            first.absent.add(entries[1].signature)
        case _:
            first.entries, first.odd["getFirstAvailableBlock"] = [entries[1]], 6
    async with indexing(database, tmp_path, first, second) as it:
        await backfill(it, "blocks" if lacks == "a block" else "signatures")
        assert (it.amounts(), it.frontier()) == ([1, 2], 12)


# Where in a body, and what stands there instead.
ODD_PARTS: dict[str, list[Any]] = {
    "transaction.signatures": [[], None, ["x"]],
    "blockTime": [-1, 2**60, "soon"],
    "meta.fee": [-1, 2**64, None],
    "meta.computeUnitsConsumed": [-1, 2**63],
}
# In a block, what does not name a program is not looked at.
NAMELESS_PARTS: dict[str, list[Any]] = {"transaction": [None, [], 7, "x"], "transaction.message": [{}, None]}


@pytest.mark.parametrize(
    ("means", "path", "value"),
    [(means, path, value) for means in MEANS for path, values in ODD_PARTS.items() for value in values]
    + [("signatures", path, value) for path, values in NAMELESS_PARTS.items() for value in values],
)
async def test_an_answer_of_another_shape_is_asked_for_elsewhere(
    database: Database, tmp_path: Path, means: Means, path: str, value: Any
) -> None:
    """A body that cannot be one is that node's fault: nothing of it is stored, and the next one's is."""

    def change(body: dict[str, Any]) -> None:
        *outer, part = path.split(".")
        (body[outer[0]] if outer else body)[part] = value

    first = HazardNode([Told(1, 5, amount=1, change=change)], finalized_slot=12)
    second = HazardNode([Entry(1, 5, amount=1)], finalized_slot=12)
    async with indexing(database, tmp_path, first, second) as it:
        await backfill(it, means)
        assert (it.amounts(), it.frontier()) == ([1], 12)
        assert it.sql("select extract(epoch from block_time)::bigint, fee from capstan.transactions") == [
            (1_700_000_005, 5_000)
        ]


async def test_broken_answers_are_asked_for_again(database: Database, tmp_path: Path) -> None:
    """Too many requests, a sick server, time-outs, bodies cut short: the tables are as if none of it had been."""
    strikes: list[httpx.Response | Exception | None] = [
        httpx.Response(429, headers={"retry-after": "0"}),
        httpx.Response(503, text="<html>busy</html>"),
        httpx.ReadTimeout("too slow"),
        httpx.Response(200, content=b'{"jsonrpc":"2.0","id":1,"resu'),
        httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
        httpx.Response(502),
    ]
    node = HazardNode([Entry(number, 4 + number, amount=number) for number in range(1, 30)], finalized_slot=40)
    async with indexing(database, tmp_path, node) as it:
        node.weather = [part for strike in strikes[::-1] for part in (strike, None, strike)]
        await it.prove()
        while node.weather:
            await it.indexer.accounts.snapshot()
        assert (it.amounts(), it.frontier()) == (list(range(1, 30)), 40)


async def test_a_server_says_itself_how_long_to_wait() -> None:
    """Retry-After is obeyed up to a bound; without it pauses grow, and no two clients pause alike."""
    waits: list[float] = []

    def hook(details: stamina.instrumentation.RetryDetails) -> None:
        waits.append(details.wait_for)

    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([hook])
    stamina.set_testing(False)
    try:
        answers = iter(
            [
                httpx.Response(429, headers={"retry-after": "0.03"}),
                httpx.Response(429, headers={"retry-after": "3600"}),
                httpx.Response(503),
                httpx.Response(200, json={"id": 1, "result": 5}),
            ]
        )
        transport = httpx.MockTransport(lambda _: next(answers))
        async with Rpc("http://node:1", transport=transport, wait_s_max=0.2) as rpc:
            assert await rpc.call("getSlot") == 5
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)
    assert waits[:2] == [0.03, 0.2]
    assert 0 < waits[2] <= 0.3


async def test_a_second_endpoint_answers_while_the_first_is_down(database: Database, tmp_path: Path) -> None:
    """Where several are configured, one that fails costs its attempts and no row."""
    entries = [Entry(1, 5, amount=1), Entry(2, 7, amount=2)]
    first, second = (HazardNode(list(entries), finalized_slot=12) for _ in range(2))
    async with indexing(database, tmp_path, first, second) as it:
        first.broken = {"getSlot", "getSignaturesForAddress", "getTransaction", "getProgramAccounts"}
        with pytest.raises(RetryableError, match="node0"):
            await it.prove()
        await it.prove()
        await it.indexer.accounts.snapshot()
        assert (it.amounts(), it.frontier()) == ([1, 2], 12)
        assert "getTransaction" not in first.asked


async def test_what_a_fork_drops_goes_with_its_events_and_its_accounts_states(
    database: Database, tmp_path: Path
) -> None:
    """Confirmed, then not on the chain: transaction, events and problems go, and accounts are what they are now."""
    address = str(Pubkey(bytes([9]) * 32))
    lost = Told(1, 5, amount=111, change=lambda body: body["meta"]["logMessages"].insert(1, data_line(b"unknown")))
    node = HazardNode([lost], finalized_slot=3, accounts={address: account(vault(111))})
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.socket.tell_logs(lost.signature, lost.slot)
        await it.until(lambda: it.amounts() == [111] and it.deposited() == [111])
        assert it.problems(lost) == ["short_payload"]
        node.entries = [Entry(2, 6, amount=222)]
        node.accounts = {address: account(vault(0))}
        node.finalized_slot = 9
        await it.until(lambda: it.frontier() == 9)
        assert it.amounts() == [222]
        assert lost.signature not in it.stored().transactions
        for table in ("transactions", "mentions", "raw_transactions"):
            assert it.sql(f"select count(*) from capstan.{table}") == [(1,)]
        assert it.problems(lost) == []
        await it.until(lambda: it.deposited() == [0])


async def test_the_same_slot_with_another_block_is_what_the_final_block_says(
    database: Database, tmp_path: Path
) -> None:
    """The same signature in the same slot, but the block has another hash: the body is fetched again and replaces."""
    heard = Entry(1, 5, amount=111)
    node = HazardNode([heard], finalized_slot=3)
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.socket.tell_logs(heard.signature, heard.slot)
        await it.until(lambda: it.amounts() == [111])
        node.blockhashes[5] = "another-block"
        node.entries = [Entry(1, 5, amount=222)]
        node.finalized_slot = 9
        await it.until(lambda: it.frontier() == 9)
        assert it.amounts() == [222]
        assert it.sql("select commitment from capstan.transactions") == [("finalized",)]


async def test_a_signature_that_lands_again_elsewhere_is_moved(database: Database, tmp_path: Path) -> None:
    """After a fork the same transaction is in another slot: one row, one event, and both in the new slot."""
    heard = Entry(1, 5, amount=111)
    node = HazardNode([heard], finalized_slot=3)
    async with indexing(database, tmp_path, node) as it, it.following():
        await it.socket.tell_logs(heard.signature, heard.slot)
        await it.until(lambda: it.amounts() == [111])
        node.entries = [Entry(1, 8, amount=111)]
        node.finalized_slot = 9
        await it.until(lambda: it.frontier() == 9)
        assert it.sql("select slot from capstan.transactions union all select slot from capstan.mentions") == [(8,)] * 2
        assert [event.slot for event in it.stored().events.values()] == [8]
