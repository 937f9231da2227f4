"""
Agreement with Anchor's own coders on the IDLs of large programs: the same bytes have the same meaning, both ways.

Random values of every event, account and instruction are written by us and read by them, and what they read they write
again: reading differs if their values are not ours, writing if their bytes are not. 0.29.0 reads the legacy format and
0.32.1 the other; neither reads both. Where they are known to be wrong, KNOWN says how, and no other difference, nor the
absence of a known one, passes. `BorshCoder` is asked with the IDL as it is: what `Program` does before, renaming
everything to camelCase, has no meaning in bytes.
"""

import json
import random
from typing import Any, NamedTuple

import pytest

from indexer.chain.program import Program
from indexer.chain.types import Array, COption, Defined, Enum, Field, Fields, Option, Struct, Tuple, Type, Vec, resolve
from indexer.chain.value import JsonValue, to_json_value
from tests.fixtures.idl_values import PUBLIC_NAMES, public_program, random_fields, random_value
from tests.fixtures.node import RunClient

SEED = 20_260_101
VALUES_PER_TYPE = 3
# Where they differ, by IDL and "part.name", and how. Both accounts have two fields of one name, as camelCase drops the
# underscore of `_padding`; theirs keep the second value only, and write it, if they can, in both places.
KNOWN = {
    "drift": {"accounts.LPPool": "they refuse it: src.toArrayLike is not a function"},
    "kvault": {"accounts.Reserve": "they read : without reserveLiquidityPadding2"},
}
# The IDLs that they do not read at all, and what they say.
REFUSED = {
    # 0.32.1 hands the arguments of the outer type to the inner one without looking which of them it has.
    "anchor_generics": "Invalid generic field: gen2",
}


class Vector(NamedTuple):
    """Bytes that we wrote, and the values that they are of."""

    part: str
    name: str
    fields: tuple[Field, ...]
    type: Defined | None
    values: Any
    data: bytes

    @property
    def place(self) -> str:
        return f"{self.part}.{self.name}"


def vectors_of(program: Program, rng: random.Random) -> list[Vector]:
    """Return every event, account and instruction of the IDL, each a few times."""
    idl, made = program.idl, []
    for part, items, encode, decode in (
        ("events", idl.events, program.encode_event, program.decode_event),
        ("accounts", idl.accounts, program.encode_account, program.decode_account),
        ("instructions", idl.instructions, program.encode_instruction, program.decode_instruction),
    ):
        for item in items:
            # An account that is an enum has no fields, and is its type.
            shape = enum_of(getattr(item, "type", None))
            for _ in range(VALUES_PER_TYPE):
                values = random_value(shape, rng) if shape else random_fields(item.fields, rng)
                data = encode(item.name, values)
                assert tuple(decode(data))[:3] == (item.name, values, 0)
                made.append(Vector(part, item.name, item.fields, shape, values, data))
    return made


def enum_of(type_: Defined | None) -> Defined | None:
    """Return the type where it is an enum."""
    target = None if type_ is None else resolve(type_)
    return target if isinstance(target, Defined) and isinstance(target.definition().body, Enum) else None


class Words:
    """Our values as theirs: names as they spell them, a tuple as an object with numbers for names."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def of_vector(self, vector: Vector) -> JsonValue:
        return self.of(vector.type, vector.values) if vector.type else self.of_fields(vector.fields, vector.values)

    def of(self, type_: Type, value: Any) -> JsonValue:
        match type_:
            case Option(inner) | COption(inner):
                return None if value is None else self.of(inner, value)
            case Vec(element) | Array(element, _):
                return [self.of(element, item) for item in value]
            case Defined():
                return self._of_defined(type_, value)
            case _:
                return to_json_value(type_, value)

    def of_fields(self, fields: Fields, values: Any) -> JsonValue:
        if isinstance(fields, Tuple):
            return {str(i): self.of(t, v) for i, (t, v) in enumerate(zip(fields.elements, values, strict=True))}
        return {self._names.get(f.name, f.name): self.of(f.type, values[f.name]) for f in fields}

    def _of_defined(self, type_: Defined, value: Any) -> JsonValue:
        target = resolve(type_)
        if not isinstance(target, Defined):
            return self.of(target, value)
        body = target.definition().body
        if isinstance(body, Struct):
            return self.of_fields(body.fields, value)
        assert isinstance(body, Enum), "resolve follows aliases"
        ((name, inside),) = value.items()
        fields = next(variant.fields for variant in body.variants if variant.name == name)
        return {self._names.get(name, name): self.of_fields(fields, inside)}


def names_in(value: Any) -> set[str]:
    """Return all names of fields and variants in decoded values."""
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_their_coder_and_ours(run_client: RunClient, name: str) -> None:
    """What we wrote they read as the same values and write as the same bytes, and those we read as the same values."""
    program = public_program(name)
    vectors = vectors_of(program, random.Random(f"{SEED} {name}"))
    legacy = program.idl.legacy
    given = {
        "package": "anchor-029" if legacy else "@coral-xyz/anchor",
        "idl": json.loads(program.idl.text),
        "names": sorted(set().union(*(names_in(vector.values) for vector in vectors))),
        "vectors": [{"part": v.part, "name": v.name, "data": v.data.hex()} for v in vectors],
    }
    seen = run_client("coder.mjs", json.dumps(given))
    if "refused" in seen:
        assert REFUSED.get(name) == seen["refused"]
        return
    assert name not in REFUSED
    words = Words(seen["names"] if legacy else {})
    differences: dict[str, str] = {}
    for vector, theirs in zip(vectors, seen["results"], strict=True):
        difference = difference_of(words.of_vector(vector), vector, theirs)
        if difference is not None:
            differences.setdefault(vector.place, difference)
    assert differences == KNOWN.get(name, {})


def difference_of(ours: JsonValue, vector: Vector, theirs: dict[str, Any]) -> str | None:
    if "error" in theirs:
        return f"they refuse it: {theirs['error']}"
    if theirs["found"] != vector.name:
        return f"they take it for {theirs['found']}"
    if theirs["value"] != ours:
        return f"they read {first_difference(ours, theirs['value'])}"
    return None if theirs["data"] == vector.data.hex() else "they write other bytes"


def first_difference(ours: JsonValue, theirs: JsonValue, path: str = "") -> str:
    """Say where two values differ; a whole account would be no help."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(f"{path}.{key}", ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(f"{path}[{i}]", one, other) for i, (one, other) in enumerate(zip(ours, theirs, strict=True))]
    elif isinstance(ours, dict) and isinstance(theirs, dict):
        return f"{path}: without {', '.join(ours.keys() - theirs.keys())}"
    else:
        return f"{path}: {str(theirs)[:80]}, not {str(ours)[:80]}"
    return next(first_difference(one, other, at) for at, one, other in pairs if one != other)
