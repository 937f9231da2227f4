"""
Types of no fixed size, read level by level: all lengths at once, then all that they promise.

A length or tag is believed as far as each payload's own length bears it out, and before anything is made for it. Where
one element begins is known only when the one before it has been passed, so the elements of a vec of such are found
first, the k-th of every vec at once, and then read as lanes of their own. Where few vecs are left that have a k-th
element, the reader of single values passes over the rest: array operations are slow on little.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from indexer.chain.arrays.fixed import Block, array_of, struct_array, variant_array
from indexer.chain.arrays.lanes import (
    ArrowArray,
    Batch,
    Ints,
    Mask,
    Numbers,
    Rows,
    list_array,
    rows_of,
    spread,
)
from indexer.chain.codec import ZERO_SIZE_PARTS_MAX, Codec, DecodeError
from indexer.chain.value import JsonEncoder, Value

# Up to so many vecs, going through the elements one by one is faster than all vecs in step.
SINGLE_LANES_MAX = 32


class Node(Protocol):
    """A type's way from bytes to Arrow."""

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values that begin at `at`, one a lane, and the positions behind them."""

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values; whether they are valid is seen when they are read."""


@dataclass(frozen=True, slots=True)
class FixedValue:
    """A block of one value."""

    block: Block

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        arrays, behind = self.block.read(batch, rows, at)
        return arrays[0], behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        return batch.need(rows, at, self.block.size)[0] + self.block.size


@dataclass(frozen=True, slots=True)
class Blob:
    """A string, or bytes, with the length in front."""

    is_string: bool

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        at, lengths = self._bounds(batch, rows, at)
        values = batch.ranges(at, lengths)
        behind = at + lengths
        return (_text(values, lambda bad: batch.kill(rows, bad)) if self.is_string else values), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        at, lengths = self._bounds(batch, rows, at)
        return at + lengths

    def _bounds(self, batch: Batch, rows: Rows, at: Ints) -> tuple[Ints, Ints]:
        at, _ = batch.need(rows, at, 4)
        lengths = batch.items(at, "<u4").astype(np.int64)
        at, live = batch.need(rows, at + 4, lengths)
        return at, lengths if live is None else np.where(live, lengths, 0)


def _text(values: "pa.BinaryArray", refuse: Callable[[Mask], None]) -> ArrowArray:
    """Return `values` as strings; whether they are UTF-8 is Arrow's to check, which of them is not is found by halves."""
    try:
        return values.cast(pa.utf8())
    except pa.ArrowInvalid:
        good = np.ones(len(values), np.bool_)
        _find_invalid(values, good)
    refuse(~good)
    return spread(values.filter(pa.array(good)).cast(pa.utf8()), good, pa.utf8())


def _find_invalid(values: "pa.BinaryArray", good: Mask) -> None:
    if len(values) <= SINGLE_LANES_MAX:
        good[:] = [_is_utf8(value) for value in values.to_pylist()]
        return
    half = len(values) // 2
    for part in (slice(0, half), slice(half, None)):
        try:
            values[part].cast(pa.utf8())
        except pa.ArrowInvalid:
            _find_invalid(values[part], good[part])


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Maybe:
    """
    A tag, then the value if there is one.

    Args:
        room: bytes from the tag's first to behind the value, where they are there also without a value; else None.
        offset: where the value begins.
    """

    inner: Node
    type: pa.DataType
    tag: str = "<u1"
    offset: int = 1
    room: int | None = None

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        at, present, lanes = self._tags(batch, rows, at)
        behind = at + (self.room or self.offset)
        if not len(lanes):
            return pa.nulls(len(at), self.type), behind
        values, inner_behind = self.inner.read(batch, rows_of(rows, lanes), at[lanes] + self.offset)
        if self.room is None:
            behind[lanes] = inner_behind
        return spread(values, present, self.type), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        at, _, lanes = self._tags(batch, rows, at)
        behind = at + (self.room or self.offset)
        if self.room is None and len(lanes):
            behind[lanes] = self.inner.skip(batch, rows_of(rows, lanes), at[lanes] + self.offset)
        return behind

    def _tags(self, batch: Batch, rows: Rows, at: Ints) -> tuple[Ints, Mask, Ints]:
        at, live = batch.need(rows, at, self.room or self.offset)
        tags = batch.items(at, self.tag)
        present = tags == 1
        if len(tags) and tags.max() > 1:
            batch.kill(rows, tags > 1)
        if live is not None:
            present &= live
        return at, present, np.flatnonzero(present)


@dataclass(frozen=True, slots=True)
class Choice:
    """An enum with fields: a byte for the variant, then that variant's. `variants`: None where one has no fields."""

    names: ArrowArray
    variants: tuple["Record | None", ...]
    type: Any

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        at, tags = self._tags(batch, rows, at)
        behind = at + 1
        arrays = [variant_array(tags, self.names, len(tags))]
        for number, variant in enumerate(self.variants):
            if variant is None:
                continue
            chosen = tags == number
            lanes = np.flatnonzero(chosen)
            values = pa.nulls(0, variant.type)
            if len(lanes):
                values, behind[lanes] = variant.read(batch, rows_of(rows, lanes), behind[lanes])
            arrays.append(spread(values, chosen, variant.type))
        return struct_array(self.type, arrays, len(tags)), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        at, tags = self._tags(batch, rows, at)
        behind = at + 1
        for number, variant in enumerate(self.variants):
            lanes = np.flatnonzero(tags == number) if variant is not None else ()
            if variant is not None and len(lanes):
                behind[lanes] = variant.skip(batch, rows_of(rows, lanes), behind[lanes])
        return behind

    def _tags(self, batch: Batch, rows: Rows, at: Ints) -> tuple[Ints, Numbers]:
        at, _ = batch.need(rows, at, 1)
        tags = batch.items(at, "u1")
        count = len(self.names)
        if len(tags) and tags.max() >= count:
            bad = tags >= count
            batch.kill(rows, bad)
            tags = np.where(bad, 0, tags).astype(np.uint8)
        return at, tags


@dataclass(frozen=True, slots=True)
class Record:
    """
    Fields one after the other.

    Args:
        steps: blocks of one or more fields, and nodes of one, each with the bytes of padding before it.
        tail: bytes of padding behind the last.
    """

    steps: tuple[tuple[int, "Block | Node"], ...]
    type: pa.DataType
    tail: int = 0

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        arrays, behind = self.read_fields(batch, rows, at)
        return struct_array(self.type, arrays, len(at)), behind

    def read_fields(self, batch: Batch, rows: Rows, at: Ints) -> tuple[list[ArrowArray], Ints]:
        """Return the values field by field, and the positions behind the last."""
        arrays: list[ArrowArray] = []
        for padding, step in self.steps:
            if isinstance(step, Block):
                found, at = step.read(batch, rows, at + padding if padding else at)
                arrays += found
            else:
                values, at = step.read(batch, rows, at + padding if padding else at)
                arrays.append(values)
        return arrays, self._behind(batch, rows, at)

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        for padding, step in self.steps:
            if isinstance(step, Block):
                size = padding + step.size
                at = batch.need(rows, at, size)[0] + size
            else:
                at = step.skip(batch, rows, at + padding if padding else at)
        return self._behind(batch, rows, at)

    def _behind(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        return batch.need(rows, at, self.tail)[0] + self.tail if self.tail else at


@dataclass(frozen=True, slots=True)
class BlockList:
    """A vec of elements of fixed size."""

    block: Block
    parts: int
    type: pa.DataType

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        at, counts = self._bounds(batch, rows, at)
        sizes = counts * self.block.size

        def refuse(bad: Mask) -> None:
            lanes = np.repeat(np.arange(len(counts)), counts)
            batch.kill(rows_of(rows, lanes), bad)

        packed = np.empty(0, np.uint8)
        if self.block.size:
            # Copied, the elements of all lanes lie in one row.
            packed = np.frombuffer(_data_of(batch.ranges(at, sizes)), np.uint8)
        (elements,) = self.block.read_packed(packed, int(counts.sum()), refuse)
        return list_array(self.type, counts, elements), at + sizes

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
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


def _data_of(values: "pa.BinaryArray") -> "pa.Buffer | bytes":
    return values.buffers()[2] or b""


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
    type: pa.DataType
    length: int | None = None

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
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


@dataclass(frozen=True, slots=True)
class Text:
    """What columns cannot hold: values read one by one, as JSON in the edge format; none is null."""

    codec: Codec
    encode: JsonEncoder
    depth: int

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        texts: list[str | None] = []

        def keep(value: Value) -> None:
            texts.append(None if value is None else msgspec.json.encode(self.encode(value)).decode())

        behind = self._each(batch, rows, at, keep, lambda: texts.append(None))
        return pa.array(texts, pa.utf8()), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        return self._each(batch, rows, at, lambda _value: None, lambda: None)

    def _each(
        self, batch: Batch, rows: Rows, at: Ints, keep: Callable[[Value], None], drop: Callable[[], None]
    ) -> Ints:
        behind = np.zeros(len(at), np.int64)
        lane_rows = rows_of(rows, np.arange(len(at)))
        alive = batch.alive(lane_rows).tolist()
        known, payload, start, failed = -1, b"", 0, -1
        for lane, (row, position) in enumerate(zip(lane_rows.tolist(), at.tolist(), strict=True)):
            if not alive[lane] or row == failed:
                drop()
                continue
            if row != known:
                known, (payload, start) = row, batch.payload(row)
            try:
                value, end = self.codec.read(payload, position - start, self.depth)
            except DecodeError:
                batch.kill(lane_rows[lane : lane + 1], np.array([True]))
                failed = row
                drop()
                continue
            keep(value)
            behind[lane] = end + start
        return behind


@dataclass(frozen=True, slots=True)
class Refused:
    """What lies deeper than values are followed."""

    type: pa.DataType

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        return pa.nulls(len(at), self.type), self.skip(batch, rows, at)

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        batch.kill(rows, np.ones(len(at), np.bool_))
        return np.zeros(len(at), np.int64)
