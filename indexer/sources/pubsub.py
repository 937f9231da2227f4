"""
A node's PubSub as one stream of notifications.

A hint for latency and nothing more: notifications may be missing, repeated or out of order, and a connection can die
without a word. So silence beyond a limit is an error here, every connection ends in one, and whoever listens repairs
from enumeration after each reconnect.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from indexer.errors import RetryableError
from indexer.sources.rpc import RETRYABLE_CODES, RpcError, checked_url, masked_url

# The largest message taken: a program notification carries at most a 10 MiB account in base64.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


class Subscription(NamedTuple):
    """What to ask for. `tag` comes back with each notification: (kind, program id, …), whatever the listener needs."""

    tag: Any
    method: str
    params: Sequence[Any]


class Notification(NamedTuple):
    """`result` is the notification's `params.result` as JSON has it: mostly {"context": …, "value": …}."""

    tag: Any
    result: Any


class _Error(msgspec.Struct):
    code: int
    message: str = ""


class _Reply(msgspec.Struct):
    result: int | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@asynccontextmanager
async def subscribed(
    url: str, subscriptions: Sequence[Subscription], *, silence_s_max: float = 15.0
) -> AsyncIterator[AsyncIterator[Notification]]:
    """
    Connect, subscribe to everything, and give the stream of notifications.

    Backpressure is the socket's: a listener that is slow stops reading, and may be cut off by the node.

    Args:
        url: ws:// or wss://.
        subscriptions: at least one of them should speak regularly (slotSubscribe), for the silence watchdog.
        silence_s_max: seconds without any message after which the connection counts as dead.

    Raises:
        RetryableError: not reachable, closed, or silent. Also from inside the stream.
        RpcError: the node refused a subscription.
    """
    checked_url(url, ("ws", "wss"), "PubSub url")
    shown = masked_url(url)
    try:
        async with connect(
            url,
            max_size=MESSAGE_BYTES_MAX,
            max_queue=4096,
            ping_interval=10,
            ping_timeout=10,
            open_timeout=10,
        ) as socket:
            tags, early = await _subscribe(socket, subscriptions, silence_s_max)
            yield _stream(socket, tags, early, shown, silence_s_max)
    except TimeoutError as error:
        raise RetryableError(f"{shown} did not answer in time") from error
    except (OSError, WebSocketException) as error:
        raise RetryableError(f"the PubSub connection to {shown} failed: {type(error).__name__}") from error


async def _subscribe(
    socket: ClientConnection, subscriptions: Sequence[Subscription], timeout_s: float
) -> tuple[dict[int, Any], list[Mapping[str, Any]]]:
    """Return subscription number -> tag, and the notifications that arrived among the replies."""
    for i, wanted in enumerate(subscriptions):
        request = {"jsonrpc": "2.0", "id": i, "method": wanted.method, "params": list(wanted.params)}
        await socket.send(_encode(request).decode())
    tags: dict[int, Any] = {}
    early: list[Mapping[str, Any]] = []
    open_ = set(range(len(subscriptions)))
    async with asyncio.timeout(timeout_s):
        while open_:
            message = _message(await socket.recv())
            number = message.get("id")
            if not isinstance(number, int) or number not in open_:
                early.append(message)
                continue
            tags[_subscription(subscriptions[number].method, message)] = subscriptions[number].tag
            open_.discard(number)
    return tags, early


def _subscription(method: str, message: Mapping[str, Any]) -> int:
    """Return the number of a subscription that the node has accepted."""
    try:
        reply = msgspec.convert(message, _Reply)
    except msgspec.ValidationError as error:
        raise RetryableError(f"the node answered {method} with a message of an unknown shape: {error}") from error
    if reply.error is not None and reply.error.code in RETRYABLE_CODES:
        raise RetryableError(f"{method}: the node cannot answer now (code {reply.error.code}: {reply.error.message})")
    if reply.error is not None:
        raise RpcError(method, reply.error.code, reply.error.message)
    if reply.result is None:
        raise RetryableError(f"the node answered {method} without the number of a subscription")
    return reply.result


async def _stream(
    socket: ClientConnection,
    tags: Mapping[int, Any],
    early: Sequence[Mapping[str, Any]],
    shown: str,
    silence_s_max: float,
) -> AsyncIterator[Notification]:
    for message in early:
        notification = _notification(message, tags)
        if notification is not None:
            yield notification
    while True:
        try:
            async with asyncio.timeout(silence_s_max):
                raw = await socket.recv()
        except TimeoutError as error:
            raise RetryableError(f"{shown} has been silent for {silence_s_max:g} s") from error
        except (OSError, WebSocketException) as error:
            raise RetryableError(f"the PubSub connection to {shown} ended: {type(error).__name__}") from error
        notification = _notification(_message(raw), tags)
        if notification is not None:
            yield notification


def _message(raw: str | bytes) -> Mapping[str, Any]:
    try:
        message = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RetryableError(f"the node sent a PubSub message that is not JSON: {error}") from error
    return message if isinstance(message, dict) else {}


def _notification(message: Mapping[str, Any], tags: Mapping[int, Any]) -> Notification | None:
    """Return the notification, or None for a message that is none of ours: unknown ones are no reason to stop."""
    params = message.get("params")
    number = params.get("subscription") if isinstance(params, dict) else None
    if not isinstance(params, dict) or not isinstance(number, int) or number not in tags:
        return None
    return Notification(tags[number], params.get("result"))
