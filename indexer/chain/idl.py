"""
IDLs, in both of Anchor's formats, read into one shape.

The formats are told apart by what they look like: a 0.30+ IDL keeps its name in `metadata` and describes events and
accounts in `types`; a legacy one (to 0.29) has its name on top, describes them in place, and gives no discriminators,
which are then computed as Anchor computes them. Every spelling of either format is understood in both, as tools mix
them. What the types mean in bytes is not known here: that is `layout.py`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from solders.pubkey import Pubkey as SoldersPubkey

from indexer.chain.idl_types import Checks, distinct_names, fail, parse_definition, parse_named_fields, text_at
from indexer.chain.types import Defined, Definition, Field, Scope, Struct, fields_of, resolve
from indexer.chain.value import snake_case
from indexer.errors import DataError

DISCRIMINATOR_BYTES = 8
# Anchor's own limit is far below; a group inside a group inside a group is already rare.
ACCOUNT_GROUP_DEPTH_MAX = 16


@dataclass(frozen=True, slots=True)
class EventType:
    name: str
    discriminator: bytes
    fields: tuple[Field, ...]
    type: Defined = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountType:
    """`fields` is empty where the account is an enum; `type` says what it is in full."""

    name: str
    discriminator: bytes
    fields: tuple[Field, ...]
    type: Defined = field(repr=False)


@dataclass(frozen=True, slots=True)
class InstructionAccount:
    """One account of an instruction; `name` is "group.account" for a member of a composite group."""

    name: str
    writable: bool
    signer: bool
    optional: bool
    address: str | None


@dataclass(frozen=True, slots=True)
class InstructionType:
    name: str
    discriminator: bytes
    fields: tuple[Field, ...]
    accounts: tuple[InstructionAccount, ...]


@dataclass(frozen=True, slots=True)
class ErrorType:
    code: int
    name: str
    message: str | None


@dataclass(frozen=True, slots=True)
class Idl:
    """
    What an IDL says.

    Args:
        name: snake_case.
        address: the program's id in base58, where the IDL gives one.
        types: the definitions, by name, as written: aliases and generics included.
        conflicts: one sentence for each pair of discriminators that bytes may match both of.
        text: what was read, for whoever stores it.
        source: where it came from, for messages.
    """

    name: str
    address: str | None
    legacy: bool
    instructions: tuple[InstructionType, ...]
    accounts: tuple[AccountType, ...]
    events: tuple[EventType, ...]
    errors: tuple[ErrorType, ...]
    types: Mapping[str, Definition] = field(repr=False)
    conflicts: tuple[str, ...]
    text: str = field(repr=False)
    source: str


def load_idl(text: str | bytes, *, source: str) -> Idl:
    """
    Read an IDL of either format.

    Args:
        text: JSON, UTF-8.
        source: what to call it in messages: a path, an address.

    Raises:
        DataError: not an IDL; one sentence with the JSON path of what is wrong.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        document = msgspec.json.decode(text)
    except (UnicodeDecodeError, UnicodeEncodeError, msgspec.DecodeError) as error:
        raise DataError(f"{source} is not JSON: {error}") from None
    except RecursionError:
        raise DataError(f"{source} is not an IDL: its JSON is nested too deeply") from None
    if not isinstance(document, dict):
        raise DataError(f"{source} is not an IDL: $ is not an object")
    try:
        return _Reader(document, text, source).read()
    except DataError as error:
        raise DataError(f"{source} is not a valid IDL: {error}") from None


def discriminator(namespace: str, name: str) -> bytes:
    """Return Anchor's eight bytes for a name: of "global" (instructions, in snake_case), "account" or "event"."""
    return hashlib.sha256(f"{namespace}:{name}".encode()).digest()[:DISCRIMINATOR_BYTES]


class _Reader:
    """One pass over one document; holds what every part of it needs."""

    def __init__(self, document: dict[str, Any], text: str, source: str) -> None:
        self._document = document
        self._text = text
        self._source = source
        self._scope = Scope()
        self._metadata = _object(document, "metadata")

    def read(self) -> Idl:
        legacy = self._is_legacy()
        self._read_definitions()
        instructions = self._each("instructions", self._instruction)
        accounts = self._each("accounts", self._account)
        events = self._each("events", self._event)
        return Idl(
            name=self._name(legacy=legacy),
            address=self._address(),
            legacy=legacy,
            instructions=instructions,
            accounts=accounts,
            events=events,
            errors=self._each("errors", _error),
            types=self._scope.definitions,
            conflicts=(
                *_conflicts("instructions", instructions),
                *_conflicts("accounts", accounts),
                *_conflicts("events", events),
            ),
            text=self._text,
            source=self._source,
        )

    def _is_legacy(self) -> bool:
        document = self._document
        if "instructions" not in document:
            raise fail("$.instructions", "is missing")
        entries = (e for part in ("instructions", "accounts", "events") for e in _list(document, part))
        if any(isinstance(entry, dict) and "discriminator" in entry for entry in entries):
            return False
        return "name" in document

    def _name(self, *, legacy: bool) -> str:
        places = [(self._metadata, "$.metadata"), (self._document, "$")]
        holder, path = next(((h, p) for h, p in (reversed(places) if legacy else places) if "name" in h), places[0])
        name = snake_case(text_at(holder, "name", path))
        if not name:
            raise fail(f"{path}.name", "has no letter or digit")
        return name

    def _address(self) -> str | None:
        for holder, path in ((self._document, "$"), (self._metadata, "$.metadata")):
            address = holder.get("address")
            if address is None or address == "":
                continue
            text = text_at(holder, "address", path)
            _check_address(text, f"{path}.address")
            return text
        return None

    def _read_definitions(self) -> None:
        """Read `types`, and what legacy IDLs define in `accounts` and `events`; references are checked at the end."""
        checks: Checks = []
        for part in ("types", "accounts", "events"):
            for index, entry in enumerate(_list(self._document, part)):
                path = f"$.{part}[{index}]"
                if not isinstance(entry, dict):
                    raise fail(path, "is not an object")
                if part == "types" or "type" in entry:
                    self._define(part, parse_definition(entry, path, self._scope, checks))
                elif "fields" in entry:
                    # A legacy event is a struct without saying so.
                    body = {"kind": "struct", "fields": entry["fields"]}
                    described = {"name": entry.get("name"), "type": body}
                    self._define(part, parse_definition(described, path, self._scope, checks))
        for name in self._scope.ambiguous:
            del self._scope.definitions[name]
        for check in checks:
            check()
        for name, definition in self._scope.definitions.items():
            if not definition.parameters:
                resolve(Defined(name, (), self._scope))

    def _define(self, part: str, definition: Definition) -> None:
        """
        An event may share its name with another type; then it is kept under a name of its own.

        Types of different modules may share one, too: that is refused only where something refers to it.
        """
        name = definition.name
        known = self._scope.definitions.get(name)
        if known is not None and (known != definition or name in self._scope.ambiguous):
            if part == "types":
                self._scope.ambiguous.add(name)
                return
            name = f"{part}.{name}"
        self._scope.definitions[name] = definition

    def _each(self, part: str, read: "Callable[[dict[str, Any], str], Any]") -> tuple[Any, ...]:
        found = []
        names: set[str] = set()
        for index, entry in enumerate(_list(self._document, part)):
            path = f"$.{part}[{index}]"
            if not isinstance(entry, dict):
                raise fail(path, "is not an object")
            item = read(entry, path)
            if item.name in names and part != "errors":
                raise fail(f"{path}.name", f"is {item.name!r} a second time")
            names.add(item.name)
            found.append(item)
        return tuple(found)

    def _instruction(self, entry: dict[str, Any], path: str) -> InstructionType:
        name = text_at(entry, "name", path)
        checks: Checks = []
        fields = parse_named_fields(_list(entry, "args", path), f"{path}.args", self._scope, checks)
        for check in checks:
            check()
        accounts = list(_accounts(_list(entry, "accounts", path), f"{path}.accounts", "", 0))
        names = distinct_names([account.name for account in accounts])
        named = tuple(replace(account, name=name) for account, name in zip(accounts, names, strict=True))
        return InstructionType(name, _discriminator(entry, path, "global", snake_case(name)), _resolved(fields), named)

    def _account(self, entry: dict[str, Any], path: str) -> AccountType:
        name, type_ = self._described("accounts", entry, path)
        # What Anchor writes for TypeScript has accounts in camelCase; what is hashed is the Rust type's name.
        rust_name = name[:1].upper() + name[1:]
        return AccountType(name, _discriminator(entry, path, "account", rust_name), _fields(type_), type_)

    def _event(self, entry: dict[str, Any], path: str) -> EventType:
        name, type_ = self._described("events", entry, path)
        return EventType(name, _discriminator(entry, path, "event", name), _fields(type_), type_)

    def _described(self, part: str, entry: dict[str, Any], path: str) -> tuple[str, Defined]:
        name = text_at(entry, "name", path)
        definitions = self._scope.definitions
        key = f"{part}.{name}" if f"{part}.{name}" in definitions else name
        if key in self._scope.ambiguous:
            raise fail(f"{path}.name", f"is {name!r}, which $.types defines twice, differently; remove one")
        if key not in definitions:
            raise fail(f"{path}.name", f"is {name!r}, which $.types does not define")
        if definitions[key].parameters:
            raise fail(f"{path}.name", f"is {name!r}, which is generic and cannot stand alone")
        type_ = Defined(key, (), self._scope)
        if not isinstance(resolve(type_), Defined):
            raise fail(f"{path}.name", f"is {name!r}, which is neither a struct nor an enum")
        return name, type_


def _fields(type_: Defined) -> tuple[Field, ...]:
    target = resolve(type_)
    assert isinstance(target, Defined), "checked where the entry was read"
    body = target.definition().body
    return _resolved(fields_of(body.fields)) if isinstance(body, Struct) else ()


def _resolved(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple(Field(f.name, resolve(f.type)) for f in fields)


def _discriminator(entry: Mapping[str, Any], path: str, namespace: str, name: str) -> bytes:
    given = entry.get("discriminator")
    if given is None:
        return discriminator(namespace, name)
    if not isinstance(given, list) or not all(type(b) is int and 0 <= b <= 255 for b in given):
        raise fail(f"{path}.discriminator", "is not a list of bytes")
    return bytes(given)


def _accounts(entries: list[Any], path: str, prefix: str, depth: int) -> Iterable[InstructionAccount]:
    if depth > ACCOUNT_GROUP_DEPTH_MAX:
        raise fail(path, f"nests account groups deeper than {ACCOUNT_GROUP_DEPTH_MAX}")
    for index, entry in enumerate(entries):
        at = f"{path}[{index}]"
        if not isinstance(entry, dict):
            raise fail(at, "is not an object")
        name = prefix + text_at(entry, "name", at)
        if "accounts" in entry:
            yield from _accounts(_list(entry, "accounts", at), f"{at}.accounts", f"{name}.", depth + 1)
            continue
        address = entry.get("address")
        if address is not None:
            _check_address(text_at(entry, "address", at), f"{at}.address")
        yield InstructionAccount(
            name,
            _flag(entry, at, "writable", "isMut"),
            _flag(entry, at, "signer", "isSigner"),
            _flag(entry, at, "optional", "isOptional"),
            address,
        )


def _flag(entry: Mapping[str, Any], path: str, *names: str) -> bool:
    for name in names:
        value = entry.get(name)
        # "either" is what tools other than Anchor say of a signer that may be one: it need not.
        if value is not None and not isinstance(value, bool) and value != "either":
            raise fail(f"{path}.{name}", "is not true or false")
        if value is True:
            return True
    return False


def _error(entry: dict[str, Any], path: str) -> ErrorType:
    code, message = entry.get("code"), entry.get("msg")
    if type(code) is not int:
        raise fail(f"{path}.code", "is not a number")
    if message is not None and not isinstance(message, str):
        raise fail(f"{path}.msg", "is not a text")
    return ErrorType(code, text_at(entry, "name", path), message)


def _conflicts(part: str, items: tuple[Any, ...]) -> list[str]:
    """Sort by discriminator: whatever starts with another then follows it, with only its like in between."""
    found: list[str] = []
    ordered = sorted(items, key=lambda item: item.discriminator)
    for index, one in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if not other.discriminator.startswith(one.discriminator):
                break
            same = one.discriminator == other.discriminator
            how = "are the same" if same else "begin alike"
            found.append(
                f"$.{part}: the discriminators of {one.name} and {other.name} {how} "
                f"({one.discriminator.hex() or 'empty'}); bytes that match both are not decoded"
            )
            if len(found) >= 100:
                return found
    return found


def _check_address(text: str, path: str) -> None:
    try:
        SoldersPubkey.from_string(text)
    except ValueError:
        raise fail(path, f"is {text[:60]!r}, which is not an address") from None


def _object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fail(f"$.{key}", "is not an object")
    return value


def _list(holder: Mapping[str, Any], key: str, path: str = "$") -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fail(f"{path}.{key}", "is not a list")
    return value
