"""
The one format in which decoded values leave the house: JSON, dashboards, jsonb columns.

| type                     | inside (Python)              | at the edge (JSON)                        |
|--------------------------|------------------------------|-------------------------------------------|
| integers to 32 bits      | int                          | number                                    |
| u64, i64 and wider       | int                          | decimal string                            |
| f32, f64                 | float                        | number, or "NaN", "Infinity", "-Infinity" |
| bool, string             | bool, str                    | the same                                  |
| pubkey                   | bytes, 32                    | base58 string                             |
| bytes                    | bytes                        | lower-case hex string                     |
| [u8; N]                  | bytes                        | list of numbers, as every array           |
| vec, array, tuple        | list                         | list                                      |
| option, coption          | None or the value            | null or the value                         |
| struct                   | dict; a tuple struct a list  | object; list                              |
| enum                     | {"Variant": fields}          | {"Variant": fields}, unit {"Variant": {}} |

Field and variant names are those of the IDL. Decoding itself is in `layout.py`.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from solders.pubkey import Pubkey as SoldersPubkey

from indexer.chain.types import (
    F32,
    F64,
    Array,
    Bytes,
    COption,
    Defined,
    Enum,
    Fields,
    Integer,
    Option,
    Pubkey,
    Struct,
    Tuple,
    Type,
    Vec,
    resolve,
)

# A decoded value: which of the table's shapes it has is known by the type beside it.
Value: TypeAlias = Any
JsonValue: TypeAlias = Any
JsonEncoder: TypeAlias = Callable[[Value], JsonValue]


def to_json_value(type_: Type, value: Value) -> JsonValue:
    """
    Return `value`, as decoded, in the edge format of this module's table.

    Args:
        type_: the type that `value` was decoded with.
    """
    return json_encoder(type_)(value)


@lru_cache(maxsize=4096)
def json_encoder(type_: Type) -> JsonEncoder:
    """Return the function that brings values of `type_` into the edge format; for many values of one type."""
    match type_:
        case Integer():
            return str if type_.bits >= 64 else _same
        case F32() | F64():
            return _json_float
        case Pubkey():
            return base58_pubkey
        case Bytes():
            return bytes.hex
        case Option(inner) | COption(inner):
            return _json_option(json_encoder(inner))
        case Vec(element) | Array(element, _):
            return _json_list(json_encoder(element))
        case Tuple(elements):
            return _json_tuple(elements)
        case Defined():
            return _json_defined(type_)
        case _:
            return _same


@lru_cache(maxsize=65_536)
def base58_pubkey(key: bytes) -> str:
    """Return the base58 text of 32 bytes; each distinct key is encoded once while it is in use."""
    return str(SoldersPubkey.from_bytes(key))


def snake_case(name: str) -> str:
    """
    Return `name` in snake_case, as Anchor's own tools write it.

    A word ends before an upper-case letter that follows a lower-case one (digits between them belong to the word),
    and before the last of several upper-case letters where a lower-case one follows: `getU64Value` is
    `get_u64_value`, `parseURLFast` is `parse_url_fast`, `swapV2` is `swap_v2`, `a1b2` is `a1b2`.

    Source: the Rust crate heck, which Anchor names instructions with.
    """
    words: list[str] = []
    word = ""
    mode_is_lower = mode_is_upper = False
    for index, letter in enumerate(name):
        if not letter.isalnum():
            words.append(word)
            word, mode_is_lower, mode_is_upper = "", False, False
            continue
        following = name[index + 1 : index + 2]
        if mode_is_upper and letter.isupper() and following.islower():
            words.append(word)
            word = ""
        word += letter
        if letter.islower() or letter.isupper():
            mode_is_lower, mode_is_upper = letter.islower(), letter.isupper()
        if mode_is_lower and following.isupper():
            words.append(word)
            word, mode_is_lower, mode_is_upper = "", False, False
    words.append(word)
    return "_".join(word.lower() for word in words if word)


def _same(value: Value) -> JsonValue:
    return value


def _json_float(value: float) -> JsonValue:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _json_option(inner: JsonEncoder) -> JsonEncoder:
    return lambda value: None if value is None else inner(value)


def _json_list(element: JsonEncoder) -> JsonEncoder:
    # Iterating the bytes of a [u8; N] gives its numbers.
    return lambda value: [element(item) for item in value]


def _json_tuple(elements: tuple[Type, ...]) -> JsonEncoder:
    encoders = [json_encoder(element) for element in elements]
    return lambda value: [encode(item) for encode, item in zip(encoders, value, strict=True)]


def _json_defined(type_: Defined) -> JsonEncoder:
    """Look into the definition at the first value only: a recursive type would have no end otherwise."""
    known: list[JsonEncoder] = []

    def encode(value: Value) -> JsonValue:
        if not known:
            known.append(_json_definition(type_))
        return known[0](value)

    return encode


def _json_definition(type_: Defined) -> JsonEncoder:
    target = resolve(type_)
    if not isinstance(target, Defined):
        return json_encoder(target)
    body = target.definition().body
    if isinstance(body, Struct):
        return _json_fields(body.fields)
    assert isinstance(body, Enum), "resolve follows aliases"
    variants = {variant.name: _json_fields(variant.fields) for variant in body.variants}
    return lambda value: {name: variants[name](fields) for name, fields in value.items()}


def _json_fields(fields: Fields) -> JsonEncoder:
    if isinstance(fields, Tuple):
        return _json_tuple(fields.elements)
    encoders = {field.name: json_encoder(field.type) for field in fields}
    return lambda value: {name: encode(value[name]) for name, encode in encoders.items()}
