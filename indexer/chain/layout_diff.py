"""
Whether bytes written by one type are read by another, and field by field what differs.

Two types are compared as what they are in bytes: structs and tuples dissolve into their fields in order, C layouts with
their padding, so that a renamed or regrouped struct is the same and one that swaps two fields of a type is not. What
cannot be proven to be readable counts as unreadable. Which types belong together is `idl_diff.py`'s business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

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
    Bytes,
    COption,
    Defined,
    Definition,
    Enum,
    Fields,
    Integer,
    Option,
    Pubkey,
    Repr,
    String,
    Struct,
    Tuple,
    Type,
    Vec,
    fields_of,
)
from indexer.errors import DataError

# An account's bytes may go on behind what the IDL says; an event's and an instruction's may not.
Tail: TypeAlias = Literal["exact", "open"]

# Structs in structs in structs double with each level; no real type comes near this number of fields.
STEPS_MAX = 20_000


class Change(NamedTuple):
    """
    One difference between an older and a newer IDL.

    Args:
        kind: what happened, in snake_case: "field_appended", "discriminator_changed", ...
        path: where: "events.Deposit.amount", "instructions.deposit.accounts.owner", "address". Names are the old
            IDL's, where it has one.
        detail: a sentence about it, without its subject.
        readable: whether data written under the older IDL means the same when it is read with the newer one, as far
            as this change goes: it is decoded, without an error and without a trailing byte that would be reported.
    """

    kind: str
    path: str
    detail: str
    readable: bool


@dataclass(frozen=True, slots=True)
class _Padding:
    """Bytes between or behind the fields of a C struct."""

    size: int


class _Leaf(NamedTuple):
    """A value that is no struct: `path` leads to it through the structs that were dissolved around it."""

    path: str
    type: Type | _Padding
    mode: Mode


class _UnknownLayoutError(Exception):
    """A type without a layout that could be compared; says why."""


def layout_changes(old: Type, new: Type, *, path: str, tail: Tail) -> list[Change]:
    """
    Return what differs between the bytes of `old` and those that `new` reads; nothing where they are the same.

    A type that is used in several places is compared, and its differences are listed, at the first of them.

    Args:
        path: of the value, in front of every change's path.
        tail: "open" where more bytes than `new` reads are normal.
    """
    walk = _Walk()
    walk.nested((old, "borsh"), (new, "borsh"), path, tail, 0)
    return walk.changes


class _Walk:
    """One comparison: what it has seen and found so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._seen: set[tuple[tuple[Type, Mode], tuple[Type, Mode]]] = set()
        self._compilers = (Compiler(), Compiler())

    def nested(self, old: tuple[Type, Mode], new: tuple[Type, Mode], path: str, tail: Tail, depth: int) -> None:
        """Compare two types in full; each pair once, so that recursive types end."""
        if (old, new) in self._seen:
            return
        self._seen.add((old, new))
        if depth > DEPTH_MAX:
            self._found("not_compared", path, f"nests types deeper than {DEPTH_MAX}", readable=False)
            return
        if old == new:
            return
        try:
            before = list(_Leaves(self._compilers[0]).of(*old))
            after = list(_Leaves(self._compilers[1]).of(*new))
        except (_UnknownLayoutError, DataError) as error:
            self._found("not_compared", path, f"cannot be compared: {error}", readable=False)
            return
        self._sequence(before, after, path, tail, depth)

    def _found(self, kind: str, path: str, detail: str, *, readable: bool) -> None:
        change = Change(kind, path, detail, readable)
        # A renamed struct renames every field in it: said once.
        if not self.changes or self.changes[-1] != change:
            self.changes.append(change)

    def _sequence(self, old: Sequence[_Leaf], new: Sequence[_Leaf], path: str, tail: Tail, depth: int) -> None:
        """Walk both lists in step; where one has a field that the other has elsewhere or not at all, step over it."""
        old_names, new_names = _names(old), _names(new)
        i = j = 0
        while i < len(old) and j < len(new):
            before, after = old[i], new[j]
            taken = _same_run(old, i, new, j)
            if taken is not None:
                gone, come = old[i : i + taken[0]], new[j : j + taken[1]]
                # A name that is known elsewhere means its own bytes there, not these.
                if _names(gone) & new_names == _names(come) & old_names:
                    self._recut(gone, come, path)
                    i, j = i + taken[0], j + taken[1]
                    continue
            removed, inserted = before.path not in new_names, after.path not in old_names
            if isinstance(before.type, _Padding) != isinstance(after.type, _Padding):
                self._found("size_changed", path, f"has {_text(before)} where {_text(after)} is now", readable=False)
                i, j = (i + 1, j) if isinstance(before.type, _Padding) else (i, j + 1)
            elif before.path == after.path or (removed and inserted):
                if before.path != after.path:
                    self._renamed(before.path, after.path, path)
                self._leaf(before, after, _join(path, before.path), depth)
                i, j = i + 1, j + 1
            elif inserted:
                where = f"is new before {before.path}"
                self._found("field_inserted", _join(path, after.path), where, readable=_is_empty(after))
                j += 1
            elif removed:
                where = f"is gone from before {after.path}"
                self._found("field_removed", _join(path, before.path), where, readable=_is_empty(before))
                i += 1
            else:
                where = f"stands where {after.path} is now"
                self._found("field_moved", _join(path, before.path), where, readable=False)
                i, j = i + 1, j + 1
        self._ends(old[i:], new[j:], path, tail)

    def _ends(self, old: Sequence[_Leaf], new: Sequence[_Leaf], path: str, tail: Tail) -> None:
        for leaf in old:
            fits = tail == "open" or _is_empty(leaf)
            if isinstance(leaf.type, _Padding):
                if not fits:
                    self._found("size_changed", path, f"is {leaf.type.size} bytes of padding shorter", readable=False)
                continue
            detail = "is gone from the end" + ("" if fits else "; its bytes are left over")
            self._found("field_removed", _join(path, leaf.path), detail, readable=fits)
        for leaf in new:
            fits = _is_empty(leaf)
            if isinstance(leaf.type, _Padding):
                self._found("size_changed", path, f"is {leaf.type.size} bytes of padding longer", readable=False)
                continue
            detail = f"is new at the end ({_text(leaf)})"
            if not fits:
                room = ", except where an account has spare zero bytes" if tail == "open" else ""
                detail += f"; older data ends before it{room}"
            self._found("field_appended", _join(path, leaf.path), detail, readable=fits)

    def _recut(self, old: Sequence[_Leaf], new: Sequence[_Leaf], path: str) -> None:
        said = f"{_texts(old)} is {_texts(new)} now: the same bytes, cut differently"
        first = next((leaf.path for leaf in (*old, *new) if leaf.path), "")
        self._found("bytes_recut", _join(path, first), said, readable=True)

    def _renamed(self, old: str, new: str, path: str) -> None:
        steps, others = old.split("."), new.split(".")
        same = next((k for k, pair in enumerate(zip(steps, others, strict=False)) if pair[0] != pair[1]), 0)
        if len(steps) == len(others):
            old, new = ".".join(steps[: same + 1]), ".".join(others[: same + 1])
        self._found("field_renamed", _join(path, old), f"is called {new or 'nothing'} now", readable=True)

    def _leaf(self, old: _Leaf, new: _Leaf, path: str, depth: int) -> None:
        match old.type, new.type:
            case (Option(a), Option(b)) | (Vec(a), Vec(b)):
                self.nested((a, old.mode), (b, new.mode), path, "exact", depth + 1)
            case COption(a), COption(b) if old.mode == new.mode and (old.mode == "borsh" or self._alike(a, b)):
                self.nested((a, old.mode), (b, new.mode), path, "exact", depth + 1)
            case Array(a, length), Array(b, other) if length == other:
                self.nested((a, old.mode), (b, new.mode), path, "exact", depth + 1)
            case Defined(), Defined():
                self._enum(old, new, path, depth)
            case a, b if a == b:
                pass
            case a, b:
                readable = isinstance(b, Bytes) and (isinstance(a, String) or a == Vec(U8()))
                readable = readable or (isinstance(a, Bytes) and b == Vec(U8()))
                self._found("type_changed", path, f"was {_text(old)} and is {_text(new)}", readable=readable)

    def _alike(self, old: Type, new: Type) -> bool:
        """Whether the room that a C layout leaves for both is the same."""
        before, after = (c.compile(t, "c") for c, t in zip(self._compilers, (old, new), strict=True))
        return (before.size, before.align) == (after.size, after.align)

    def _enum(self, old: _Leaf, new: _Leaf, path: str, depth: int) -> None:
        """Variants are numbers in the data, so each must keep its number."""
        before, width = _enum_of(old)
        after, other = _enum_of(new)
        if width != other:
            detail = f"was an enum of {width} bytes and is one of {other}"
            self._found("type_changed", path, detail, readable=False)
        if before is None or after is None or (old.mode != new.mode and (before[1] or after[1])):
            if (before, after) != (None, None) or _text(old) != _text(new):
                self._found("not_compared", path, f"was {_text(old)} and is {_text(new)}", readable=False)
            return
        old_names = [variant.name for variant in before[0].variants]
        new_names = [variant.name for variant in after[0].variants]
        for number, name in enumerate(old_names):
            at = _join(path, name)
            if number >= len(new_names) and name not in new_names:
                self._found("variant_removed", at, f"number {number} is gone", readable=False)
            elif number >= len(new_names) or (name != new_names[number] and name in new_names):
                moved = f"was number {number} and is number {new_names.index(name)}"
                self._found("variant_moved", at, moved, readable=False)
            elif name != new_names[number] and new_names[number] in old_names:
                self._found("variant_removed", at, f"{new_names[number]} has its number {number}", readable=False)
            else:
                if name != new_names[number]:
                    self._found("variant_renamed", at, f"is called {new_names[number]} now", readable=True)
                fields = (before[0].variants[number].fields, after[0].variants[number].fields)
                self._variant(*fields, at, depth)
        for number, name in enumerate(new_names[len(old_names) :], len(old_names)):
            if name not in old_names:
                self._found("variant_appended", _join(path, name), f"is new, as number {number}", readable=True)

    def _variant(self, old: Fields, new: Fields, path: str, depth: int) -> None:
        try:
            before = list(_Leaves(self._compilers[0]).fields(old, "borsh"))
            after = list(_Leaves(self._compilers[1]).fields(new, "borsh"))
        except (_UnknownLayoutError, DataError) as error:
            self._found("not_compared", path, f"cannot be compared: {error}", readable=False)
            return
        if depth > DEPTH_MAX:
            self._found("not_compared", path, f"nests types deeper than {DEPTH_MAX}", readable=False)
            return
        self._sequence(before, after, path, "exact", depth + 1)


class _Leaves:
    """Dissolves structs and tuples, and counts its steps."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._steps = 0

    def of(self, type_: Type, mode: Mode, path: str = "", depth: int = 0) -> Iterator[_Leaf]:
        self._steps += 1
        if self._steps > STEPS_MAX or depth > DEPTH_MAX:
            raise _UnknownLayoutError(f"it has more than {STEPS_MAX} fields, or no end")
        if isinstance(type_, Tuple):
            yield from self.fields(type_, mode, path, depth)
            return
        if not isinstance(type_, Defined):
            yield _Leaf(path, type_, mode)
            return
        definition = type_.definition()
        if _is_custom(definition):
            yield _Leaf(path, type_, mode)
            return
        if definition.serialization != "borsh":
            mode = "c"
        match definition.body:
            case Alias(target):
                yield from self.of(target, mode, path, depth + 1)
            case Struct(fields):
                yield from self.fields(fields, mode, path, depth, definition)
            case Enum():
                yield _Leaf(path, type_, mode)

    def fields(
        self, fields: Fields, mode: Mode, path: str = "", depth: int = 0, definition: Definition | None = None
    ) -> Iterator[_Leaf]:
        repr_ = (definition.repr if definition is not None else None) or Repr()
        if mode == "c" and definition is not None and repr_.kind == "rust" and not repr_.packed:
            raise _UnknownLayoutError(f"{definition.name} is bytemuck with repr(Rust), whose layout is not known")
        offset, align = 0, repr_.align
        for field in fields_of(fields):
            if mode == "c":
                size, own_align = self._c_size(field.type)
                own_align = 1 if repr_.packed else own_align
                if padding := -offset % own_align:
                    yield _Leaf("", _Padding(padding), mode)
                offset, align = offset + padding + size, max(align, own_align)
            yield from self.of(field.type, mode, _join(path, field.name), depth + 1)
        if padding := -offset % align if mode == "c" else 0:
            yield _Leaf("", _Padding(padding), mode)

    def _c_size(self, type_: Type) -> tuple[int, int]:
        codec = self._compiler.compile(type_, "c")
        if codec.size is None:
            raise _UnknownLayoutError(f"{type_text(type_)} has no fixed size in a bytemuck type")
        return codec.size, codec.align


def _enum_of(leaf: _Leaf) -> tuple[tuple[Enum, bool] | None, int]:
    """Return the enum, whether its variants have fields, and the bytes of its number; None for what is opaque."""
    assert isinstance(leaf.type, Defined), "only enums and opaque types are left of definitions"
    definition = leaf.type.definition()
    body = definition.body
    if not isinstance(body, Enum) or _is_custom(definition):
        return None, 0
    c_layout = leaf.mode == "c" and definition.repr is not None and definition.repr.kind == "c"
    return (body, any(fields_of(variant.fields) for variant in body.variants)), 4 if c_layout else 1


def _names(leaves: Sequence[_Leaf]) -> set[str]:
    return {leaf.path for leaf in leaves if not isinstance(leaf.type, _Padding)}


def _is_custom(definition: Definition) -> bool:
    return definition.serialization.startswith("custom")


def _same_run(old: Sequence[_Leaf], i: int, new: Sequence[_Leaf], j: int) -> tuple[int, int] | None:
    """
    Return how many leaves on each side are the same run of raw bytes, cut differently; None where they are not.

    That is how programs grow into the bytes they had reserved: `[u8; 32]` becomes a u64 and `[u8; 24]`.
    """
    before, after = old[i].type, new[j].type
    if before == after:
        return None
    if _is_raw(before) and _reads_anything(after):
        count = _count_filling(_size(before), new, j, readable=True)
        if count is not None:
            return 1, count
    if _is_raw(after):
        count = _count_filling(_size(after), old, i, readable=False)
        if count is not None:
            return count, 1
    return None


def _count_filling(size: int | None, leaves: Sequence[_Leaf], start: int, *, readable: bool) -> int | None:
    left = size or 0
    for count, leaf in enumerate(leaves[start:], 1):
        part = _size(leaf.type)
        if part is None or part > left or (readable and not _reads_anything(leaf.type)):
            return None
        left -= part
        if left == 0:
            return count
    return None


def _is_raw(type_: Type | _Padding) -> bool:
    return isinstance(type_, _Padding) or (isinstance(type_, Array) and isinstance(type_.element, U8))


def _reads_anything(type_: Type | _Padding) -> bool:
    """Whether every run of bytes of the right length is a value."""
    if isinstance(type_, Array):
        return _reads_anything(type_.element)
    return isinstance(type_, _Padding | Integer | F32 | F64 | Pubkey)


def _size(type_: Type | _Padding) -> int | None:
    """Return the bytes of what has always the same number of them, structs aside."""
    match type_:
        case _Padding(size):
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
            size_ = _size(element)
            return None if size_ is None else size_ * length
        case _:
            return None


def _is_empty(leaf: _Leaf) -> bool:
    return _size(leaf.type) == 0


def _text(leaf: _Leaf) -> str:
    return f"{leaf.type.size} bytes of padding" if isinstance(leaf.type, _Padding) else type_text(leaf.type)


def _texts(leaves: Sequence[_Leaf]) -> str:
    shown = [f"{leaf.path}: {_text(leaf)}" if leaf.path else _text(leaf) for leaf in leaves[:6]]
    return ", ".join(shown) + (", ..." if len(leaves) > 6 else "")


def _join(path: str, step: str) -> str:
    return f"{path}.{step}" if path and step else path or step
