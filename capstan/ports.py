"""
Ports for the demo's processes: the usual ones for a person, free ones for a script.
"""

import socket

from indexer.errors import SettingsError

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def checked_port(port: int, purpose: str) -> int:
    """
    Return `port` if it is free, or a free one for 0.

    Raises:
        SettingsError: somebody listens there already.
    """
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                f"port {port} for {purpose} cannot be used ({error.strerror}): choose another, or stop what is there"
            ) from None
    return port
