"""
The types an IDL can name, as values: one frozen class each.

This is the vocabulary between the reader of IDLs, the compiler of layouts, the typed tables and the edge format. What
a type looks like in bytes is in `layout.py`; how it is spelt in an IDL is in `idl.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from indexer.errors import DataError

# Deeper nesting than this, in an IDL's types or in a decoded value, is refused: real programs stay below ten, and
# Python's own stack must not be the limit.
DEPTH_MAX = 64
# A generic type may double its argument with each level; beyond this many nodes it is no longer a type but an attack.
TYPE_NODES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Integer:
    """Base of the integers: `bits` wide, little-endian, two's complement where `signed`."""

    bits: ClassVar[int] = 0
    signed: ClassVar[bool] = False


class U8(Integer):
    __slots__ = ()
    bits = 8


class U16(Integer):
    __slots__ = ()
    bits = 16


class U32(Integer):
    __slots__ = ()
    bits = 32


class U64(Integer):
    __slots__ = ()
    bits = 64


class U128(Integer):
    __slots__ = ()
    bits = 128


class U256(Integer):
    __slots__ = ()
    bits = 256


class I8(Integer):
    __slots__ = ()
    bits, signed = 8, True


class I16(Integer):
    __slots__ = ()
    bits, signed = 16, True


class I32(Integer):
    __slots__ = ()
    bits, signed = 32, True


class I64(Integer):
    __slots__ = ()
    bits, signed = 64, True


class I128(Integer):
    __slots__ = ()
    bits, signed = 128, True


class I256(Integer):
    __slots__ = ()
    bits, signed = 256, True


@dataclass(frozen=True, slots=True)
class F32:
    pass


@dataclass(frozen=True, slots=True)
class F64:
    pass


@dataclass(frozen=True, slots=True)
class Bool:
    pass


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes with their length in front."""


@dataclass(frozen=True, slots=True)
class String:
    pass


@dataclass(frozen=True, slots=True)
class Pubkey:
    """32 bytes; base58 only at the edge."""


@dataclass(frozen=True, slots=True)
class Option:
    """A tag of one byte, then the value if there is one."""

    inner: "Type"


@dataclass(frozen=True, slots=True)
class COption:
    """SPL's option: a tag of four bytes, and the value's room is there also when the value is not."""

    inner: "Type"


@dataclass(frozen=True, slots=True)
class Vec:
    element: "Type"


@dataclass(frozen=True, slots=True)
class Array:
    """`length` is the name of a const generic only inside a generic definition."""

    element: "Type"
    length: "int | Generic"


@dataclass(frozen=True, slots=True)
class Tuple:
    elements: "tuple[Type, ...]"


@dataclass(frozen=True, slots=True)
class Generic:
    """A parameter of the definition it stands in, type or const; never seen outside one."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """A const argument as the IDL spells it: "8", "true"."""

    value: str


class Scope:
    """
    The definitions of one IDL. Compared by identity: `Order` of one program is not `Order` of another.

    `ambiguous` are the names that the IDL defines more than once, differently; they have no definition.
    """

    __slots__ = ("ambiguous", "definitions")

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self.ambiguous: set[str] = set()


@dataclass(frozen=True, slots=True)
class Defined:
    """A reference to a definition of the IDL, by name; recursion in types goes through here."""

    name: str
    arguments: "tuple[Type | Const, ...]" = ()
    scope: Scope = field(repr=False, default_factory=Scope)

    def definition(self) -> "Definition":
        """Return the definition with its parameters replaced by this reference's arguments."""
        definition = self.scope.definitions[self.name]
        if not definition.parameters:
            return definition
        return _instantiate(definition, dict(zip(definition.parameters, self.arguments, strict=True)))


Type: TypeAlias = (
    Integer | F32 | F64 | Bool | Bytes | String | Pubkey | Option | COption | Vec | Array | Tuple | Generic | Defined
)


@dataclass(frozen=True, slots=True)
class Field:
    """A named field; `name` as in the IDL."""

    name: str
    type: Type


# Named fields, the elements of a tuple, or nothing.
Fields: TypeAlias = tuple[Field, ...] | Tuple


@dataclass(frozen=True, slots=True)
class Struct:
    fields: Fields


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Enum:
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Alias:
    target: Type


@dataclass(frozen=True, slots=True)
class Repr:
    """Rust's `#[repr]`: what decides a C layout."""

    kind: Literal["c", "rust", "transparent"] = "c"
    packed: bool = False
    align: int = 1


@dataclass(frozen=True, slots=True)
class Definition:
    """
    A type definition of an IDL.

    Args:
        serialization: "borsh", "bytemuck", "bytemuckunsafe", or "custom:<name>", which no layout can be made for.
        parameters: names of the generics, in order.
    """

    name: str
    body: Struct | Enum | Alias
    serialization: str = "borsh"
    repr: Repr | None = None
    parameters: tuple[str, ...] = ()


def resolve(type_: Type) -> Type:
    """
    Return what `type_` stands for: aliases are followed, everything else is itself.

    Raises:
        DataError: aliases lead in a circle.
    """
    for _ in range(DEPTH_MAX):
        if not isinstance(type_, Defined):
            return type_
        body = type_.definition().body
        if not isinstance(body, Alias):
            return type_
        type_ = body.target
    raise DataError(f"the alias {type_} leads in a circle; correct the IDL")


def fields_of(fields: Fields) -> tuple[Field, ...]:
    """Return the fields with a name each: the elements of a tuple are called "0", "1", ..."""
    if isinstance(fields, Tuple):
        return tuple(Field(str(index), element) for index, element in enumerate(fields.elements))
    return fields


_Arguments: TypeAlias = Mapping[str, "Type | Const"]


def _instantiate(definition: Definition, arguments: _Arguments) -> Definition:
    replacement = _Replacement(definition.name, arguments)
    body = definition.body
    instance: Struct | Enum | Alias
    match body:
        case Struct(fields):
            instance = Struct(replacement.fields(fields))
        case Enum(variants):
            instance = Enum(tuple(Variant(v.name, replacement.fields(v.fields)) for v in variants))
        case Alias(target):
            instance = Alias(replacement.type(target))
    return Definition(definition.name, instance, definition.serialization, definition.repr)


class _Replacement:
    """Puts arguments in the place of generics, and counts what it builds."""

    def __init__(self, owner: str, arguments: _Arguments) -> None:
        self._owner = owner
        self._arguments = arguments
        self._nodes = sum(count_nodes(a) for a in arguments.values())

    def fields(self, fields: Fields) -> Fields:
        if isinstance(fields, Tuple):
            return Tuple(tuple(self.type(element) for element in fields.elements))
        return tuple(Field(f.name, self.type(f.type)) for f in fields)

    def type(self, type_: Type) -> Type:
        self._nodes += 1
        match type_:
            case Generic(name):
                argument = self._arguments[name]
                if isinstance(argument, Const):
                    raise DataError(f"{self._owner} uses the const {name!r} as a type; correct the IDL")
                self._nodes += count_nodes(argument)
                self._check()
                return argument
            case Option(inner):
                return Option(self.type(inner))
            case COption(inner):
                return COption(self.type(inner))
            case Vec(element):
                return Vec(self.type(element))
            case Tuple(elements):
                return Tuple(tuple(self.type(element) for element in elements))
            case Array(element, length):
                return Array(self.type(element), self._length(length))
            case Defined(name, arguments, scope):
                return Defined(name, tuple(self._argument(a) for a in arguments), scope)
            case _:
                return type_

    def _argument(self, argument: Type | Const) -> Type | Const:
        if isinstance(argument, Generic):
            replaced = self._arguments[argument.name]
            self._nodes += count_nodes(replaced)
            self._check()
            return replaced
        return argument if isinstance(argument, Const) else self.type(argument)

    def _length(self, length: int | Generic) -> int:
        if isinstance(length, int):
            return length
        argument = self._arguments[length.name]
        # isdecimal alone admits digits of other scripts.
        if not isinstance(argument, Const) or not (argument.value.isascii() and argument.value.isdecimal()):
            raise DataError(f"{self._owner} needs a number as the array length {length.name!r}, not {argument}")
        if len(argument.value) > 18:
            raise DataError(f"{self._owner} is asked for an array of {argument.value[:40]} elements")
        return int(argument.value)

    def _check(self) -> None:
        if self._nodes > TYPE_NODES_MAX:
            raise DataError(f"the generic type {self._owner} grows beyond {TYPE_NODES_MAX} parts; correct the IDL")


def count_nodes(type_: Type | Const) -> int:
    """Return how many classes of this module the type is made of."""
    match type_:
        case Option(inner) | COption(inner) | Vec(inner) | Array(inner, _):
            return 1 + count_nodes(inner)
        case Tuple(elements):
            return 1 + sum(count_nodes(element) for element in elements)
        case Defined(_, arguments, _):
            return 1 + sum(count_nodes(argument) for argument in arguments)
        case _:
            return 1
