"""
Notifications on a bad day: how a fate from `faults.py` looks on a WebSocket.

Every client has a number (the order of connecting) and counts what is meant for it, so that clients fare apart and the
same as the last time. Without faults none of this runs: `pubsub.py` broadcasts.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast

from localnet.rpc.faults import Faults

GOING_AWAY = 1001


class Mishaps:
    """The delivery of notifications to clients that may fare badly."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._number: dict[ServerConnection, int] = {}
        self._connected = 0
        self._meant: Counter[ServerConnection] = Counter()
        self._silent: set[ServerConnection] = set()
        self._held: dict[ServerConnection, str] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def enter(self, client: ServerConnection) -> None:
        """Give a client its number."""
        self._number[client] = self._connected
        self._connected += 1

    def leave(self, client: ServerConnection) -> None:
        """Forget a client."""
        self._number.pop(client, None)
        self._meant.pop(client, None)
        self._silent.discard(client)
        self._held.pop(client, None)

    def hears(self, client: ServerConnection) -> bool:
        """Say whether a client still gets anything at all."""
        return client not in self._silent

    def tell(self, clients: Iterable[ServerConnection], message: str) -> None:
        """Send a notification to each client, or do what goes wrong instead."""
        if not self._faults.disturbs_notifications and not self._silent and not self._held:
            broadcast(clients, message)
            return
        # In the order of connecting, not of a set, so that everybody fares the same each time.
        for client in sorted(clients, key=self._number.__getitem__):
            if client not in self._silent:
                self._tell_one(client, message)

    def _tell_one(self, client: ServerConnection, message: str) -> None:
        self._meant[client] += 1
        fate = self._faults.of_notification(self._number[client], self._meant[client])
        delay_s = self._faults.settings.notification_delay_ms / 1000
        match fate:
            case "socket_close":
                task = asyncio.get_running_loop().create_task(client.close(GOING_AWAY, "try again"))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            case "socket_silent":
                self._silent.add(client)
            case "notification_drop":
                pass
            case "notification_delay":
                self._later(delay_s, self._send, client, message)
            case "notification_reorder" if client not in self._held:
                self._held[client] = message
                self._later(delay_s, self._release, client, message)
            case _:
                self._send(client, message)
                if fate == "notification_repeat":
                    self._send(client, message)
                self._release(client, self._held.get(client))

    def _release(self, client: ServerConnection, message: str | None) -> None:
        """Send what was held back, unless it is out already."""
        if message is not None and self._held.get(client) == message:
            del self._held[client]
            self._send(client, message)

    def _send(self, client: ServerConnection, message: str) -> None:
        if client in self._number and client not in self._silent:
            broadcast((client,), message)

    def _later(self, delay_s: float, function: Any, *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(delay_s, function, *arguments)
