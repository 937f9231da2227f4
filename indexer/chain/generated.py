"""
A function made for one struct: what a loop over its fields would do, written out and compiled.

The source is made of numbers only, namely how many fields lie where. Names, formats and functions are handed to it as
values, so nothing that an IDL contains is ever code. What it makes reads good bytes and does not explain bad ones: then
it raises, and `codec.read`, which is the same for every struct, says what is wrong and where.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from indexer.chain.codec import Convert, Lone, Packed
from indexer.chain.value import Value

# Source for more than this takes longer to compile than most programs have accounts to read.
FIELDS_MAX = 512
# As deep as the fields of an outermost struct are, whose own depth has been counted.
_DEPTH = 2

T = TypeVar("T")


class _Shape(NamedTuple):
    """All that the source depends on, of one run: which fields are converted, and bytes."""

    converted: tuple[bool, ...]
    packed: bool
    padding: int
    size: int | None


def generate_reader(
    result: Callable[[str, dict[str, Value], int], T], name: str, offset: int, runs: Sequence[Packed | Lone]
) -> Callable[[bytes], T] | None:
    """
    Return a function from bytes to `result(name, values, trailing)`; None for a struct of too many fields.

    It raises `struct.error` or DecodeError, neither of which says where, if the bytes are not such a struct.

    Args:
        offset: bytes in front of the struct.
        runs: what lies in it.
    """
    names: list[str] = []
    converts: list[Convert | None] = []
    reads: list[Callable[..., Any]] = []
    for run in runs:
        if isinstance(run, Lone):
            names.append(run.name)
            converts.append(None)
            reads.append(run.read)
        else:
            names += run.names
            converts += run.converts
            reads.append(struct.Struct("<" + run.format).unpack_from)
    if len(names) > FIELDS_MAX:
        return None
    namespace: dict[str, Any] = {}
    exec(_compiled(tuple(map(_shape, runs)), offset), namespace)  # noqa: S102 - of numbers only, see above
    made: Callable[[bytes], T] = namespace["bind"](result, name, names, reads, [c for c in converts if c is not None])
    return made


def _shape(run: Packed | Lone) -> _Shape:
    if isinstance(run, Lone):
        return _Shape((False,), False, run.padding, run.size)
    return _Shape(tuple(c is not None for c in run.converts), True, 0, struct.calcsize("<" + run.format))


# Many structs have one shape, and a program is compiled more than once.
@lru_cache(maxsize=1024)
def _compiled(shapes: tuple[_Shape, ...], offset: int) -> Any:
    return compile(_source(shapes, offset), "<generated>", "exec")


def _source(shapes: Sequence[_Shape], offset: int) -> str:
    """Return the source of `bind`, whose arguments are everything that is not a number."""
    steps: list[str] = []
    values: list[str] = []
    converts = 0
    # Where the next run begins: that far behind the last end that was only found while reading.
    end, behind = "", offset
    for number, shape in enumerate(shapes):
        targets = [f"v{len(values) + index}" for index in range(len(shape.converted))]
        behind += shape.padding
        if shape.packed:
            left = f"{_listed(targets)} = " if targets else ""
            steps.append(f"{left}r{number}(data, {end}{behind})")
        else:
            position = "end" if shape.size is None else "_"
            steps.append(f"{targets[0]}, {position} = r{number}(data, {end}{behind}, {_DEPTH})")
        if shape.size is None:
            end, behind = "end + ", 0
        else:
            behind += shape.size
        for target, converted in zip(targets, shape.converted, strict=True):
            values.append(f"c{converts}({target})" if converted else target)
            converts += converted
    items = ", ".join(f"k{number}: {value}" for number, value in enumerate(values))
    return "\n".join(
        [
            "def bind(result, name, names, reads, converts):",
            *_unpacked("k", len(values), "names"),
            *_unpacked("r", len(shapes), "reads"),
            *_unpacked("c", converts, "converts"),
            "    def read(data):",
            *(f"        {step}" for step in steps),
            f"        return result(name, {{{items}}}, len(data) - ({end}{behind}))",
            "    return read",
        ]
    )


def _unpacked(letter: str, count: int, source: str) -> list[str]:
    return [f"    {_listed([f'{letter}{number}' for number in range(count)])} = {source}"] if count else []


def _listed(names: Sequence[str]) -> str:
    """Return names as what a tuple is unpacked to, also where there is one only."""
    return "".join(f"{name}, " for name in names).rstrip()
