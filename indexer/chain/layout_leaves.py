"""
Types as the run of values that their bytes are.

Structs and tuples are no bytes of their own: what is left of a type without them is a list of leaves, in order, with
the padding that a C layout has between them. `layout_diff.py` compares such lists.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from indexer.chain.layout import Compiler, Mode
from indexer.chain.type_text import type_text
from indexer.chain.types import (
    DEPTH_MAX,
    F32,
    F64,
    U8,
    Alias,
    Array,
    Bool,
    Defined,
    Definition,
    Enum,
    Fields,
    Integer,
    Pubkey,
    Repr,
    Struct,
    Tuple,
    Type,
    fields_of,
)

# Structs in structs in structs double with each level; no real type comes near this number of fields.
STEPS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Padding:
    """Bytes between or behind the fields of a C struct."""

    size: int


class Leaf(NamedTuple):
    """A value that is no struct: `path` leads to it through the structs that were dissolved around it."""

    path: str
    type: Type | Padding
    mode: Mode


class UnknownLayoutError(Exception):
    """A type without a layout that could be compared; says why."""


class Leaves:
    """Dissolves structs and tuples, and counts its steps."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._steps = 0

    def of(self, type_: Type, mode: Mode, path: str = "", depth: int = 0) -> Iterator[Leaf]:
        """
        Yield the leaves of a type.

        Args:
            path: in front of each leaf's.
            depth: how many types this one is inside of.

        Raises:
            UnknownLayoutError, DataError: no layout can be known, or there are too many leaves.
        """
        self._steps += 1
        if self._steps > STEPS_MAX or depth > DEPTH_MAX:
            raise UnknownLayoutError(f"it has more than {STEPS_MAX} fields, or no end")
        if isinstance(type_, Tuple):
            yield from self.fields(type_, mode, path, depth)
            return
        if not isinstance(type_, Defined):
            yield Leaf(path, type_, mode)
            return
        definition = type_.definition()
        if _is_custom(definition):
            yield Leaf(path, type_, mode)
            return
        if definition.serialization != "borsh":
            mode = "c"
        match definition.body:
            case Alias(target):
                yield from self.of(target, mode, path, depth + 1)
            case Struct(fields):
                yield from self.fields(fields, mode, path, depth, definition)
            case Enum():
                yield Leaf(path, type_, mode)

    def fields(
        self, fields: Fields, mode: Mode, path: str = "", depth: int = 0, definition: Definition | None = None
    ) -> Iterator[Leaf]:
        """Yield the leaves of a struct's, tuple's or variant's fields. Raises as `of` does."""
        repr_ = (definition.repr if definition is not None else None) or Repr()
        if mode == "c" and definition is not None and repr_.kind == "rust" and not repr_.packed:
            raise UnknownLayoutError(f"{definition.name} is bytemuck with repr(Rust), whose layout is not known")
        offset, align = 0, repr_.align
        for field in fields_of(fields):
            if mode == "c":
                size, own_align = self._c_size(field.type)
                own_align = 1 if repr_.packed else own_align
                if padding := -offset % own_align:
                    yield Leaf("", Padding(padding), mode)
                offset, align = offset + padding + size, max(align, own_align)
            yield from self.of(field.type, mode, joined(path, field.name), depth + 1)
        if padding := -offset % align if mode == "c" else 0:
            yield Leaf("", Padding(padding), mode)

    def _c_size(self, type_: Type) -> tuple[int, int]:
        codec = self._compiler.compile(type_, "c")
        if codec.size is None:
            raise UnknownLayoutError(f"{type_text(type_)} has no fixed size in a bytemuck type")
        return codec.size, codec.align


def enum_of(leaf: Leaf) -> tuple[tuple[Enum, bool] | None, int]:
    """Return the enum, whether its variants have fields, and the bytes of its number; None for what is opaque."""
    assert isinstance(leaf.type, Defined), "only enums and opaque types are left of definitions"
    definition = leaf.type.definition()
    body = definition.body
    if not isinstance(body, Enum) or _is_custom(definition):
        return None, 0
    c_layout = leaf.mode == "c" and definition.repr is not None and definition.repr.kind == "c"
    return (body, any(fields_of(variant.fields) for variant in body.variants)), 4 if c_layout else 1


def _is_custom(definition: Definition) -> bool:
    return definition.serialization.startswith("custom")


def is_raw(type_: Type | Padding) -> bool:
    """Whether it is bytes that mean nothing by themselves."""
    return isinstance(type_, Padding) or (isinstance(type_, Array) and isinstance(type_.element, U8))


def reads_anything(type_: Type | Padding) -> bool:
    """Whether every run of bytes of the right length is a value."""
    if isinstance(type_, Array):
        return reads_anything(type_.element)
    return isinstance(type_, Padding | Integer | F32 | F64 | Pubkey)


def byte_size(type_: Type | Padding) -> int | None:
    """Return the bytes of what has always the same number of them, structs aside."""
    match type_:
        case Padding(size):
            return size
        case Integer():
            return type_.bits // 8
        case Bool():
            return 1
        case F32():
            return 4
        case F64():
            return 8
        case Pubkey():
            return 32
        case Array(_, 0):
            return 0
        case Array(element, int(length)):
            size_ = byte_size(element)
            return None if size_ is None else size_ * length
        case _:
            return None


def joined(path: str, step: str) -> str:
    """Return `path.step`, or the one of them that is not empty."""
    return f"{path}.{step}" if path and step else path or step
