"""
Who acts, when two engines run.

The lease is a row in Postgres with a holder, an end and an epoch; the database's clock decides. Holding it is never
assumed from here: the INSERT of each attempt checks holder, epoch and end again, so an engine that slept through its
own lease is refused there, whatever it still believes.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from typing import Protocol


class LeaseTable(Protocol):
    """The part of the ledger that keeps leases."""

    async def acquire_lease(self, name: str, *, holder: str, ttl_s: float) -> int | None:
        """Take or renew; return the epoch, None where another holds it."""
        ...

    async def release_lease(self, name: str, *, holder: str, epoch: int) -> None:
        """Give back what is held with this epoch."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as it was when it was last renewed."""

    name: str
    holder: str
    epoch: int


def new_holder() -> str:
    """Return a name for this process that no other has, and that tells a person where it runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Lease:
    """One engine's side of one lease."""

    def __init__(self, table: LeaseTable, *, name: str, holder: str, ttl_s: float) -> None:
        self._table = table
        self._name = name
        self._holder = holder
        self._ttl_s = ttl_s
        self.held: Held | None = None

    async def renew(self) -> Held | None:
        """Take or renew the lease; None where another engine holds it."""
        epoch = await self._table.acquire_lease(self._name, holder=self._holder, ttl_s=self._ttl_s)
        self.held = None if epoch is None else Held(self._name, self._holder, epoch)
        return self.held

    async def release(self) -> None:
        """Let the next engine start at once instead of after the lease's end."""
        if self.held is not None:
            held, self.held = self.held, None
            await self._table.release_lease(held.name, holder=held.holder, epoch=held.epoch)
