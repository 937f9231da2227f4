"""
Is what is stored what the chain has? Asked again from the chain, piece by piece, and put right where it is not.

The enumeration is made anew, by signatures or by blocks, and held against Postgres and the lake in both directions.
Nothing is taken out before a second answer of the same node has said so. Memory holds one piece.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from solders.signature import Signature

from indexer.coverage import Prepared, Settler
from indexer.crawl import bodies_of, crawl, list_closed
from indexer.intake import Programs, read_answers
from indexer.sources import node
from indexer.sources.rpc import Caller
from indexer.store.coverage import Means, Proof, Range, select_cursor
from indexer.store.database import Pool, session
from indexer.store.typed import ProgramTables
from indexer.store.verify import (
    Kept,
    LakeCount,
    LakeView,
    delete_wrong,
    note_late,
    select_kept,
    select_kept_of,
)

BLOCK_SLOTS_TOGETHER = 64

Kind: TypeAlias = Literal["missing", "extra", "other_slot", "other_err", "not_finalized", "lake"]


class Difference(NamedTuple):
    """
    One transaction that is stored otherwise than the chain has it.

    Args:
        place: "postgres" or "lake".
        slot: on the chain; where it is stored, if the chain does not have it.
    """

    kind: Kind
    place: str
    program_id: bytes
    signature: bytes
    slot: int
    detail: str

    def sentence(self) -> str:
        """Return it as one line."""
        return f"{self.kind} in {self.place}: {Signature(self.signature)} in slot {self.slot}: {self.detail}"


class Piece(NamedTuple):
    """What the chain has in some slots: signature -> (slot, err as JSON or None)."""

    span: Range
    on_chain: Mapping[bytes, tuple[int, Any]]


@dataclass(slots=True)
class Report:
    """
    What was found in a range, and what was done about it.

    Args:
        checked: transactions on the chain.
        incomplete: stored ones whose logs were cut or absent, or that are unread; no difference, as the chain may have
            no more.
        unread: stored ones of a version above what could be read; a repair asks for them again.
    """

    checked: int = 0
    differences: list[Difference] = field(default_factory=list)
    incomplete: list[bytes] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)
    lake: list[LakeCount] = field(default_factory=list)
    fetched: int = 0
    removed: int = 0
    rewritten: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether everything is stored as the chain has it."""
        return not self.differences and all(count.is_clean for count in self.lake)


@dataclass(frozen=True, slots=True)
class Verifier:
    """
    Compares ranges, and repairs them.

    Args:
        dsn: to read the lake with.
    """

    rpc: Caller
    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]
    dsn: str

    async def verify(
        self, span: Range, means: Means, *, repair: bool = False, on_piece: Callable[[int, int], None] = lambda *_: None
    ) -> Report:
        """
        Compare a range with the chain.

        Args:
            repair: also put right what differs; the range is proven then.
            on_piece: called with the slots of each piece, and the transactions in it.

        Raises:
            RetryableError: the node or the database did not answer; what was repaired stays repaired.
        """
        report = Report()
        rpc = self.rpc.pinned()
        lake = await asyncio.to_thread(LakeView.open, self.dsn)
        try:
            for program_id in self.programs:
                async for piece in self._pieces(rpc, program_id, span, means):
                    found, unread = await self._compare(program_id, piece, lake, report)
                    if repair:
                        proof = Proof(program_id, *piece.span, means)
                        unread = await self._repair(rpc, piece, found, unread, proof=proof, report=report)
                    report.unread += unread
                    on_piece(piece.span.to_slot - piece.span.from_slot + 1, len(piece.on_chain))
                if lake is not None:
                    await self._compare_lake(lake, program_id, span, report, repair=repair)
        finally:
            if lake is not None:
                await asyncio.to_thread(lake.__exit__, None, None, None)
        return report

    async def _pieces(self, rpc: Caller, program_id: bytes, span: Range, means: Means) -> AsyncIterator[Piece]:
        if means == "blocks":
            for end in range(span.to_slot, span.from_slot - 1, -BLOCK_SLOTS_TOGETHER):
                part = Range(max(span.from_slot, end - BLOCK_SLOTS_TOGETHER + 1), end)
                yield Piece(part, await self._in_blocks(rpc, program_id, part))
            return
        listing = node.list_signatures(
            rpc, program_id, commitment="finalized", from_slot=span.from_slot, to_slot=span.to_slot
        )
        async for step in listing:
            await node.check_reach(rpc, step)
            on_chain = {bytes(Signature.from_string(i.signature)): (i.slot, i.err) for i in step.infos}
            yield Piece(Range(step.from_slot, step.to_slot), on_chain)

    async def _in_blocks(self, rpc: Caller, program_id: bytes, span: Range) -> dict[bytes, tuple[int, Any]]:
        on_chain: dict[bytes, tuple[int, Any]] = {}
        closed: dict[int, node.ClosedBlock] = {}
        async for slot, block in crawl(rpc, *span):
            if isinstance(block, node.ClosedBlock):
                closed[slot] = block
                continue
            bodies = bodies_of(slot, block, [program_id])
            for row in read_answers(rpc, bodies, self.programs, "finalized").transactions:
                if program_id in row.mentions:
                    on_chain[row.signature] = (slot, None if row.err is None else json.loads(row.err))
        if closed:
            async with session(self.pool) as connection:
                cursor = await select_cursor(connection, program_id, max(closed))
            before = None if cursor is None else str(Signature(cursor))
            infos = await list_closed(rpc, program_id, closed, before)
            on_chain |= {bytes(Signature.from_string(i.signature)): (i.slot, i.err) for i in infos}
        return on_chain

    async def _compare(
        self, program_id: bytes, piece: Piece, lake: LakeView | None, report: Report
    ) -> tuple[list[Difference], list[bytes]]:
        """Return what differs, and what is stored as the chain has it but could not be read."""
        async with session(self.pool) as connection:
            kept = await select_kept(connection, program_id, piece.span)
            absent = piece.on_chain.keys() - kept.keys()
            elsewhere = await select_kept_of(connection, absent) if absent else {}
        if lake is not None and absent - elsewhere.keys():
            # Old rows are taken out of Postgres once the lake has them.
            elsewhere |= await asyncio.to_thread(lake.find, absent - elsewhere.keys())
        found = list(differences_of(program_id, piece.on_chain, kept, elsewhere))
        if lake is not None:
            schema = self.tables[program_id].schema_name
            exported = await asyncio.to_thread(lake.event_signatures, schema, piece.span)
            known = {difference.signature for difference in found}
            found += [
                Difference("extra", "lake", program_id, s, slot, "the chain does not have it there")
                for s, slot in exported.items()
                if piece.on_chain.get(s, (None, None))[0] != slot and s not in known
            ]
        report.checked += len(piece.on_chain)
        report.differences += found
        there = {s: row for s, row in {**elsewhere, **kept}.items() if s in piece.on_chain}
        report.incomplete += [s for s, row in there.items() if not row.complete]
        return found, [s for s, row in there.items() if not row.read]

    async def _compare_lake(
        self, lake: LakeView, program_id: bytes, span: Range, report: Report, *, repair: bool
    ) -> None:
        counts = await asyncio.to_thread(lake.compare, self.tables[program_id].schema_name, span)
        report.lake += counts
        wrong = {signature for count in counts for signature in count.signatures}
        if repair and wrong:
            async with session(self.pool) as connection:
                await note_late(connection, wrong)
            report.rewritten += len(wrong)

    async def _repair(
        self,
        rpc: Caller,
        piece: Piece,
        found: Sequence[Difference],
        unread: Sequence[bytes],
        *,
        proof: Proof,
        report: Report,
    ) -> list[bytes]:
        """
        Take out what is not on the chain after a second answer, fetch what is missing or unread, and prove the piece.

        Returns:
            What still cannot be read.
        """
        wrong = {d.signature: d.slot for d in found if d.kind == "extra"}
        await _check_gone(rpc, wrong)
        # What the chain has otherwise is taken out where it is stored, and comes back as it is.
        async with session(self.pool) as connection:
            other = [d.signature for d in found if d.kind in ("other_slot", "other_err")]
            wrong |= {s: row.slot for s, row in (await select_kept_of(connection, other)).items()}
            wrong |= {s: piece.on_chain[s][0] for s in other if s not in wrong}
            if wrong:
                await delete_wrong(connection, wrong)
        settler = Settler(self.pool, self.programs, self.tables)
        wanted = {*unread, *(d.signature for d in found if d.signature in piece.on_chain)}
        again = {signature: piece.on_chain[signature][0] for signature in wanted}
        read = await settler.fetch(rpc, again, {}, dict.fromkeys(again, (proof.program_id,)))
        await settler.write(Prepared([proof], read, {}, {}))
        still = [row.signature for row in read.transactions if row.fee is None]
        report.removed += sum(d.kind == "extra" for d in found)
        report.fetched += len(again) - len(still)
        return still


async def _check_gone(rpc: Caller, wrong: Mapping[bytes, int]) -> None:
    signatures = list(wrong)
    for start in range(0, len(signatures), node.STATUSES_PER_CALL_MAX):
        some = signatures[start : start + node.STATUSES_PER_CALL_MAX]
        _, statuses = await node.fetch_statuses(rpc, [str(Signature(s)) for s in some])
        for signature, status in zip(some, statuses, strict=True):
            if status is not None and status.slot == wrong[signature]:
                raise rpc.distrust(
                    f"{rpc.shown_url} does not list {Signature(signature)} and knows it in slot {status.slot}: nothing "
                    "is removed on such an answer"
                )


def differences_of(
    program_id: bytes,
    on_chain: Mapping[bytes, tuple[int, Any]],
    kept: Mapping[bytes, Kept],
    elsewhere: Mapping[bytes, Kept],
) -> Iterable[Difference]:
    """
    Give every difference between what the chain has in some slots and what is stored.

    Args:
        kept: what is stored of the program in these slots.
        elsewhere: what is stored, anywhere, of what is on the chain and not in `kept`.
    """
    for signature, (slot, err) in on_chain.items():
        row = kept.get(signature) or elsewhere.get(signature)
        if row is None:
            yield Difference("missing", "postgres", program_id, signature, slot, "it is not stored")
        elif row.slot != slot:
            yield Difference("other_slot", row.place, program_id, signature, slot, f"it is stored in slot {row.slot}")
        elif (None if row.err is None else json.loads(row.err)) != err:
            stored = row.err or "success"
            yield Difference("other_err", row.place, program_id, signature, slot, f"it is stored as {stored}")
        elif not row.finalized:
            yield Difference("not_finalized", row.place, program_id, signature, slot, "it is stored as confirmed")
        elif row.place == "postgres" and signature not in kept:
            yield Difference("missing", "postgres", program_id, signature, slot, "it does not name the program there")
    for signature, row in kept.items():
        if signature not in on_chain:
            yield Difference("extra", row.place, program_id, signature, row.slot, "the chain does not have it there")
