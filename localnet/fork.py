"""
A fork: the newest blocks vanish, and what was in them lands elsewhere or nowhere.

A validator that saw a minority's blocks has to replace them by those of the majority: accounts go back, slots that had
a block are skipped or hold another one, signatures are gone or come again in another slot. Only blocks that are not
final can go. Everything is decided by a seed, and runs again through the chain's own rules: a transaction whose
blockhash was one of the lost blocks' is lost with it, as on a cluster. What no transaction wrote (an oracle's prices,
an account that a test set) is written again in its slot, or in the next that has a block.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from indexer.errors import DataError
from localnet.accounts import State
from localnet.chain import Chain
from localnet.ledger import Block, Executed

MOVED_BLOCKS_MAX = 3
"""A transaction that lands in another slot does so within so many blocks."""

Write = tuple[bytes, State]
"""An address and what lies there from now on."""


class Chances(NamedTuple):
    """How likely each fate is, from 0 to 1: a transaction is lost, one lands later, a slot has no block any more."""

    lost: float = 0.3
    moved: float = 0.3
    skipped: float = 0.2


class Forked(NamedTuple):
    """
    What a fork did.

    Attributes:
        dropped: slots whose blocks are gone, the open one not counted.
        rewritten: those that hold another block now; the others are skipped.
        lost: signatures (64 bytes) that are in no block any more.
        moved: signatures that are in another slot.
    """

    dropped: list[int]
    rewritten: list[int]
    lost: list[bytes]
    moved: list[bytes]


def fork(chain: Chain, blocks: int, *, seed: int, chances: Chances, produced_ns: int | None = None) -> Forked:
    """
    Replace the newest `blocks` confirmed blocks and all above them; the open slot keeps its number.

    Args:
        blocks: at least 1, and at most the confirmed ones that are not final.
        seed: the same chain and seed fork the same way.
        produced_ns: wall clock of the new blocks, nanoseconds since 1970.

    Raises:
        DataError: there are not so many.
    """
    confirmed, finalized = chain.block_at("confirmed").height, chain.block_at("finalized").height
    if not 0 < blocks <= confirmed - finalized:
        raise DataError(
            f"{blocks} blocks cannot be forked away: {confirmed - finalized} are confirmed and not final, and at least"
            " 1 must go"
        )
    height = confirmed - blocks + 1
    old = [*chain.ledger.blocks[height:], chain.kept().open]
    rng = Random(f"fork/{seed}/{old[0].slot}")  # noqa: S311  # must be repeatable, guards no secret
    places = _surviving_places(len(old), rng, chances.skipped)
    plan = _plan(old, places, rng, chances)
    chain.rewind(height, slot=old[places[0]].slot, unix_time=old[places[0]].unix_time)
    landed: dict[bytes, int] = {}
    for place in places:
        if old[place].slot != chain.slot:
            chain.open_slot(old[place].slot, old[place].unix_time, produced_ns=produced_ns)
        for entry in plan[place]:
            if not isinstance(entry, Executed):
                chain.set_account(*entry)
            elif (again := chain.execute(entry.transaction, verified=True)).landed:
                landed[again.signature] = again.slot
    before = [executed for block in old for executed in block.transactions]
    return Forked(
        dropped=[block.slot for block in old[:-1]],
        rewritten=[old[place].slot for place in places[:-1]],
        lost=[executed.signature for executed in before if executed.signature not in landed],
        moved=[one.signature for one in before if landed.get(one.signature, one.slot) != one.slot],
    )


def _surviving_places(count: int, rng: Random, skipped: float) -> list[int]:
    """Return which of `count` slots hold a block again: always the last, which is open, and one below it."""
    places = [place for place in range(count - 1) if rng.random() >= skipped]
    return [*(places or [0]), count - 1]


def _plan(
    old: Sequence[Block], places: Sequence[int], rng: Random, chances: Chances
) -> dict[int, list[Executed | Write]]:
    """Return what runs and is written again at which place, in the order in which it first was."""
    opening: dict[int, list[Executed | Write]] = {place: [] for place in places}
    plan: dict[int, list[Executed | Write]] = {place: [] for place in places}

    def place_of(number: int) -> int:
        return next(place for place in places if place >= min(number, len(old) - 1))

    for number, block in enumerate(old):
        writes = list(block.outside)
        opening[place_of(number)] += [write[1:] for write in writes if write[0] == 0]
        writes = [write for write in writes if write[0]]
        for executed in block.transactions:
            while writes and writes[0][0] <= executed.index:
                plan[place_of(number)].append(writes.pop(0)[1:])
            fate = rng.random()
            if fate < chances.lost:
                continue
            later = rng.randint(1, MOVED_BLOCKS_MAX) if fate < chances.lost + chances.moved else 0
            plan[place_of(number + later)].append(executed)
        plan[place_of(number)] += [write[1:] for write in writes]
    return {place: opening[place] + plan[place] for place in places}
