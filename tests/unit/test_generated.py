"""Functions made for one struct: they read what the loop over its fields reads, and run nothing of what an IDL says."""

import gc
import json
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain.codec import DecodeError
from indexer.chain.generated import FIELDS_MAX, generate_reader
from indexer.chain.idl import load_idl
from indexer.chain.layout import Compiler
from indexer.chain.program import Program
from indexer.chain.types import Defined
from tests.fixtures.mutations import mutated_bytes
from tests.fixtures.random_idls import programs_with_values

NAMES = [
    "f(): raise SystemExit", "'", '"', "\\", "\n", "{}", "{0}", "%s", "class", "None", "result", "name", "data", "end",
    "v0", "k0", "r0", "c0", "__import__('os')", "#", "é", "\u2028",
]  # fmt: skip


def program_of(fields: dict[str, Any], name: str = "E") -> Program:
    """Return a program whose one event, behind the byte 7, has `fields`."""
    body = {"kind": "struct", "fields": [{"name": field, "type": type_} for field, type_ in fields.items()]}
    document = {
        "metadata": {"name": "generated"},
        "instructions": [],
        "events": [{"name": name, "discriminator": [7]}],
        "types": [{"name": name, "type": body}],
    }
    return Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))


@pytest.mark.parametrize("kind", ["u8", "bool", "string"])
def test_names_are_data(kind: str) -> None:
    """Of fields that one call reads, of converted ones, and of those read one by one."""
    program = program_of(dict.fromkeys(NAMES, kind))
    given = {"u8": 1, "bool": True, "string": "x"}[kind]
    values = dict.fromkeys(NAMES, given)
    payload = program.encode_event("E", values)
    for _ in range(2):
        assert list(program.decode_event(payload)) == ["E", values, 0]
    with pytest.raises(DecodeError) as raised:
        program.decode_event(payload[:-1])
    assert raised.value.path == f"E.{NAMES[-1]}"


def test_an_events_name_is_data() -> None:
    """It is in the result as it is in the IDL."""
    for name in NAMES:
        assert program_of({"a": "u8"}, name).decode_event(b"\7\1\2").name == name


def test_results_are_nothing_to_the_collector() -> None:
    """However many are kept, they cost it nothing; also those that were read in the slower way."""
    program = program_of({"a": "u64", "b": "pubkey", "c": "bool", "d": "string"})
    decoded = program.decode_event(program.encode_event("E", {"a": 1, "b": bytes(32), "c": True, "d": "x"}))
    assert not gc.is_tracked(decoded)
    many = program_of({f"f{number}": "u8" for number in range(FIELDS_MAX + 1)})
    assert not gc.is_tracked(many.decode_event(b"\7" + bytes(FIELDS_MAX + 1)))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 256, FIELDS_MAX, FIELDS_MAX + 1, 3 * FIELDS_MAX])
@pytest.mark.parametrize("kind", ["u8", "bytes"])
def test_any_number_of_fields(count: int, kind: str) -> None:
    """From none to more than a function is made for; one byte less is an error that names the last field."""
    program = program_of({f"f{number}": kind for number in range(count)})
    values: dict[str, Any] = {f"f{number}": number % 256 if kind == "u8" else b"" for number in range(count)}
    payload = program.encode_event("E", values)
    assert list(program.decode_event(payload + b"xy")) == ["E", values, 2]
    if count:
        with pytest.raises(DecodeError) as raised:
            program.decode_event(payload[:-1])
        assert (raised.value.kind, raised.value.path) == ("short_payload", f"E.f{count - 1}")


@settings(max_examples=300, deadline=None)
@given(programs_with_values(), st.randoms(use_true_random=False))
def test_it_takes_and_refuses_what_the_codec_does(case: tuple[Program, dict[str, Any]], rng: random.Random) -> None:
    """Of any struct, whole and spoilt: the same values and the same end, or an error from both."""
    program, values = case
    type_ = program.events["E"].type
    assert isinstance(type_, Defined)
    codec = Compiler().compile(type_)
    assert codec.runs is not None
    read = generate_reader(lambda *said: said, "E", 8, codec.runs)
    assert read is not None
    payload = program.encode_event("E", values)
    for data in (
        payload,
        payload + b"x",
        payload[:-1],
        *(payload[:8] + mutated_bytes(payload[8:], rng) for _ in range(5)),
    ):
        try:
            expected, end = codec.read(data, 8, 0)
        except DecodeError:
            with pytest.raises((DecodeError, struct.error)):
                read(data)
            continue
        assert repr(read(data)) == repr(("E", expected, len(data) - end))
