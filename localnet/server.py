"""
The sockets of a chain, and its slot clock: JSON-RPC over HTTP on one port, PubSub over WebSocket on another.

Everything runs in one asyncio loop. What a method means is `localnet.rpc`'s, who hears what is `pubsub.py`'s; what is
here is ports, HTTP, and producing a slot every so many milliseconds.
"""

import asyncio
import contextlib
import inspect
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import uvicorn
from websockets.asyncio.server import serve as serve_websocket

from indexer.errors import SettingsError
from indexer.serving import QuietServer, bound_socket
from localnet.chain import Chain
from localnet.pubsub import PubSub
from localnet.rpc.dispatch import Dispatcher, ExtraMethod
from localnet.rpc.faults import Faults

JSON_TYPE = b"application/json; charset=utf-8"
CONTROL_PREFIX = b'"localnet_'
BODY_BYTES_MAX = 8 * 1024 * 1024
MESSAGE_BYTES_MAX = 1024 * 1024
PING_INTERVAL_S = 20
CORS_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"86400"),
)

OnSlot = Callable[[], Awaitable[None] | None]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)


class Urls(NamedTuple):
    """Where a running localnet is reached."""

    rpc_url: str
    ws_url: str


class Server:
    """
    A chain with its ports.

    `open` binds the ports, `run` serves and lets slots tick until it is cancelled; `serve` below does both.
    """

    def __init__(
        self,
        chain: Chain,
        extra_methods: Mapping[str, ExtraMethod] | None = None,
        *,
        host: str = "127.0.0.1",
        rpc_port: int = 8899,
        ws_port: int = 8900,
        slot_ms: int = 400,
        on_slot: OnSlot | None = None,
        faults: Faults | None = None,
    ) -> None:
        """
        Args:
            chain: its open slot is the first that this server produces.
            extra_methods: more JSON-RPC methods; each takes the list of params, may be async, may raise RpcError.
            host: the address to listen on.
            rpc_port, ws_port: 0 picks a free one.
            slot_ms: a slot's length.
            on_slot: called (and awaited) in each slot right after it has opened; what it executes is in that slot.
            faults: what goes wrong between chain and clients; None: nothing ever.
        """
        self._chain = chain
        self._faults = Faults() if faults is None else faults
        self._dispatcher = Dispatcher(chain, extra_methods, self._faults)
        chain.log_limit = self._faults.log_limit
        self._host = host
        self._rpc_port = rpc_port
        self._ws_port = ws_port
        self._slot_s = slot_ms / 1000
        self._on_slot = on_slot
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def open(self) -> Urls:
        """
        Bind both ports.

        Raises:
            SettingsError: one of them is in use, or the address is not this machine's.
        """
        rpc = bound_socket(self._host, self._rpc_port, who="localnet", option="--rpc-port")
        try:
            ws = bound_socket(self._host, self._ws_port, who="localnet", option="--ws-port")
        except SettingsError:
            rpc.close()
            raise
        self._sockets = rpc, ws
        shown = f"[{self._host}]" if ":" in self._host else self._host
        return Urls(f"http://{shown}:{rpc.getsockname()[1]}", f"ws://{shown}:{ws.getsockname()[1]}")

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled; sets `ready` once both ports answer."""
        assert self._sockets is not None, "open() comes first"
        rpc_socket, ws_socket = self._sockets
        pubsub = PubSub(self._chain, self._faults)
        try:
            async with (
                serve_websocket(
                    pubsub.serve_client,
                    sock=ws_socket,
                    compression=None,
                    ping_interval=PING_INTERVAL_S,
                    ping_timeout=PING_INTERVAL_S,
                    max_size=MESSAGE_BYTES_MAX,
                    close_timeout=1,
                ),
                self._http(rpc_socket),
            ):
                if ready is not None:
                    ready.set()
                await self._tick()
        finally:
            pubsub.close()
            rpc_socket.close()
            ws_socket.close()

    @asynccontextmanager
    async def _http(self, sock: socket.socket) -> AsyncIterator[None]:
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        server = QuietServer(config)
        logging.getLogger("uvicorn.error").addFilter(_unless_meant)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            await server.answering.wait()
            yield
        finally:
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _tick(self) -> None:
        """Produce a slot whenever its time is over. The chain's clock goes as fast as the wall's."""
        chain = self._chain
        begun = time.monotonic()
        unix_time = unix_begun = chain.unix_time
        due = begun
        await self._call_on_slot()
        while True:
            due += self._slot_s
            late = time.monotonic() - due
            if late > self._slot_s:
                # What could not be kept is not caught up on in a burst: the slots are longer then.
                due += late
            await asyncio.sleep(max(0.0, -late))
            if chain.unix_time != unix_time:
                # Somebody else set the clock: it goes on from there.
                begun, unix_begun = time.monotonic(), chain.unix_time
            unix_time = max(unix_begun + int(time.monotonic() - begun), chain.unix_time)
            chain.open_slot(chain.slot + 1, unix_time, produced_ns=time.time_ns())
            await self._call_on_slot()

    async def _call_on_slot(self) -> None:
        if self._on_slot is None:
            return
        try:
            waiting = self._on_slot()
            if inspect.isawaitable(waiting):
                await waiting
        except Exception:  # noqa: BLE001  # the chain goes on without its users; the log says why
            _log.exception("what should happen in slot %d failed", self._chain.slot)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one POST, one JSON-RPC body."""
        if scope["type"] != "http":
            return
        method = scope["method"]
        if method == "OPTIONS":
            await _respond(send, 200, b"", b"text/plain")
        elif method == "GET" and scope["path"] == "/health":
            await _respond(send, 200, b"ok", b"text/plain")
        elif method != "POST":
            text = b"Used HTTP Method is not allowed. POST or OPTIONS is required\n"
            await _respond(send, 405, text, b"text/plain")
        elif not _is_json(scope):
            text = b"Supplied content type is not allowed. Content-Type: application/json is required\n"
            await _respond(send, 415, text, b"text/plain")
        else:
            body = await _read_body(receive)
            if body is None:
                text = f"Request body is larger than {BODY_BYTES_MAX} bytes\n".encode()
                await _respond(send, 413, text, b"text/plain")
                return
            await self._answer(body, receive, send)

    async def _answer(self, body: bytes, receive: Receive, send: Send) -> None:
        """Answer one body, or do what goes wrong instead; what steers the faults itself never meets one."""
        fault = None if CONTROL_PREFIX in body else self._faults.of_request()
        if fault == "http_429":
            retry_after = str(self._faults.settings.retry_after_s).encode()
            text = b'{"jsonrpc":"2.0","error":{"code":429,"message":"Too many requests"},"id":null}'
            await _respond(send, 429, text, JSON_TYPE, (b"retry-after", retry_after))
            return
        if fault == "http_5xx":
            count = self._faults.counts[fault]
            await _respond(
                send, (500, 502, 503)[self._faults.pick(3, fault, count)], b"upstream failed\n", b"text/plain"
            )
            return
        answer = await self._dispatcher.answer(body)
        if fault == "http_timeout":
            # A client that gives up disconnects, and nobody waits for it.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(receive(), self._faults.settings.timeout_s)
                return
            await _respond(send, 504, b"upstream timed out\n", b"text/plain")
        elif fault == "http_cut" and self._faults.pick(2, fault, self._faults.counts[fault]):
            await _send_half(send, answer)
        else:
            await _respond(send, 200, answer[: len(answer) // 2] if fault == "http_cut" else answer, JSON_TYPE)


@asynccontextmanager
async def serve(
    chain: Chain,
    extra_methods: Mapping[str, ExtraMethod] | None = None,
    *,
    host: str = "127.0.0.1",
    rpc_port: int = 8899,
    ws_port: int = 8900,
    slot_ms: int = 400,
    on_slot: OnSlot | None = None,
    faults: Faults | None = None,
) -> AsyncIterator[Urls]:
    """
    Serve a chain as long as the block runs; the arguments are those of `Server`.

    Raises:
        SettingsError: a port is in use, or the address is not this machine's.
    """
    server = Server(
        chain,
        extra_methods,
        host=host,
        rpc_port=rpc_port,
        ws_port=ws_port,
        slot_ms=slot_ms,
        on_slot=on_slot,
        faults=faults,
    )
    urls = server.open()
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready))
    starting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield urls
    finally:
        starting.cancel()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value).split(b";")[0].strip().lower() == b"application/json"
    return False


async def _read_body(receive: Receive) -> bytes | None:
    """Return the request's body, None where it is too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES_MAX:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send_half(send: Send, body: bytes) -> None:
    """Promise a whole body and send half of it; uvicorn closes the connection on an answer that does not end."""
    headers = [(b"content-type", JSON_TYPE), (b"content-length", str(len(body)).encode()), *CORS_HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


def _unless_meant(record: logging.LogRecord) -> bool:
    """Say whether uvicorn complains about something else than an answer that was cut short on purpose."""
    return "without completing response" not in record.getMessage()


async def _respond(send: Send, status: int, body: bytes, content_type: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *more,
        *CORS_HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
