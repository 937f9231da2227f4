"""
Fields one after the other: structs, tuples, an enum variant's insides.

This is where decoding is fast: neighbours of fixed size are read by one `struct` call. Which padding lies between them
has been decided in `layout.py`.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from indexer.chain.codec import Codec, DecodeError, EncodeError, Lone, Packed, Read, checked_size, short
from indexer.chain.value import Value

# A read of this many fields at once is still one line in a profile; more only makes its format string long.
RUN_FIELDS_MAX = 512


@dataclass(frozen=True, slots=True)
class Member:
    """A field in its place: `padding` bytes lie before it."""

    name: str
    codec: Codec
    padding: int = 0


_Step: TypeAlias = Callable[[bytes, int, int, "dict[str, Value]"], int]


def sequence_codec(members: Sequence[Member], tail: int, *, as_list: bool) -> Codec:
    """
    Return the codec of `members` with `tail` bytes of padding at the end.

    Args:
        as_list: the value is a list, as of a tuple; else a dict by the members' names.
    """
    sizes = [member.codec.size for member in members]
    size = None if None in sizes else sum(s or 0 for s in sizes) + sum(m.padding for m in members) + tail
    if size is not None:
        checked_size(size)
    read = _sequence_reader(members, tail, size)
    names = [member.name for member in members]

    def read_list(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        values, position = read(data, position, depth)
        return list(values.values()), position

    def write(value: Value, out: bytearray, depth: int) -> None:
        for member, item in zip(members, _items(value, names, as_list=as_list), strict=True):
            out += bytes(member.padding)
            try:
                member.codec.write(item, out, depth + 1)
            except EncodeError as error:
                raise error.within(member.name)  # noqa: B904 - the same error, one step further out
        out += bytes(tail)

    parts = 1 + sum(member.codec.parts for member in members)
    runs = None if as_list else tuple(map(_described, _runs(members)))
    if runs is not None and tail:
        runs += (Packed((), (), f"{tail}x"),)
    return Codec(size, read_list if as_list else read, write, parts=parts, runs=runs)


def _described(run: Sequence[Member]) -> Packed | Lone:
    first = run[0]
    if first.codec.format is None:
        return Lone(first.name, first.codec.read, first.padding, first.codec.size)
    return Packed(tuple(m.name for m in run), tuple(m.codec.convert for m in run), _run_format(run))


def _items(value: Value, names: Sequence[str], *, as_list: bool) -> Sequence[Value]:
    if as_list:
        if not isinstance(value, list | tuple) or len(value) != len(names):
            raise EncodeError(f"a list of {len(names)} values is needed")
        return value
    if not isinstance(value, dict):
        raise EncodeError(f"the fields {list(names)} are needed, not a {type(value).__name__}")
    if value.keys() != set(names):
        missing, extra = [n for n in names if n not in value], [n for n in value if n not in names]
        raise EncodeError(f"missing fields {missing}, unknown fields {extra}")
    return [value[name] for name in names]


def _sequence_reader(members: Sequence[Member], tail: int, size: int | None) -> Read:
    runs = _runs(members)
    if size is not None and len(runs) == 1 and runs[0][0].codec.format is not None:
        return _run_reader(runs[0], tail, size)
    steps = [_run_step(run) if run[0].codec.format is not None else _field_step(run[0]) for run in runs]

    def read(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        values: dict[str, Value] = {}
        for step in steps:
            position = step(data, position, depth, values)
        return values, position + tail

    def read_fixed(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        assert size is not None
        if position + size > len(data):
            raise short(data, position, size)
        return read(data, position, depth)

    return read if size is None or not tail else read_fixed


def _runs(members: Sequence[Member]) -> list[list[Member]]:
    """Group neighbours that one `struct` call can read; every other member is a group of its own."""
    runs: list[list[Member]] = []
    for member in members:
        joins = runs and member.codec.format is not None and runs[-1][-1].codec.format is not None
        if joins and len(runs[-1]) < RUN_FIELDS_MAX:
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _run_format(run: Sequence[Member]) -> str:
    return "".join((f"{m.padding}x" if m.padding else "") + (m.codec.format or "") for m in run)


def _run_reader(run: Sequence[Member], tail: int, size: int) -> Read:
    """Return the fastest reader there is: the whole value is one run."""
    unpack = struct.Struct("<" + _run_format(run) + (f"{tail}x" if tail else "")).unpack_from
    names = tuple(member.name for member in run)
    converts = tuple((m.name, m.codec.convert) for m in run if m.codec.convert is not None)

    def read(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
        try:
            # Not strict: an item a name is how the format was made, and checking costs as much as a field.
            values = dict(zip(names, unpack(data, position)))  # noqa: B905
        except struct.error:
            raise _short_run(run, data, position) from None
        for name, convert in converts:
            try:
                values[name] = convert(values[name])
            except DecodeError as error:
                raise error.within(name)  # noqa: B904 - the same error, one step further out
        return values, position + size

    return read


def _run_step(run: Sequence[Member]) -> _Step:
    size = sum(member.padding + (member.codec.size or 0) for member in run)
    read = _run_reader(run, 0, size)

    def step(data: bytes, position: int, depth: int, values: dict[str, Value]) -> int:
        found, position = read(data, position, depth)
        values.update(found)
        return position

    return step


def _field_step(member: Member) -> _Step:
    name, read, padding = member.name, member.codec.read, member.padding

    def step(data: bytes, position: int, depth: int, values: dict[str, Value]) -> int:
        try:
            values[name], position = read(data, position + padding, depth + 1)
        except DecodeError as error:
            raise error.within(name)  # noqa: B904 - the same error, one step further out
        return position

    return step


def _short_run(run: Sequence[Member], data: bytes, position: int) -> DecodeError:
    """Return the error that names the first field of the run that is not all there."""
    for member in run:
        position += member.padding
        size = member.codec.size or 0
        if position + size > len(data):
            return short(data, position, size).within(member.name)
        position += size
    return short(data, position, 1)
