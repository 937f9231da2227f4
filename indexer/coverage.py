"""
From a listed range to a proven one: the one place where rows become finalized.

What the finalized chain lists is fetched where it is not stored; what was stored as confirmed is promoted in place if
its block is the finalized one, and fetched again if it is not, or not known to be; what the chain does not list is
dropped after a second answer. Which ranges are listed, and by what means, is decided by frontier.py, backfill.py and
crawl.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from solders.signature import Signature

from indexer import metrics
from indexer.crawl import bodies_of, crawl, list_closed
from indexer.intake import Programs, Read, Unread, keep_unread, read_answers, read_bodies
from indexer.sources import node
from indexer.sources.rpc import Caller
from indexer.store.coverage import Proof, Range, select_cursor
from indexer.store.database import AsyncConnection, Pool, session
from indexer.store.stored import StoredRow, drop_transactions, select_stored, select_unfinalized
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch

# Bodies that are read in one go.
SLICE_SIZE = 100

Finish = Callable[[AsyncConnection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Settled:
    """
    What settling a range did.

    Args:
        transactions: fetched, because they were not stored, or not as the finalized chain has them.
        dropped: taken away by a fork.
        touched: account -> slot of the newest of the fetched transactions that could write it.
        unread: of the fetched ones, those of a version above ours: what they touched is not known.
    """

    transactions: int = 0
    dropped: int = 0
    touched: Mapping[bytes, int] = field(default_factory=dict)
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A range as it will be written: what was fetched, and what of the stored rows is final as it is."""

    proofs: Sequence[Proof]
    read: Read
    promoted: Mapping[bytes, int]
    gone: Mapping[bytes, int]


@dataclass(frozen=True, slots=True)
class Settler:
    """Settles ranges of some programs in one database."""

    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]

    async def prepare(
        self,
        rpc: Caller,
        proof: Proof,
        listed: Mapping[bytes, int],
        *,
        swept: Range | None = None,
        listed_here: bool = True,
    ) -> Prepared:
        """
        Ask everything that a listed range needs.

        Args:
            rpc: one node; `pinned`.
            proof: what is proven once this is written.
            listed: signature -> slot, everything that the finalized chain has in the proof's range.
            swept: where confirmed rows that are not listed are looked at; the proof's range.
            listed_here: whether it was `rpc` that listed. If not, it lists again before anything is dropped.

        Raises:
            RetryableError: the node did not answer, or contradicts itself.
        """
        area = swept or Range(proof.from_slot, proof.to_slot)
        gone, found = await self._ask_unlisted(rpc, proof.program_id, listed, area)
        if gone and not listed_here:
            infos = await node.fetch_signatures(
                rpc,
                proof.program_id,
                commitment="finalized",
                after_slot=proof.from_slot - 1,
                up_to_slot=proof.to_slot,
            )
            return await self.prepare(rpc, proof, {**listed, **slots_of(infos)})
        final = {**listed, **found}
        async with session(self.pool) as connection:
            stored = await select_stored(connection, final)
        kept = {s: row for s, row in stored.items() if row.slot == final[s]}
        waiting = {s: row for s, row in kept.items() if row.commitment == "confirmed"}
        slots = sorted({row.slot for row in waiting.values() if row.blockhash is not None})
        headers = await node.fetch_headers(rpc, slots, commitment="finalized") if slots else {}
        blockhashes = {slot: header.blockhash for slot, header in headers.items()}
        promoted = {
            s: row.slot
            for s, row in waiting.items()
            if row.blockhash is not None and row.blockhash == blockhashes.get(row.slot)
        }
        settled = {s for s, row in kept.items() if row.is_read and (s not in waiting or s in promoted)}
        missing = {s: slot for s, slot in final.items() if s not in settled}
        read = await self.fetch(rpc, missing, blockhashes, dict.fromkeys(missing, (proof.program_id,)))
        return Prepared([proof], read, promoted, gone)

    async def prepare_blocks(self, rpc: Caller, proofs: Sequence[Proof]) -> Prepared:
        """
        Fetch every block of a range, and keep what mentions the programs of the proofs.

        Args:
            rpc: one node; `pinned`.
            proofs: of one range, one a program.

        Raises:
            RetryableError: as `crawl`.
        """
        span = Range(proofs[0].from_slot, proofs[0].to_slot)
        program_ids = {proof.program_id for proof in proofs}
        kept = read_bodies([], self.programs, "finalized")
        listed: dict[bytes, int] = {}
        closed: dict[int, node.ClosedBlock] = {}
        async for slot, block in crawl(rpc, *span):
            if isinstance(block, node.ClosedBlock):
                closed[slot] = block
                continue
            bodies = bodies_of(slot, block, program_ids)
            read = read_answers(rpc, bodies, self.programs, "finalized", blockhashes={slot: block.blockhash})
            wanted = {row.signature for row in read.transactions if program_ids.intersection(row.mentions)}
            listed |= dict.fromkeys(wanted, slot)
            async with session(self.pool) as connection:
                stored = await select_stored(connection, wanted)
            _keep(kept, read, wanted - _final_in(stored, listed))
        if closed:
            await self._open(rpc, closed, program_ids, kept=kept, listed=listed)
        gone: dict[bytes, int] = {}
        for program_id in program_ids:
            absent, contradicted = await self._ask_unlisted(rpc, program_id, listed, span)
            if contradicted:
                signature, slot = next(iter(contradicted.items()))
                raise rpc.distrust(
                    f"{rpc.shown_url} shows {Signature(signature)} as final in slot {slot}, whose block lacks it"
                )
            gone |= absent
        return Prepared(proofs, kept, {}, gone)

    async def _open(
        self,
        rpc: Caller,
        closed: Mapping[int, node.ClosedBlock],
        program_ids: Set[bytes],
        *,
        kept: Read,
        listed: dict[bytes, int],
    ) -> None:
        """Read transaction by transaction what names the programs in blocks that are not shown as a whole."""
        listed_by: dict[bytes, tuple[bytes, ...]] = {}
        slots: dict[bytes, int] = {}
        for program_id in sorted(program_ids):
            async with session(self.pool) as connection:
                cursor = await select_cursor(connection, program_id, max(closed))
            before = None if cursor is None else str(Signature(cursor))
            for signature, slot in slots_of(await list_closed(rpc, program_id, closed, before)).items():
                slots[signature] = slot
                listed_by[signature] = (*listed_by.get(signature, ()), program_id)
        listed |= slots
        async with session(self.pool) as connection:
            final = _final_in(await select_stored(connection, slots), slots)
        missing = {signature: slot for signature, slot in slots.items() if signature not in final}
        read = await self.fetch(rpc, missing, {slot: block.blockhash for slot, block in closed.items()}, listed_by)
        _keep(kept, read, missing.keys())

    async def fetch(
        self,
        rpc: Caller,
        wanted: Mapping[bytes, int],
        blockhashes: Mapping[int, str],
        listed_by: Mapping[bytes, tuple[bytes, ...]],
    ) -> Read:
        """
        Fetch finalized transactions (signature -> slot) and read them; what is not shown is kept as far as it is known.

        Args:
            listed_by: signature -> programs that are known to list it, for what cannot be read.

        Raises:
            RetryableError: the node lists one and does not have it there.
        """
        texts = [str(Signature(signature)) for signature in wanted]
        answers = await node.fetch_transactions(rpc, texts, commitment="finalized")
        if None in answers:
            absent = texts[answers.index(None)]
            raise rpc.distrust(f"{rpc.shown_url} lists {absent} as finalized and does not have it")
        found = [answer for answer in answers if isinstance(answer, bytes)]
        read = await _read_in_slices(rpc, found, self.programs, blockhashes)
        for row in read.transactions:
            if wanted.get(row.signature) != row.slot:
                raise rpc.distrust(
                    f"{rpc.shown_url} lists {Signature(row.signature)} in slot {wanted.get(row.signature)} and shows "
                    f"it in {row.slot}"
                )
        refused = {s: a.version for s, a in zip(wanted, answers, strict=True) if isinstance(a, node.Unsupported)}
        if refused:
            slots = {signature: wanted[signature] for signature in refused}
            keep_unread(read, await _ask_unread(rpc, slots, refused, listed_by), blockhashes)
        return read

    async def write(self, prepared: Prepared, *, finish: Finish | None = None) -> Settled:
        """Write a prepared range and its proof in one database transaction, after what a fork took is gone."""
        dropped = 0
        async with session(self.pool) as connection:
            if prepared.gone:
                dropped = await drop_transactions(connection, prepared.gone)
            batch = prepared.read.batch(finalized=prepared.promoted, frontiers={}, coverage=prepared.proofs)
            written = await write_batch(connection, batch, self.tables, finish=finish)
        metrics.EVENTS.inc(written.events)
        rows = prepared.read.transactions
        return Settled(len(rows), dropped, prepared.read.touched, sum(row.fee is None for row in rows))

    async def _ask_unlisted(
        self, rpc: Caller, program_id: bytes, listed: Mapping[bytes, int], area: Range
    ) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """
        Ask what became of confirmed rows in `area` that are not listed where they are stored.

        Returns:
            Those that are gone from their slot, and those that are final there although the listing lacks them.
        """
        async with session(self.pool) as connection:
            waiting = await select_unfinalized(connection, program_id, area.to_slot, area.from_slot)
        suspects = [(signature, slot) for signature, slot in waiting.items() if listed.get(signature) != slot]
        gone: dict[bytes, int] = {}
        final: dict[bytes, int] = {}
        for start in range(0, len(suspects), node.STATUSES_PER_CALL_MAX):
            some = suspects[start : start + node.STATUSES_PER_CALL_MAX]
            at_slot, statuses = await node.fetch_statuses(rpc, [str(Signature(signature)) for signature, _ in some])
            if at_slot < area.to_slot:
                raise rpc.distrust(f"{rpc.shown_url} is behind its own finalized slot {area.to_slot}")
            for (signature, slot), status in zip(some, statuses, strict=True):
                if status is None or status.slot != slot:
                    gone[signature] = slot
                elif status.confirmation_status == "finalized":
                    final[signature] = slot
                else:
                    raise rpc.distrust(
                        f"{rpc.shown_url} shows {Signature(signature)} in slot {slot}, which is final there, and does "
                        "not list it"
                    )
        return gone, final


async def _ask_unread(
    rpc: Caller,
    slots: Mapping[bytes, int],
    versions: Mapping[bytes, int],
    listed_by: Mapping[bytes, tuple[bytes, ...]],
) -> list[Unread]:
    """Ask what else the node says of transactions that it does not show: whether they failed, and when they were."""
    times = await node.fetch_block_times(rpc, sorted(set(slots.values())))
    unread: list[Unread] = []
    signatures = list(slots)
    for start in range(0, len(signatures), node.STATUSES_PER_CALL_MAX):
        some = signatures[start : start + node.STATUSES_PER_CALL_MAX]
        _, statuses = await node.fetch_statuses(rpc, [str(Signature(signature)) for signature in some])
        for signature, status in zip(some, statuses, strict=True):
            slot = slots[signature]
            if status is None or status.slot != slot:
                raise rpc.distrust(f"{rpc.shown_url} lists {Signature(signature)} in slot {slot}, and not its status")
            version, mentions = versions[signature], listed_by.get(signature, ())
            unread.append(Unread(signature, slot, status.err, times.get(slot), version, mentions))
    return unread


def _final_in(stored: Mapping[bytes, StoredRow], slots: Mapping[bytes, int]) -> set[bytes]:
    """Return what is stored as it is for good: read, and finalized in its slot."""
    return {
        s for s, row in stored.items() if row.is_read and row.slot == slots.get(s) and row.commitment == "finalized"
    }


async def _read_in_slices(
    rpc: Caller, bodies: Sequence[bytes], programs: Programs, blockhashes: Mapping[int, str]
) -> Read:
    """Read finalized bodies, and let others of this process run in between: a live feed waits for milliseconds."""
    # Of the registry as it is now: where that changes in between, the writer refuses the whole.
    read = read_bodies([], programs, "finalized")
    for start in range(0, len(bodies), SLICE_SIZE):
        some = bodies[start : start + SLICE_SIZE]
        part = read_answers(rpc, some, programs, "finalized", blockhashes=blockhashes)
        _keep(read, part, {row.signature for row in part.transactions})
        await asyncio.sleep(0)
    return read


def _keep(kept: Read, read: Read, signatures: Set[bytes]) -> None:
    """Add to `kept` what was read of these signatures."""
    if not signatures:
        return
    kept.transactions.extend(row for row in read.transactions if row.signature in signatures)
    kept.events.extend(event for event in read.events if event.signature in signatures)
    kept.problems.extend(problem for problem in read.problems if problem.subject in signatures)
    kept.raw.update((signature, body) for signature, body in read.raw.items() if signature in signatures)
    for address, slot in read.touched.items():
        kept.touched[address] = max(slot, kept.touched.get(address, 0))


def slots_of(infos: Sequence[node.SignatureInfo]) -> dict[bytes, int]:
    """Return signature (64 bytes) -> slot of listed entries."""
    return {bytes(Signature.from_string(info.signature)): info.slot for info in infos}
