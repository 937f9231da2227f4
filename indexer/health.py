"""
/metrics, /health and /ready of a running indexer, on one port.

Healthy is a process that still does its rounds: one that is not should be started again. Ready is one whose tables can
be relied on: caught up once, connected, and not far behind. Being unready for a while is nothing a restart mends.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from indexer.metrics import exposition
from indexer.serving import QuietServer, bound_socket

# The heartbeat comes every second; without one for so long the loop hangs, or its database does.
BEAT_AGE_S_MAX = 30.0
# About a minute and a half of slots: more than any commitment's own distance.
READY_LAG_SLOTS_MAX = 225

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Health:
    """
    What the parts of an indexer report about themselves.

    Args:
        clock: seconds, monotonic.
        lag_slots: the tip less the lowest frontier; None before the first.
    """

    clock: Callable[[], float] = time.monotonic
    beat_at: float | None = None
    caught_up: bool = False
    connected: bool = False
    lag_slots: int | None = None

    def beat(self, lag_slots: int | None) -> None:
        """Note that a round is done."""
        self.beat_at, self.lag_slots = self.clock(), lag_slots

    def complaints(self) -> list[str]:
        """Return why the process should be started again; nothing where it should not."""
        if self.beat_at is None:
            return []  # it is still starting
        age_s = self.clock() - self.beat_at
        return [f"no heartbeat for {age_s:.0f} s"] if age_s > BEAT_AGE_S_MAX else []

    def reservations(self) -> list[str]:
        """Return why the tables cannot be relied on yet, or just now."""
        found = self.complaints()
        if not self.caught_up:
            found.append("the first enumeration is not done")
        if not self.connected:
            found.append("the live feed is not connected")
        if self.lag_slots is not None and self.lag_slots > READY_LAG_SLOTS_MAX:
            found.append(f"the frontier is {self.lag_slots} slots behind")
        return found


@asynccontextmanager
async def served(health: Health, host: str, port: int) -> AsyncIterator[int]:
    """
    Serve the three pages while the body runs, and give the port (a free one where 0 was asked for).

    Raises:
        SettingsError: the address cannot be listened on.
    """
    sock = bound_socket(host, port, who="the metrics page", option="--metrics-port")
    config = uvicorn.Config(
        _app(health),
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="health")
    await server.answering.wait()
    try:
        yield int(sock.getsockname()[1])
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        sock.close()


def _app(health: Health) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/metrics":
                body, content_type = exposition()
                await _respond(send, 200, body, content_type)
            case "/health":
                await _verdict(send, health.complaints())
            case "/ready":
                await _verdict(send, health.reservations())
            case _:
                await _respond(send, 404, b"/metrics, /health or /ready\n", "text/plain")

    return app


async def _verdict(send: Send, reasons: list[str]) -> None:
    body = json.dumps({"ok": not reasons, "reasons": reasons}).encode()
    await _respond(send, 503 if reasons else 200, body, "application/json")


async def _respond(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
