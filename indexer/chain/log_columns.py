"""
Which program printed which data line, for many transactions at once.

The same answer as `logs.scan_logs` gives for each transaction, by array operations, a slice of the transactions after
the other. Whose the lines are is found in `log_owners.py`; transactions that it calls odd are read by `scan_logs`
itself. What the data means is decoded in `batch.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from indexer.chain.base64_columns import Arrow, decode_fields
from indexer.chain.log_owners import FOREIGN, UNKNOWN, Flags, Ints, Lines, lines_of, owned_lines
from indexer.chain.logs import bad_base64, scan_logs
from indexer.errors import DataError

__all__ = ["UNKNOWN", "BadLineRow", "Flags", "Ints", "LogColumns", "Logs", "scan_log_columns"]

# An Arrow list of strings, whole or in chunks, or Python lists; null or None where a node has no logs.
Logs: TypeAlias = Arrow | Sequence[Sequence[str] | None]

_TYPE = pa.list_(pa.string())
# Transactions of a slice: everything about them stays near the processor, and the next slice uses the same memory.
_SLICE = 16_384


class BadLineRow(NamedTuple):
    """A data line that is not base64; `row` is its transaction, `program` as in `LogColumns`."""

    row: int
    program: int
    ordinal: int
    reason: str


class LogColumns(NamedTuple):
    """
    The data lines of many transactions, in the order of rows and ordinals.

    Args:
        rows: int64, (n_lines,): position of the transaction in the batch.
        programs: int64, (n_lines,): position in the given programs; UNKNOWN where the logs do not tell.
        ordinals: int64, (n_lines,): number of the data line in its transaction, over all programs.
        payloads: binary, (n_lines,): the first field, b"" where there is none.
        fields: int64, (n_lines,): number of fields.
        truncated: bool, (n_transactions,).
        missing: bool, (n_transactions,): there are no logs at all.
        bad: data lines that are not base64; they are not among the others.
    """

    rows: Ints
    programs: Ints
    ordinals: Ints
    payloads: Arrow
    fields: Ints
    truncated: Flags
    missing: Flags
    bad: tuple[BadLineRow, ...]


def scan_log_columns(logs: Logs, programs: Sequence[bytes]) -> LogColumns:
    """
    Attribute every data line of `programs`, and every one that is nobody's; those of others are counted, not read.

    Args:
        logs: for each transaction its `logMessages`, null or None where the node has none; as an Arrow list of
            strings, or as Python lists.
        programs: 32 bytes each.

    Raises:
        DataError: more than 2 GiB of text in a slice of 16,384 transactions, or of payloads in all; cut the batch.
    """
    try:
        return _joined([_scan(part, programs) for part in _slices(logs)])
    except (pa.ArrowCapacityError, pa.ArrowInvalid) as error:
        raise DataError(f"the logs do not fit one Arrow list of strings: {error}; cut the batch") from None


def _slices(logs: Any) -> Iterator[Logs]:
    """At least one, however few transactions there are."""
    if isinstance(logs, pa.ChunkedArray):
        for chunk in logs.chunks or [pa.array([], logs.type)]:
            yield from _slices(chunk)
        return
    for at in range(0, max(len(logs), 1), _SLICE):
        yield logs[at : at + _SLICE]


def _scan(logs: Logs, programs: Sequence[bytes]) -> LogColumns:
    listed, unreadable = _listed(logs)
    lines = lines_of(listed)
    data = owned_lines(lines, programs)
    kept = np.flatnonzero((data.owners != FOREIGN) & ~data.odd[data.rows])
    at = data.at[kept]
    payloads, fields = decode_fields(lines.bytes, lines.starts[at], lines.ends[at])
    missing = np.asarray(listed.is_null()) if listed.null_count else np.zeros(len(listed), np.bool_)
    rows, owners, ordinals = data.rows[kept], data.owners[kept], _counted(data.rows)[kept]
    found = LogColumns(rows, owners, ordinals, payloads, fields, data.truncated, missing, ())
    if (fields < 0).any():
        found = _without_bad(found, lines, at)
    odd = data.odd | unreadable
    return _with_odd(found, logs, np.flatnonzero(odd), programs) if odd.any() else found


def _joined(parts: Sequence[LogColumns]) -> LogColumns:
    """Return slices that follow each other as one."""
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *(len(part.missing) for part in parts)])[:-1].tolist()
    return LogColumns(
        rows=np.concatenate([part.rows + first for part, first in zip(parts, firsts, strict=True)]),
        programs=np.concatenate([part.programs for part in parts]),
        ordinals=np.concatenate([part.ordinals for part in parts]),
        payloads=pa.concat_arrays([part.payloads for part in parts]),
        fields=np.concatenate([part.fields for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        missing=np.concatenate([part.missing for part in parts]),
        bad=tuple(
            bad._replace(row=first + bad.row) for part, first in zip(parts, firsts, strict=True) for bad in part.bad
        ),
    )


def _listed(logs: Any) -> tuple[Arrow, Flags]:
    """Return the logs as one array, and which transactions Arrow cannot hold: their place is left empty."""
    unreadable = np.zeros(len(logs), np.bool_)
    if not isinstance(logs, pa.Array):
        try:
            logs = pa.array(logs, _TYPE)
        except UnicodeEncodeError:
            unreadable = np.array([not _has_utf8(lines) for lines in logs])
            logs = pa.array([[] if bad else lines for lines, bad in zip(logs, unreadable, strict=True)], _TYPE)
    if isinstance(logs, pa.ChunkedArray):
        raise DataError("the logs of a batch have more than 2 GiB of text; cut the batch")
    return (logs if logs.type == _TYPE else logs.cast(_TYPE)), unreadable


def _has_utf8(lines: Sequence[str] | None) -> bool:
    try:
        "".join(lines or ()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _counted(rows: Ints) -> Ints:
    """Return the number of each line in its transaction; `rows` ascends."""
    places = np.arange(len(rows))
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = rows[1:] != rows[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def _without_bad(found: LogColumns, lines: Lines, data: Ints) -> LogColumns:
    """Take out what is not base64; `data` are the lines of `found`."""
    bad = [
        BadLineRow(int(found.rows[at]), int(found.programs[at]), int(found.ordinals[at]), bad_base64(lines.text(line)))
        for at, line in ((at, int(data[at])) for at in np.flatnonzero(found.fields < 0).tolist())
    ]
    return _taken(found, np.flatnonzero(found.fields >= 0))._replace(bad=tuple(bad))


def _taken(found: LogColumns, at: Ints) -> LogColumns:
    return found._replace(
        rows=found.rows[at],
        programs=found.programs[at],
        ordinals=found.ordinals[at],
        payloads=found.payloads.take(at),
        fields=found.fields[at],
    )


def _with_odd(found: LogColumns, logs: Logs, odd: Ints, programs: Sequence[bytes]) -> LogColumns:
    """Add the transactions that have to be read line by line."""
    places: dict[Any, int] = {program: place for place, program in enumerate(programs)}
    places[None] = UNKNOWN
    read: list[tuple[int, int, int, int]] = []
    payloads: list[bytes] = []
    bad = list(found.bad)
    truncated = found.truncated.copy()
    for row in odd.tolist():
        entry = logs[row]
        scan = scan_logs(entry.as_py() if isinstance(entry, pa.Scalar) else entry, programs=places)
        truncated[row] = scan.truncated
        for line in scan.data:
            read.append((row, places[line.program_id], line.ordinal, len(line.payloads)))
            payloads.append(line.payloads[0] if line.payloads else b"")
        bad += [BadLineRow(row, places[b.program_id], b.ordinal, b.reason) for b in scan.bad]
    rows, owners, ordinals, fields = np.array(read, np.int64).reshape(-1, 4).T
    merged = found._replace(
        rows=np.concatenate([found.rows, rows]),
        programs=np.concatenate([found.programs, owners]),
        ordinals=np.concatenate([found.ordinals, ordinals]),
        payloads=pa.concat_arrays([found.payloads, pa.array(payloads, pa.binary())]),
        fields=np.concatenate([found.fields, fields]),
        truncated=truncated,
        bad=tuple(sorted(bad, key=lambda line: (line.row, line.ordinal))),
    )
    # A transaction is in one of the two parts; its lines are in order there.
    return _taken(merged, np.argsort(merged.rows, kind="stable"))
