"""
Which program printed which data line, for many transactions at once.

The same answer as `logs.scan_logs` gives for each transaction, by array operations. Lines are told apart by their bytes
4 to 12; of those that open and close calls, each distinct text is read once, by `logs.step_of`. A transaction counts as
regular where every opening line has the depth that was counted, and every closing line the name that was opened at its
depth; then the owner of a data line is the last call opened at its depth. All other transactions, few if any, are read
by `scan_logs` itself. What the data means is decoded in `batch.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from indexer.chain.base64_columns import Arrow, bytes_of, decode_fields
from indexer.chain.logs import TRUNCATED, bad_base64, program_of, scan_logs, step_of
from indexer.errors import DataError

Ints: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]
Words: TypeAlias = npt.NDArray[np.uint64]

# An Arrow list of strings, whole or in chunks, or Python lists; null or None where a node has no logs.
Logs: TypeAlias = Arrow | Sequence[Sequence[str] | None]

# `programs` of a line whose program the logs do not tell.
UNKNOWN = -1
_FOREIGN = -2

_TYPE = pa.list_(pa.string())

# Lines are told apart by their bytes 4 to 12.
_WORD = 8
_LOG, _DATA, _CUT = (int.from_bytes(text, "little") for text in (b"ram log:", b"ram data", b"truncate"))
_RAM = int.from_bytes(b"ram ", "little")
_PROGRAM, _AM_DATA = (int.from_bytes(text, "little") for text in (b"Program ", b"am data:"))

# "Program ", a key of 44 letters and " invoke [10]" are the longest opening line of the runtime.
_SHORT = 64
# "Program ", a key of 44 letters and " failed: ": what a longer line does shows in as many bytes.
_PREFIX = 61

# What a line does; a data line does nothing to the stack, but needs it. _ODD is a line whose prefix does not tell.
_NOTHING, _OPEN, _CLOSE, _PRINT, _ODD = range(5)


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


class _Lines(NamedTuple):
    """
    The lines of all transactions one after the other.

    Args:
        text: string, (n_lines,).
        bytes: uint8: those of `text`.
        starts, lengths: int64, (n_lines,): of each line in `bytes`.
        rows: int32, (n_lines,): the transaction of each.
        counts: int32, (n_transactions,): lines of each.
        words: uint64, (n_lines,): the bytes 4 to 12; of a shorter line, bytes of the next follow.
    """

    text: Arrow
    bytes: npt.NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    rows: Places
    counts: Places
    words: Words


def scan_log_columns(logs: Logs, programs: Sequence[bytes]) -> LogColumns:
    """
    Attribute every data line of `programs`, and every one that is nobody's; those of others are counted, not read.

    Args:
        logs: for each transaction its `logMessages`, null or None where the node has none; as an Arrow list of
            strings, or as Python lists.
        programs: 32 bytes each.

    Raises:
        DataError: more than 2 GiB of text at once; cut the batch.
    """
    listed, unreadable = _listed(logs)
    count = len(listed)
    lines = _lines(listed)
    data, truncated = _data_lines(lines, count)
    rows = lines.rows[data].astype(np.int64)
    owners, odd = _owners(lines, data, programs, count)
    keep = np.flatnonzero((owners != _FOREIGN) & ~odd[rows])
    none = pa.array([], pa.binary())
    missing = np.asarray(listed.is_null())
    places = LogColumns(rows[keep], owners[keep], _counted(rows)[keep], none, rows[:0], truncated, missing, ())
    found = _decoded(lines, data[keep], places)
    odd |= unreadable
    return _with_odd(found, logs, np.flatnonzero(odd), programs) if odd.any() else found


def _listed(logs: Any) -> tuple[Arrow, Flags]:
    """Return the logs as one array, and which transactions Arrow cannot hold: their place is left empty."""
    unreadable = np.zeros(len(logs), np.bool_)
    try:
        if not isinstance(logs, pa.Array | pa.ChunkedArray):
            try:
                logs = pa.array(logs, _TYPE)
            except UnicodeEncodeError:
                unreadable = np.array([not _has_utf8(lines) for lines in logs])
                logs = pa.array([[] if bad else lines for lines, bad in zip(logs, unreadable, strict=True)], _TYPE)
        if isinstance(logs, pa.ChunkedArray):
            logs = logs.combine_chunks()
        if not isinstance(logs, pa.ChunkedArray):
            return (logs if logs.type == _TYPE else logs.cast(_TYPE)), unreadable
    except (pa.ArrowCapacityError, pa.ArrowInvalid) as error:
        raise DataError(f"the logs do not fit one Arrow list of strings: {error}; cut the batch") from None
    raise DataError("the logs of a batch have more than 2 GiB of text; cut the batch")


def _has_utf8(lines: Sequence[str] | None) -> bool:
    try:
        "".join(lines or ()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(listed: Arrow) -> _Lines:
    text = listed.flatten()
    counts = np.asarray(pc.fill_null(listed.value_lengths(), 0))
    rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    offsets, data = bytes_of(text)
    starts = offsets[:-1]
    return _Lines(text, data, starts, np.diff(offsets), rows, counts, _words(data, starts + len(b"Prog")))


def _words(data: npt.NDArray[np.uint8], starts: Ints) -> Words:
    """Return the 8 bytes at each start; zeros behind the end of the data."""
    split = max(len(data) - _WORD, 0)
    tail = np.concatenate([data[split:], np.zeros(2 * _WORD, np.uint8)])
    near_end = np.flatnonzero(starts >= split)
    words = _unaligned(data)[np.minimum(starts, split)] if split else np.zeros(len(starts), np.uint64)
    # A start may lie behind the end itself, by less than a word.
    words[near_end] = _unaligned(tail)[starts[near_end] - split]
    return words


def _unaligned(data: npt.NDArray[np.uint8]) -> Words:
    """Return the 8 bytes that begin at each byte, as numbers, without a copy."""
    return np.ndarray(shape=(len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))


def _data_lines(lines: _Lines, count: int) -> tuple[Ints, Flags]:
    """Return the data lines before the cut, and which of `count` transactions were cut."""
    data = np.flatnonzero(lines.words == _DATA)
    starts = lines.starts[data]
    is_data = (_words(lines.bytes, starts) == _PROGRAM) & (_words(lines.bytes, starts + len(b"Progr")) == _AM_DATA)
    data = data[is_data & (lines.lengths[data] >= len("Program data:"))]
    truncated = np.zeros(count, np.bool_)
    cuts = np.flatnonzero(lines.words == _CUT)
    cuts = cuts[np.array([text == TRUNCATED for text in lines.text.take(cuts).to_pylist()], np.bool_)]
    if len(cuts):
        truncated[lines.rows[cuts]] = True
        first = np.full(count, len(lines.text))
        # Of several values for one place the last stays: written backwards, the first.
        first[lines.rows[cuts[::-1]]] = cuts[::-1]
        data = data[data < first[lines.rows[data]]]
    return data, truncated


def _counted(rows: Ints) -> Ints:
    """Return the number of each line in its transaction; `rows` ascends."""
    places = np.arange(len(rows))
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = rows[1:] != rows[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


class _Steps(NamedTuple):
    """
    What lines of the runtime do to the stack.

    Args:
        at: int64, (n_steps,): positions of the lines, ascending.
        kinds: int8, (n_steps,): _OPEN, _CLOSE, _ODD.
        depths: int32, (n_steps,): that an opening line states.
        names: int32, (n_steps,): positions in `known`.
        known: distinct names.
    """

    at: Ints
    kinds: npt.NDArray[np.int8]
    depths: Places
    names: Places
    known: tuple[str, ...]


def _steps(lines: _Lines, data: Ints, count: int) -> _Steps:
    """Return the steps in front of the last data line of each transaction; later ones change nothing."""
    last = np.full(count, -1, np.int32)
    last[lines.rows[data]] = data
    is_step = (lines.words.view("<u4")[::2] == _RAM) & (lines.words != _LOG)
    # A line shorter than what it is compared with got the rest from the next one.
    is_step |= lines.lengths < len("Program log:")
    is_step[data] = False
    is_step &= np.arange(len(is_step), dtype=np.int32) < np.repeat(last, lines.counts)
    at = np.flatnonzero(is_step)
    is_long = lines.lengths[at] > _SHORT
    short = lines.text.take(at[~is_long]).dictionary_encode()
    long = pc.binary_slice(lines.text.take(at[is_long]).cast(pa.binary()), 0, _PREFIX).dictionary_encode()
    known: dict[str, int] = {}
    meant = [_short_step(line, known) for line in short.dictionary.to_pylist()]
    codes = np.empty(len(at), np.int32)
    codes[~is_long] = np.asarray(short.indices)
    codes[is_long] = np.asarray(long.indices) + len(meant)
    meant += [_long_step(prefix, known) for prefix in long.dictionary.to_pylist()]
    kinds, depths, names = np.array(meant, np.int32).reshape(-1, 3).T.copy()
    done = np.flatnonzero((kinds != _NOTHING)[codes])
    codes = codes[done]
    return _Steps(at[done], kinds.astype(np.int8)[codes], depths[codes], names[codes], tuple(known))


def _short_step(line: str, known: dict[str, int]) -> tuple[int, int, int]:
    step = step_of(line)
    if step is None:
        return _NOTHING, 0, 0
    depth, name = step
    return (_OPEN if depth else _CLOSE), depth, known.setdefault(name, len(known))


def _long_step(prefix: bytes, known: dict[str, int]) -> tuple[int, int, int]:
    """The end of the line is not looked at, so what depends on it is odd; regular long lines report units and data."""
    if not prefix.startswith(b"Program "):
        return _NOTHING, 0, 0
    name, space, rest = prefix[len(b"Program ") :].partition(b" ")
    if not space or len(rest) < len(b"success") or rest.startswith((b"invoke [", b"success")):
        return _ODD, 0, 0
    if rest.startswith((b"failed:", b"failed ")):
        return _CLOSE, 0, known.setdefault(name.decode(), len(known))
    return _NOTHING, 0, 0


def _owners(lines: _Lines, data: Ints, programs: Sequence[bytes], count: int) -> tuple[Ints, Flags]:
    """Return whose each data line is, and which of `count` transactions are not regular: theirs mean nothing."""
    steps = _steps(lines, data, count)
    kinds_of_lines = np.zeros(len(lines.text), np.int8)
    kinds_of_lines[data] = _PRINT
    kinds_of_lines[steps.at] = steps.kinds
    at = np.flatnonzero(kinds_of_lines)
    kinds, rows = kinds_of_lines[at], lines.rows[at]
    is_step = kinds != _PRINT
    names, depths = np.full(len(at), -1, np.int32), np.zeros(len(at), np.int32)
    names[is_step], depths[is_step] = steps.names, steps.depths
    levels = _levels(rows, kinds)
    is_odd = (kinds == _ODD) | ((kinds == _OPEN) & (levels != depths)) | ((kinds == _CLOSE) & (levels < 1))
    odd = np.zeros(count, np.bool_)
    odd[rows[is_odd]] = True
    # Most calls print nothing, and close right after they open: the others get by without them.
    left = np.flatnonzero(~_opened_and_closed(rows, kinds, names))
    kinds, rows, names, levels = kinds[left], rows[left], names[left], levels[left]
    opened = names[_openers(levels, kinds == _OPEN)]
    odd[rows[(kinds == _CLOSE) & (opened != names)]] = True
    prints = np.flatnonzero(kinds == _PRINT)
    return np.where(levels[prints] > 0, _programs_of(steps.known, programs)[opened[prints]], UNKNOWN), odd


def _programs_of(names: Sequence[str], programs: Sequence[bytes]) -> Ints:
    """Return the program of each name, and one UNKNOWN more, for names that are not known."""
    places = {program: place for place, program in enumerate(programs)}
    keys = [*map(program_of, names), None]
    return np.array([UNKNOWN if key is None else places.get(key, _FOREIGN) for key in keys], np.int64)


def _levels(rows: Places, kinds: npt.NDArray[np.int8]) -> Places:
    """Return how deep the call is that each line opens, closes or prints from, counted from 1 in each transaction."""
    is_close = kinds == _CLOSE
    steps = (kinds == _OPEN).astype(np.int8) - is_close.astype(np.int8)
    after = np.cumsum(steps, dtype=np.int32)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    before = after[starts] - steps[starts]
    after -= np.repeat(before, np.diff(starts, append=len(rows)))
    after += is_close
    return after


def _opened_and_closed(rows: Places, kinds: npt.NDArray[np.int8], names: Places) -> Flags:
    """Return which lines open a call that the next one closes, and which are that next one."""
    pairs = (kinds[:-1] == _OPEN) & (kinds[1:] == _CLOSE) & (names[:-1] == names[1:]) & (rows[:-1] == rows[1:])
    found = np.zeros(len(kinds), np.bool_)
    found[:-1] = pairs
    found[1:] |= pairs
    return found


def _openers(levels: Places, is_open: Flags) -> Ints:
    """Return the position of the last opening line at the level of each line; anything where there is none."""
    order = np.argsort(np.clip(levels, 0, 255).astype(np.uint8), kind="stable")
    places = np.maximum.accumulate(np.where(is_open[order], np.arange(len(order)), 0))
    openers = np.empty(len(order), np.int64)
    openers[order] = order[places]
    return openers


def _decoded(lines: _Lines, data: Ints, found: LogColumns) -> LogColumns:
    """Return `found` with what its lines, `data`, hold."""
    decoded = decode_fields(lines.text.take(data))
    found = found._replace(payloads=decoded.first, fields=decoded.fields)
    unread = np.flatnonzero(decoded.fields < 0)
    if len(unread) == 0:
        return found
    bad = [
        BadLineRow(int(found.rows[at]), int(found.programs[at]), int(found.ordinals[at]), bad_base64(line))
        for at, line in zip(unread.tolist(), lines.text.take(data[unread]).to_pylist(), strict=True)
    ]
    return _taken(found, np.flatnonzero(decoded.fields >= 0))._replace(bad=tuple(bad))


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
