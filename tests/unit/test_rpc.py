"""The JSON-RPC client: every way a node can fail becomes one of two exceptions, and no failure becomes an answer."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import stamina

from indexer.errors import RetryableError, SettingsError
from indexer.sources.rpc import Rpc, RpcError, masked_url

URL = "http://user:hunter2@node.example:8899/v1/SECRETKEY?api-key=SECRET2"
Answer = Callable[[Any], httpx.Response]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4):
        yield


def scripted(*answers: Answer) -> tuple[Rpc, list[Any]]:
    """Return a client whose node gives `answers` in turn, the last one for ever, and the list of what it was asked."""
    asked: list[Any] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return answers[min(len(asked), len(answers)) - 1](asked[-1])

    return Rpc(URL, transport=httpx.MockTransport(respond)), asked


def result(value: Any) -> Answer:
    def answer(body: Any) -> httpx.Response:
        if isinstance(body, list):
            return httpx.Response(200, json=[{"jsonrpc": "2.0", "id": b["id"], "result": value} for b in body])
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "result": value})

    return answer


def refusal(code: int, message: str = "no", data: Any = None) -> Answer:
    error = {"code": code, "message": message, "data": data}
    return lambda body: httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "error": error})


def status(code: int, **headers: str) -> Answer:
    return lambda _: httpx.Response(code, headers=headers, text="<html>busy</html>")


async def test_null_is_an_answer() -> None:
    """JSON null comes back as None: the node said that there is nothing."""
    rpc, _ = scripted(result(None))
    async with rpc:
        assert await rpc.call("getTransaction", ["x"]) is None


@pytest.mark.parametrize(
    "first",
    [
        status(429, **{"retry-after": "0"}),
        status(503),
        status(502),
        refusal(-32005, "Node is unhealthy"),
        refusal(-32016),
        lambda _: httpx.Response(200, content=b'{"jsonrpc":"2.0","id":1,"resu'),
        lambda _: httpx.Response(200, content=b"\xff\xfe"),
    ],
    ids=["429", "503", "502", "unhealthy", "min context slot", "body cut short", "not utf-8"],
)
async def test_passing_failures_are_asked_again(first: Answer) -> None:
    """Overload, sickness and bodies cut short are retried, and the caller sees only the answer."""
    rpc, asked = scripted(first, result(7))
    async with rpc:
        assert await rpc.call("getSlot") == 7
    assert len(asked) == 2


async def test_lasting_failure_is_an_error() -> None:
    """After the last attempt the failure reaches the caller; it never turns into an empty answer."""
    rpc, asked = scripted(status(503))
    async with rpc:
        with pytest.raises(RetryableError, match="HTTP 503"):
            await rpc.call("getSlot")
    assert len(asked) == 4


async def test_refusal_is_not_retried() -> None:
    """What the node understood and refused is refused for good, with its code and data."""
    rpc, asked = scripted(refusal(-32002, "Transaction simulation failed", {"err": "AccountNotFound"}))
    async with rpc:
        with pytest.raises(RpcError, match="simulation failed") as caught:
            await rpc.call("sendTransaction", ["x"])
    assert (caught.value.code, caught.value.data) == (-32002, {"err": "AccountNotFound"})
    assert len(asked) == 1


async def test_a_wrong_key_is_the_operators_matter() -> None:
    """HTTP 401 does not pass by waiting."""
    rpc, _ = scripted(status(401))
    async with rpc:
        with pytest.raises(SettingsError, match="HTTP 401"):
            await rpc.call("getSlot")


async def test_batch_keeps_order_and_asks_again_only_for_the_rest() -> None:
    """Answers come back by id in any order; the ones that are missing or not yet there are asked again alone."""

    def partial(body: Any) -> httpx.Response:
        replies: list[Any] = [{"id": b["id"], "result": b["params"][0] * 10} for b in body[:3]]
        replies.append({"id": body[3]["id"], "error": {"code": -32004, "message": "Block not available"}})
        return httpx.Response(200, json=list(reversed(replies)))

    def rest(body: Any) -> httpx.Response:
        return httpx.Response(200, json=[{"id": b["id"], "result": b["params"][0] * 10} for b in body])

    rpc, asked = scripted(partial, rest)
    async with rpc:
        assert await rpc.batch([("m", [n]) for n in range(5)]) == [0, 10, 20, 30, 40]
    assert [len(body) for body in asked] == [5, 2]


async def test_batch_reports_a_refusal_in_its_place() -> None:
    """One refused call does not spoil the others."""

    def mixed(body: Any) -> httpx.Response:
        error = {"code": -32015, "message": "Transaction version (1) is not supported"}
        return httpx.Response(200, json=[{"id": body[0]["id"], "error": error}, {"id": body[1]["id"], "result": 1}])

    rpc, _ = scripted(mixed)
    async with rpc:
        first, second = await rpc.batch([("getTransaction", ["a"]), ("getTransaction", ["b"])])
    assert isinstance(first, RpcError)
    assert (first.code, second) == (-32015, 1)


async def test_large_batches_are_split() -> None:
    """No node is asked for more than a hundred things in one body."""
    rpc, asked = scripted(result(1))
    async with rpc:
        assert await rpc.batch([("m", [n]) for n in range(250)]) == [1] * 250
    assert [len(body) for body in asked] == [100, 100, 50]


async def test_secrets_of_the_url_stay_inside() -> None:
    """Neither repr nor error shows the key that an RPC url often carries."""

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    rpc = Rpc(URL, transport=httpx.MockTransport(broken))
    async with rpc:
        with pytest.raises(RetryableError) as caught:
            await rpc.call("getSlot")
    for text in (repr(rpc), str(caught.value), masked_url(URL)):
        assert "node.example:8899" in text
        assert not any(secret in text for secret in ("hunter2", "SECRET", "user"))


@pytest.mark.parametrize("url", ["", "localhost:8899", "ftp://x", "http://", "http://host:99999999"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """Settings are checked before the first call."""
    with pytest.raises(SettingsError, match="RPC url must look like http://host:port"):
        Rpc(url)
