"""
The frontier: up to which slot everything is stored, and the only code that moves it.

It moves by enumeration alone: all signatures of a program between the old frontier and the finalized slot are listed,
what is not yet stored is fetched, and the frontier moves in the Postgres transaction that stores it. On the way
confirmed rows are promoted, and those that the finalized chain does not have are dropped. An error moves nothing.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from solders.signature import Signature

from indexer.errors import RetryableError
from indexer.intake import Programs, Read, read_bodies
from indexer.sources import node
from indexer.sources.node import SignatureInfo
from indexer.sources.rpc import Rpc
from indexer.store.database import Pool, session
from indexer.store.typed import ProgramTables
from indexer.store.writer import drop_transactions, select_frontier, select_known, select_unfinalized, write_batch

# Transactions fetched and written together. A slot is never cut in two, so a chunk may be larger.
CHUNK_SIZE = 500
# Signatures in one getSignatureStatuses call; the node's own limit.
STATUSES_PER_CALL_MAX = 256
EMPTY = Read([], [], [], {}, {})


class Progress(Protocol):
    """Where a long enumeration reports to."""

    def listed(self, signatures: int) -> None:
        """So many signatures are listed."""

    def stored(self, done: int, total: int) -> None:
        """So many of one program's are stored."""

    def finished(self) -> None:
        """Everything is."""


class Silent:
    """Reports nowhere: the steps of a live indexer are short."""

    def listed(self, signatures: int) -> None:
        """Say nothing."""

    def stored(self, done: int, total: int) -> None:
        """Say nothing."""

    def finished(self) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """
    What one step did.

    Args:
        transactions: newly fetched, so the live feed had missed them.
        dropped: taken away by a fork.
        touched: account -> slot of the newest of those transactions that could write it.
    """

    slot: int
    transactions: int = 0
    dropped: int = 0
    touched: Mapping[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frontier:
    """Moves the frontiers of some programs on one chain in one database."""

    rpc: Rpc
    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]

    async def advance(self, progress: Progress = Silent()) -> Advanced:  # noqa: B008 -- it has no state
        """
        Prove everything up to the chain's finalized slot, program by program.

        Raises:
            RetryableError: the node did not answer, or not completely. What was stored until then stays, and is enough
                to go on from.
        """
        # Asked before listing: a listing can only prove slots that were final when it began.
        slot = await node.fetch_slot(self.rpc, "finalized")
        fetched = dropped = 0
        touched: dict[bytes, int] = {}
        for program_id in self.programs:
            step = await self._advance_program(program_id, slot, progress)
            fetched += step.transactions
            dropped += step.dropped
            _touch(touched, step.touched)
        progress.finished()
        return Advanced(slot, fetched, dropped, touched)

    async def _advance_program(self, program_id: bytes, slot: int, progress: Progress) -> Advanced:
        async with session(self.pool) as connection:
            known_slot = await select_frontier(connection, program_id)
        if known_slot is not None and known_slot >= slot:
            return Advanced(slot)
        infos = await node.fetch_signatures(
            self.rpc,
            program_id,
            commitment="finalized",
            after_slot=known_slot,
            up_to_slot=slot,
            on_page=progress.listed,
        )
        dropped = await self._drop_unlisted(program_id, infos, slot)
        fetched = done = 0
        touched: dict[bytes, int] = {}
        chunks = list(chunked(infos, CHUNK_SIZE)) or [[]]
        upcoming = asyncio.create_task(self._fetch_missing(chunks[0]))
        try:
            for number, chunk in enumerate(chunks):
                read, stored = await upcoming
                is_last = number + 1 == len(chunks)
                if not is_last:  # the next chunk travels while this one is written
                    upcoming = asyncio.create_task(self._fetch_missing(chunks[number + 1]))
                proven_slot = slot if is_last else chunk[-1].slot
                batch = read.batch(finalized=stored, frontiers={program_id: proven_slot})
                async with session(self.pool) as connection:
                    await write_batch(connection, batch, self.tables)
                fetched += len(read.transactions)
                _touch(touched, read.touched)
                done += len(chunk)
                progress.stored(done, len(infos))
        finally:
            upcoming.cancel()
        return Advanced(slot, fetched, dropped, touched)

    async def _fetch_missing(self, chunk: Sequence[SignatureInfo]) -> tuple[Read, dict[bytes, int]]:
        """Return what is not stored yet, read, and the slots of those that are stored already."""
        listed = {bytes(Signature.from_string(info.signature)): info.slot for info in chunk}
        if not listed:
            return EMPTY, {}
        async with session(self.pool) as connection:
            known = await select_known(connection, listed)
        stored = {signature: slot for signature, slot in listed.items() if signature in known}
        missing = [str(Signature(signature)) for signature in listed if signature not in known]
        bodies = await node.fetch_transactions(self.rpc, missing, commitment="finalized")
        found = [body for body in bodies if body is not None]
        if len(found) < len(missing):
            absent = missing[bodies.index(None)]
            raise RetryableError(f"{self.rpc.shown_url} lists {absent} as finalized and does not have it")
        read = read_bodies(found, self.programs, "finalized")
        return read, stored

    async def _drop_unlisted(self, program_id: bytes, infos: Sequence[SignatureInfo], slot: int) -> int:
        """Drop confirmed rows at or below `slot` that the finalized chain, asked twice, does not have there."""
        async with session(self.pool) as connection:
            waiting = await select_unfinalized(connection, program_id, slot)
        listed = {(bytes(Signature.from_string(info.signature)), info.slot) for info in infos}
        suspects = [(signature, at) for signature, at in waiting.items() if (signature, at) not in listed]
        if not suspects:
            return 0
        gone: dict[bytes, int] = {}
        for start in range(0, len(suspects), STATUSES_PER_CALL_MAX):
            some = suspects[start : start + STATUSES_PER_CALL_MAX]
            texts = [str(Signature(signature)) for signature, _ in some]
            reply = await self.rpc.call("getSignatureStatuses", [texts, {"searchTransactionHistory": True}])
            if int(reply["context"]["slot"]) < slot:
                raise RetryableError(f"{self.rpc.shown_url} is behind its own finalized slot {slot}")
            for (signature, at), status in zip(some, reply["value"], strict=True):
                if status is None or int(status["slot"]) != at:
                    gone[signature] = at
        async with session(self.pool) as connection:
            return await drop_transactions(connection, gone)


def _touch(touched: dict[bytes, int], more: Mapping[bytes, int]) -> None:
    for address, slot in more.items():
        touched[address] = max(slot, touched.get(address, 0))


def chunked(infos: Sequence[SignatureInfo], size: int) -> Iterator[list[SignatureInfo]]:
    """Split signatures, sorted by slot, into chunks of about `size` that never cut a slot in two."""
    chunk: list[SignatureInfo] = []
    for info in infos:
        if len(chunk) >= size and info.slot != chunk[-1].slot:
            yield chunk
            chunk = []
        chunk.append(info)
    if chunk:
        yield chunk
