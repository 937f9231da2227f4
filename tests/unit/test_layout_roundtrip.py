"""Random IDLs and random values of their types: what is encoded is decoded again, and nothing else ever is."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain.codec import DecodeError
from indexer.chain.program import Program
from indexer.chain.value import to_json_value
from tests.fixtures.random_idls import programs_with_values


@settings(max_examples=400, deadline=None)
@given(programs_with_values())
def test_what_is_encoded_is_decoded_again(case: tuple[Program, dict[str, Any]]) -> None:
    """Any type of any IDL, to the last byte; and its edge form is JSON."""
    program, values = case
    payload = program.encode_event("E", values)
    assert tuple(program.decode_event(payload)) == ("E", values, 0)
    assert tuple(program.decode_event(payload + b"xy")) == ("E", values, 2)
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
