"""PubSub as a stream: early notifications kept, silence and closure told, nothing of it fatal to the caller."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from indexer.errors import RetryableError
from indexer.sources.pubsub import Subscription, subscribed
from indexer.sources.rpc import RpcError

Talk = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def node(talk: Talk) -> AsyncIterator[str]:
    async with serve(talk, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def notification(subscription: int, result: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": "x", "params": {"subscription": subscription, "result": result}})


async def test_notifications_among_the_replies_are_kept() -> None:
    """A busy node sends the first notification before the second reply."""

    async def talk(socket: ServerConnection) -> None:
        first, second = json.loads(await socket.recv()), json.loads(await socket.recv())
        await socket.send(json.dumps({"id": first["id"], "result": 41}))
        await socket.send(notification(41, "early"))
        await socket.send(json.dumps({"id": second["id"], "result": 42}))
        await socket.send(notification(99, "not ours"))
        await socket.send(notification(42, "late"))
        await socket.wait_closed()

    async with node(talk) as url:
        asked = [Subscription("a", "logsSubscribe", ["all"]), Subscription("b", "slotSubscribe", [])]
        async with subscribed(url, asked) as stream:
            got = [await anext(stream), await anext(stream)]
    assert [(n.tag, n.result) for n in got] == [("a", "early"), ("b", "late")]


async def test_silence_is_an_error() -> None:
    """A connection that dies without a word is found out."""

    async def talk(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"id": json.loads(await socket.recv())["id"], "result": 1}))
        await socket.wait_closed()

    async with node(talk) as url:
        with pytest.raises(RetryableError, match="silent"):
            async with subscribed(url, [Subscription(0, "slotSubscribe", [])], silence_s_max=0.2) as stream:
                await anext(stream)


@pytest.mark.parametrize("message", [None, "{not json"], ids=["closed", "garbage"])
async def test_closing_and_garbage_are_errors(message: str | None) -> None:
    """The listener is told, so that it reconnects and repairs."""

    async def talk(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"id": json.loads(await socket.recv())["id"], "result": 1}))
        if message is not None:
            await socket.send(message)
        await socket.close()

    async with node(talk) as url:
        with pytest.raises(RetryableError):
            async with subscribed(url, [Subscription(0, "slotSubscribe", [])]) as stream:
                await anext(stream)


async def test_a_refused_subscription_is_told() -> None:
    """A node without a method would otherwise look like a quiet chain."""

    async def talk(socket: ServerConnection) -> None:
        error = {"code": -32601, "message": "Method not found"}
        await socket.send(json.dumps({"id": json.loads(await socket.recv())["id"], "error": error}))
        await socket.wait_closed()

    async with node(talk) as url:
        with pytest.raises(RpcError, match="Method not found"):
            async with subscribed(url, [Subscription(0, "blockSubscribe", [])]):
                pass


async def test_nobody_there() -> None:
    """An unreachable node is worth another try, and says where it was sought."""
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1"):
        async with asyncio.timeout(5), subscribed("ws://127.0.0.1:1", []):
            pass


@pytest.mark.parametrize(
    "reply",
    [
        {"id": 0, "result": None},
        {"id": 0, "result": [1]},
        {"id": 0, "result": "1"},
        {"id": 0},
        {"id": 0, "error": "busy"},
        {"id": 0, "error": {"code": "x"}},
        {"id": 0, "error": {"code": -32005, "message": "busy"}},
    ],
)
async def test_a_reply_of_another_shape_ends_the_connection_and_not_the_process(reply: Any) -> None:
    """What a subscription is answered is a number, or a refusal; else another connection may do better."""

    async def talk(socket: ServerConnection) -> None:
        await socket.recv()
        for text in ("[]", "7", '{"id": [1]}', '{"id": {}}', '{"params": 7}', '{"params": {"subscription": []}}'):
            await socket.send(text)
        await socket.send(json.dumps(reply))
        await socket.wait_closed()

    async with node(talk) as url:
        with pytest.raises(RetryableError):
            async with subscribed(url, [Subscription(0, "slotSubscribe", [])], silence_s_max=5.0):
                pass


async def test_notifications_of_another_shape_are_passed_over() -> None:
    """A message that is none of ours is no reason to stop, whatever is in it."""

    async def talk(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"id": json.loads(await socket.recv())["id"], "result": 1}))
        for text in (
            "[]",
            "7",
            '{"params": 7}',
            '{"params": {"subscription": []}}',
            '{"params": {"subscription": {}}}',
        ):
            await socket.send(text)
        await socket.send(notification(1, "sound"))
        await socket.wait_closed()

    async with node(talk) as url, subscribed(url, [Subscription("a", "slotSubscribe", [])]) as stream:
        assert (await anext(stream)).result == "sound"
