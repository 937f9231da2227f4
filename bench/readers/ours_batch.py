"""Capstan, a batch at a time: columns instead of objects."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.inputs.made_transactions import PROGRAMS, canonical
from bench.readers.checks import DifferenceError
from bench.readers.reading import LOGGED, Found, Logs, Reader, timed
from indexer.chain.columns import Columns, Group
from indexer.chain.log_columns import scan_log_columns

IDS = [program.program_id for program in PROGRAMS.values()]
LogLists: TypeAlias = "pa.Array[Any] | Sequence[Sequence[str]]"


class Batch(NamedTuple):
    """
    One program's events of a batch.

    Args:
        rows, ordinals: int64, (n_payloads,): the transaction of each payload, and its data line's number.
    """

    program: str
    rows: npt.NDArray[np.int64]
    ordinals: npt.NDArray[np.int64]
    columns: Columns


def read_logs(logs: LogLists) -> list[Batch]:
    """Attribute the data lines of all transactions at once, then decode all payloads of each program at once."""
    scanned = scan_log_columns(logs, IDS)
    assert not scanned.bad, "the made logs are whole"
    batches = []
    for number, (name, program) in enumerate(PROGRAMS.items()):
        lines = np.flatnonzero(scanned.programs == number).astype(np.int64)
        if not len(lines):
            continue
        columns = program.decode_events(scanned.payloads.take(pa.array(lines, pa.int64())))
        batches.append(Batch(name, scanned.rows[lines], scanned.ordinals[lines], columns))
    return batches


def found_in(batches: Sequence[Batch], places: Sequence[int]) -> Iterator[Found]:
    """
    Yield events in the common form, in the order of their lines.

    Args:
        places: number of the transaction at each row.

    Raises:
        DifferenceError: a payload could not be decoded.
    """
    found = [
        Found(places[int(batch.rows[at])], batch.program, int(batch.ordinals[at]), text)
        for batch in batches
        for at, text in _texts(batch.columns)
    ]
    return iter(sorted(found, key=lambda one: (one.place, one.ordinal)))


def _texts(columns: Columns) -> Iterator[tuple[int, str]]:
    if columns.errors:
        raise DifferenceError(f"payloads could not be decoded: {columns.errors[:3]}")
    for name, group in columns.groups.items():
        for at, values in zip(group.rows.tolist(), rows_of(group), strict=True):
            yield at, canonical(name, list(values))


def rows_of(group: Group) -> Iterator[tuple[Any, ...]]:
    """Yield a group's values, a tuple for each payload."""
    yield from zip(*(_values(column) for column in group.values.columns), strict=True)


def _values(column: Any) -> Sequence[Any]:
    values: list[Any] = column.to_pylist()
    return values


def position_rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """
    Yield decoded `Position` accounts as tuples, in the order in which they were given.

    Raises:
        DifferenceError: some could not be decoded, or are something else.
    """
    groups: Mapping[str, Group] = columns.groups
    if columns.errors or set(groups) != {"Position"}:
        raise DifferenceError(f"decode_accounts found {list(groups)}, and errors: {columns.errors[:3]}")
    group = groups["Position"]
    if group.rows.tolist() != list(range(len(group.rows))):
        raise DifferenceError("decode_accounts left accounts out, or has them in another order")
    return rows_of(group)


def readers(logs: Sequence[Logs]) -> tuple[Reader, Reader]:
    """Return it as reader of Python lists of lines, and of an Arrow column of them."""
    lists = [one.lines for one in logs]
    column = pa.array(lists, pa.list_(pa.string()))
    places = [one.place for one in logs]
    name = "Capstan, a batch: scan_log_columns, decode_events, from"

    def found(batches: list[Batch]) -> Iterator[Found]:
        return found_in(batches, places)

    return (
        Reader(f"{name} lists", LOGGED, timed(lambda: read_logs(lists)), found, target=30),
        Reader(f"{name} Arrow", LOGGED, timed(lambda: read_logs(column)), found, target=70),
    )
