"""
How the indexer is, from the database alone: nobody has to run for it to be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from indexer.errors import RetryableError
from indexer.store.database import CONNECT_TIMEOUT_S, first_line, mask_dsn
from indexer.store.queries import load_queries

QUERIES = load_queries("status")


class ProgramStatus(NamedTuple):
    """`frontier` and `lag_slots` are None before the first proof; `proven_ago_s` since the frontier last moved."""

    name: str
    program_id: bytes
    history_start: int
    frontier: int | None
    lag_slots: int | None
    proven_ago_s: float | None


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
                [ProgramStatus(name, bytes(key), *rest) for name, key, *rest in _rows(connection, "select_programs")],
                [Gap(*row) for row in _rows(connection, "select_gaps")],
                [BackfillStatus(*row) for row in _rows(connection, "select_backfills")],
                _rows(connection, "select_incomplete")[0][0],
                [ProblemCount(*row) for row in _rows(connection, "select_problems")],
                [Part(*row) for row in _rows(connection, "select_parts")],
            )
    except psycopg.OperationalError as error:
        raise RetryableError(f"{mask_dsn(dsn)} does not answer: {first_line(error)}") from error


def _rows(connection: psycopg.Connection[Any], name: str) -> list[tuple[Any, ...]]:
    return connection.execute(QUERIES[name]).fetchall()
