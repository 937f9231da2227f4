"""
The bytes of many payloads, and cursors that move over all of them at once.

A lane is one value to be read: where its bytes begin, and which row (payload) they belong to. At the outside every row
is one lane; inside a vec or an option a row has any number of them. A row in which something is wrong is dead: its end
is moved before its first byte, so that every later check refuses all of its lanes, and they read whatever lies at the
front instead. What is wrong with it, the decoder of single payloads says; here it is only left out.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from indexer.chain.arrays.arrow import ArrowArray, ArrowType
from indexer.errors import DataError

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[Any]
Data: TypeAlias = npt.NDArray[np.uint8]
# The row of each lane; None: lane n is of row n.
Rows: TypeAlias = Ints | None


# Arrow's offsets have 32 bits.
ELEMENTS_MAX = (1 << 31) - 1
# Lanes of dead rows are read like all others, as long as that takes no more room than this, or than the payloads.
DEAD_BYTES_MAX = 1 << 24


class TooManyDeadError(Exception):
    """Reading dead rows along would cost more than reading again without them. Never leaves `indexer.chain`."""


class Batch:
    """
    The payloads of one layout.

    Args:
        data: uint8, the payloads one after the other, perhaps with others in between; below 2 GiB.
        starts: int64, (rows,), where each payload begins, ascending.
        ends: int64, (rows,), where it ends.
    """

    def __init__(self, data: Data, starts: Ints, ends: Ints) -> None:
        self.data = data
        self._starts = starts
        self._ends = ends.copy()
        self.has_dead = False

    def kill(self, rows: Rows, bad: Mask) -> None:
        """Take the rows of the lanes marked in `bad` out of everything that follows."""
        self._ends[np.flatnonzero(bad) if rows is None else rows[bad]] = -1
        self.has_dead = True

    def alive(self, rows: Rows) -> Mask:
        """Return which lanes are of rows that nothing is wrong with so far."""
        return self._lane_ends(rows) >= 0

    def _lane_ends(self, rows: Rows) -> Ints:
        return self._ends if rows is None else self._ends[rows]

    def payload(self, row: int) -> tuple[bytes, int]:
        """Return a living row's bytes, and where they begin."""
        start, end = int(self._starts[row]), int(self._ends[row])
        return self.data[start:end].tobytes(), start

    def need(self, rows: Rows, at: Ints, size: Ints | int) -> tuple[Ints, Mask | None]:
        """
        Check that each lane has `size` bytes left at `at`; the rows of those that have not are dead.

        Returns:
            Where to read, 0 for lanes of dead rows, and which lanes live; None if all do.
        """
        ok = at + size <= self._lane_ends(rows)
        if ok.all():
            return at, None
        self.kill(rows, ~ok)
        # A row may have died of a later lane than the one asked about.
        ok &= self.alive(rows)
        return np.where(ok, at, 0), ok

    def check_room(self, live: Mask | None, size: int) -> None:
        """
        Check what lanes of `size` bytes each are about to take, of which `live` are of living rows.

        Raises:
            TooManyDeadError: too much of it is for dead rows.
        """
        if live is not None and np.count_nonzero(~live) * size > max(DEAD_BYTES_MAX, len(self.data)):
            raise TooManyDeadError

    def items(self, at: Ints, dtype: npt.DTypeLike) -> Numbers:
        """Return the item of `dtype` at each place of `at`."""
        dtype = np.dtype(dtype)
        room = len(self.data) - dtype.itemsize + 1
        if room <= 0:
            return np.zeros(len(at), dtype)
        return np.ndarray((room,), dtype, buffer=self.data, strides=(1,))[at]

    def ranges(self, at: Ints, sizes: Ints) -> ArrowArray:
        """
        Return `sizes` bytes from each place of `at`, copied.

        Args:
            at: ascending, and no range reaches into the next; lanes of dead rows ask for nothing.
        """
        # Arrow's own gather is the fastest there is: the ranges, and the gaps between them, are the values of one
        # array over the same bytes, and every second value is taken.
        bounds = np.empty(2 * len(at) + 1, np.int64)
        bounds[0:-1:2] = at
        np.add(at, sizes, out=bounds[1::2])
        bounds[-1] = bounds[-2] if len(at) else 0
        if self.has_dead:
            np.maximum.accumulate(bounds, out=bounds)
        both = array_over(pa.binary(), 2 * len(at), bounds.astype(np.int32), self.data)
        return both.take(pa.array(np.arange(0, 2 * len(at), 2, dtype=np.int32)))


class Node(Protocol):
    """A type's way from bytes to Arrow."""

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values that begin at `at`, one a lane, and the positions behind them."""

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values; whether they are valid is seen when they are read."""


def rows_of(rows: Rows, lanes: Ints) -> Ints:
    """Return the rows of some of the lanes."""
    return lanes if rows is None else rows[lanes]


def array_over(type_: ArrowType, count: int, *items: Numbers, children: Sequence[ArrowArray] = ()) -> ArrowArray:
    """Return the array of `count` values, none null, that lie in `items` as Arrow keeps them; nothing is copied."""
    # numpy's arrays are buffers, which their annotations do not say before Python 3.12.
    parts: Any = items
    return pa.Array.from_buffers(type_, count, [None, *map(pa.py_buffer, parts)], children=list(children))


def list_array(type_: ArrowType, counts: Ints, elements: ArrowArray) -> ArrowArray:
    """
    Return lists of so many of `elements` each.

    Raises:
        DataError: more than Arrow can count; only elements without bytes come to that.
    """
    if len(elements) > ELEMENTS_MAX:
        raise DataError(f"a batch with lists of {len(elements)} elements is too large; give smaller batches")
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return array_over(type_, len(counts), offsets, children=[elements])


def spread(values: ArrowArray, present: Mask, type_: ArrowType) -> ArrowArray:
    """Return `values` at the places marked in `present`, and null at the others."""
    if len(values) == len(present):
        return values
    if not len(values):
        return pa.nulls(len(present), type_)
    return values.take(pa.array(np.cumsum(present, dtype=np.int64) - 1, mask=~present))
