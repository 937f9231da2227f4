"""
Account state, as of any slot that is not finalized yet and of the newest that is.

LiteSVM knows only the newest state and cannot list accounts. Every write comes through here as well, so that a reader
at `confirmed` does not see what happened since, and so that a dropped block can be undone. Accounts that nobody has
written since the beginning (the built-in programs, most sysvars) are not here: the VM itself answers for them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

RENT_BYTES_OVERHEAD = 128
RENT_LAMPORTS_PER_BYTE = 6_960
"""Two years' rent of one byte: what Solana asks for since rent is no longer collected."""


class AccountState(NamedTuple):
    """An account with at least one lamport. `owner` is 32 bytes."""

    lamports: int
    data: bytes
    owner: bytes
    executable: bool = False


State = AccountState | None
"""None: there is no account, which is the same as one of 0 lamports."""


def rent_exempt_minimum(size: int) -> int:
    """Return the lamports that make an account with `size` bytes of data exempt from rent."""
    return (size + RENT_BYTES_OVERHEAD) * RENT_LAMPORTS_PER_BYTE


def breaks_rent(before: State, after: State) -> bool:
    """
    Say whether a transaction may not leave an account like this.

    An account must end exempt or not at all; one that was short of it already may stay so, if it keeps its size and
    gains nothing.

    Source: the validator's check of rent state transitions.
    """
    if after is None or after.lamports >= rent_exempt_minimum(len(after.data)):
        return False
    if before is None or before.lamports >= rent_exempt_minimum(len(before.data)):
        return True
    return len(before.data) != len(after.data) or after.lamports > before.lamports


class Accounts:
    """Every account written since the chain began, with the versions that some commitment still shows."""

    def __init__(self) -> None:
        # address -> (slot, state at the end of that slot), oldest first; the last one may belong to the open slot.
        self._versions: dict[bytes, list[tuple[int, State]]] = {}
        # owner -> addresses that it owns in at least one version; a dict keeps the order of their creation.
        self._by_owner: dict[bytes, dict[bytes, None]] = {}

    def __contains__(self, address: bytes) -> bool:
        return address in self._versions

    def newest(self, address: bytes) -> State:
        """Return the state in the open slot; None also where the address was never written."""
        versions = self._versions.get(address)
        return versions[-1][1] if versions else None

    def at(self, address: bytes, slot: int) -> State:
        """Return the state at the end of `slot`; None also where the address was never written."""
        for written, state in reversed(self._versions.get(address, ())):
            if written <= slot:
                return state
        return None

    def owned_by(self, owner: bytes, slot: int) -> Iterator[tuple[bytes, AccountState]]:
        """Yield address and state of every account that `owner` owns at the end of `slot`, oldest address first."""
        for address in tuple(self._by_owner.get(owner, ())):
            state = self.at(address, slot)
            if state is not None and state.owner == owner:
                yield address, state

    def every(self, slot: int) -> Iterator[tuple[bytes, AccountState]]:
        """Yield address and state of every account written so far that exists at the end of `slot`."""
        for address in tuple(self._versions):
            state = self.at(address, slot)
            if state is not None:
                yield address, state

    def write(self, address: bytes, slot: int, state: State, *, before: State) -> None:
        """
        Note that an account looks like `state` from `slot` on.

        Args:
            slot: the open one; not below any earlier write's.
            before: what it looked like; kept where this is the address's first write.
        """
        versions = self._versions.get(address)
        if versions is None:
            versions = self._versions[address] = [] if before is None else [(-1, before)]
            if before is not None:
                self._by_owner.setdefault(before.owner, {})[address] = None
        if versions and versions[-1][0] == slot:
            versions[-1] = (slot, state)
        else:
            versions.append((slot, state))
        if state is not None:
            self._by_owner.setdefault(state.owner, {})[address] = None

    def forget_before(self, slot: int, addresses: Sequence[bytes]) -> None:
        """Drop what the finalized `slot` has replaced in those accounts: nobody can ask for it any more."""
        for address in addresses:
            versions = self._versions.get(address)
            if versions is None:
                continue
            current = max((i for i, (written, _) in enumerate(versions) if written <= slot), default=0)
            dropped, versions[:current] = versions[:current], []
            for _, state in dropped:
                self._release(address, state)
            if len(versions) == 1 and versions[0][1] is None:
                del self._versions[address]

    def undo_from(self, slot: int, addresses: Sequence[bytes]) -> dict[bytes, State]:
        """Take back everything written to those accounts in `slot` and later; return what they look like again."""
        restored: dict[bytes, State] = {}
        for address in addresses:
            versions = self._versions.get(address, [])
            kept = [version for version in versions if version[0] < slot]
            dropped, versions[:] = versions[len(kept) :], kept
            for _, state in dropped:
                self._release(address, state)
            restored[address] = kept[-1][1] if kept else None
            if not kept:
                self._versions.pop(address, None)
        return restored

    def current(self) -> Iterator[tuple[bytes, State]]:
        """Yield every written address with its state in the open slot."""
        for address, versions in self._versions.items():
            yield address, versions[-1][1]

    def versions(self) -> dict[bytes, list[tuple[int, State]]]:
        """Return all versions by address, oldest first; not a copy."""
        return self._versions

    def owners(self) -> dict[bytes, list[bytes]]:
        """Return the addresses of each owner, in the order of their creation."""
        return {owner: list(addresses) for owner, addresses in self._by_owner.items()}

    @classmethod
    def restored(cls, versions: dict[bytes, list[tuple[int, State]]], owners: dict[bytes, list[bytes]]) -> "Accounts":
        """Return the store that `versions` and `owners` were taken from."""
        accounts = cls()
        accounts._versions = versions
        accounts._by_owner = {owner: dict.fromkeys(addresses) for owner, addresses in owners.items()}
        return accounts

    def _release(self, address: bytes, state: State) -> None:
        if state is None:
            return
        still_owned = any(kept is not None and kept.owner == state.owner for _, kept in self._versions[address])
        if not still_owned:
            self._by_owner.get(state.owner, {}).pop(address, None)
