"""
The part of an IDL's JSON that spells types.

Both formats' spellings: `publicKey` and `pubkey`, `{"defined": "Order"}` and `{"defined": {"name": "Order"}}`, the
legacy generics and the new ones. Shank's maps and sets are lists, of pairs and of elements, as borsh writes them.

Names may be used before they are defined, so what depends on a definition is put on a list of checks that the caller
runs at the end. Errors carry the JSON path.
"""

from collections.abc import Callable
from typing import Any

from indexer.chain.types import (
    DEPTH_MAX,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    I128,
    I256,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    Alias,
    Array,
    Bool,
    Bytes,
    Const,
    COption,
    Defined,
    Definition,
    Enum,
    Field,
    Fields,
    Generic,
    Option,
    Pubkey,
    Repr,
    Scope,
    String,
    Struct,
    Tuple,
    Type,
    Variant,
    Vec,
)
from indexer.errors import DataError

VARIANTS_MAX = 256  # a variant's number is one byte

_SCALARS: dict[str, Type] = {
    "u8": U8(),
    "u16": U16(),
    "u32": U32(),
    "u64": U64(),
    "u128": U128(),
    "u256": U256(),
    "i8": I8(),
    "i16": I16(),
    "i32": I32(),
    "i64": I64(),
    "i128": I128(),
    "i256": I256(),
    "f32": F32(),
    "f64": F64(),
    "bool": Bool(),
    "bytes": Bytes(),
    "string": String(),
    "pubkey": Pubkey(),
    "publicKey": Pubkey(),
}

_CONTAINERS: dict[str, Callable[[Type], Type]] = {
    "option": Option,
    "coption": COption,
    "vec": Vec,
    "hashSet": Vec,
    "bTreeSet": Vec,
}

Checks = list[Callable[[], None]]


def fail(path: str, what: str) -> DataError:
    """Return the error for `path`; `what` completes the sentence that begins with it."""
    return DataError(f"{path} {what}")


def text_at(holder: dict[str, Any], key: str, path: str) -> str:
    """
    Return the text at `holder[key]`.

    Raises:
        DataError: it is missing, empty, or no text.
    """
    value = holder.get(key)
    if value is None:
        raise fail(f"{path}.{key}", "is missing")
    if not isinstance(value, str) or not value:
        raise fail(f"{path}.{key}", "is not a text")
    return value


def distinct_names(names: list[str]) -> list[str]:
    """
    Return `names` with a number behind each that was there before: padding, padding_2, padding_3.

    Rust tells `padding` from `_padding`; the camelCase of a legacy IDL does not, and large programs have both.
    """
    taken = set(names)
    if len(taken) == len(names):
        return names
    counts: dict[str, int] = {}
    distinct: list[str] = []
    for name in names:
        count = counts.get(name, 0) + 1
        unique = name
        while count > 1 and (unique := f"{name}_{count}") in taken:
            count += 1
        counts[name] = count
        distinct.append(unique)
    return distinct


def parse_definition(entry: dict[str, Any], path: str, scope: Scope, checks: Checks) -> Definition:
    """
    Read one entry of `types`, or of legacy `accounts` and `events`.

    Raises:
        DataError: with the JSON path; references to other definitions raise from `checks`.
    """
    name = text_at(entry, "name", path)
    parameters = _parameters(entry.get("generics"), f"{path}.generics")
    body, at = entry.get("type"), f"{path}.type"
    if not isinstance(body, dict):
        raise fail(at, "is missing" if body is None else "is not an object")
    parser = _TypeParser(scope, checks, frozenset(parameters))
    parsed: Struct | Enum | Alias
    match body.get("kind"):
        case "struct":
            parsed = Struct(parser.fields(body.get("fields"), f"{at}.fields"))
        case "enum":
            parsed = Enum(_variants(body.get("variants"), f"{at}.variants", parser))
        case "type" | "alias":
            key = "alias" if "alias" in body else "value"
            parsed = Alias(parser.type(body.get(key), f"{at}.{key}", 0))
        case kind:
            raise fail(f"{at}.kind", f"is {_shown(kind)}, not struct, enum or type")
    serialization = _serialization(entry.get("serialization"), f"{path}.serialization")
    return Definition(name, parsed, serialization, _repr(entry.get("repr"), f"{path}.repr"), parameters)


def parse_named_fields(entries: list[Any], path: str, scope: Scope, checks: Checks) -> tuple[Field, ...]:
    """
    Read the arguments of an instruction.

    Raises:
        DataError: with the JSON path.
    """
    return _TypeParser(scope, checks, frozenset()).named(entries, path)


class _TypeParser:
    """Reads types inside one definition, whose generics it knows."""

    def __init__(self, scope: Scope, checks: Checks, parameters: frozenset[str]) -> None:
        self._scope = scope
        self._checks = checks
        self._parameters = parameters

    def fields(self, entries: Any, path: str) -> Fields:
        """Named fields, or the types of a tuple; nothing at all is no field."""
        if entries is None:
            return ()
        if not isinstance(entries, list):
            raise fail(path, "is not a list")
        if entries and not (isinstance(entries[0], dict) and "name" in entries[0]):
            return Tuple(tuple(self.type(e, f"{path}[{i}]", 0) for i, e in enumerate(entries)))
        return self.named(entries, path)

    def named(self, entries: list[Any], path: str) -> tuple[Field, ...]:
        names: list[str] = []
        types: list[Type] = []
        for index, entry in enumerate(entries):
            at = f"{path}[{index}]"
            if not isinstance(entry, dict):
                raise fail(at, "is not an object")
            names.append(text_at(entry, "name", at))
            types.append(self.type(entry.get("type"), f"{at}.type", 0))
        return tuple(Field(name, type_) for name, type_ in zip(distinct_names(names), types, strict=True))

    def type(self, entry: Any, path: str, depth: int) -> Type:
        if depth >= DEPTH_MAX:
            raise fail(path, f"nests types deeper than {DEPTH_MAX}")
        if isinstance(entry, str):
            return self._scalar(entry, path)
        if entry is None:
            raise fail(path, "is missing")
        if not isinstance(entry, dict) or len(entry) != 1:
            raise fail(path, "is not a type")
        ((kind, inner),) = entry.items()
        at = f"{path}.{kind}"
        match kind:
            case "option" | "coption" | "vec" | "hashSet" | "bTreeSet":
                return _CONTAINERS[kind](self.type(inner, at, depth + 1))
            case "array" | "genericLenArray":
                return self._array(inner, at, depth)
            case "tuple":
                return self._tuple(inner, at, depth)
            case "hashMap" | "bTreeMap":
                if not isinstance(inner, list) or len(inner) != 2:
                    raise fail(at, "is not a list of a key's and a value's type")
                return Vec(self._tuple(inner, at, depth + 1))
            case "generic":
                return self._generic(inner, at)
            case "defined" | "definedWithTypeArgs":
                return self._defined(inner, at, depth)
            case _:
                raise fail(path, f"is of the unknown kind {_shown(kind)}")

    def _scalar(self, name: str, path: str) -> Type:
        scalar = _SCALARS.get(name)
        if scalar is None:
            raise fail(path, f"is the unknown type {_shown(name)}")
        return scalar

    def _tuple(self, entry: Any, path: str, depth: int) -> Tuple:
        if not isinstance(entry, list):
            raise fail(path, "is not a list")
        return Tuple(tuple(self.type(e, f"{path}[{i}]", depth + 1) for i, e in enumerate(entry)))

    def _array(self, entry: Any, path: str, depth: int) -> Type:
        if not isinstance(entry, list) or len(entry) != 2:
            raise fail(path, "is not a list of a type and a length")
        element = self.type(entry[0], f"{path}[0]", depth + 1)
        return Array(element, self._length(entry[1], f"{path}[1]"))

    def _length(self, entry: Any, path: str) -> int | Generic:
        if isinstance(entry, dict) and len(entry) == 1 and "generic" in entry:
            return self._generic(entry["generic"], f"{path}.generic")
        if isinstance(entry, str):
            return self._generic(entry, path)
        if type(entry) is not int or entry < 0:
            raise fail(path, f"is {_shown(entry)}, not a length")
        return entry

    def _generic(self, entry: Any, path: str) -> Generic:
        if not isinstance(entry, str) or entry not in self._parameters:
            raise fail(path, f"is {_shown(entry)}, which is not among the generics of its definition")
        return Generic(entry)

    def _defined(self, entry: Any, path: str, depth: int) -> Defined:
        arguments: tuple[Type | Const, ...] = ()
        if isinstance(entry, str) and entry:
            name = entry
        elif isinstance(entry, dict):
            name = text_at(entry, "name", path)
            key = "args" if "args" in entry else "generics"
            given = entry.get(key) or []
            if not isinstance(given, list):
                raise fail(f"{path}.{key}", "is not a list")
            arguments = tuple(self._argument(a, f"{path}.{key}[{i}]", depth) for i, a in enumerate(given))
        else:
            raise fail(path, "is not the name of a type")
        self._checks.append(lambda: self._check_reference(name, len(arguments), path))
        return Defined(name, arguments, self._scope)

    def _argument(self, entry: Any, path: str, depth: int) -> Type | Const:
        if isinstance(entry, dict):
            match entry:
                case {"kind": "const", "value": str(value)} | {"value": str(value)}:
                    # A const parameter handed on stays a parameter.
                    return Generic(value) if value in self._parameters else Const(value)
                case {"kind": "type", "type": inner} | {"type": inner}:
                    return self.type(inner, f"{path}.type", depth + 1)
                case {"generic": name}:
                    return self._generic(name, f"{path}.generic")
        raise fail(path, "is not a generic argument")

    def _check_reference(self, name: str, given: int, path: str) -> None:
        if name in self._scope.ambiguous:
            raise fail(path, f"is {_shown(name)}, which $.types defines twice, differently; remove one")
        definition = self._scope.definitions.get(name)
        if definition is None:
            raise fail(path, f"is {_shown(name)}, which the IDL does not define")
        needed = len(definition.parameters)
        if given != needed:
            raise fail(path, f"gives {_shown(name)} {given} generic arguments, and it has {needed}")


def _variants(entries: Any, path: str, parser: _TypeParser) -> tuple[Variant, ...]:
    if not isinstance(entries, list):
        raise fail(path, "is not a list")
    if len(entries) > VARIANTS_MAX:
        raise fail(path, f"has {len(entries)} variants, more than the {VARIANTS_MAX} that one byte can number")
    variants: dict[str, Variant] = {}
    for index, entry in enumerate(entries):
        at = f"{path}[{index}]"
        if not isinstance(entry, dict):
            raise fail(at, "is not an object")
        name = text_at(entry, "name", at)
        if name in variants:
            raise fail(f"{at}.name", f"is {name!r} a second time")
        variants[name] = Variant(name, parser.fields(entry.get("fields"), f"{at}.fields"))
    return tuple(variants.values())


def _parameters(entries: Any, path: str) -> tuple[str, ...]:
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise fail(path, "is not a list")
    names: list[str] = []
    for index, entry in enumerate(entries):
        at = f"{path}[{index}]"
        name = entry if isinstance(entry, str) else text_at(entry, "name", at) if isinstance(entry, dict) else None
        if not name or name in names:
            raise fail(at, "is not a new name")
        names.append(name)
    return tuple(names)


def _serialization(entry: Any, path: str) -> str:
    match entry:
        case None:
            return "borsh"
        case "borsh" | "bytemuck" | "bytemuckunsafe":
            return str(entry)
        case {"custom": str(name)}:
            return f"custom:{name}"
        case _:
            raise fail(path, f"is {_shown(entry)}, not borsh, bytemuck, bytemuckunsafe or custom")


def _repr(entry: Any, path: str) -> Repr | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise fail(path, "is not an object")
    kind, packed, align = entry.get("kind"), entry.get("packed", False), entry.get("align")
    if kind not in ("c", "rust", "transparent"):
        raise fail(f"{path}.kind", f"is {_shown(kind)}, not c, rust or transparent")
    if not isinstance(packed, bool):
        raise fail(f"{path}.packed", "is not true or false")
    if align is not None and (type(align) is not int or align < 1 or align > 1 << 29 or align & (align - 1)):
        raise fail(f"{path}.align", f"is {_shown(align)}, not a power of two")
    return Repr(kind, packed, align or 1)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
