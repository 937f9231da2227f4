"""
Vecs and arrays: lists of what follows a count, or of as many as the type says.

A count is believed as far as each payload's own length bears it out, and before anything is made for it. Elements of
fixed size lie side by side and are read as one block. Where another one begins is known only when the one before it
has been passed, so such elements are found first, the k-th of every list at once, and then read as lanes of their own.
Where few lists have a k-th element, the reader of single values passes over the rest: array operations are slow on
little, and one endless list must not cost more than it does alone.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from indexer.chain.arrays.arrow import ArrowArray, ArrowType
from indexer.chain.arrays.fixed import Block, array_of
from indexer.chain.arrays.lanes import Batch, Data, Ints, Mask, Node, Rows, list_array, rows_of, spread
from indexer.chain.codec import ZERO_SIZE_PARTS_MAX, Codec, DecodeError

# Up to so many lists, going through the elements one by one is faster than all lists in step.
SINGLE_LANES_MAX = 32


@dataclass(frozen=True, slots=True)
class BlockList:
    """A vec of elements of fixed size."""

    block: Block
    parts: int
    type: ArrowType

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        at, counts = self._bounds(batch, rows, at)
        sizes = counts * self.block.size

        def refuse(bad: Mask) -> None:
            lanes = np.repeat(np.arange(len(counts)), counts)
            batch.kill(rows_of(rows, lanes), bad)

        packed: Data = np.empty(0, np.uint8)
        if self.block.size:
            # Copied, the elements of all lanes lie in one row.
            packed = _data_of(batch.ranges(at, sizes))
        (elements,) = self.block.read_packed(packed, int(counts.sum()), refuse)
        return list_array(self.type, counts, elements), at + sizes

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
        at, counts = self._bounds(batch, rows, at)
        return at + counts * self.block.size

    def _bounds(self, batch: Batch, rows: Rows, at: Ints) -> tuple[Ints, Ints]:
        return _counted(batch, rows, at, self.block.size, self.parts)


def _counted(batch: Batch, rows: Rows, at: Ints, size_min: int, parts: int) -> tuple[Ints, Ints]:
    """Return where the elements of vecs begin and how many there are; `size_min` bytes each must be there."""
    at, _ = batch.need(rows, at, 4)
    counts = batch.items(at, "<u4").astype(np.int64)
    at, live = batch.need(rows, at + 4, counts * size_min)
    if live is not None:
        counts = np.where(live, counts, 0)
    if size_min == 0:
        many = counts * parts > ZERO_SIZE_PARTS_MAX
        if many.any():
            batch.kill(rows, many)
            counts = np.where(many, 0, counts)
    return at, counts


def _data_of(values: ArrowArray) -> Data:
    buffer = values.buffers()[2]
    return np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


@dataclass(frozen=True, slots=True)
class NodeList:
    """
    A vec, or an array, of elements whose ends are known only by reading them.

    Args:
        codec: of the element, and `depth` how deep it is inside the payload's value.
        length: of an array; None for a vec.
    """

    element: Node
    codec: Codec
    depth: int
    type: ArrowType
    length: int | None = None

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        at, counts = self._bounds(batch, rows, at)
        starts = np.zeros(int(counts.sum()), np.int64)
        behind = self._pass(batch, rows, at, counts, starts)
        elements: ArrowArray = pa.nulls(0, self.type.value_type)
        if len(starts):
            lanes = np.repeat(np.arange(len(counts)), counts)
            elements, _ = self.element.read(batch, rows_of(rows, lanes), starts)
        if pa.types.is_fixed_size_list(self.type):
            return self._arrays(elements, counts), behind
        return list_array(self.type, counts, elements), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
        at, counts = self._bounds(batch, rows, at)
        return self._pass(batch, rows, at, counts, None)

    def _arrays(self, elements: ArrowArray, counts: Ints) -> ArrowArray:
        assert self.length, "an array of no element has a fixed size"
        whole = counts == self.length
        values = array_of(self.type, elements, int(whole.sum()), self.length)
        return spread(values, whole, self.type)

    def _bounds(self, batch: Batch, rows: Rows, at: Ints) -> tuple[Ints, Ints]:
        # A value without a fixed size has a byte at least: its tag or its length.
        size_min = 1 if self.codec.size is None else self.codec.size
        if self.length is None:
            return _counted(batch, rows, at, size_min, self.codec.parts)
        at, live = batch.need(rows, at, self.length * size_min)
        counts = np.full(len(at), self.length, np.int64)
        return at, counts if live is None else np.where(live, counts, 0)

    def _pass(self, batch: Batch, rows: Rows, at: Ints, counts: Ints, starts: Ints | None) -> Ints:
        """Return the positions behind the last elements; where each begins is written to `starts`, lane by lane."""
        first = np.cumsum(counts) - counts
        at = at.copy()
        lanes, index = np.flatnonzero(counts), 0
        while len(lanes) > SINGLE_LANES_MAX:
            if starts is not None:
                starts[first[lanes] + index] = at[lanes]
            at[lanes] = self.element.skip(batch, rows_of(rows, lanes), at[lanes])
            index += 1
            lanes = lanes[counts[lanes] > index]
            if batch.has_dead:
                lanes = lanes[batch.alive(rows_of(rows, lanes))]
        for lane in lanes.tolist():
            found, at[lane] = self._pass_one(batch, rows_of(rows, np.array([lane])), at[lane], counts[lane] - index)
            if starts is not None:
                begin = first[lane] + index
                starts[begin : begin + len(found)] = found
        return at

    def _pass_one(self, batch: Batch, row: Ints, at: int, count: int) -> tuple[list[int], int]:
        """Pass over `count` elements one by one; return where each begins, and the position behind the last."""
        if not batch.alive(row)[0]:
            return [], 0
        payload, start = batch.payload(int(row[0]))
        read, position = self.codec.read, int(at) - start
        found: list[int] = []
        try:
            for _ in range(count):
                found.append(position + start)
                _, position = read(payload, position, self.depth)
        except DecodeError:
            batch.kill(row, np.array([True]))
            return [], 0
        return found, position + start
