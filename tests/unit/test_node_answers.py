"""Answers that no node should give: each is that node's failure, in one sentence, and the next node is asked."""

import base64
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import stamina

from indexer.errors import RetryableError
from indexer.sources import node
from indexer.sources.endpoints import Endpoints
from indexer.sources.rpc import Caller, Rpc
from tests.fixtures.scripted_node import GENESIS_HASH, PROGRAM_ADDRESS, signature_of

ADDRESS = bytes(range(32))
SYSTEM = "1" * 32
BROKEN = ("http://broken:1", "http://sound:1")


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


def account(**changes: Any) -> dict[str, Any]:
    return {"owner": SYSTEM, "lamports": 1, "data": ["AAAA", "base64"], "executable": True, **changes}


def clock(slot: int = 7, unix_time: int = 1_700_000_000) -> dict[str, Any]:
    return account(data=[base64.b64encode(struct.pack("<QqQQq", slot, 0, 0, 0, unix_time)).decode(), "base64"])


def said(value: Any, slot: Any = 7) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": value}


def info(**changes: Any) -> dict[str, Any]:
    return {"signature": signature_of(1), "slot": 5, "err": None, **changes}


BLOCK = {"blockhash": GENESIS_HASH, "parentSlot": 4, "transactions": [], "blockTime": 9}
BODY = {"slot": 5, "transaction": {}, "meta": None}
Ask = Callable[[Caller], Awaitable[Any]]


async def list_all(rpc: Caller) -> list[Any]:
    return await node.fetch_signatures(rpc.pinned(), ADDRESS, commitment="finalized", after_slot=None, up_to_slot=9)


async def reach(rpc: Caller) -> None:
    await node.check_reach(rpc.pinned(), node.Listed(3, 9, [], None, ended=True))


# What is asked, a sound answer, and answers that cannot be.
ASKED: dict[str, tuple[Ask, Any, list[Any]]] = {
    "getGenesisHash": (
        node.fetch_genesis_hash,
        GENESIS_HASH,
        [None, 7, True, {}, [], "", "two words", "nul\0", "x" * 45],
    ),
    "getSlot": (lambda rpc: node.fetch_slot(rpc, "finalized"), 7, [None, "7", -1, 7.5, 2**63, 2**200, [], {}, True]),
    "Clock": (
        lambda rpc: node.fetch_clock(rpc, "confirmed"),
        said(clock()),
        [
            *(None, [], 7, {"value": clock()}, said(None), said([]), said(clock(), slot=-1)),
            *(said(account()), said(account(data=["!", "base64"])), said(account(data=["AAAA", "base58"]))),
            *(said(account(data=[])), said(account(data="AAAA")), said(clock(slot=2**63)), said(clock(unix_time=-1))),
            said(clock(unix_time=2**62)),
        ],
    ),
    "getAccountInfo": (
        lambda rpc: node.check_program(rpc, ADDRESS),
        said(account()),
        [None, 7, [], {}, {"context": {}, "value": None}, said(7), said({}), said(account(owner=7))],
    ),
    "getSignaturesForAddress": (
        list_all,
        [],
        [
            *(None, 7, {}, [7], [{}], [info(slot="5")], [info(slot=-1)], [info(slot=2**63)], [info(signature=7)]),
            *([info(signature="")], [info(signature="0OIl")], [info(signature="1" * 63)], [info(signature="z" * 88)]),
            [info(slot=4), info(slot=5)],
        ],
    ),
    "getFirstAvailableBlock": (reach, 0, [None, "0", -1, {}, 2**63]),
    "getSignatureStatuses": (
        lambda rpc: node.fetch_statuses(rpc, [signature_of(1)]),
        said([None]),
        [
            None,
            [],
            7,
            {},
            {"value": [None]},
            said(None),
            said([]),
            said([None, None]),
            said([7]),
            said([{}]),
            said([{"slot": "7"}]),
            said([{"slot": -1}]),
            said([{"slot": 7, "confirmationStatus": 7}]),
        ],
    ),
    "getBlock header": (
        lambda rpc: node.fetch_headers(rpc, [5], commitment="finalized"),
        BLOCK,
        [
            7,
            [],
            {},
            "x",
            BLOCK | {"blockhash": None},
            BLOCK | {"blockhash": "nul\x00"},
            BLOCK | {"blockhash": ""},
            BLOCK | {"parentSlot": None},
            BLOCK | {"parentSlot": -1},
            BLOCK | {"parentSlot": 2**63},
        ],
    ),
    "getBlock": (
        lambda rpc: node.fetch_blocks(rpc, [5]),
        BLOCK,
        [
            None,
            7,
            [],
            {},
            BLOCK | {"transactions": None},
            BLOCK | {"transactions": {}},
            BLOCK | {"blockTime": "9"},
            BLOCK | {"blockTime": 2**62},
            BLOCK | {"blockTime": -1},
            BLOCK | {"blockhash": 7},
        ],
    ),
    "getBlockTime": (lambda rpc: node.fetch_block_times(rpc, [5]), 9, ["9", {}, [], -1, 2**62, 9.5, True]),
    "getBlocks": (lambda rpc: node.fetch_block_slots(rpc, 0, 9), [5], [None, 7, {}, ["5"], [None], [-1], [2**63]]),
    "getBlocksWithLimit": (lambda rpc: node.fetch_next_block_slot(rpc, 5), [5], [None, 7, {}, ["5"], [None], [-1]]),
    "getProgramAccounts": (
        lambda rpc: node.fetch_program_accounts(rpc, ADDRESS, commitment="confirmed"),
        said([{"pubkey": PROGRAM_ADDRESS, "account": account()}]),
        [
            *(None, 7, [], {}, said(None), said([None]), said([{}]), said([{"pubkey": PROGRAM_ADDRESS}])),
            *(said([{"pubkey": key, "account": account()}]) for key in (7, "", "0OIl", "z" * 44, "1" * 31)),
            *(
                said([{"pubkey": PROGRAM_ADDRESS, "account": value}])
                for value in (
                    *(None, 7, account(owner=""), account(owner="x"), account(lamports="1"), account(lamports=-1)),
                    *(account(lamports=2**64), account(data=["!", "base64"]), account(data=["AAAA", "base64+zstd"])),
                    *(account(data=None), account(data=["A", "base64"])),
                )
            ),
        ],
    ),
    "getMultipleAccounts": (
        lambda rpc: node.fetch_accounts(rpc, [ADDRESS], commitment="confirmed", min_slot=0),
        said([None]),
        [
            None,
            7,
            [],
            {},
            said(None),
            said([]),
            said([None, None]),
            said([7]),
            said([None], slot="7"),
            said([account(lamports=2**64)]),
            said([account(owner="?")]),
            said([account(data=["?", "base64"])]),
        ],
    ),
}
CASES = [(name, number) for name, (_, _, odd) in ASKED.items() for number in range(len(odd))]


def answering(name: str, odd: Any) -> Callable[[httpx.Request], httpx.Response]:
    """A broken node, and a sound one: the first answers what is asked with something else than it should."""
    sound = ASKED[name][1]

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        calls = body if isinstance(body, list) else [body]
        broken = request.url.host == "broken" and not (
            name != "getGenesisHash" and calls[0]["method"] == "getGenesisHash"
        )
        replies = []
        for call in calls:
            result = odd if broken else sound
            if name not in ("getGenesisHash", "getSlot") and call["method"] in ("getGenesisHash", "getSlot"):
                result = GENESIS_HASH if call["method"] == "getGenesisHash" else 7
            elif name == "getGenesisHash" and call["method"] == "getSlot":
                result = 7
            elif name == "getSlot" and call["method"] == "getGenesisHash":
                result = GENESIS_HASH
            replies.append({"id": call["id"], "result": result})
        return httpx.Response(200, json=replies if isinstance(body, list) else replies[0])

    return answer


@asynccontextmanager
async def two_nodes(name: str, odd: Any) -> AsyncIterator[Endpoints]:
    transport = httpx.MockTransport(answering(name, odd))
    async with Endpoints(BROKEN, transport=transport, clock=lambda: 0.0) as rpc:
        yield rpc


@pytest.mark.parametrize(("name", "number"), CASES)
async def test_an_answer_that_cannot_be_is_one_sentence(name: str, number: int) -> None:
    """Whatever stands where a result belongs, the caller is told to try again, on one line."""
    ask, _, odd = ASKED[name]
    transport = httpx.MockTransport(answering(name, odd[number]))
    async with Rpc("http://broken:1", transport=transport) as rpc:
        with pytest.raises(RetryableError) as caught:
            await ask(rpc)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ASKED)
async def test_an_answer_that_cannot_be_is_asked_for_elsewhere(name: str) -> None:
    """The next endpoint answers: in the same call, or, where all must be of one node, in the next."""
    ask, _, odd = ASKED[name]
    async with two_nodes(name, odd[0]) as rpc:
        await rpc.check()
        if name in ("getSignaturesForAddress", "getFirstAvailableBlock"):
            with pytest.raises(RetryableError):
                await ask(rpc)
        await ask(rpc)


@pytest.mark.parametrize("name", ASKED)
async def test_a_sound_answer_is_taken(name: str) -> None:
    """The answers that the others are changes of raise nothing."""
    ask, sound, _ = ASKED[name]
    transport = httpx.MockTransport(answering(name, sound))
    async with Rpc("http://sound:1", transport=transport) as rpc:
        await ask(rpc)


@pytest.mark.parametrize(
    "text",
    [
        b'{"id":%d,"result":"\xff"}',
        b'{"id":%d,"result":1e999}',
        b'{"id":%d,"result":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
        b'{"id":%d,"error":7}',
        b'{"id":%d,"error":{"code":"x"}}',
        b'{"id":%d',
        b"[]",
        b"",
    ],
    ids=["utf8", "number", "deep", "error", "code", "cut", "list", "empty"],
)
async def test_a_body_that_is_no_answer_is_one_sentence(text: bytes) -> None:
    """What is not JSON all the way down is found out, also where nobody has said yet what it should be."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        one = text.replace(b"%d", str(body[0]["id"] if isinstance(body, list) else body["id"]).encode())
        return httpx.Response(200, content=b"[" + one + b"]" if isinstance(body, list) else one)

    async with Rpc("http://node:1", transport=httpx.MockTransport(answer)) as rpc:
        with pytest.raises(RetryableError):
            await rpc.call("getSlot")
        with pytest.raises(RetryableError):
            await rpc.batch([("getSlot", [])])
        with pytest.raises(RetryableError):
            await node.fetch_slot(rpc, "finalized")


async def test_a_node_that_pays_no_attention_to_the_cursor_is_not_followed_for_ever() -> None:
    """The same page again and again has no end."""
    page = [info(signature=signature_of(number), slot=1_100 - number) for number in range(1, 1_001)]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"id": json.loads(request.content)["id"], "result": page})

    async with Rpc("http://node:1", transport=httpx.MockTransport(answer)) as rpc:
        with pytest.raises(RetryableError, match="pays no attention"):
            await node.fetch_signatures(rpc, ADDRESS, commitment="finalized", after_slot=None, up_to_slot=10**9)


@pytest.mark.parametrize(
    "result",
    [
        *(None, 7, [], {}, said(None), said({}), said({"signature": 7}), said({"signature": ""})),
        *(said({"signature": "0OIl"}), said({"signature": signature_of(1)}, slot=-1)),
        said({"signature": signature_of(1)}, slot=2**63),
    ],
)
def test_a_logs_notification_of_another_shape_is_a_value_error(result: Any) -> None:
    """No getTransaction is sent for what is no signature: a node would refuse it for good."""
    with pytest.raises(ValueError, match=r"."):
        node.read_logs_notification(result)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 7, {}, {"pubkey": "?", "account": account()}, {"pubkey": PROGRAM_ADDRESS, "account": None}),
        *(
            {"pubkey": PROGRAM_ADDRESS, "account": account(**change)}
            for change in (
                {"lamports": 2**64},
                {"lamports": -1},
                {"owner": "?"},
                {"data": ["?", "base64"]},
                {"data": 1},
            )
        ),
    ],
)
def test_an_account_notification_of_another_shape_is_a_value_error(value: Any) -> None:
    """Nothing of it reaches the tables."""
    with pytest.raises(ValueError, match=r"."):
        node.read_account_notification(said(value))
