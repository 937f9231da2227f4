"""Asking a node: paging that loses nothing at slot boundaries, and no empty answer that proves anything by itself."""

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stamina
from solders.hash import Hash
from solders.pubkey import Pubkey

from indexer.errors import RetryableError, SettingsError
from indexer.sources import node
from indexer.sources.rpc import Rpc, RpcError
from tests.fixtures.scripted_node import signature_of

ADDRESS = bytes(range(32))


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


class FakeNode:
    """Answers getSignaturesForAddress as a validator does; `shuffle` reorders inside slots at every call."""

    def __init__(self, ledger: list[tuple[int, str]], *, shuffle: int | None = None, forgets: bool = False) -> None:
        self.ledger = ledger
        self.random = random.Random(shuffle) if shuffle is not None else None
        self.forgets = forgets
        self.pages = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        method, params = body["method"], body["params"]
        value: Any
        if method == "getSignatureStatuses":
            value = {"context": {"slot": 9}, "value": [None if self.forgets else {"slot": 1}]}
        else:
            value = self.page(params[1])
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "result": value})

    def page(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        self.pages += 1
        rows = sorted(self.ledger, key=lambda row: (-row[0], self.random.random() if self.random else 0))
        before = options.get("before")
        if before is not None:
            if self.forgets:
                return []
            position = next(i for i, row in enumerate(rows) if row[1] == before)
            rows = rows[position + 1 :]
        return [{"signature": s, "slot": slot, "err": None} for slot, s in rows[: options["limit"]]]


def client(answer: Any) -> Rpc:
    return Rpc("http://node:1", transport=httpx.MockTransport(answer))


def ledger(n: int, per_slot: int) -> list[tuple[int, str]]:
    return [(100 + i // per_slot, signature_of(i)) for i in range(n)]


@pytest.mark.parametrize("per_slot", [1, 3, 7, 400])
async def test_every_page_boundary_is_read_whole(per_slot: int) -> None:
    """Signatures of one slot that change places between two calls are neither lost nor doubled."""
    chain = ledger(2_900, per_slot)
    fake = FakeNode(chain, shuffle=per_slot)
    async with client(fake) as rpc:
        found = await node.fetch_signatures(rpc, ADDRESS, commitment="finalized", after_slot=None, up_to_slot=10**9)
    assert sorted(i.signature for i in found) == sorted(s for _, s in chain)
    assert [i.slot for i in found] == sorted(i.slot for i in found)
    assert fake.pages >= 3


async def test_the_range_is_open_below_and_closed_above() -> None:
    """Only slots above the frontier and up to the finalized one are returned, and old pages are not read."""
    fake = FakeNode(ledger(5_000, 1))
    async with client(fake) as rpc:
        found = await node.fetch_signatures(rpc, ADDRESS, commitment="finalized", after_slot=4_999, up_to_slot=5_090)
    assert [i.slot for i in found] == list(range(5_000, 5_091))
    assert fake.pages == 1


async def test_an_empty_page_after_a_lost_cursor_proves_nothing() -> None:
    """A node that forgot the cursor answers an empty page: an error, never the end of history."""
    async with client(FakeNode(ledger(1_500, 1), forgets=True)) as rpc:
        with pytest.raises(RetryableError, match="no longer knows"):
            await node.fetch_signatures(rpc, ADDRESS, commitment="finalized", after_slot=None, up_to_slot=10**9)


@pytest.mark.parametrize("page", [None, {"a": 1}, [{"slot": 1}], [{"signature": "s", "slot": "1"}]])
async def test_a_page_of_another_shape_is_an_error_and_not_an_end(page: Any) -> None:
    """Whatever a broken node or proxy answers, it neither ends a history nor the process."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"id": json.loads(request.content)["id"], "result": page})

    async with client(answer) as rpc:
        with pytest.raises(RetryableError, match="unknown shape"):
            await node.fetch_signatures(rpc, ADDRESS, commitment="finalized", after_slot=None, up_to_slot=10**9)


def refusing(code: int, message: str) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        (body,) = json.loads(request.content)
        assert body["params"][1]["maxSupportedTransactionVersion"] == 1
        return httpx.Response(200, json=[{"id": body["id"], "error": {"code": code, "message": message}}])

    return answer


@pytest.mark.parametrize(("message", "version"), [("Transaction version (7) is not supported", 7), ("too new", 2)])
async def test_an_unsupported_version_is_told_from_a_missing_transaction(message: str, version: int) -> None:
    """-32015 says that the transaction is there and we cannot read it: its version, or the first above the ceiling."""
    async with client(refusing(-32015, message)) as rpc:
        assert await node.fetch_transactions(rpc, ["sig"], commitment="confirmed") == [node.Unsupported(version)]


async def test_a_node_that_refuses_what_it_was_asked_for_is_not_believed() -> None:
    """A version at or below the ceiling can be read: what refuses it is the node, or something before it."""
    async with client(refusing(-32015, "Transaction version (0) is not supported")) as rpc:
        with pytest.raises(RetryableError, match="refuses version 0"):
            await node.fetch_transactions(rpc, ["sig"], commitment="confirmed")


async def test_another_refusal_is_no_missing_transaction() -> None:
    """What a node refuses for a reason that we do not know stops the process with the node's words."""
    async with client(refusing(-32010, "excluded")) as rpc:
        with pytest.raises(RpcError, match="excluded"):
            await node.fetch_transactions(rpc, ["sig"], commitment="confirmed")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "there is no account"),
        ({"executable": False, "owner": str(Pubkey.default()), "lamports": 1, "data": ["", "base64"]}, "not a program"),
    ],
)
async def test_a_wrong_program_id_is_told_before_anything_starts(value: Any, sentence: str) -> None:
    """An address without a program would index nothing, for ever, in silence."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        return httpx.Response(200, json={"id": body["id"], "result": {"context": {"slot": 1}, "value": value}})

    async with client(answer) as rpc:
        with pytest.raises(SettingsError, match=sentence):
            await node.check_program(rpc, bytes(Hash.default()))
