"""
An HTTP port inside a process that has other things to do: the socket, and a server that leaves the signals alone.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from indexer.errors import SettingsError


class QuietServer(uvicorn.Server):
    """Uvicorn that leaves the process's signals alone: whoever runs it decides how it ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Note that the port answers now."""
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def bound_socket(host: str, port: int, *, who: str, option: str) -> socket.socket:
    """
    Return a listening socket; port 0 picks a free one.

    Args:
        who: what listens, for the message.
        option: what the operator would change.

    Raises:
        SettingsError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, every answer takes 40 ms more.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"{who} cannot listen on {host}:{port} ({reason.lower()}): stop what does, or choose another {option};"
            " 0 picks a free one"
        ) from error
    sock.setblocking(False)
    return sock
