"""
Whether a reader found what was made, all of it and nothing else, before anybody looks at its times.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from bench.inputs.made_accounts import make_positions
from bench.inputs.made_transactions import Made
from bench.readers.reading import Found, Reader


class DifferenceError(Exception):
    """A reader did not find what it has to find."""


def check_events(reader: Reader, made: Sequence[Made], result: Any) -> int:
    """
    Compare what a reader found with the made events of the kinds that it finds, in order, within each program.

    Raises:
        DifferenceError: one is missing, is too many, or says something else.
    """
    wanted = sorted(
        (
            Found(place, event.program, event.ordinal, event.text)
            for place, one in enumerate(made)
            for event in one.events
            if event.way in reader.finds
        ),
        key=_program_of,
    )
    found = sorted(reader.found(result), key=_program_of)
    for ours, theirs in zip_longest(wanted, found):
        if ours is None or theirs is None or not _same(theirs, ours):
            raise DifferenceError(f"{reader.name} found {theirs} where {ours} was made")
    return len(found)


def _program_of(found: Found) -> tuple[int, str]:
    # Peers read one program after the other: the order between programs is not theirs to tell.
    return found.place, found.program


def _same(theirs: Found, ours: Found) -> bool:
    return theirs.ordinal in (None, ours.ordinal) and theirs._replace(ordinal=ours.ordinal) == ours


def check_positions(name: str, count: int, rows: Iterable[Sequence[Any]]) -> int:
    """
    Compare decoded accounts with the made ones.

    Raises:
        DifferenceError: one is not as it was made.
    """
    for place, (made, row) in enumerate(zip_longest(make_positions(count), rows)):
        if made is None or row is None or tuple(row) != made.values:
            raise DifferenceError(f"{name} decoded account {place} as {row}, which was made as {made}")
    return count
