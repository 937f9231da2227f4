"""
The bytes of many payloads, and cursors that move over all of them at once.

A lane is one value to be read: where its bytes begin, and which row (payload) they belong to. At the outside every row
is one lane; inside a vec or an option a row has any number of them. A row in which something is wrong is dead: its end
is moved before its first byte, so that every later check refuses all of its lanes, and they read whatever lies at the
front instead. What is wrong with it, the decoder of single payloads says; here it is only left out.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[Any]
# The row of each lane; None: lane n is of row n.
Rows: TypeAlias = Ints | None
ArrowArray: TypeAlias = "pa.Array[Any]"


class Batch:
    """
    The payloads of one layout.

    Args:
        data: uint8, the payloads one after the other, perhaps with others in between; below 2 GiB.
        starts: int64, (rows,), where each payload begins, ascending.
        ends: int64, (rows,), where it ends.
    """

    def __init__(self, data: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> None:
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

    def items(self, at: Ints, dtype: npt.DTypeLike) -> Numbers:
        """Return the item of `dtype` at each place of `at`."""
        dtype = np.dtype(dtype)
        room = len(self.data) - dtype.itemsize + 1
        if room <= 0:
            return np.zeros(len(at), dtype)
        return np.ndarray((room,), dtype, buffer=self.data, strides=(1,))[at]

    def ranges(self, at: Ints, sizes: Ints) -> "pa.BinaryArray":
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
        buffers = [None, pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(self.data)]
        both: Any = pa.Array.from_buffers(pa.binary(), 2 * len(at), buffers)
        return both.take(pa.array(np.arange(0, 2 * len(at), 2, dtype=np.int32)))


def rows_of(rows: Rows, lanes: Ints) -> Ints:
    """Return the rows of some of the lanes."""
    return lanes if rows is None else rows[lanes]


def offsets_of(counts: Ints) -> "pa.Buffer":
    """Return Arrow's offsets of lists with so many elements each."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.py_buffer(offsets)


def list_array(type_: pa.DataType, counts: Ints, elements: ArrowArray) -> ArrowArray:
    """Return lists of so many of `elements` each."""
    return pa.Array.from_buffers(type_, len(counts), [None, offsets_of(counts)], children=[elements])


def spread(values: ArrowArray, present: Mask, type_: pa.DataType) -> ArrowArray:
    """Return `values` at the places marked in `present`, and null at the others."""
    if len(values) == len(present):
        return values
    if not len(values):
        return pa.nulls(len(present), type_)
    return values.take(pa.array(np.cumsum(present, dtype=np.int64) - 1, mask=~present))
