"""
How one value of one type is read from bytes and written to them, and what is said where that fails.

Reading is strict and bounded: every byte that could have been written differently is refused, and nothing is allocated
that the payload does not pay for. The pieces here are put together by `layout.py`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self, TypeAlias

from indexer.chain.types import DEPTH_MAX, F32, F64, Bool, Bytes, Integer, Pubkey, String, Type
from indexer.chain.value import Value
from indexer.errors import DataError

# Elements without bytes cost the payload nothing, so their number is bounded by this instead.
ZERO_SIZE_PARTS_MAX = 256

# (data, position, depth) -> (value, position behind it)
Read: TypeAlias = Callable[[bytes, int, int], tuple[Value, int]]
# (value, where to append, depth)
Write: TypeAlias = Callable[[Value, bytearray, int], None]
# What is left to do with an item of `struct`, and the check that it is valid.
Convert: TypeAlias = Callable[[Value], Value]


class Packed(NamedTuple):
    """Neighbouring fields that one `struct` call reads; `format` has the padding in it. None converts nothing."""

    names: tuple[str, ...]
    converts: tuple[Convert | None, ...]
    format: str


class Lone(NamedTuple):
    """A field that is read by itself, behind `padding` bytes; of `size` bytes, or None where that differs."""

    name: str
    read: Read
    padding: int
    size: int | None


class _PathError(DataError):
    """A failure somewhere inside a value: `path` leads to it from the outside, and grows on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def within(self, step: str) -> Self:
        """Note that this happened inside `step`, a field or an "[index]"; returns itself to be raised again."""
        dot = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{step}{dot}{self.path}"
        return self

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class DecodeError(_PathError):
    """
    Bytes that do not say what the IDL says they should.

    `kind` is one of unknown_discriminator, ambiguous_discriminator, short_payload, invalid_value, too_deep. `path`
    leads from the event, account or instruction to the field.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class EncodeError(_PathError):
    """A value that the IDL's type has no bytes for."""


@dataclass(frozen=True, slots=True)
class Codec:
    """
    One type's way to and from bytes.

    Args:
        size: bytes, where every value has the same number of them; else None.
        align: of the C layout, in bytes; 1 in borsh.
        format: of `struct`, where one such item is the whole value: neighbours are then read together.
        convert: what is left to do with that item, and the check that it is valid; None for nothing.
        parts: how many Python values a value without bytes consists of.
        runs: of a struct whose value is a dict, everything that lies in it, in order; else None.
    """

    size: int | None
    read: Read
    write: Write
    align: int = 1
    format: str | None = None
    convert: Convert | None = None
    parts: int = 1
    runs: tuple[Packed | Lone, ...] | None = None


def short(data: bytes, position: int, needed: int) -> DecodeError:
    """Return the error for a payload that ends before `needed` bytes at `position`."""
    left = max(len(data) - position, 0)
    return DecodeError("short_payload", f"{needed} bytes needed at offset {position}, {left} left")


def check_depth(depth: int) -> None:
    """
    Stop a value, or an IDL, that nests without end.

    Raises:
        DecodeError: deeper than DEPTH_MAX.
    """
    if depth > DEPTH_MAX:
        raise DecodeError("too_deep", f"values are nested deeper than {DEPTH_MAX}")


def read_length(data: bytes, position: int) -> int:
    """Return the u32 in front of a string or vec."""
    if position + 4 > len(data):
        raise short(data, position, 4)
    return int.from_bytes(data[position : position + 4], "little")


def write_length(length: int, out: bytearray) -> None:
    """Write the u32 in front of a string or vec; EncodeError where it does not fit."""
    if length > 0xFFFF_FFFF:
        raise EncodeError(f"{length} elements do not fit a length of four bytes")
    out += length.to_bytes(4, "little")


def scalar_codec(type_: Type, *, c_layout: bool) -> Codec | None:
    """Return the codec of a type that contains no other, or None for every other type."""
    match type_:
        case Integer():
            return _integer(type_, c_layout=c_layout)
        case F32():
            return _float("f", 4 if c_layout else 1)
        case F64():
            return _float("d", 8 if c_layout else 1)
        case Bool():
            return packed_codec("B", 1, _to_bool, _write_bool)
        case Pubkey():
            return byte_array(32)
        case Bytes():
            return Codec(None, _read_bytes, _write_bytes)
        case String():
            return Codec(None, _read_string, _write_string)
        case _:
            return None


# One codec serves all fields of a scalar type: a large program has ten thousand of them.
@lru_cache(maxsize=256)
def byte_array(length: int) -> Codec:
    """Return the codec of exactly `length` bytes: a pubkey, a [u8; N]."""

    def write(value: Value, out: bytearray, _depth: int) -> None:
        if not isinstance(value, bytes | bytearray) or len(value) != length:
            raise EncodeError(f"{length} bytes are needed, not {_shown(value)}")
        out += value

    return packed_codec(f"{length}s", 1, None, write)


def packed_codec(format_: str, align: int, convert: Convert | None, write: Write) -> Codec:
    """Return the codec of a value that is one item of `struct`, and perhaps a conversion of it."""
    packed = struct.Struct("<" + format_)
    unpack, size = packed.unpack_from, packed.size

    def read(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
        try:
            (value,) = unpack(data, position)
        except struct.error:
            raise short(data, position, size) from None
        return (value if convert is None else convert(value)), position + size

    return Codec(size, read, write, align, format_, convert)


@lru_cache(maxsize=64)
def _integer(type_: Integer, *, c_layout: bool) -> Codec:
    size, signed = type_.bits // 8, type_.signed
    low = -(1 << (type_.bits - 1)) if signed else 0
    high = (1 << (type_.bits - signed)) - 1

    def write(value: Value, out: bytearray, _depth: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            name = f"{'i' if signed else 'u'}{type_.bits}"
            raise EncodeError(f"a value of {name} is needed, not {_shown(value)}")
        out += value.to_bytes(size, "little", signed=signed)

    def wide(item: bytes) -> int:
        return int.from_bytes(item, "little", signed=signed)

    # The programs' target aligns nothing to more than eight bytes, 128-bit integers included, also where the compiler's
    # own machine has come to use sixteen (x86-64 since Rust 1.78). Accounts on chain bear it out: Kamino's Reserve is
    # 8616 bytes, Drift's PerpMarket 1208 and OpenBook's Market 840, and each would be longer by sixteen.
    align = min(size, 8) if c_layout else 1
    letter = {1: "b", 2: "h", 4: "i", 8: "q"}.get(size)
    if letter is None:
        return packed_codec(f"{size}s", align, wide, write)
    return packed_codec(letter if signed else letter.upper(), align, None, write)


@lru_cache(maxsize=8)
def _float(format_: str, align: int) -> Codec:
    packed = struct.Struct("<" + format_)

    def write(value: Value, out: bytearray, _depth: int) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise EncodeError(f"a float is needed, not {_shown(value)}")
        try:
            out += packed.pack(value)
        except (OverflowError, struct.error):
            raise EncodeError(f"{_shown(value)} does not fit a float of {packed.size} bytes") from None

    return packed_codec(format_, align, None, write)


def _to_bool(item: int) -> bool:
    if item > 1:
        raise DecodeError("invalid_value", f"a bool is 0 or 1, not {item}")
    return item == 1


def _write_bool(value: Value, out: bytearray, _depth: int) -> None:
    if not isinstance(value, bool):
        raise EncodeError(f"a bool is needed, not {_shown(value)}")
    out.append(value)


def _read_bytes(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
    start = position + 4
    # Where bytes of the length itself are missing, this ends behind the data as well.
    end = start + int.from_bytes(data[position:start], "little")
    if end > len(data):
        raise short(data, start, read_length(data, position))
    return data[start:end], end


def _write_bytes(value: Value, out: bytearray, _depth: int) -> None:
    if not isinstance(value, bytes | bytearray):
        raise EncodeError(f"bytes are needed, not {_shown(value)}")
    write_length(len(value), out)
    out += value


def _read_string(data: bytes, position: int, depth: int) -> tuple[Value, int]:
    raw, end = _read_bytes(data, position, depth)
    try:
        return raw.decode(), end
    except UnicodeDecodeError as error:
        raise DecodeError("invalid_value", f"a string is not UTF-8 at its byte {error.start}") from None


def _write_string(value: Value, out: bytearray, depth: int) -> None:
    if not isinstance(value, str):
        raise EncodeError(f"a string is needed, not {_shown(value)}")
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"{_shown(value)} has no UTF-8 form") from None
    _write_bytes(raw, out, depth)


def _shown(value: Value) -> str:
    try:
        text = repr(value)
    except ValueError:
        # Python does not print integers of thousands of digits.
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else text[:77] + "..."


def checked_size(size: int) -> int:
    """
    Return `size`, in bytes.

    Raises:
        DataError: no account can hold it.
    """
    # What `struct` can express; no account is larger than 10 MiB anyway.
    if size > 0x7FFF_FFFF:
        raise DataError(f"a type of {size} bytes is larger than any account; correct the IDL")
    return size
