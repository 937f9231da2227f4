"""Capstan, a batch at a time: columns instead of objects."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.inputs.made_transactions import PROGRAMS, canonical
from bench.readers.checks import DifferenceError
from bench.readers.reading import ALL, LOGGED, Found, Logs, Reader, timed
from indexer.chain.batch import Extracted as ExtractedEvents
from indexer.chain.batch import extract_batch
from indexer.chain.bodies import read_bodies
from indexer.chain.body_lines import body_batches
from indexer.chain.columns import Columns, Group
from indexer.chain.log_columns import scan_log_columns

BY_ID = {program.program_id: program for program in PROGRAMS.values()}
# Much of reading bodies is done without Python's lock.
THREADS = 2
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


class Extracted(NamedTuple):
    """The events of a batch, the first transaction of which has the number `first`."""

    first: int
    events: ExtractedEvents


def read_logs(logs: LogLists) -> list[Batch]:
    """Attribute the data lines of all transactions at once, then decode all payloads of each program at once."""
    scanned = scan_log_columns(logs, list(BY_ID))
    assert not scanned.bad, "the made logs are whole"
    batches = []
    for number, (name, program) in enumerate(PROGRAMS.items()):
        lines = np.flatnonzero(scanned.programs == number).astype(np.int64)
        columns = program.decode_events(scanned.payloads.take(pa.array(lines, pa.int64())))
        batches.append(Batch(name, scanned.rows[lines], scanned.ordinals[lines], columns))
    return batches


def read_file(path: Path, threads: int) -> list[Extracted]:
    """Parse the bodies of a file, a batch of lines after the other or some at once, and extract from each batch."""
    with path.open("rb") as file:
        batches = body_batches(memoryview(mmap(file.fileno(), 0, access=ACCESS_READ)))
    with ThreadPoolExecutor(threads) as pool:
        read = list(pool.map(_read_batch, batches) if threads > 1 else map(_read_batch, batches))
    first_lines = accumulate((len(events.complete) for events in read), initial=0)
    return [Extracted(*one) for one in zip(first_lines, read, strict=False)]


def _read_batch(bodies: memoryview) -> ExtractedEvents:
    transactions = read_bodies(bodies, list(BY_ID))
    assert not transactions.errors, "the made bodies are whole"
    return extract_batch(transactions, BY_ID)


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


def found_extracted(extracted: Sequence[Extracted]) -> Iterator[Found]:
    """
    Yield events in the common form, those of lines first in each transaction.

    Raises:
        DifferenceError: something could not be read.
    """
    for first, batch in extracted:
        if batch.problems or not batch.complete.all():
            raise DifferenceError(f"bodies could not be read in full: {batch.problems[:3]}")
        found = [
            (kind, Found(first + row, BY_ID[program_id].name, ordinal, canonical(name, list(values))))
            for (program_id, name), events in batch.events.items()
            for row, kind, ordinal, values in zip(
                events.rows.tolist(),
                _values(events.identity["kind"]),
                _values(events.identity["ordinal"]),
                rows_of(events.values),
                strict=True,
            )
        ]
        for _, one in sorted(found, key=lambda pair: (pair[1].place, pair[0] == "cpi", pair[1].ordinal)):
            yield one


def _texts(columns: Columns) -> Iterator[tuple[int, str]]:
    if columns.errors:
        raise DifferenceError(f"payloads could not be decoded: {columns.errors[:3]}")
    for name, group in columns.groups.items():
        for at, values in zip(group.rows.tolist(), rows_of(group.values), strict=True):
            yield at, canonical(name, list(values))


def rows_of(values: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Yield a tuple for each row."""
    yield from zip(*(_values(column) for column in values.columns), strict=True)


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
    return rows_of(group.values)


def readers(logs: Sequence[Logs], path: Path) -> tuple[Reader, Reader, Reader, Reader]:
    """Return it as reader of Python lists of lines, of an Arrow column of them, of bodies, and of bodies by threads."""
    lists = [one.lines for one in logs]
    column = pa.array(lists, pa.list_(pa.string()))
    places = [one.place for one in logs]
    name = "Capstan, a batch: scan_log_columns, decode_events, from"
    bodies = "Capstan, a batch: read_bodies, extract_batch"

    def found(batches: list[Batch]) -> Iterator[Found]:
        return found_in(batches, places)

    return (
        Reader(f"{name} lists", LOGGED, timed(lambda: read_logs(lists)), found, target=30),
        Reader(f"{name} Arrow", LOGGED, timed(lambda: read_logs(column)), found, target=70),
        Reader(bodies, ALL, timed(lambda: read_file(path, 1)), found_extracted),
        Reader(
            f"{bodies}, {THREADS} threads", ALL, timed(lambda: read_file(path, THREADS)), found_extracted, target=15
        ),
    )
