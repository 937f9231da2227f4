"""
Columns of a batch into COPY's binary format, with array operations instead of a loop over rows.

The bytes are those that copy.py packs for the same rows, one by one. A column becomes either a block of fixed width,
with the length in front of each value, or bytes with offsets; blocks beside each other are laid out together, and where
every column has a fixed width the whole batch is one block. What has no plain form (nested values as JSON) is packed
value by value.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.chain.arrays.arrow import root_fields
from indexer.chain.arrays.values import column_values
from indexer.chain.batch import EventColumns
from indexer.chain.program import Program
from indexer.chain.types import Field
from indexer.store.copy import COPY_HEADER, COPY_TRAILER, NULL, PACK, POSTGRES_EPOCH_UNIX_S
from indexer.store.typed import ESCAPE, Column, TypedTable, escape_text

Bytes2: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int64]
# pyarrow's annotations tell arrays of every type apart; which type it is, the table's column says here.
Array: TypeAlias = Any

_INTEGERS = {"smallint": (pa.int16(), ">i2"), "integer": (pa.int32(), ">i4"), "bigint": (pa.int64(), ">i8")}


@dataclass(frozen=True, slots=True)
class Fixed:
    """
    Values of one width: uint8, (n, 4 + width), each with its length in front; `valid` None where none is null.

    Several columns without nulls may lie beside each other: `fields` is how many.
    """

    data: Bytes2
    valid: NDArray[np.bool_] | None = None
    fields: int = 1


@dataclass(frozen=True, slots=True)
class Variable:
    """Values in one run of bytes: that of row i is data[offsets[i]:offsets[i + 1]]."""

    data: Bytes2
    offsets: Ints
    valid: NDArray[np.bool_] | None = None


Packed: TypeAlias = Fixed | Variable


def pack_events(table: TypedTable, program: Program, found: EventColumns) -> tuple[list[Packed], int]:
    """
    Return the columns of `table` for a batch of its events, and how many strings had to be escaped for a NUL.

    Args:
        found: of this event, as `extract_batch` gives it.
    """
    fields = {field.name: field for field in root_fields(program.events[table.type_name].type) or ()}
    packed = [pack_column(pg_type, found.identity.column(name)) for name, pg_type in _OWN]
    escaped = 0
    for column in table.columns:
        if column.field not in fields:  # of another version of the IDL
            packed.append(pack_nulls(len(found.rows)))
            continue
        one, strange = _pack_field(column, fields[column.field], found.values.column(column.field))
        packed.append(one)
        escaped += strange
    return packed, escaped


_OWN = (
    ("signature", "bytea"),
    ("kind", "text"),
    ("ordinal", "bigint"),
    ("slot", "bigint"),
    ("block_time", "timestamptz"),
)


def pack_column(pg_type: str, array: Array) -> Packed:
    """
    Return a column in COPY's format.

    Args:
        array: Arrow values of that Postgres type: integers, uint64 for numeric(20,0), booleans, floats, binary of fixed
            or variable size, strings without NUL (plain or as dictionary), unix seconds for timestamptz.
    """
    valid = None if array.null_count == 0 else np.asarray(array.is_valid())
    if pg_type in _INTEGERS:
        arrow, wire = _INTEGERS[pg_type]
        return _fixed(_plain(array.cast(arrow)).astype(wire), valid)
    match pg_type:
        case "numeric(20,0)":
            return Fixed(_numerics(_plain(array.cast(pa.uint64()))), valid)
        case "boolean":
            return _fixed(_plain(array.cast(pa.uint8())), valid)
        case "double precision":
            return _fixed(_plain(array.cast(pa.float64())).astype(">f8"), valid)
        case "timestamptz":
            seconds = _plain(array.cast(pa.int64()))
            return _fixed(((seconds - POSTGRES_EPOCH_UNIX_S) * 1_000_000).astype(">i8"), valid)
        case "bytea" if pa.types.is_fixed_size_binary(array.type):
            return _fixed_bytes(array, valid)
        case _:
            kind = pa.large_binary() if pg_type == "bytea" else pa.large_string()
            return _variable(array.cast(kind), valid)


_ARROW: Mapping[str, Array] = {
    "boolean": pa.bool_(),
    "bigint": pa.int64(),
    "numeric(20,0)": pa.uint64(),
    "timestamptz": pa.int64(),
    "text": pa.string(),
}


def pack_plain(pg_types: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[memoryview | bytes]:
    """
    Return rows as a whole binary COPY, as `copy.pack_rows` does, column by column.

    Args:
        pg_types: boolean, bigint, numeric(20,0), timestamptz (unix seconds), text, or bytea of which all values are
            equally long.
        rows: at least one.
    """
    columns = [
        pack_column(pg_type, pa.array(values, _ARROW.get(pg_type) or pa.binary(len(values[0]))))
        for pg_type, values in zip(pg_types, zip(*rows, strict=True), strict=True)
    ]
    return join(columns, len(rows))


def pack_constant(pg_type: str, value: bytes | int | str, count: int) -> Fixed:
    """Return a column that is the same in every row, which any type of `copy.PACK` may be."""
    packed = np.frombuffer(PACK[pg_type](value), np.uint8)
    return Fixed(np.broadcast_to(packed, (count, len(packed))))


def pack_nulls(count: int) -> Fixed:
    """Return a column of nulls."""
    return Fixed(np.broadcast_to(np.frombuffer(NULL, np.uint8), (count, len(NULL))))


def beside(columns: Sequence[Fixed]) -> Fixed:
    """Return columns without nulls as one block."""
    assert all(column.valid is None for column in columns), "where there are nulls, rows are not equally long"
    data = np.concatenate([column.data for column in columns], axis=1)
    return Fixed(data, None, sum(column.fields for column in columns))


def join(columns: Sequence[Packed], count: int) -> list[memoryview | bytes]:
    """Return `count` rows of these columns as a whole binary COPY: header, rows, trailer."""
    number = sum(column.fields if isinstance(column, Fixed) else 1 for column in columns)
    head = np.broadcast_to(np.frombuffer(struct.pack(">h", number), np.uint8), (count, 2))
    blocks = _blocks([Fixed(head), *columns])
    if len(blocks) == 1 and isinstance(blocks[0], Fixed):
        return [COPY_HEADER, np.ascontiguousarray(blocks[0].data).reshape(-1).data, COPY_TRAILER]
    lengths = [_lengths(block, count) for block in blocks]
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(sum(lengths, np.zeros(count, np.int64)), out=starts[1:])
    out = np.empty(int(starts[-1]), np.uint8)
    place = starts[:-1].copy()
    for block, length in zip(blocks, lengths, strict=True):
        _write(out, place, block)
        place += length
    return [COPY_HEADER, out.data, COPY_TRAILER]


def _blocks(columns: Sequence[Packed]) -> list[Packed]:
    """Neighbours of fixed width and without nulls as one."""
    blocks: list[Packed] = []
    plain: list[Fixed] = []
    for column in columns:
        if isinstance(column, Fixed) and column.valid is None:
            plain.append(column)
            continue
        if plain:
            blocks.append(beside(plain))
            plain = []
        blocks.append(column)
    return [*blocks, beside(plain)] if plain else blocks


def _lengths(column: Packed, count: int) -> Ints:
    if isinstance(column, Fixed):
        length: Ints = np.full(count, column.data.shape[1], np.int64)
    else:
        length = 4 + np.diff(column.offsets)
    return length if column.valid is None else np.where(column.valid, length, 4)


def _write(out: Bytes2, place: Ints, column: Packed) -> None:
    if column.valid is not None:
        _scatter(out, place[~column.valid], np.broadcast_to(np.uint8(255), (int((~column.valid).sum()), 4)))
    if isinstance(column, Fixed):
        if column.valid is None:
            _scatter(out, place, column.data)
        else:
            _scatter(out, place[column.valid], column.data[column.valid])
        return
    sizes = np.diff(column.offsets)
    first = column.offsets[:-1]
    if column.valid is not None:
        place, sizes, first = place[column.valid], sizes[column.valid], first[column.valid]
    _scatter(out, place, _big_endian(sizes.astype(">i4")))
    total = int(sizes.sum())
    inside = np.arange(total, dtype=np.int64) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out[np.repeat(place + 4, sizes) + inside] = column.data[np.repeat(first, sizes) + inside]


def _scatter(out: Bytes2, place: Ints, data: Bytes2) -> None:
    """Put row i of `data` at out[place[i]:]."""
    width = data.shape[1]
    if len(place) and width:
        # Overlapping windows over `out`, one a byte: assigning to them copies whole rows.
        windows = np.lib.stride_tricks.as_strided(out, (len(out) - width + 1, width), (1, 1))
        windows[place] = data


def _big_endian(values: NDArray[Any]) -> Bytes2:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)


def _plain(array: Array) -> NDArray[Any]:
    filled = array if array.null_count == 0 else array.fill_null(0)
    return np.asarray(filled.to_numpy(zero_copy_only=False))


def _fixed(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> Fixed:
    return _with_length(_big_endian(values), valid)


def _with_length(data: Bytes2, valid: NDArray[np.bool_] | None) -> Fixed:
    count, width = data.shape
    block = np.empty((count, 4 + width), np.uint8)
    block[:, :4] = np.frombuffer(struct.pack(">i", width), np.uint8)
    block[:, 4:] = data
    return Fixed(block, valid)


def _fixed_bytes(array: Array, valid: NDArray[np.bool_] | None) -> Fixed:
    width = array.type.byte_width
    count = len(array)
    if not width:
        return _with_length(np.empty((count, 0), np.uint8), valid)
    data = np.frombuffer(array.buffers()[1], np.uint8, count * width, array.offset * width)
    return _with_length(data.reshape(count, width), valid)


def _variable(array: Array, valid: NDArray[np.bool_] | None) -> Packed:
    count = len(array)
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, count + 1, array.offset * 8) if count else np.zeros(1, np.int64)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    sizes = np.diff(offsets)
    if valid is None and count and (sizes == sizes[0]).all():
        run = data[offsets[0] : offsets[-1]]
        return _with_length(run.reshape(count, int(sizes[0])), None)
    return Variable(data, offsets, valid)


def _numerics(values: NDArray[np.uint64]) -> Bytes2:
    """PostgreSQL's numeric with five digits of base 10,000, as copy.py's _pack_numeric has it."""
    block = np.empty((len(values), 11), ">i2")
    block[:, 0], block[:, 1] = 0, 18
    block[:, 2:6] = (5, 4, 0, 0)
    rest = values.astype(np.uint64)
    for place in range(10, 5, -1):
        rest, digit = np.divmod(rest, np.uint64(10_000))
        block[:, place] = digit
    return _big_endian(block.reshape(-1)).reshape(len(values), 22)


def _pack_field(column: Column, field: Field, array: Array) -> tuple[Packed, int]:
    """Return an event's field in COPY's format, and how many strings were escaped."""
    is_text = column.pg_type == "text"
    if is_text and pa.types.is_decimal(array.type):
        return pack_column("text", array.cast(pa.string())), 0
    if is_text and (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        strange: Array = pc.match_substring_regex(array, f"[\\x00{ESCAPE}]")
        escaped = sum(map(bool, strange.to_pylist())) if pc.any(strange).as_py() else 0
        if escaped:
            texts = [None if text is None else escape_text(text) for text in array.to_pylist()]
            array = pa.array(texts, pa.string())
        return pack_column("text", array), escaped
    if column.pg_type == "jsonb" or is_text:
        return _pack_singly(column, column_values(field.type, array))
    if column.pg_type == "bytea" and not (pa.types.is_fixed_size_binary(array.type) or pa.types.is_binary(array.type)):
        return _pack_singly(column, column_values(field.type, array))
    return pack_column(column.pg_type, array), 0


def _pack_singly(column: Column, values: Sequence[Any]) -> tuple[Packed, int]:
    """What has no plain form: value by value, as the row path does it."""
    pack = PACK[column.pg_type]
    escaped = 0
    parts: list[bytes] = []
    for value in values:
        adapted = column.adapt(value) if column.adapt is not None and value is not None else value
        if adapted is None:
            parts.append(b"")
            continue
        escaped += column.pg_type in {"text", "jsonb"} and ESCAPE in adapted
        parts.append(pack(adapted)[4:])  # the length is put in front again, with everybody else's
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    nulls = np.array([value is not None for value in values], np.bool_)
    data = np.frombuffer(b"".join(parts), np.uint8)
    return Variable(data, offsets, None if nulls.all() else nulls), escaped
