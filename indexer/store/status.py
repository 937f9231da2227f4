"""
How the indexer is, from the database alone: nobody has to run for it to be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import psycopg

from indexer.errors import RetryableError
from indexer.store.database import CONNECT_TIMEOUT_S, first_line, mask_dsn
from indexer.store.queries import load_queries

QUERIES = load_queries("status")


# A cluster's nominal pace, where no two times are known.
SLOT_S = 0.4


class Lag(NamedTuple):
    """Seconds behind the tip; `estimated` where the time of the frontier's own slot is not known."""

    seconds: float
    estimated: bool


class Moment(NamedTuple):
    """A slot and its time, unix seconds."""

    slot: int
    time: float


class ProgramStatus(NamedTuple):
    """
    `frontier` and `lag_slots` are None before the first proof; `proven_ago_s` since the frontier last moved.

    Args:
        lag: by the cluster's own clock; None where the tip or the frontier is not known.
    """

    name: str
    program_id: bytes
    history_start: int
    frontier: int | None
    lag_slots: int | None
    proven_ago_s: float | None
    lag: Lag | None


class Gap(NamedTuple):
    """Slots of a program that nothing proves, both inclusive."""

    program: str
    from_slot: int
    to_slot: int


class BackfillStatus(NamedTuple):
    """An open backfill; `jobs_held` of `jobs_open` are being worked on."""

    backfill_id: int
    programs: list[str]
    means: str
    from_slot: int
    to_slot: int
    listed_from: int | None
    jobs_open: int
    jobs_held: int
    jobs_done: int
    last_error: str | None


class ProblemCount(NamedTuple):
    """How much of a program could not be read, and where last."""

    program: str
    kind: str
    total: int
    newest_slot: int


class Part(NamedTuple):
    """A running part, and what went wrong in it last."""

    name: str
    tip_slot: int | None
    beat_ago_s: float
    last_error: str | None
    last_error_ago_s: float | None


@dataclass(frozen=True)
class Status:
    """Everything of one moment. `incomplete` counts transactions whose logs were cut or absent, or that are unread."""

    programs: Sequence[ProgramStatus]
    gaps: Sequence[Gap]
    backfills: Sequence[BackfillStatus]
    incomplete: int
    problems: Sequence[ProblemCount]
    parts: Sequence[Part]


def read_status(dsn: str) -> Status:
    """
    Return how the indexer of the database at `dsn` is.

    Raises:
        RetryableError: the database does not answer, or no indexer of this version has been run on it.
    """
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            connection.execute("set transaction isolation level repeatable read read only")
            if not _rows(connection, "is_there")[0][0]:
                raise RetryableError(f"{mask_dsn(dsn)} has not been indexed yet: run capstan index first")
            return Status(
                [_program(row) for row in _rows(connection, "select_programs")],
                [Gap(*row) for row in _rows(connection, "select_gaps")],
                [BackfillStatus(*row) for row in _rows(connection, "select_backfills")],
                _rows(connection, "select_incomplete")[0][0],
                [ProblemCount(*row) for row in _rows(connection, "select_problems")],
                [Part(*row) for row in _rows(connection, "select_parts")],
            )
    except psycopg.OperationalError as error:
        raise RetryableError(f"{mask_dsn(dsn)} does not answer: {first_line(error)}") from error


def _program(row: Sequence[Any]) -> ProgramStatus:
    name, key, start, frontier, lag_slots, proven_ago_s, *known = row
    moments = [
        Moment(slot, time)
        for slot, time in zip(known[::2], known[1::2], strict=True)
        if slot is not None and time is not None
    ]
    lag = None if lag_slots is None else lag_of(frontier, max(lag_slots, 0), moments)
    return ProgramStatus(name, bytes(key), start, frontier, lag_slots, proven_ago_s, lag)


def lag_of(frontier: int, lag_slots: int, known: Sequence[Moment]) -> Lag:
    """
    Return how long ago the frontier's slot was when the tip was seen.

    Args:
        known: slots with their times, in order of slots; the tip's is the last, where it is known.
    """
    tip = frontier + lag_slots
    if lag_slots == 0:
        return Lag(0.0, estimated=False)
    if len(known) < 2 or known[-1].slot != tip:
        return Lag(lag_slots * SLOT_S, estimated=True)
    exact = next((moment for moment in known if moment.slot == frontier), None)
    if exact is not None:
        return Lag(max(known[-1].time - exact.time, 0.0), estimated=False)
    # Between its neighbours time goes evenly; before the first one that is known, as between that and the tip.
    low, high = next(((a, b) for a, b in pairwise(known) if a.slot <= frontier < b.slot), (known[0], known[-1]))
    if low.slot >= high.slot:
        return Lag(lag_slots * SLOT_S, estimated=True)
    time = low.time + (high.time - low.time) * (frontier - low.slot) / (high.slot - low.slot)
    return Lag(max(known[-1].time - time, 0.0), estimated=True)


def _rows(connection: psycopg.Connection[Any], name: str) -> list[tuple[Any, ...]]:
    return connection.execute(QUERIES[name]).fetchall()
