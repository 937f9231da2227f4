"""Random IDLs and random values of their types: what is encoded is decoded again, and nothing else ever is."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain.codec import DecodeError
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.chain.value import to_json_value

Case = tuple[list[dict[str, Any]], Any, st.SearchStrategy[Any]]
"""Definitions, the spelling of a type, and the strategy of its values."""

INTEGERS = [f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64, 128, 256)]


def integer(name: str) -> st.SearchStrategy[int]:
    bits = int(name[1:])
    low, high = (0, (1 << bits) - 1) if name[0] == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return st.integers(low, high) | st.sampled_from([low, high])


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    **{name: integer(name) for name in INTEGERS},
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=20),
    "string": st.text(max_size=10),
    "pubkey": st.binary(min_size=32, max_size=32),
}
FIXED = [name for name in SCALARS if name not in ("bytes", "string")]


class Writer:
    """Draws types, and keeps the definitions they need."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.definitions: list[dict[str, Any]] = []

    def type(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        kinds = ["scalar"] if depth == 0 else [
            "scalar", "scalar", "option", "coption", "vec", "array", "bytes", "tuple", "struct", "tuple_struct",
            "enum", "alias", "generic",
        ]  # fmt: skip
        return getattr(self, "_" + self.draw(st.sampled_from(kinds)))(depth - 1)  # type: ignore[no-any-return] # one of the methods below

    def _scalar(self, _depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        name = self.draw(st.sampled_from(list(SCALARS)))
        return name, SCALARS[name]

    def _option(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        # Of an option in an option, Some(None) and None are the same value in Python.
        inner, values = self.type(depth)
        while "option" in inner or "coption" in inner:
            inner, values = self.type(0)
        return {"option": inner}, st.none() | values.filter(lambda value: value is not None)

    def _coption(self, _depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        name = self.draw(st.sampled_from(FIXED))
        return {"coption": name}, st.none() | SCALARS[name]

    def _vec(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        inner, values = self.type(depth)
        return {"vec": inner}, st.lists(values, max_size=4)

    def _array(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        inner, values = self.type(depth)
        if inner == "u8":
            return self._bytes(depth)
        length = self.draw(st.integers(0, 4))
        return {"array": [inner, length]}, st.lists(values, min_size=length, max_size=length)

    def _bytes(self, _depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        length = self.draw(st.integers(0, 40))
        return {"array": ["u8", length]}, st.binary(min_size=length, max_size=length)

    def _tuple(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        parts = [self.type(depth) for _ in range(self.draw(st.integers(1, 3)))]
        return {"tuple": [p[0] for p in parts]}, st.tuples(*(p[1] for p in parts)).map(list)

    def _struct(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        fields, values = self.fields(depth, 0)
        return self.define({"kind": "struct", "fields": fields}), values

    def _tuple_struct(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        spelling, values = self._tuple(depth)
        return self.define({"kind": "struct", "fields": spelling["tuple"]}), values

    def _enum(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        variants: list[dict[str, Any]] = []
        values: list[st.SearchStrategy[Any]] = []
        for index in range(self.draw(st.integers(1, 3))):
            name = f"V{index}"
            kind = self.draw(st.sampled_from(["unit", "named", "tuple"]))
            fields: list[Any] | None = None
            inner: st.SearchStrategy[Any] = st.just({})
            if kind == "named":
                fields, inner = self.fields(depth, 1)
            elif kind == "tuple":
                spelling, inner = self._tuple(depth)
                fields = spelling["tuple"]
            variants.append({"name": name} if fields is None else {"name": name, "fields": fields})
            values.append(st.fixed_dictionaries({name: inner}))
        return self.define({"kind": "enum", "variants": variants}), st.one_of(values)

    def _alias(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        inner, values = self.type(depth)
        while "option" in inner:
            inner, values = self.type(0)
        return self.define({"kind": "type", "alias": inner}), values

    def _generic(self, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
        inner, values = self.type(depth)
        while inner == "u8":
            inner, values = self.type(0)
        length = self.draw(st.integers(0, 3))
        fields = [
            {"name": "one", "type": {"generic": "T"}},
            {"name": "many", "type": {"array": [{"generic": "T"}, {"generic": "N"}]}},
        ]
        reference = self.define(
            {"kind": "struct", "fields": fields},
            generics=[{"kind": "type", "name": "T"}, {"kind": "const", "name": "N", "type": "usize"}],
        )
        reference["defined"]["generics"] = [{"kind": "type", "type": inner}, {"kind": "const", "value": str(length)}]
        many = st.lists(values, min_size=length, max_size=length)
        return reference, st.fixed_dictionaries({"one": values, "many": many})

    def fields(self, depth: int, least: int) -> tuple[list[dict[str, Any]], st.SearchStrategy[Any]]:
        parts = [self.type(depth) for _ in range(self.draw(st.integers(least, 4)))]
        spelt = [{"name": f"f{index}", "type": part[0]} for index, part in enumerate(parts)]
        return spelt, st.fixed_dictionaries({f"f{index}": part[1] for index, part in enumerate(parts)})

    def define(self, body: dict[str, Any], **more: object) -> dict[str, Any]:
        name = f"T{len(self.definitions)}"
        self.definitions.append({"name": name, "type": body, **more})
        return {"defined": {"name": name}}


@st.composite
def programs_with_values(draw: Any) -> tuple[Program, dict[str, Any]]:
    """Draw a program with one event "E", and values for it."""
    writer = Writer(draw)
    fields, values = writer.fields(3, 1)
    document = {
        "metadata": {"name": "random"},
        "instructions": [{"name": "go", "accounts": [], "args": fields}],
        "events": [{"name": "E", "discriminator": [1, 2, 3, 4, 5, 6, 7, 8]}],
        "types": [*writer.definitions, {"name": "E", "type": {"kind": "struct", "fields": fields}}],
    }
    return Program.from_idl(load_idl(json.dumps(document), source="random"), bytes(32)), draw(values)


@settings(max_examples=400, deadline=None)
@given(programs_with_values())
def test_what_is_encoded_is_decoded_again(case: tuple[Program, dict[str, Any]]) -> None:
    """Any type of any IDL, to the last byte; and its edge form is JSON."""
    program, values = case
    payload = program.encode_event("E", values)
    assert program.decode_event(payload) == ("E", values, 0)
    assert program.decode_event(payload + b"xy") == ("E", values, 2)
    edge = {f.name: to_json_value(f.type, values[f.name]) for f in program.events["E"].fields}
    json.dumps(edge)
    data = program.encode_instruction("go", values)
    assert data[8:] == payload[8:]
    assert program.decode_instruction(data).values == values


@settings(max_examples=400, deadline=None)
@given(programs_with_values(), st.data())
def test_cut_and_changed_payloads_decode_or_fail_with_our_error(
    case: tuple[Program, dict[str, Any]], data: st.DataObject
) -> None:
    """Strict: what does decode is the only thing that those bytes can mean, so it encodes to them again."""
    program, values = case
    payload = bytearray(program.encode_event("E", values))
    if len(payload) > 8:
        position = data.draw(st.integers(8, len(payload) - 1))
        payload[position] = data.draw(st.integers(0, 255))
        payload = payload[: data.draw(st.integers(8, len(payload)))]
    try:
        _, decoded, trailing = program.decode_event(bytes(payload))
    except DecodeError as error:
        assert error.kind in ("short_payload", "invalid_value")  # noqa: PT017 - both outcomes are right
        return
    read = bytes(payload[: len(payload) - trailing])
    again = program.encode_event("E", decoded)
    # A NaN has many forms, and the room of an absent coption may hold anything.
    loose = any(f'"{name}"' in program.idl.text for name in ("f32", "f64", "coption"))
    assert again == read or (loose and len(again) == len(read))
