"""
What every reader of the benchmark is: something that can be timed, and something that says what it found.

What was found is said in one form by all of them, so that it can be compared with what was made, and only afterwards.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bench.inputs.made_transactions import Made, Way

LOGGED: frozenset[Way] = frozenset({"top", "nested"})
ALL: frozenset[Way] = LOGGED | {"cpi"}
TAKEN: frozenset[Way] = frozenset({"quoted"})
"""What a reader finds that takes texts for events."""


class Found(NamedTuple):
    """
    An event that a reader found.

    Args:
        place: number of the transaction, from 0.
        ordinal: None where the reader does not tell.
        text: as `canonical` writes it.
    """

    place: int
    program: str
    ordinal: int | None
    text: str


class Logs(NamedTuple):
    """The log lines of a transaction that succeeded, with what a reader of several programs is told beforehand."""

    place: int
    called: tuple[str, ...]
    lines: list[str]


class Took(NamedTuple):
    """Seconds on the wall, and seconds of all threads on a core: where others want the cores, those are steadier."""

    wall_s: float
    cpu_s: float


class Reader(NamedTuple):
    """
    One way to read, timed by `run`.

    Args:
        finds: which of the made events it has to find, no others, in their order within a program.
        run: reads all once; returns how long that took and the result, whatever that is.
        found: what a result says; not timed.
        baseline: the peer that others of its group are compared with.
        target: how many times as fast as the baseline it is meant to be.
    """

    name: str
    finds: frozenset[Way]
    run: Callable[[], tuple[Took, Any]]
    found: Callable[[Any], Iterable[Found]]
    baseline: bool = False
    target: float | None = None


def timed(read: Callable[[], Any]) -> Callable[[], tuple[Took, Any]]:
    """Return `read` with how long it takes."""

    def run() -> tuple[Took, Any]:
        started, started_cpu = time.perf_counter(), time.process_time()
        result = read()
        return Took(time.perf_counter() - started, time.process_time() - started_cpu), result

    return run


def logs_of(made: Sequence[Made]) -> list[Logs]:
    """
    Return the logs of what succeeded.

    Lines alone do not tell whether a transaction failed, so whoever reads only lines must have asked that before.
    """
    return [Logs(place, one.called, one.logs) for place, one in enumerate(made) if not one.failed]
