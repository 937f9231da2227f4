"""
Whether bytes written by one type are read by another, and field by field what differs.

Two types are compared as what they are in bytes: structs and tuples dissolve into their fields in order, C layouts with
their padding, so that a renamed or regrouped struct is the same and one that swaps two fields of a type is not. What
cannot be proven to be readable counts as unreadable. Which types belong together is `idl_diff.py`'s business.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from indexer.chain.layout import Compiler, Mode
from indexer.chain.layout_leaves import (
    Leaf,
    Leaves,
    Padding,
    UnknownLayoutError,
    byte_size,
    enum_of,
    is_raw,
    joined,
    reads_anything,
)
from indexer.chain.type_text import type_text
from indexer.chain.types import DEPTH_MAX, U8, Array, Bytes, COption, Defined, Fields, Option, String, Type, Vec
from indexer.errors import DataError

# An account's bytes may go on behind what the IDL says; an event's and an instruction's may not.
Tail: TypeAlias = Literal["exact", "open"]


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
            before = list(Leaves(self._compilers[0]).of(*old))
            after = list(Leaves(self._compilers[1]).of(*new))
        except (UnknownLayoutError, DataError) as error:
            self._found("not_compared", path, f"cannot be compared: {error}", readable=False)
            return
        self._sequence(before, after, path, tail, depth)

    def _found(self, kind: str, path: str, detail: str, *, readable: bool) -> None:
        change = Change(kind, path, detail, readable)
        # A renamed struct renames every field in it: said once.
        if not self.changes or self.changes[-1] != change:
            self.changes.append(change)

    def _sequence(self, old: Sequence[Leaf], new: Sequence[Leaf], path: str, tail: Tail, depth: int) -> None:
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
            if isinstance(before.type, Padding) != isinstance(after.type, Padding):
                self._found("size_changed", path, f"has {_text(before)} where {_text(after)} is now", readable=False)
                i, j = (i + 1, j) if isinstance(before.type, Padding) else (i, j + 1)
            elif before.path == after.path or (removed and inserted):
                if before.path != after.path:
                    self._renamed(before.path, after.path, path)
                self._leaf(before, after, joined(path, before.path), depth)
                i, j = i + 1, j + 1
            elif inserted:
                where = f"is new before {before.path}"
                self._found("field_inserted", joined(path, after.path), where, readable=_is_empty(after))
                j += 1
            elif removed:
                where = f"is gone from before {after.path}"
                self._found("field_removed", joined(path, before.path), where, readable=_is_empty(before))
                i += 1
            else:
                where = f"stands where {after.path} is now"
                self._found("field_moved", joined(path, before.path), where, readable=False)
                i, j = i + 1, j + 1
        self._ends(old[i:], new[j:], path, tail)

    def _ends(self, old: Sequence[Leaf], new: Sequence[Leaf], path: str, tail: Tail) -> None:
        for leaf in old:
            fits = tail == "open" or _is_empty(leaf)
            if isinstance(leaf.type, Padding):
                if not fits:
                    self._found("size_changed", path, f"is {leaf.type.size} bytes of padding shorter", readable=False)
                continue
            detail = "is gone from the end" + ("" if fits else "; its bytes are left over")
            self._found("field_removed", joined(path, leaf.path), detail, readable=fits)
        for leaf in new:
            fits = _is_empty(leaf)
            if isinstance(leaf.type, Padding):
                self._found("size_changed", path, f"is {leaf.type.size} bytes of padding longer", readable=False)
                continue
            detail = f"is new at the end ({_text(leaf)})"
            if not fits:
                room = ", except where an account has spare zero bytes" if tail == "open" else ""
                detail += f"; older data ends before it{room}"
            self._found("field_appended", joined(path, leaf.path), detail, readable=fits)

    def _recut(self, old: Sequence[Leaf], new: Sequence[Leaf], path: str) -> None:
        said = f"{_texts(old)} is {_texts(new)} now: the same bytes, cut differently"
        first = next((leaf.path for leaf in (*old, *new) if leaf.path), "")
        self._found("bytes_recut", joined(path, first), said, readable=True)

    def _renamed(self, old: str, new: str, path: str) -> None:
        steps, others = old.split("."), new.split(".")
        same = next((k for k, pair in enumerate(zip(steps, others, strict=False)) if pair[0] != pair[1]), 0)
        if len(steps) == len(others):
            old, new = ".".join(steps[: same + 1]), ".".join(others[: same + 1])
        self._found("field_renamed", joined(path, old), f"is called {new or 'nothing'} now", readable=True)

    def _leaf(self, old: Leaf, new: Leaf, path: str, depth: int) -> None:
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

    def _enum(self, old: Leaf, new: Leaf, path: str, depth: int) -> None:
        """Variants are numbers in the data, so each must keep its number."""
        before, width = enum_of(old)
        after, other = enum_of(new)
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
            at = joined(path, name)
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
                self._found("variant_appended", joined(path, name), f"is new, as number {number}", readable=True)

    def _variant(self, old: Fields, new: Fields, path: str, depth: int) -> None:
        try:
            before = list(Leaves(self._compilers[0]).fields(old, "borsh"))
            after = list(Leaves(self._compilers[1]).fields(new, "borsh"))
        except (UnknownLayoutError, DataError) as error:
            self._found("not_compared", path, f"cannot be compared: {error}", readable=False)
            return
        if depth > DEPTH_MAX:
            self._found("not_compared", path, f"nests types deeper than {DEPTH_MAX}", readable=False)
            return
        self._sequence(before, after, path, "exact", depth + 1)


def _names(leaves: Sequence[Leaf]) -> set[str]:
    return {leaf.path for leaf in leaves if not isinstance(leaf.type, Padding)}


def _same_run(old: Sequence[Leaf], i: int, new: Sequence[Leaf], j: int) -> tuple[int, int] | None:
    """
    Return how many leaves on each side are the same run of raw bytes, cut differently; None where they are not.

    That is how programs grow into the bytes they had reserved: `[u8; 32]` becomes a u64 and `[u8; 24]`.
    """
    before, after = old[i].type, new[j].type
    if before == after:
        return None
    if is_raw(before) and reads_anything(after):
        count = _count_filling(byte_size(before), new, j, readable=True)
        if count is not None:
            return 1, count
    if is_raw(after):
        count = _count_filling(byte_size(after), old, i, readable=False)
        if count is not None:
            return count, 1
    return None


def _count_filling(size: int | None, leaves: Sequence[Leaf], start: int, *, readable: bool) -> int | None:
    left = size or 0
    for count, leaf in enumerate(leaves[start:], 1):
        part = byte_size(leaf.type)
        if part is None or part > left or (readable and not reads_anything(leaf.type)):
            return None
        left -= part
        if left == 0:
            return count
    return None


def _is_empty(leaf: Leaf) -> bool:
    return byte_size(leaf.type) == 0


def _text(leaf: Leaf) -> str:
    return f"{leaf.type.size} bytes of padding" if isinstance(leaf.type, Padding) else type_text(leaf.type)


def _texts(leaves: Sequence[Leaf]) -> str:
    shown = [f"{leaf.path}: {_text(leaf)}" if leaf.path else _text(leaf) for leaf in leaves[:6]]
    return ", ".join(shown) + (", ..." if len(leaves) > 6 else "")
