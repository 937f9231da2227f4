"""
Types of no fixed size, read level by level: all tags and lengths at once, then all that they promise.

A length is believed as far as each payload's own length bears it out, and before anything is made for it. Vecs and
arrays are in `lists.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from indexer.chain.arrays.arrow import ArrowArray, ArrowType
from indexer.chain.arrays.fixed import Block, struct_array, variant_array
from indexer.chain.arrays.lanes import (
    Batch,
    Ints,
    Mask,
    Node,
    Numbers,
    Rows,
    rows_of,
    spread,
)
from indexer.chain.codec import Codec, DecodeError
from indexer.chain.value import JsonEncoder, Value

# Up to so many values, looking at each is as fast as asking Arrow about all.
SINGLE_VALUES_MAX = 32


@dataclass(frozen=True, slots=True)
class FixedValue:
    """A block of one value."""

    block: Block

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        arrays, behind = self.block.read(batch, rows, at)
        return arrays[0], behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
        return batch.need(rows, at, self.block.size)[0] + self.block.size


@dataclass(frozen=True, slots=True)
class Blob:
    """A string, or bytes, with the length in front."""

    is_string: bool

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        at, lengths = self._bounds(batch, rows, at)
        values = batch.ranges(at, lengths)
        behind = at + lengths
        return (_text(values, lambda bad: batch.kill(rows, bad)) if self.is_string else values), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
        at, lengths = self._bounds(batch, rows, at)
        return at + lengths

    def _bounds(self, batch: Batch, rows: Rows, at: Ints) -> tuple[Ints, Ints]:
        at, _ = batch.need(rows, at, 4)
        lengths = batch.items(at, "<u4").astype(np.int64)
        at, live = batch.need(rows, at + 4, lengths)
        return at, lengths if live is None else np.where(live, lengths, 0)


def _text(values: ArrowArray, refuse: Callable[[Mask], None]) -> ArrowArray:
    """Return `values` as strings. Arrow checks that they are UTF-8; which of them are not is found by halves."""
    try:
        return values.cast(pa.utf8())
    except pa.ArrowInvalid:
        good = np.ones(len(values), np.bool_)
        _find_invalid(values, good)
    refuse(~good)
    return spread(values.filter(pa.array(good)).cast(pa.utf8()), good, pa.utf8())


def _find_invalid(values: ArrowArray, good: Mask) -> None:
    if len(values) <= SINGLE_VALUES_MAX:
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
    type: ArrowType
    tag: str = "<u1"
    offset: int = 1
    room: int | None = None

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        at, present, lanes = self._tags(batch, rows, at)
        behind = at + (self.room or self.offset)
        if not len(lanes):
            return pa.nulls(len(at), self.type), behind
        values, inner_behind = self.inner.read(batch, rows_of(rows, lanes), at[lanes] + self.offset)
        if self.room is None:
            behind[lanes] = inner_behind
        return spread(values, present, self.type), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
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
    type: ArrowType

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
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
        """Return the positions behind the values, as every `Node`."""
        at, tags = self._tags(batch, rows, at)
        behind = at + 1
        for number, variant in enumerate(self.variants):
            if variant is None:
                continue
            lanes = np.flatnonzero(tags == number)
            if len(lanes):
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
    type: ArrowType
    tail: int = 0

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
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
        """Return the positions behind the values, as every `Node`."""
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
class Text:
    """What columns cannot hold: values read one by one, as JSON in the edge format; none is null."""

    codec: Codec
    encode: JsonEncoder
    depth: int

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        texts: list[str | None] = []

        def keep(value: Value) -> None:
            texts.append(None if value is None else msgspec.json.encode(self.encode(value)).decode())

        behind = self._each(batch, rows, at, keep, lambda: texts.append(None))
        return pa.array(texts, pa.utf8()), behind

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
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

    type: ArrowType

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[ArrowArray, Ints]:
        """Return the values and the positions behind them, as every `Node`."""
        return pa.nulls(len(at), self.type), self.skip(batch, rows, at)

    def skip(self, batch: Batch, rows: Rows, at: Ints) -> Ints:
        """Return the positions behind the values, as every `Node`."""
        batch.kill(rows, np.ones(len(at), np.bool_))
        return np.zeros(len(at), np.int64)
