"""
Types compiled, once, into functions that read and write their bytes.

Each type becomes a closure over the closures of its parts; neighbouring fields of fixed size become one `struct` call.
There are two layouts: borsh, where values follow each other without gaps, and C, where `bytemuck` types lie as the
program's compiler put them. The pieces are in `codec.py`, `sequence.py` and `containers.py`; which type belongs to
which discriminator in `program.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from indexer.chain.codec import (
    ZERO_SIZE_PARTS_MAX,
    Codec,
    EncodeError,
    byte_array,
    check_depth,
    checked_size,
    scalar_codec,
)
from indexer.chain.containers import (
    array_codec,
    coption_codec,
    enum_codec,
    option_codec,
    unit_enum_codec,
    vec_codec,
)
from indexer.chain.sequence import Member, sequence_codec
from indexer.chain.types import (
    DEPTH_MAX,
    U8,
    Alias,
    Array,
    COption,
    Defined,
    Definition,
    Enum,
    Fields,
    Generic,
    Option,
    Repr,
    Struct,
    Tuple,
    Type,
    Vec,
    fields_of,
)
from indexer.chain.value import Value
from indexer.errors import DataError

Mode: TypeAlias = Literal["borsh", "c"]

# One program has this many different types at most; generics that instantiate each other without end reach it.
TYPES_MAX = 5_000


class Compiler:
    """Compiles the types of one program; each type once, so that definitions may refer to each other and themselves."""

    def __init__(self) -> None:
        self._done: dict[tuple[Type, Mode], Codec] = {}
        self._open: set[tuple[Type, Mode]] = set()

    def compile(self, type_: Type, mode: Mode = "borsh", depth: int = 0) -> Codec:
        """
        Return the codec of `type_`.

        Args:
            type_: a type of a loaded IDL; a `Defined` brings its own definitions.
            mode: "c" inside a bytemuck type. A definition that is bytemuck changes to it by itself.
            depth: how many types this one is inside of.

        Raises:
            DataError: the type has no layout that can be known: custom serialization, a C type of no fixed size,
                types nested without end.
        """
        if depth > DEPTH_MAX:
            raise DataError(f"types are nested deeper than {DEPTH_MAX}; correct the IDL")
        scalar = scalar_codec(type_, c_layout=mode == "c")
        if scalar is not None:
            return scalar
        key = (type_, mode)
        if key in self._open:
            return self._recursive(key)
        if key not in self._done:
            if len(self._done) >= TYPES_MAX:
                raise DataError(f"the IDL has more than {TYPES_MAX} different types; a generic type has no end")
            self._open.add(key)
            try:
                codec = self._compile(type_, mode, depth + 1)
            finally:
                self._open.discard(key)
            _check_zero_size(type_, codec)
            self._done[key] = codec
        return self._done[key]

    def _compile(self, type_: Type, mode: Mode, depth: int) -> Codec:
        match type_:
            case Array(element, length):
                assert isinstance(length, int), "generics are replaced before a type is compiled"
                if isinstance(element, U8):
                    return byte_array(checked_size(length))
                return array_codec(self.compile(element, mode, depth), length)
            case Tuple():
                return self._fields(type_, mode, depth, None)
            case Defined():
                return self._defined(type_.definition(), mode, depth)
            case Option() | Vec() if mode == "c":
                raise DataError(f"a bytemuck type has a fixed layout and cannot hold {_named(type_)}; correct the IDL")
            case Option(inner):
                return option_codec(self.compile(inner, mode, depth))
            case COption(inner):
                return coption_codec(self.compile(inner, mode, depth), c_layout=mode == "c")
            case Vec(element):
                return vec_codec(self.compile(element, mode, depth))
            case Generic(name):
                raise DataError(f"the generic {name!r} is used outside its definition; correct the IDL")
            case _:
                raise DataError(f"a bytemuck type has a fixed layout and cannot hold {_named(type_)}; correct the IDL")

    def _recursive(self, key: tuple[Type, Mode]) -> Codec:
        type_, mode = key
        if mode == "c":
            raise DataError(f"{_named(type_)} contains itself, so it has no size; correct the IDL")
        done = self._done
        return Codec(
            None,
            lambda data, position, depth: done[key].read(data, position, depth),  # noqa: PLW0108 - not there yet
            lambda value, out, depth: done[key].write(value, out, depth),  # noqa: PLW0108 - not there yet
        )

    def _defined(self, definition: Definition, mode: Mode, depth: int) -> Codec:
        serialization = definition.serialization
        if serialization.startswith("custom"):
            raise DataError(
                f"the type {definition.name} is serialized by its own code ({serialization}), which an IDL does not "
                "describe; remove what uses it from the IDL"
            )
        if serialization != "borsh":
            mode = "c"
        repr_ = definition.repr
        match definition.body:
            case Alias(target):
                return self.compile(target, mode, depth)
            case Struct() if mode == "c" and repr_ is not None and repr_.kind == "rust" and not repr_.packed:
                raise DataError(
                    f"the bytemuck type {definition.name} has repr(Rust), which leaves the order of its fields open; "
                    "its layout is not known"
                )
            case Struct(fields):
                codec = self._fields(fields, mode, depth, repr_)
            case Enum():
                codec = self._enum(definition, mode, depth)
        return _guarded(codec) if codec.size is None else codec

    def _fields(self, fields: Fields, mode: Mode, depth: int, repr_: Repr | None) -> Codec:
        members = [Member(f.name, self.compile(f.type, mode, depth)) for f in fields_of(fields)]
        tail, align = 0, 1
        if mode == "c":
            members, tail, align = place(members, repr_ or Repr())
        codec = sequence_codec(members, tail, as_list=isinstance(fields, Tuple))
        return replace(codec, align=align)

    def _enum(self, definition: Definition, mode: Mode, depth: int) -> Codec:
        body = definition.body
        assert isinstance(body, Enum)
        if mode == "borsh":
            if not any(fields_of(v.fields) for v in body.variants):
                return unit_enum_codec([v.name for v in body.variants], 1)
            return enum_codec([(v.name, self._fields(v.fields, mode, depth, None)) for v in body.variants])
        if any(fields_of(v.fields) for v in body.variants):
            raise DataError(f"the bytemuck enum {definition.name} has fields: its layout is not known")
        width = 4 if definition.repr is not None and definition.repr.kind == "c" else 1
        return unit_enum_codec([v.name for v in body.variants], width)


def _check_zero_size(type_: Type, codec: Codec) -> None:
    if codec.size == 0 and codec.parts > ZERO_SIZE_PARTS_MAX:
        raise DataError(f"{_named(type_)} has {codec.parts} parts and no bytes; correct the IDL")


def _named(type_: Type) -> str:
    text = f"the type {type_.name}" if isinstance(type_, Defined) else str(type_)
    return text if len(text) <= 100 else text[:97] + "..."


def _guarded(codec: Codec) -> Codec:
    """Count the depth where types can be recursive: at the definitions."""
    inner_read, inner_write = codec.read, codec.write

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        check_depth(depth)
        return inner_read(data, position, depth + 1)

    def write(value: Value, out: bytearray, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise EncodeError(f"values are nested deeper than {DEPTH_MAX}")
        inner_write(value, out, depth + 1)

    return replace(codec, read=read, write=write)


def place(members: Sequence[Member], repr_: Repr) -> tuple[list[Member], int, int]:
    """Return the members with the padding a C compiler puts before each, the padding at the end, the alignment."""
    placed: list[Member] = []
    offset, align = 0, repr_.align
    for member in members:
        size = member.codec.size
        if size is None:
            raise DataError(f"the field {member.name} of a bytemuck type has no fixed size; correct the IDL")
        own_align = 1 if repr_.packed else member.codec.align
        padding = -offset % own_align
        placed.append(replace(member, padding=padding))
        offset += padding + size
        align = max(align, own_align)
    return placed, -offset % align, align
