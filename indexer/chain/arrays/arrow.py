"""
What an IDL's types become in Arrow: known without any data, and the same for a type wherever it stands.

| type                        | Arrow                                                                         |
|-----------------------------|-------------------------------------------------------------------------------|
| integers to 64 bits, floats | the same                                                                      |
| u128, i128                  | decimal256(39, 0)                                                             |
| u256, i256                  | fixed_size_binary(32), little-endian as on chain: no decimal has 78 digits    |
| bool, string, bytes         | bool, utf8, binary                                                            |
| pubkey, [u8; N]             | fixed_size_binary; [u8; 0] is binary                                          |
| option, coption             | the value's type, null for none                                               |
| vec                         | list                                                                          |
| array                       | fixed_size_list; list where N is 0                                            |
| struct, tuple               | struct; a tuple's fields are "0", "1", ...                                    |
| no fields at all            | bool, always true: Parquet and DuckDB have no struct without fields           |
| enum without any fields     | dictionary of the variants' names                                             |
| enum with fields            | struct: "variant" as above, then a struct for each variant that has fields    |
| what contains itself        | utf8: the value's edge format as JSON                                         |

An array of more than ARRAY_BYTES_MAX becomes list, or binary: Arrow keeps the room of a fixed size also where the value
is null, and a payload must not be able to ask for more memory than it has bytes. A type of more than TYPE_PARTS_MAX
parts is JSON text as well; real ones have a few dozen. An option in an option is one null, as in `value.py`.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from indexer.chain.types import (
    DEPTH_MAX,
    F32,
    F64,
    U8,
    Array,
    Bool,
    Bytes,
    COption,
    Defined,
    Enum,
    Field,
    Fields,
    Integer,
    Option,
    Pubkey,
    String,
    Struct,
    Tuple,
    Type,
    Vec,
    fields_of,
    resolve,
)
from indexer.errors import DataError

ARRAY_BYTES_MAX = 1024
TYPE_PARTS_MAX = 4096
# As many different types as `layout.py` compiles for one program.
_TYPES_MAX = 5_000

# pyarrow's annotations tell every kind of type and array apart; which kind it is, here only the IDL knows.
ArrowType: TypeAlias = Any
ArrowArray: TypeAlias = Any
# What a record batch is made of: an account or event by its type, arguments by their fields.
Root: TypeAlias = "Type | tuple[Field, ...]"

DECIMAL = pa.decimal256(39, 0)


def arrow_schema(root: Root) -> pa.Schema:
    """
    Return the columns of a group: one a field, in the IDL's order and with its names.

    Args:
        root: the type of an event or account, or the fields of an instruction. An enum has the columns of its struct.

    Raises:
        DataError: types nested without end.
    """
    fields = root if isinstance(root, tuple) else root_fields(root)
    if fields is None:
        assert not isinstance(root, tuple), "only a type can be an enum"
        type_ = _body_type(root)
        variants = list(type_) if pa.types.is_struct(type_) else [pa.field("variant", type_)]
        return pa.schema([variants[0].with_nullable(False), *variants[1:]])
    return pa.schema([pa.field(f.name, arrow_type(f.type), nullable=_is_optional(f.type)) for f in fields])


def _is_optional(type_: Type) -> bool:
    return isinstance(resolve(type_), Option | COption)


def root_fields(root: Type) -> tuple[Field, ...] | None:
    """Return the named fields of an event's or account's type, or None where it is an enum."""
    target = resolve(root)
    assert isinstance(target, Defined), "an IDL's events and accounts are checked when it is loaded"
    body = target.definition().body
    return fields_of(body.fields) if isinstance(body, Struct) else None


@lru_cache(maxsize=4096)
def arrow_type(type_: Type) -> ArrowType:
    """
    Return what `type_` becomes, by this module's table.

    Raises:
        DataError: types nested without end.
    """
    return pa.utf8() if is_text(type_) else _body_type(type_)


def _body_type(type_: Type) -> ArrowType:
    """Return the type of what `type_` is made of, whether or not it contains itself."""
    match resolve(type_):
        case Integer() as integer:
            return _integer_type(integer)
        case F32():
            return pa.float32()
        case F64():
            return pa.float64()
        case Bool():
            return pa.bool_()
        case String():
            return pa.utf8()
        case Bytes():
            return pa.binary()
        case Pubkey():
            return pa.binary(32)
        case other:
            return _compound_type(other)


def _compound_type(type_: Type) -> ArrowType:
    match type_:
        case Option(inner) | COption(inner):
            return arrow_type(inner)
        case Vec(element):
            return pa.list_(arrow_type(element))
        case Array(U8(), int(length)):
            return pa.binary(length) if 0 < length <= ARRAY_BYTES_MAX else pa.binary()
        case Array(element, int(length)):
            inner = arrow_type(element)
            fixed = length and (fixed_width(inner) or 1) * length <= ARRAY_BYTES_MAX
            return pa.list_(inner, length) if fixed else pa.list_(inner)
        case Tuple() as elements:
            return fields_type(elements)
        case Defined() as defined:
            body = defined.definition().body
            if isinstance(body, Struct):
                return fields_type(body.fields)
            assert isinstance(body, Enum), "resolve follows aliases"
            return enum_type(body)
        case other:
            raise DataError(f"{other} is used outside its definition; correct the IDL")


def _integer_type(type_: Integer) -> ArrowType:
    if type_.bits == 256:
        return pa.binary(32)
    if type_.bits == 128:
        return DECIMAL
    name = f"{'int' if type_.signed else 'uint'}{type_.bits}"
    return pa.from_numpy_dtype(np.dtype(name))


def fields_type(fields: Fields) -> ArrowType:
    """Return the struct of `fields`, or bool where there is none."""
    named = fields_of(fields)
    return pa.struct([pa.field(f.name, arrow_type(f.type)) for f in named]) if named else pa.bool_()


def variants_type(count: int) -> ArrowType:
    """Return the dictionary that names one of `count` variants."""
    index = pa.int8() if count <= 128 else pa.uint8() if count <= 256 else pa.int32()
    return pa.dictionary(index, pa.utf8())


def enum_type(body: Enum) -> ArrowType:
    """Return the struct of the variants, or their dictionary where none has fields."""
    variant = variants_type(len(body.variants))
    full = [v for v in body.variants if fields_of(v.fields)]
    if not full:
        return variant
    names = {v.name for v in full}
    own = "variant"
    while own in names:
        own += "_"
    return pa.struct([pa.field(own, variant), *(pa.field(v.name, fields_type(v.fields)) for v in full)])


def fixed_width(type_: ArrowType) -> int:
    """Return the bytes that one value of `type_` takes in Arrow even if it is null."""
    if pa.types.is_struct(type_):
        return sum(fixed_width(field.type) for field in type_)
    if pa.types.is_fixed_size_list(type_):
        return int(type_.list_size) * fixed_width(type_.value_type)
    if pa.types.is_fixed_size_binary(type_):
        return int(type_.byte_width)
    if pa.types.is_dictionary(type_):
        return int(type_.index_type.bit_width) // 8
    if pa.types.is_primitive(type_) or pa.types.is_decimal(type_):
        return max(int(type_.bit_width) // 8, 1)
    # Of what has no fixed size, the offset.
    return 4


@lru_cache(maxsize=4096)
def is_text(type_: Type) -> bool:
    """Return whether values of `type_` become JSON text: it contains itself, or has too many parts for columns."""
    type_ = resolve(type_)
    return _contains_itself(type_) or _parts_inside(type_, 0) > TYPE_PARTS_MAX


@lru_cache(maxsize=4096)
def holds_text(type_: Type) -> bool:
    """Return whether a value of `type_` is, or holds, one that becomes JSON text."""
    return is_text(type_) or any(holds_text(inner) for inner in _inner_types(resolve(type_)))


def _contains_itself(type_: Type) -> bool:
    seen: set[Type] = set()
    ahead = [*_inner_types(type_)]
    while ahead:
        inner = resolve(ahead.pop())
        if inner == type_:
            return True
        if inner not in seen:
            seen.add(inner)
            if len(seen) > _TYPES_MAX:
                raise DataError(f"the IDL has more than {_TYPES_MAX} different types; a generic type has no end")
            ahead += _inner_types(inner)
    return False


@lru_cache(maxsize=4096)
def _parts(type_: Type, depth: int) -> int:
    """Count the Arrow types that `type_` becomes; JSON text is one."""
    if depth > DEPTH_MAX:
        raise DataError(f"types are nested deeper than {DEPTH_MAX}; correct the IDL")
    type_ = resolve(type_)
    if _contains_itself(type_):
        return 1
    parts = _parts_inside(type_, depth)
    return 1 if parts > TYPE_PARTS_MAX else parts


def _parts_inside(type_: Type, depth: int) -> int:
    return 1 + sum(_parts(inner, depth + 1) for inner in _inner_types(type_))


def _inner_types(type_: Type) -> Iterable[Type]:
    match type_:
        case Option(inner) | COption(inner) | Vec(inner) | Array(inner, _):
            return (inner,)
        case Tuple(elements):
            return elements
        case Defined():
            body = type_.definition().body
            if isinstance(body, Struct):
                return tuple(f.type for f in fields_of(body.fields))
            assert isinstance(body, Enum), "resolve follows aliases"
            return tuple(f.type for v in body.variants for f in fields_of(v.fields))
        case _:
            return ()
