"""
Types of fixed size, read as blocks: the bytes of all lanes are gathered once, then each number is one strided copy.

A block may be one value, or several neighbours of a struct. Its leaves are the numbers in it, an array of structs
included: a leaf says where its first item lies and how the others follow. Parts put leaves together into Arrow arrays
and check what not every byte is allowed for: bools, tags.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
import pyarrow as pa

from indexer.chain.arrays.arrow import DECIMAL, ArrowArray, ArrowType, arrow_type, fields_type, variants_type
from indexer.chain.arrays.lanes import Batch, Ints, Mask, Numbers, Rows, array_over, list_array, spread
from indexer.chain.layout import Compiler, Mode, place
from indexer.chain.sequence import Member
from indexer.chain.types import (
    F32,
    F64,
    U8,
    Alias,
    Array,
    Bool,
    COption,
    Defined,
    Enum,
    Field,
    Integer,
    Pubkey,
    Repr,
    Struct,
    Tuple,
    Type,
    fields_of,
)

# One gather is at most so many bytes and lanes: what it writes is still in the cache when the leaves are read from it.
GATHER_BYTES_MAX = 1 << 20
GATHER_LANES_MAX = 8192

# Says which of the values at hand are invalid.
Refuse: TypeAlias = Callable[[Mask], None]
# The items of each leaf, all lanes and all array elements in one row.
Filled: TypeAlias = list[Numbers]


@dataclass(frozen=True, slots=True)
class Leaf:
    """`dims`: of the arrays it is inside of, outermost first, the length and the bytes from element to element."""

    offset: int
    dims: tuple[tuple[int, int], ...]
    dtype: "np.dtype[Any]"

    def room(self, lanes: int) -> Numbers:
        """Return room for the leaf's items of so many lanes, in Arrow's memory, which is used again when it is free."""
        shape = (lanes, *(length for length, _ in self.dims))
        buffer: Any = pa.allocate_buffer(math.prod(shape) * self.dtype.itemsize)
        return np.frombuffer(buffer, self.dtype).reshape(shape)

    def items(self, gathered: Numbers) -> Numbers:
        """Return the leaf's items in `gathered`, (lanes, *dims), without copying."""
        if not self.dims:
            return np.ndarray((len(gathered),), self.dtype, gathered, self.offset, (gathered.dtype.itemsize,))
        shape = (len(gathered), *(length for length, _ in self.dims))
        strides = (gathered.dtype.itemsize, *(stride for _, stride in self.dims))
        return np.ndarray(shape, self.dtype, buffer=gathered, offset=self.offset, strides=strides)


class Place(NamedTuple):
    """Where in a block a value lies: its first byte, and `dims` as of a leaf."""

    offset: int
    dims: tuple[tuple[int, int], ...] = ()

    def behind(self, size: int) -> Self:
        """Return the place `size` bytes later."""
        return self._replace(offset=self.offset + size)


class Part(Protocol):
    """One value of a block."""

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:
        """Return `count` values."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbours of fixed size: `size` bytes together."""

    size: int
    leaves: tuple[Leaf, ...]
    parts: tuple[Part, ...]

    def read(self, batch: Batch, rows: Rows, at: Ints) -> tuple[list[ArrowArray], Ints]:
        """Return the values of each part, and the positions behind the block."""
        at, live = batch.need(rows, at, self.size)
        batch.check_room(live, self.size)
        filled = self._gather(batch, at)
        arrays = [part.build(filled, len(at), lambda bad: batch.kill(rows, bad)) for part in self.parts]
        return arrays, at + self.size

    def read_packed(self, packed: Numbers, count: int, refuse: Refuse) -> list[ArrowArray]:
        """Return the values of `count` blocks that lie one after the other in `packed`, uint8."""
        filled = [np.empty(0, leaf.dtype) for leaf in self.leaves]
        if self.size and count:
            blocks = packed[: count * self.size].view(f"V{self.size}")
            filled = [np.ascontiguousarray(leaf.items(blocks)).reshape(-1) for leaf in self.leaves]
        return [part.build(filled, count, refuse) for part in self.parts]

    def _gather(self, batch: Batch, at: Ints) -> Filled:
        step = max(1, min(GATHER_LANES_MAX, GATHER_BYTES_MAX // max(self.size, 1)))
        if len(at) <= step and self.leaves:
            gathered = batch.items(at, f"V{self.size}")
            return [leaf.items(gathered).copy().reshape(-1) for leaf in self.leaves]
        filled = [leaf.room(len(at)) for leaf in self.leaves]
        for start in range(0, len(at) if self.leaves else 0, step):
            gathered = batch.items(at[start : start + step], f"V{self.size}")
            for leaf, items in zip(self.leaves, filled, strict=True):
                items[start : start + len(gathered)] = leaf.items(gathered)
        return [items.reshape(-1) for items in filled]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Integers and floats that Arrow has in the same bytes, and byte arrays."""

    leaf: int
    type: ArrowType

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:  # noqa: ARG002 - any bytes are valid
        return array_over(self.type, count, filled[self.leaf])


@dataclass(frozen=True, slots=True)
class _LongBytes:
    """Byte arrays too long for a fixed size in Arrow, or of no byte."""

    leaf: int | None
    size: int

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:  # noqa: ARG002 - any bytes are valid
        offsets = np.arange(count + 1, dtype=np.int64) * self.size
        data: Numbers = np.empty(0, np.uint8) if self.leaf is None else filled[self.leaf]
        return array_over(pa.binary(), count, offsets.astype(np.int32), data)


@dataclass(frozen=True, slots=True)
class _Wide:
    """128 bits as a decimal's 256: what is added is the sign."""

    leaf: int
    signed: bool

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:  # noqa: ARG002 - any bytes are valid
        words = filled[self.leaf].view(np.int64).reshape(count, 2)
        wide = np.zeros((count, 4), np.int64)
        wide[:, :2] = words
        if self.signed:
            wide[:, 2:] = (words[:, 1] >> 63)[:, None]
        return array_over(DECIMAL, count, wide)


@dataclass(frozen=True, slots=True)
class _Bools:
    leaf: int

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:
        items = filled[self.leaf]
        if count and items.max() > 1:
            refuse(items > 1)
        return bool_array(items, count)


@dataclass(frozen=True, slots=True)
class _Units:
    """Enums without fields."""

    leaf: int
    names: ArrowArray

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:
        tags = filled[self.leaf]
        if count and tags.max() >= len(self.names):
            bad = tags >= len(self.names)
            refuse(bad)
            tags = np.where(bad, 0, tags)
        return variant_array(tags, self.names, count)


@dataclass(frozen=True, slots=True)
class _Struct:
    parts: tuple[Part, ...]
    type: ArrowType

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:
        return struct_array(self.type, [part.build(filled, count, refuse) for part in self.parts], count)


@dataclass(frozen=True, slots=True)
class _Array:
    element: Part
    length: int
    type: ArrowType

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:
        def refuse_array(bad: Mask) -> None:
            refuse(np.logical_or.reduce(bad.reshape(count, self.length), axis=1))

        elements = self.element.build(filled, count * self.length, refuse_array)
        return array_of(self.type, elements, count, self.length)


@dataclass(frozen=True, slots=True)
class _NoElements:
    """Arrays of length 0, whatever the elements are."""

    type: ArrowType

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:  # noqa: ARG002 - there is nothing
        return list_array(self.type, np.zeros(count, np.int64), pa.nulls(0, self.type.value_type))


@dataclass(frozen=True, slots=True)
class _COption:
    """The room of an absent value is there, and may hold anything."""

    tag: int
    inner: Part
    type: ArrowType

    def build(self, filled: Filled, count: int, refuse: Refuse) -> ArrowArray:
        tags = filled[self.tag]
        present: Mask = tags == 1
        if count and tags.max() > 1:
            refuse(tags > 1)
        values = self.inner.build(filled, count, lambda bad: refuse(bad & present))
        if present.all():
            return values
        return spread(values.filter(pa.array(present)), present, self.type)


def bool_array(items: Numbers, count: int) -> ArrowArray:
    """Return bools of uint8 that are 0 or 1."""
    return array_over(pa.bool_(), count, np.packbits(items, bitorder="little"))


def variant_array(tags: Numbers, names: ArrowArray, count: int) -> ArrowArray:
    """Return the dictionary array of the variants that `tags` number."""
    type_ = variants_type(len(names))
    indices = tags.astype(type_.index_type.to_pandas_dtype(), copy=False)
    return pa.DictionaryArray.from_arrays(array_over(type_.index_type, count, indices), names, safe=False)


def struct_array(type_: ArrowType, arrays: Sequence[ArrowArray], count: int) -> ArrowArray:
    """Return structs of `arrays`; without any they are what stands for no fields."""
    if not arrays:
        return bool_array(np.ones(count, np.uint8), count)
    return array_over(type_, count, children=arrays)


def array_of(type_: ArrowType, elements: ArrowArray, count: int, length: int) -> ArrowArray:
    """Return `count` arrays of `length` elements each, as a list of fixed size if `type_` is one."""
    if pa.types.is_fixed_size_list(type_):
        return array_over(type_, count, children=[elements])
    return list_array(type_, np.full(count, length, np.int64), elements)


@dataclass(slots=True)
class BlockWriter:
    """Collects neighbours of fixed size into a block."""

    compiler: Compiler
    size: int = 0
    _leaves: list[Leaf] = field(default_factory=list)
    _parts: list[Part] = field(default_factory=list)

    def add(self, type_: Type, mode: Mode, padding: int = 0) -> None:
        """Add a value of `type_` behind the last, after `padding` bytes."""
        self.size += padding
        self._parts.append(self._part(type_, mode, Place(self.size)))
        self.size += self._size(type_, mode)

    def add_padding(self, size: int) -> None:
        """Add bytes that mean nothing."""
        self.size += size

    def block(self) -> Block:
        """Return the block of what was added."""
        return Block(self.size, tuple(self._leaves), tuple(self._parts))

    def _size(self, type_: Type, mode: Mode) -> int:
        size = self.compiler.compile(type_, mode).size
        assert size is not None, "only types of fixed size come here"
        return size

    def _leaf(self, at: Place, dtype: str) -> int:
        self._leaves.append(Leaf(at.offset, at.dims, np.dtype(dtype)))
        return len(self._leaves) - 1

    def _part(self, type_: Type, mode: Mode, at: Place) -> Part:
        """Return the part of the value at `at`."""
        arrow = arrow_type(type_)
        match type_:
            case Integer():
                return self._integer(type_, at)
            case F32() | F64():
                return _Numbers(self._leaf(at, "<f4" if isinstance(type_, F32) else "<f8"), arrow)
            case Bool():
                return _Bools(self._leaf(at, "u1"))
            case Pubkey():
                return _Numbers(self._leaf(at, "V32"), arrow)
            case Array(U8(), int(length)):
                leaf = self._leaf(at, f"V{length}") if length else None
                if leaf is None or pa.types.is_binary(arrow):
                    return _LongBytes(leaf, length)
                return _Numbers(leaf, arrow)
            case Array(_, 0):
                return _NoElements(arrow)
            case Array(element, int(length)):
                step = (length, self._size(element, mode))
                return _Array(self._part(element, mode, Place(at.offset, (*at.dims, step))), length, arrow)
            case Tuple(elements):
                members = [Field(str(index), element) for index, element in enumerate(elements)]
                return self._struct(members, mode, Repr(), at)
            case COption(inner):
                tag = self._leaf(at, "<u4")
                gap = -4 % self.compiler.compile(inner, mode).align if mode == "c" else 0
                return _COption(tag, self._part(inner, mode, at.behind(4 + gap)), arrow)
            case _:
                assert isinstance(type_, Defined), "every other type has no fixed size"
                return self._defined(type_, mode, at)

    def _integer(self, type_: Integer, at: Place) -> Part:
        if type_.bits == 128:
            return _Wide(self._leaf(at, "V16"), type_.signed)
        dtype = "V32" if type_.bits == 256 else f"<{'i' if type_.signed else 'u'}{type_.bits // 8}"
        return _Numbers(self._leaf(at, dtype), arrow_type(type_))

    def _defined(self, type_: Defined, mode: Mode, at: Place) -> Part:
        definition = type_.definition()
        mode = "borsh" if definition.serialization == "borsh" and mode == "borsh" else "c"
        match definition.body:
            case Alias(target):
                return self._part(target, mode, at)
            case Struct(fields):
                return self._struct(fields_of(fields), mode, definition.repr or Repr(), at)
            case Enum(variants):
                names = pa.array([variant.name for variant in variants], pa.utf8())
                return _Units(self._leaf(at, f"<u{self._size(type_, mode)}"), names)

    def _struct(self, fields: Sequence[Field], mode: Mode, repr_: Repr, at: Place) -> Part:
        parts: list[Part] = []
        members, _ = members_of(self.compiler, fields, mode, repr_)
        for field_, member in zip(fields, members, strict=True):
            at = at.behind(member.padding)
            parts.append(self._part(field_.type, mode, at))
            at = at.behind(member.codec.size or 0)
        return _Struct(tuple(parts), fields_type(tuple(fields)))


def members_of(compiler: Compiler, fields: Sequence[Field], mode: Mode, repr_: Repr) -> tuple[list[Member], int]:
    """Return the fields of a struct with the padding before each, and the padding behind the last."""
    members = [Member(f.name, compiler.compile(f.type, mode)) for f in fields]
    if mode == "borsh":
        return members, 0
    members, tail, _ = place(members, repr_)
    return members, tail
