"""
What an upgrade of a program changed, and whether what was written before it can still be read.

Events, accounts and instructions of the two IDLs are paired by name, then by discriminator, and each pair is compared
byte for byte in `layout_diff.py`. Names may change freely, bytes may not. What is done about an unreadable change, and
which IDL reads which slot, is for the caller to decide.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from indexer.chain.idl import AccountType, EventType, Idl, InstructionAccount, InstructionType
from indexer.chain.layout_diff import Change, Tail, layout_changes
from indexer.chain.type_text import definition_text
from indexer.chain.types import Defined, Definition, Scope, Struct

__all__ = ["Change", "diff_idls", "is_readable"]

_Entry: TypeAlias = EventType | AccountType | InstructionType


def diff_idls(old: Idl, new: Idl) -> list[Change]:
    """
    Return what differs between two IDLs of one program, in the order of the older one; nothing where they are alike.

    Data stays readable under `new` where every change is `readable`. An event or instruction must be read to its last
    byte; of an account more bytes than the IDL says are normal. Changes of `types` and `errors` are told, and are
    always readable: what they mean for data is told at the events, accounts and instructions that hold them. Never
    raises: what cannot be compared is a change.
    """
    return [
        *_heads(old, new),
        *_entries("events", old.events, new.events, "exact"),
        *_entries("accounts", old.accounts, new.accounts, "open"),
        *_entries("instructions", old.instructions, new.instructions, "exact"),
        *_types(old, new),
        *_errors(old, new),
    ]


def is_readable(changes: Sequence[Change], path: str = "") -> bool:
    """Return whether older data stays readable: all of it, or what is at `path`, as "events.Deposit"."""
    return all(c.readable for c in changes if not path or c.path == path or c.path.startswith(f"{path}."))


def _heads(old: Idl, new: Idl) -> Iterator[Change]:
    if old.name != new.name:
        yield Change("name_changed", "name", f"was {old.name} and is {new.name}", readable=True)
    if old.address != new.address:
        yield Change("address_changed", "address", _address_change(old.address, new.address), readable=True)


def _entries(part: str, old: Sequence[_Entry], new: Sequence[_Entry], tail: Tail) -> Iterator[Change]:
    word = part[:-1]
    by_name = {entry.name: entry for entry in new}
    names = {entry.name for entry in old}
    # One that is new by name and begins with the bytes of one that is gone is that one, renamed.
    renamed = {entry.discriminator: entry for entry in new if entry.name not in names}
    paired: set[str] = set()
    for entry in old:
        path = f"{part}.{entry.name}"
        other = by_name.get(entry.name) or renamed.get(entry.discriminator)
        if other is None or other.name in paired:
            yield Change(f"{word}_removed", path, "is gone: what is stored of it is not recognized", readable=False)
            continue
        paired.add(other.name)
        if other.name != entry.name:
            yield Change(f"{word}_renamed", path, f"is called {other.name} now", readable=True)
        if other.discriminator != entry.discriminator:
            detail = f"was {entry.discriminator.hex() or 'empty'} and is {other.discriminator.hex() or 'empty'}"
            yield Change("discriminator_changed", path, detail, readable=False)
        yield from _ambiguities(path, entry, other, old, new)
        yield from _bodies(entry, other, path, tail)
    for entry in new:
        if entry.name not in paired:
            yield Change(f"{word}_added", f"{part}.{entry.name}", "is new", readable=True)


def _ambiguities(
    path: str, entry: _Entry, other: _Entry, old: Sequence[_Entry], new: Sequence[_Entry]
) -> Iterator[Change]:
    """Bytes that begin as two of the newer IDL's entries do are read as neither."""
    rivals = [e.name for e in new if e is not other and _alike(e.discriminator, entry.discriminator)]
    if rivals and not any(e is not entry and _alike(e.discriminator, entry.discriminator) for e in old):
        detail = f"cannot be told from {', '.join(rivals[:5])} any more: their discriminators begin alike"
        yield Change("ambiguous_discriminator", path, detail, readable=False)


def _alike(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def _bodies(old: _Entry, new: _Entry, path: str, tail: Tail) -> Iterator[Change]:
    if not isinstance(old, InstructionType) or not isinstance(new, InstructionType):
        assert not isinstance(old, InstructionType), "entries are compared with their like"
        assert not isinstance(new, InstructionType), "entries are compared with their like"
        yield from layout_changes(old.type, new.type, path=path, tail=tail)
        return
    yield from layout_changes(_arguments(old), _arguments(new), path=f"{path}.args", tail=tail)
    yield from _account_lists(old.accounts, new.accounts, f"{path}.accounts")


def _arguments(instruction: InstructionType) -> Defined:
    scope = Scope()
    scope.definitions[instruction.name] = Definition(instruction.name, Struct(instruction.fields))
    return Defined(instruction.name, (), scope)


def _account_lists(old: Sequence[InstructionAccount], new: Sequence[InstructionAccount], path: str) -> Iterator[Change]:
    """Accounts are known by their place alone, so each must keep it; the ends may grow."""
    old_names, new_names = {a.name for a in old}, {a.name for a in new}
    for index, account in enumerate(old):
        at = f"{path}.{account.name}"
        if index >= len(new):
            yield Change("account_removed", at, "is gone from the end: it counts as a remaining one", readable=True)
            continue
        other = new[index]
        if account.name != other.name and (account.name in new_names or other.name in old_names):
            yield Change("account_moved", at, f"{other.name} has its place {index}", readable=False)
            continue
        if account.name != other.name:
            yield Change("account_renamed", at, f"is called {other.name} now", readable=True)
        flags = [word for word in ("writable", "signer", "optional") if getattr(account, word) != getattr(other, word)]
        if flags:
            said = ", ".join(f"{'' if getattr(other, word) else 'not '}{word}" for word in flags)
            yield Change("account_flags_changed", at, f"is {said} now", readable=True)
        if account.address != other.address:
            yield Change("account_address_changed", at, _address_change(account.address, other.address), readable=True)
    for account in new[len(old) :]:
        if account.name not in old_names:
            yield Change("account_appended", f"{path}.{account.name}", "is new at the end", readable=True)


def _address_change(old: str | None, new: str | None) -> str:
    """Say how an address changed that an IDL need not name."""
    was = "was not named" if old is None else f"was {old}"
    return f"{was} and is not named any more" if new is None else f"{was} and is {new}"


def _types(old: Idl, new: Idl) -> Iterator[Change]:
    """Types by name. What a change means for data is said at each event, account and instruction that holds it."""
    bodies = {entry.type.name for idl in (old, new) for entries in (idl.events, idl.accounts) for entry in entries}
    for name, definition in old.types.items():
        path, other = f"types.{name}", new.types.get(name)
        if name in bodies:
            continue
        if other is None:
            yield Change("type_removed", path, "is gone, or has another name", readable=True)
        elif definition_text(definition) != definition_text(other):
            detail = f"was {_cut(definition_text(definition))} and is {_cut(definition_text(other))}"
            yield Change("type_changed", path, detail, readable=True)
    for name in new.types:
        if name not in old.types and name not in bodies:
            yield Change("type_added", f"types.{name}", "is new", readable=True)


def _errors(old: Idl, new: Idl) -> Iterator[Change]:
    by_code = {error.code: error for error in new.errors}
    codes = {error.code for error in old.errors}
    for error in old.errors:
        path, other = f"errors.{error.code}", by_code.get(error.code)
        if other is None:
            yield Change("error_removed", path, f"{error.name} is gone", readable=True)
        elif (error.name, error.message) != (other.name, other.message):
            detail = f"was {error.name} ({error.message}) and is {other.name} ({other.message})"
            yield Change("error_changed", path, detail, readable=True)
    for error in new.errors:
        if error.code not in codes:
            yield Change("error_added", f"errors.{error.code}", f"{error.name} is new", readable=True)


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
