"""
Values with other values inside: options, arrays, vecs, enums.

A tag or a count comes from the payload, so it is believed only as far as the payload's own length bears it out.
"""

import struct
from collections.abc import Callable, Mapping, Sequence

from indexer.chain.codec import (
    ZERO_SIZE_PARTS_MAX,
    Codec,
    DecodeError,
    EncodeError,
    checked_size,
    packed_codec,
    read_length,
    short,
    write_length,
)
from indexer.chain.value import Value
from indexer.errors import DataError


def option_codec(inner: Codec) -> Codec:
    """A tag of one byte, then the value if there is one."""
    inner_read, inner_write = inner.read, inner.write

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        if position >= len(data):
            raise short(data, position, 1)
        tag = data[position]
        if tag == 0:
            return None, position + 1
        if tag != 1:
            raise DecodeError("invalid_value", f"an option starts with 0 or 1, not {tag}")
        return inner_read(data, position + 1, depth + 1)

    def write(value: Value, out: bytearray, depth: int) -> None:
        if value is None:
            out.append(0)
            return
        out.append(1)
        inner_write(value, out, depth + 1)

    return Codec(None, read, write)


def coption_codec(inner: Codec, *, c_layout: bool) -> Codec:
    """A tag of four bytes, then the value or its empty room.

    Raises:
        DataError: `inner` has no fixed size.
    """
    inner_size, inner_read, inner_write = inner.size, inner.read, inner.write
    if inner_size is None:
        raise DataError("a coption keeps room for its value, so the value needs a fixed size; correct the IDL")
    align = max(4, inner.align) if c_layout else 1
    offset = 4 + (-4 % inner.align if c_layout else 0)
    size = offset + inner_size
    size += -size % align

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        if position + size > len(data):
            raise short(data, position, size)
        tag = int.from_bytes(data[position : position + 4], "little")
        if tag == 0:
            return None, position + size
        if tag != 1:
            raise DecodeError("invalid_value", f"a coption starts with 0 or 1, not {tag}")
        value, _ = inner_read(data, position + offset, depth + 1)
        return value, position + size

    def write(value: Value, out: bytearray, depth: int) -> None:
        start = len(out)
        if value is not None:
            out += (1).to_bytes(4, "little") + bytes(offset - 4)
            inner_write(value, out, depth + 1)
        out += bytes(start + size - len(out))

    return Codec(checked_size(size), read, write, align)


def array_codec(element: Codec, length: int) -> Codec:
    """`length` values."""
    size = 0 if length == 0 else None if element.size is None else element.size * length
    read_items = _repeated(element)

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        return read_items(data, position, depth, length)

    def write(value: Value, out: bytearray, depth: int) -> None:
        if not isinstance(value, list | tuple) or len(value) != length:
            raise EncodeError(f"a list of {length} values is needed")
        _write_items(element, value, out, depth)

    if size is not None:
        size = checked_size(size)
    return Codec(size, read, write, element.align, parts=1 + length * element.parts)


def vec_codec(element: Codec) -> Codec:
    """A count of four bytes, then so many values."""
    read_items = _repeated(element)

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        return read_items(data, position + 4, depth, read_length(data, position))

    def write(value: Value, out: bytearray, depth: int) -> None:
        if not isinstance(value, list | tuple):
            raise EncodeError(f"a list is needed, not a {type(value).__name__}")
        write_length(len(value), out)
        _write_items(element, value, out, depth)

    return Codec(None, read, write)


def _repeated(element: Codec) -> Callable[[bytes, int, int, int], tuple[Value, int]]:
    """Return the reader of `count` elements in a row; a count that the payload cannot hold fails before the first."""
    # A value without a fixed size has a byte at least: its tag or its length.
    size_min = 1 if element.size is None else element.size
    format_, convert, read_one = element.format, element.convert, element.read

    def check(data: bytes, position: int, count: int) -> None:
        needed = count * size_min
        if position + needed > len(data):
            raise short(data, position, needed)
        if needed == 0 and count * element.parts > ZERO_SIZE_PARTS_MAX:
            raise DecodeError("invalid_value", f"{count} elements without bytes are more than are believed")

    def read_each(data: bytes, position: int, depth: int, count: int) -> tuple[Value, int]:
        check(data, position, count)
        values: list[Value] = []
        for index in range(count):
            try:
                value, position = read_one(data, position, depth + 1)
            except DecodeError as error:
                raise error.within(f"[{index}]")  # noqa: B904 - the same error, one step further out
            values.append(value)
        return values, position

    def read_packed(data: bytes, position: int, _depth: int, count: int) -> tuple[Value, int]:
        check(data, position, count)
        end = position + count * size_min
        return list(struct.unpack_from(f"<{count}{format_}", data, position)), end

    whole = format_ is not None and convert is None and not format_[0].isdigit()
    return read_packed if whole else read_each


def _write_items(element: Codec, values: Sequence[Value], out: bytearray, depth: int) -> None:
    for index, value in enumerate(values):
        try:
            element.write(value, out, depth + 1)
        except EncodeError as error:
            raise error.within(f"[{index}]")  # noqa: B904 - the same error, one step further out


def enum_codec(variants: Sequence[tuple[str, Codec]]) -> Codec:
    """One byte for the variant, then its fields."""
    reads = [(name, codec.read) for name, codec in variants]
    writes = {name: (index, codec.write) for index, (name, codec) in enumerate(variants)}

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        if position >= len(data):
            raise short(data, position, 1)
        tag = data[position]
        if tag >= len(reads):
            raise _unknown_variant(tag, len(reads))
        name, read_fields = reads[tag]
        try:
            fields, position = read_fields(data, position + 1, depth + 1)
        except DecodeError as error:
            raise error.within(name)  # noqa: B904 - the same error, one step further out
        return {name: fields}, position

    def write(value: Value, out: bytearray, depth: int) -> None:
        name = _variant_name(value, writes)
        index, write_fields = writes[name]
        out.append(index)
        try:
            write_fields(value[name], out, depth + 1)
        except EncodeError as error:
            raise error.within(name)  # noqa: B904 - the same error, one step further out

    return Codec(None, read, write)


def unit_enum_codec(names: Sequence[str], width: int) -> Codec:
    """An enum without any fields is a number of `width` bytes, and joins its neighbours in one read."""
    numbers = {name: index for index, name in enumerate(names)}

    def convert(tag: int) -> Value:
        if tag >= len(names):
            raise _unknown_variant(tag, len(names))
        return {names[tag]: {}}

    def write(value: Value, out: bytearray, _depth: int) -> None:
        name = _variant_name(value, numbers)
        if value[name] not in ({}, []):
            raise EncodeError(f"the variant {name} has no fields")
        out += numbers[name].to_bytes(width, "little")

    return packed_codec("B" if width == 1 else "I", width, convert, write)


def _unknown_variant(tag: int, count: int) -> DecodeError:
    return DecodeError("invalid_value", f"variant {tag} of an enum that has {count}")


def _variant_name(value: Value, names: Mapping[str, object]) -> str:
    if isinstance(value, dict) and len(value) == 1:
        name = next(iter(value))
        if name in names:
            return str(name)
    raise EncodeError(f"a dict with one of the variants {list(names)[:20]} is needed")
