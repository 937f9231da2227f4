"""
Whose each data line is, for the lines of many transactions at once.

A line that opens a call at depth 1 leaves that call alone on the stack, whatever came before. So lines are looked at
from such a line to the last data line that follows it, a span; all others, most of them, are only passed over. Of those
in a span each distinct text is read once, by `logs.step_of`. A transaction is regular where, in all of its spans, every
opening line has the depth that was counted, and every closing line the name that was opened at its depth; then the
owner of a data line is the last call opened at its depth. All other transactions, few if any, have to be read by
`logs.scan_logs`; that they are is seen here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from indexer.chain.base64_columns import Arrow, array_of_parts, bytes_of
from indexer.chain.logs import TRUNCATED, program_of, step_of

Ints: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]
Heads: TypeAlias = npt.NDArray[Any]

# The program of a line that the logs do not tell, and any that was not asked for.
UNKNOWN, FOREIGN = -1, -2

# How a line begins, with the end of the one before; no line that means anything is shorter than 13 bytes.
_HEAD = np.dtype([("end_before", "<u8"), ("start", "<u8"), ("behind", "<u8")])
_BEFORE, _BEHIND, _LINE_MIN = 8, 16, len("Program data:")
_PROGRAM, _CUT = (int.from_bytes(text, "little") for text in (b"Program ", b"Log trun"))
_LOG, _DATA = (int.from_bytes(text, "little") for text in (b"log:", b"data:"))
_FIRST_4, _FIRST_5 = np.uint64((1 << 32) - 1), np.uint64((1 << 40) - 1)
# The end of a line that opens a call at depth 1.
_OUTERMOST = int.from_bytes(b"voke [1]", "little")

# "Program ", a key of 44 letters and " invoke [10]" are the longest opening line of the runtime.
_SHORT = 64
# "Program ", a key of 44 letters and " failed: ": what a longer line does shows in as many bytes.
_PREFIX = 61

# What a line does; a data line does nothing to the stack, but needs it. _ODD is a line whose prefix does not tell.
_NOTHING, _OPEN, _CLOSE, _PRINT, _ODD = range(5)


class Lines(NamedTuple):
    """
    The lines of some transactions one after the other.

    Args:
        bytes: uint8: UTF-8.
        starts, ends: int64, (n_lines,): of each line in `bytes`.
        firsts: int64, (n_transactions + 1,): the first line of each transaction, and the end.
    """

    bytes: npt.NDArray[np.uint8]
    starts: Ints
    ends: Ints
    firsts: Ints

    def text(self, line: int) -> str:
        """Return one line."""
        return self.bytes[self.starts[line] : self.ends[line]].tobytes().decode()


class Owned(NamedTuple):
    """
    The data lines in front of the cut, whosever they are.

    Args:
        at: int64, (n_data,): positions of the lines, ascending.
        rows: int64, (n_data,): their transactions.
        owners: int64, (n_data,): position in the given programs, UNKNOWN or FOREIGN.
        odd: bool, (n_transactions,): which are not regular: what is said of theirs means nothing.
        truncated: bool, (n_transactions,).
    """

    at: Ints
    rows: Ints
    owners: Ints
    odd: Flags
    truncated: Flags


class _Spans(NamedTuple):
    """
    The lines that tell whose the data lines are, and these.

    Args:
        at: int64, (n,): positions of the lines, ascending.
        prints: bool, (n,): which are data lines; the others may open or close calls.
        firsts: int64, (n_spans,): positions in `at`: the first line of each span.
        outermost: bool, (n_spans,): which have to open a call at depth 1 by their first line.
        rows: int64, (n_spans,): the transaction of each.
    """

    at: Ints
    prints: Flags
    firsts: Ints
    outermost: Flags
    rows: Ints


def lines_of(listed: Arrow) -> Lines:
    """Return the lines of an Arrow list of strings."""
    offsets, data = bytes_of(listed.flatten())
    firsts = np.asarray(listed.offsets).astype(np.int64)
    if listed.null_count:
        # What lies under a null is not among the lines.
        firsts = np.append(0, np.cumsum(np.where(listed.is_valid(), np.diff(firsts), 0)))
    return Lines(data, offsets[:-1], offsets[1:], firsts - firsts[0])


def owned_lines(lines: Lines, programs: Sequence[bytes]) -> Owned:
    """
    Return all data lines of the transactions with their owners.

    Args:
        programs: 32 bytes each.
    """
    heads = _heads(lines)
    is_ours = heads["start"] == _PROGRAM
    data = np.flatnonzero(is_ours & (heads["behind"] & _FIRST_5 == _DATA))
    data = data[lines.ends[data] - lines.starts[data] >= _LINE_MIN]
    rows = _last_before(lines.firsts, data)
    truncated, cuts = _cuts(lines, heads)
    if cuts is not None:
        is_whole = data < cuts[rows]
        data, rows = data[is_whole], rows[is_whole]
    uses = is_ours & (heads["behind"] & _FIRST_4 != _LOG)
    outermost = np.flatnonzero(heads["end_before"][1:] == _OUTERMOST)
    spans = _spans(lines, data, rows, uses, outermost[uses[outermost]])
    owners, odd_spans = _owners(lines, spans, programs)
    odd = np.zeros(len(truncated), np.bool_)
    odd[spans.rows[odd_spans]] = True
    return Owned(data, rows, owners, odd, truncated)


def _heads(lines: Lines) -> Heads:
    """Return how each line begins; of a shorter one, bytes of the next follow, or zeros."""
    starts, count = lines.starts, len(lines.bytes)
    data = lines.bytes if count >= _HEAD.itemsize else np.zeros(_HEAD.itemsize, np.uint8)
    items: Any = np.ndarray((len(data) - _HEAD.itemsize + 1,), f"V{_HEAD.itemsize}", buffer=data, strides=(1,))
    # Near the front or the end of the bytes not all are there: at most two lines of those that may mean something.
    front = int(np.searchsorted(starts, _BEFORE))
    end = max(front, int(np.searchsorted(starts, count - _BEHIND, side="right")))
    edges = np.concatenate([np.arange(front), np.arange(end, len(starts))])
    at = starts - _BEFORE
    at[edges] = 0
    heads: Heads = items[at].view(_HEAD)
    heads[edges] = 0
    for line in edges[lines.ends[edges] - starts[edges] >= _LINE_MIN].tolist():
        text = lines.bytes[starts[line] : starts[line] + _BEHIND].tobytes()
        heads[line] = np.frombuffer(bytes(_BEFORE) + text.ljust(_BEHIND, b"\0"), _HEAD)[0]
    return heads


def _last_before(starts: Ints, places: Ints) -> Ints:
    """Return the last of `starts`, which ascend, that is not behind each place."""
    return np.searchsorted(starts, places, side="right") - 1


def _cuts(lines: Lines, heads: Heads) -> tuple[Flags, Ints | None]:
    """Return which transactions were cut, and the place of the first cut of each, if there is any at all."""
    count = len(lines.firsts) - 1
    truncated = np.zeros(count, np.bool_)
    at = np.flatnonzero(heads["start"] == _CUT)
    if len(at):
        at = at[[lines.text(line) == TRUNCATED for line in at.tolist()]]
    if len(at) == 0:
        return truncated, None
    cuts = np.full(count, len(heads))
    rows = _last_before(lines.firsts, at)
    truncated[rows] = True
    # Of several values for one place the last stays: written backwards, the first.
    cuts[rows[::-1]] = at[::-1]
    return truncated, cuts


def _spans(lines: Lines, data: Ints, rows: Ints, uses: Flags, outermost: Ints) -> _Spans:
    """
    Return the spans that have data lines.

    Args:
        data: data lines; `rows` are their transactions.
        uses: of each line whether it may open or close a call, or is a data line.
        outermost: lines that seem to open calls at depth 1.
    """
    starts = lines.firsts[rows]
    before = np.concatenate([[-1], outermost])[np.searchsorted(outermost, data, side="right")]
    is_outermost = before >= starts
    starts = np.maximum(starts, before)
    first = np.flatnonzero(np.diff(starts, prepend=-1))
    starts = starts[first]
    sizes = data[np.append(first[1:], len(data)) - 1] + 1 - starts if len(data) else starts
    firsts = np.cumsum(sizes) - sizes
    at = np.arange(int(sizes.sum())) + np.repeat(starts - firsts, sizes)
    used = uses[at]
    at = at[np.flatnonzero(used)]
    sizes = np.add.reduceat(used, firsts, dtype=np.int64) if len(data) else sizes
    prints = np.zeros(len(uses), np.bool_)
    prints[data] = True
    return _Spans(at, prints[at], np.cumsum(sizes) - sizes, is_outermost[first], rows[first])


class _Steps(NamedTuple):
    """
    What the lines of spans do to the stack.

    Args:
        kinds, depths, names: int32, (n_lines,): one of the kinds above; what an opening line states; position in
            `known`, -1 for data lines.
        known: distinct names.
    """

    kinds: Places
    depths: Places
    names: Places
    known: tuple[str, ...]


def _steps(lines: Lines, spans: _Spans) -> _Steps:
    others = np.flatnonzero(~spans.prints)
    starts = lines.starts[spans.at[others]]
    sizes = lines.ends[spans.at[others]] - starts
    is_long = sizes > _SHORT
    texts = array_of_parts(lines.bytes, starts, np.where(is_long, _PREFIX, sizes)).dictionary_encode()
    distinct = texts.dictionary.to_pylist()
    known: dict[str, int] = {}
    # Each text as a whole line, and as the prefix of one; what it is not, no line refers to.
    meant = [(_PRINT, 0, -1), *(_short_step(text.decode("utf-8", "replace"), known) for text in distinct)]
    if is_long.any():
        meant += [_long_step(text, known) for text in distinct]
    codes = np.zeros(len(spans.at), np.int64)
    codes[others] = np.asarray(texts.indices) + (1 + len(distinct) * is_long)
    kinds, depths, names = np.array(meant, np.int32).T.copy()
    return _Steps(kinds[codes], depths[codes], names[codes], tuple(known))


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
        return _CLOSE, 0, known.setdefault(name.decode("utf-8", "replace"), len(known))
    return _NOTHING, 0, 0


def _owners(lines: Lines, spans: _Spans, programs: Sequence[bytes]) -> tuple[Ints, Ints]:
    """Return whose each data line is, and spans that are not regular, some of them more than once."""
    kinds, depths, names, known = _steps(lines, spans)
    is_open, is_close = kinds == _OPEN, kinds == _CLOSE
    levels = _levels(spans.firsts, is_open, is_close)
    opened = names[_openers(levels, is_open)]
    is_odd = (kinds == _ODD) | (is_open & (levels != depths)) | (is_close & ((levels < 1) | (opened != names)))
    # A line that only ends like an opening one: what was in front of it still counts.
    no_start = spans.outermost & ~is_open[spans.firsts]
    odd = np.concatenate([_last_before(spans.firsts, np.flatnonzero(is_odd)), np.flatnonzero(no_start)])
    prints = np.flatnonzero(spans.prints)
    return np.where(levels[prints] > 0, _programs_of(known, programs)[opened[prints]], UNKNOWN), odd


def _programs_of(names: Sequence[str], programs: Sequence[bytes]) -> Ints:
    """Return the program of each name, and one UNKNOWN more, for names that are not known."""
    places = {program: place for place, program in enumerate(programs)}
    keys = [*map(program_of, names), None]
    return np.array([UNKNOWN if key is None else places.get(key, FOREIGN) for key in keys], np.int64)


def _levels(firsts: Ints, is_open: Flags, is_close: Flags) -> Places:
    """
    Return how deep the call is that each line opens, closes or prints from, counted from 1 in each span.

    Args:
        firsts: the first line of each span.
    """
    steps = np.subtract(is_open, is_close, dtype=np.int8)
    levels = np.cumsum(steps, dtype=np.int32)
    before = levels[firsts] - steps[firsts]
    levels -= np.repeat(before, np.diff(firsts, append=len(steps)))
    levels += is_close
    return levels


def _openers(levels: Places, is_open: Flags) -> Ints:
    """Return the position of the last opening line at the level of each line; anything where there is none."""
    # A level of more than a byte is none that any line states.
    order = np.argsort(levels.astype(np.uint8), kind="stable")
    places = np.maximum.accumulate(np.arange(len(order), dtype=np.int32) * is_open[order])
    openers = np.empty(len(order), np.int64)
    openers[order] = order[places]
    return openers
