"""
Columns back to the values of the single decoder: for tests, and for whoever writes the edge format.

What a column cannot tell apart the single decoder does not either: an option in an option is one None.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
from solders.pubkey import Pubkey as SoldersPubkey

from indexer.chain.arrays.arrow import ArrowArray, Root, is_text, root_fields
from indexer.chain.types import (
    F32,
    F64,
    U8,
    Array,
    Bytes,
    COption,
    Defined,
    Enum,
    Field,
    Fields,
    Integer,
    Option,
    Pubkey,
    Struct,
    Tuple,
    Type,
    Vec,
    fields_of,
    resolve,
)
from indexer.chain.value import JsonValue, Value

_FromJson: TypeAlias = Callable[[JsonValue], Value]


def to_values(root: Root, batch: pa.RecordBatch) -> list[dict[str, Value]]:
    """
    Return the values of a group's rows, exactly those that the single decoder gives.

    Args:
        root: the type of the event or account, or its fields, or the fields of the instruction.
        batch: columns as `arrow_schema` says for `root`; rows may have been filtered, sliced or taken.
    """
    fields = root if isinstance(root, tuple) else root_fields(root)
    if fields is None:
        assert not isinstance(root, tuple), "only a type can be an enum"
        body = _body(root)
        assert isinstance(body, Enum), "what has no fields is an enum"
        return _enum_values(body, batch.columns, batch.num_rows)
    return _named_values(fields, batch.columns, batch.num_rows)


def _named_values(fields: Sequence[Field], arrays: Sequence[ArrowArray], count: int) -> list[dict[str, Value]]:
    names = [field.name for field in fields]
    if not names:
        return [{} for _ in range(count)]
    columns = [column_values(field.type, array) for field, array in zip(fields, arrays, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def column_values(type_: Type, array: ArrowArray) -> list[Value]:
    """Return the values of one column of `type_`; None where it is null."""
    if is_text(type_):
        read = _from_json(type_)
        return [None if text is None else read(msgspec.json.decode(text)) for text in array.to_pylist()]
    match resolve(type_):
        case Integer(bits=128):
            return [None if value is None else int(value) for value in array.to_pylist()]
        case Integer(bits=256) as integer:
            signed = integer.signed
            return [None if v is None else int.from_bytes(v, "little", signed=signed) for v in array.to_pylist()]
        case Option(inner) | COption(inner):
            return column_values(inner, array)
        case Array(U8(), _):
            return list(array.to_pylist())
        case Vec(element) | Array(element, _):
            return _lists(element, array)
        case Tuple() as elements:
            return _fields_values(elements, array)
        case Defined() as defined:
            body = defined.definition().body
            if isinstance(body, Struct):
                return _fields_values(body.fields, array)
            assert isinstance(body, Enum), "resolve follows aliases"
            arrays = array.flatten() if isinstance(array, pa.StructArray) else [array]
            return _with_nulls(array, _enum_values(body, arrays, len(array)))
        case _:
            return list(array.to_pylist())


def _body(type_: Type) -> Any:
    target = resolve(type_)
    assert isinstance(target, Defined), "only definitions have a body"
    return target.definition().body


def _with_nulls(array: ArrowArray, values: list[Value]) -> list[Value]:
    if not array.null_count:
        return values
    return [v if valid else None for v, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def _lists(element: Type, array: ArrowArray) -> list[Value]:
    # Flattened, what lies under nulls is gone, and an offset of the array itself is accounted for.
    values = column_values(element, array.flatten())
    found: list[Value] = []
    start = 0
    for length in array.value_lengths().to_pylist():
        found.append(None if length is None else values[start : start + length])
        start += length or 0
    return found


def _fields_values(fields: Fields, array: ArrowArray) -> list[Value]:
    """A tuple is a list, other fields are a dict; a bool stands for no field."""
    named = fields_of(fields)
    arrays = array.flatten() if named else []
    values: list[Value] = _named_values(named, arrays, len(array))
    if isinstance(fields, Tuple):
        values = [list(value.values()) for value in values]
    return _with_nulls(array, values)


def _enum_values(body: Enum, arrays: Sequence[ArrowArray], count: int) -> list[dict[str, Value]]:
    full = [variant for variant in body.variants if fields_of(variant.fields)]
    insides = {v.name: _fields_values(v.fields, array) for v, array in zip(full, arrays[1:], strict=True)}
    names = arrays[0].to_pylist()
    return [
        {name: insides[name][row] if name in insides else {}} for row, name in zip(range(count), names, strict=True)
    ]


@lru_cache(maxsize=4096)
def _from_json(type_: Type) -> _FromJson:
    """Return the function that brings the edge format of `type_` back inside."""
    match type_:
        case Integer():
            return int
        case F32() | F64():
            return float
        case Pubkey():
            return lambda text: bytes(SoldersPubkey.from_string(text))
        case Bytes():
            return bytes.fromhex
        case Array(U8(), _):
            return bytes
        case Option(inner) | COption(inner):
            read = _from_json(inner)
            return lambda value: None if value is None else read(value)
        case Vec(element) | Array(element, _):
            read_element = _from_json(element)
            return lambda value: [read_element(item) for item in value]
        case Tuple():
            return _fields_from_json(type_)
        case Defined():
            return _defined_from_json(type_)
        case _:
            return lambda value: value


def _defined_from_json(type_: Defined) -> _FromJson:
    """Look into the definition at the first value only: a recursive type would have no end otherwise."""
    known: list[_FromJson] = []

    def read(value: JsonValue) -> Value:
        if not known:
            known.append(_definition_from_json(type_))
        return known[0](value)

    return read


def _definition_from_json(type_: Defined) -> _FromJson:
    target = resolve(type_)
    if not isinstance(target, Defined):
        return _from_json(target)
    body = target.definition().body
    if isinstance(body, Struct):
        return _fields_from_json(body.fields)
    assert isinstance(body, Enum), "resolve follows aliases"
    variants = {variant.name: _fields_from_json(variant.fields) for variant in body.variants}
    return lambda value: {name: variants[name](fields) for name, fields in value.items()}


def _fields_from_json(fields: Fields) -> _FromJson:
    reads = [(field.name, _from_json(field.type)) for field in fields_of(fields)]
    if isinstance(fields, Tuple):
        return lambda value: [read(item) for (_, read), item in zip(reads, value, strict=True)]
    return lambda value: {name: read(value[name]) for name, read in reads}
