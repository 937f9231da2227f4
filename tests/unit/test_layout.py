"""Bytes to values and back: exactly the IDL's layout, strictly, and never more memory than the payload pays for."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from indexer.chain.codec import DecodeError, EncodeError
from indexer.chain.idl import load_idl
from indexer.chain.program import Program

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"


def program_of(*fields: object, types: list[dict[str, Any]] | None = None, **more: object) -> Program:
    """Return a program whose one event and account `E`, behind the byte 7, has the fields "f0", "f1", ..."""
    named = [{"name": f"f{index}", "type": field} for index, field in enumerate(fields)]
    document = {
        "metadata": {"name": "layouts"},
        "instructions": [],
        "events": [{"name": "E", "discriminator": [7]}],
        "accounts": [{"name": "E", "discriminator": [7]}],
        "types": [{"name": "E", "type": {"kind": "struct", "fields": named}, **more}, *(types or [])],
    }
    return Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))


def registry() -> Program:
    return Program.from_idl(load_idl((IDLS / "registry.json").read_bytes(), source="registry"))


def market() -> Program:
    return Program.from_idl(load_idl((IDLS / "market_legacy.json").read_bytes(), source="market"))


def error_of(program: Program, payload: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as error:
        program.decode_event(b"\7" + payload)
    return error.value


KEY = bytes(range(32))
SHAPES: list[tuple[object, object, bytes]] = [
    ("u8", 255, b"\xff"),
    ("i8", -1, b"\xff"),
    ("u64", (1 << 64) - 1, b"\xff" * 8),
    ("i64", -2, b"\xfe" + b"\xff" * 7),
    ("u128", 1 << 127, bytes(15) + b"\x80"),
    ("i128", -(1 << 127), bytes(15) + b"\x80"),
    ("u256", 1 << 200, bytes(25) + b"\1" + bytes(6)),
    ("i256", -1, b"\xff" * 32),
    ("f32", 0.5, struct.pack("<f", 0.5)),
    ("f64", -0.1, struct.pack("<d", -0.1)),
    ("bool", True, b"\1"),
    ("bytes", b"ab", b"\2\0\0\0ab"),
    ("string", "é", b"\2\0\0\0\xc3\xa9"),
    ("pubkey", KEY, KEY),
    ("publicKey", KEY, KEY),
    ({"option": "u16"}, None, b"\0"),
    ({"option": "u16"}, 258, b"\1\2\1"),
    ({"coption": "u16"}, None, bytes(6)),
    ({"coption": "u16"}, 258, b"\1\0\0\0\2\1"),
    ({"vec": "u16"}, [1, 2], b"\2\0\0\0\1\0\2\0"),
    ({"vec": "bool"}, [True, False], b"\2\0\0\0\1\0"),
    ({"vec": "u8"}, [1, 2], b"\2\0\0\0\1\2"),
    ({"array": ["u8", 3]}, b"abc", b"abc"),
    ({"array": ["i16", 2]}, [-1, 1], b"\xff\xff\1\0"),
    ({"array": ["string", 1]}, ["x"], b"\1\0\0\0x"),
    ({"array": ["string", 0]}, [], b""),
    ({"tuple": ["u8", "bool"]}, [3, False], b"\3\0"),
    ({"option": {"option": "u8"}}, None, b"\0"),
]


@pytest.mark.parametrize(("spelling", "value", "encoded"), SHAPES, ids=[json.dumps(s[0]) for s in SHAPES])
def test_every_type_has_exactly_its_bytes(spelling: object, value: object, encoded: bytes) -> None:
    """Between two neighbours, so that a type that reads too much or too little shows."""
    program = program_of("u8", spelling, "u8")
    values = {"f0": 1, "f1": value, "f2": 2}
    payload = b"\7\1" + encoded + b"\2"
    assert program.encode_event("E", values) == payload
    assert tuple(program.decode_event(payload)) == ("E", values, 0)


def test_every_kind_of_definition() -> None:
    """Named, tuple and unit structs; an alias; a generic; unit, named and tuple variants."""
    values = {
        "price": 5,
        "at": [-1],
        "pair": {"first": True, "rest": [False, True, False]},
        "limit": None,
        "both": [9, "x"],
        "none": {},
    }
    payload = registry().encode_event("Registered", values)
    assert payload == (
        b"\xaa\xbb" + (5).to_bytes(8, "little") + b"\xff" * 8 + b"\1\0\1\0" + bytes(12) + b"\x09\1\0\0\0x"
    )
    assert tuple(registry().decode_event(payload)) == ("Registered", values, 0)
    book = {
        "authority": KEY,
        "orders": [
            {"price": 1, "kind": {"Market": {}}, "expiry": None},
            {"price": 2, "kind": {"Limit": {"price": 3, "postOnly": True}}, "expiry": -4},
            {"price": 5, "kind": {"Pegged": [-6, 7]}, "expiry": 8},
        ],
        "feedId": b"feed",
        "label": "ß",
        "isOpen": False,
    }
    assert market().decode_account(market().encode_account("OrderBook", book)).values == book


def test_bytemuck_lies_as_c_puts_it() -> None:
    """u8, u64, u128, u16: the padding goes before each field and to the end; 128 bits align to 8 on chain."""
    data = b"\1\2\3" + b"\5" + bytes(7) + struct.pack("<Q", 6) + bytes([7]) + bytes(15) + b"\x08\0" + bytes(6)
    values = {"flag": 5, "amount": 6, "wide": 7, "small": 8}
    assert tuple(registry().decode_account(data)) == ("Zone", values, 0)
    assert registry().encode_account("Zone", values) == data
    with pytest.raises(DecodeError, match="needed"):
        registry().decode_account(data[:-1])


def test_packed_bytemuck_has_no_gaps_and_align_makes_some() -> None:
    """`packed` removes all padding; an `align` pads the end."""
    packed = program_of("u8", "u64", serialization="bytemuckunsafe", repr={"kind": "rust", "packed": True})
    assert tuple(packed.decode_event(b"\7\1" + struct.pack("<Q", 2))) == ("E", {"f0": 1, "f1": 2}, 0)
    aligned = program_of("u8", serialization="bytemuck", repr={"kind": "c", "align": 4})
    assert tuple(aligned.decode_event(b"\7\1\0\0\0\xff")) == ("E", {"f0": 1}, 1)


def test_bytemuck_inside_borsh_and_arrays_inside_bytemuck() -> None:
    """A C struct keeps its own padding wherever it lies, and elements of arrays are padded each."""
    inner: dict[str, Any] = {"name": "P", "serialization": "bytemuck", "repr": {"kind": "c"}}
    inner["type"] = {"kind": "struct", "fields": [{"name": "a", "type": "u16"}, {"name": "b", "type": "u8"}]}
    program = program_of("u8", {"array": [{"defined": {"name": "P"}}, 2]}, {"defined": {"name": "P"}}, types=[inner])
    values = {"f0": 1, "f1": [{"a": 2, "b": 3}, {"a": 4, "b": 5}], "f2": {"a": 6, "b": 7}}
    payload = b"\7\1" + b"\2\0\3\0" + b"\4\0\5\0" + b"\6\0\7\0"
    assert tuple(program.decode_event(payload)) == ("E", values, 0)
    assert program.encode_event("E", values) == payload


@pytest.mark.parametrize("length", range(len(SHAPES)))
def test_a_body_one_byte_short_is_an_error_never_a_truncated_event(length: int) -> None:
    """Whatever the last type is, its last byte must be there."""
    spelling, value, encoded = SHAPES[length]
    if not encoded:
        return
    program = program_of("u16", spelling)
    payload = program.encode_event("E", {"f0": 1, "f1": value})
    for cut in range(1, len(payload)):
        with pytest.raises(DecodeError) as error:
            program.decode_event(payload[:cut])
        assert error.value.kind == "short_payload"


def test_trailing_bytes_are_counted() -> None:
    """A delegation is allocated at its largest size, so accounts are longer than their values; the caller is told."""
    program = program_of({"option": "i64"}, "u8")
    assert tuple(program.decode_account(b"\7\0\5" + bytes(8))) == ("E", {"f0": None, "f1": 5}, 8)
    assert program.decode_event(b"\7\0\5\1").trailing == 1


def test_an_invalid_value_names_its_field() -> None:
    """Bool of 2, option tag of 2, coption tag, variant, UTF-8: the path leads to it."""
    side = {"name": "S", "type": {"kind": "enum", "variants": [{"name": "Bid"}, {"name": "Ask", "fields": ["bool"]}]}}
    program = program_of("u8", "bool", "u8")
    assert (error_of(program, b"\1\2\3").kind, str(error_of(program, b"\1\2\3"))) == (
        "invalid_value",
        "E.f1: a bool is 0 or 1, not 2",
    )
    assert str(error_of(program_of({"option": "u8"}), b"\2\1")) == "E.f0: an option starts with 0 or 1, not 2"
    assert "coption starts with" in str(error_of(program_of({"coption": "u8"}), b"\1\1\0\0\0"))
    assert (
        str(error_of(program_of("u8", "string"), b"\1\2\0\0\0\xff\xff")) == "E.f1: a string is not UTF-8 at its byte 0"
    )
    enum = program_of({"vec": {"defined": "S"}}, types=[side])
    assert str(error_of(enum, b"\2\0\0\0\0\2")) == "E.f0[1]: variant 2 of an enum that has 2"
    assert str(error_of(enum, b"\2\0\0\0\0\1\7")) == "E.f0[1].Ask.0: a bool is 0 or 1, not 7"
    short = error_of(program_of("u8", "u64"), b"\1\2\3")
    assert (short.kind, str(short)) == ("short_payload", "E.f1: 8 bytes needed at offset 2, 2 left")


def test_unknown_discriminators_and_payloads_too_short_for_one() -> None:
    """The bytes are shown, so that whoever reads the report can look them up."""
    with pytest.raises(DecodeError, match="no event with the discriminator 0102") as error:
        registry().decode_event(b"\1\2\3\4")
    assert error.value.kind == "unknown_discriminator"
    with pytest.raises(DecodeError) as error:
        registry().decode_event(b"\xaa")
    assert error.value.kind == "short_payload"
    with pytest.raises(DecodeError) as error:
        registry().decode_event(b"")
    assert error.value.kind == "short_payload"


@pytest.mark.parametrize(
    "element",
    ["u8", "u64", "bool", "u128", "string", "pubkey", {"vec": "u8"}, {"option": "u8"}, {"defined": "N"}],
    ids=json.dumps,
)
def test_a_vec_that_claims_all_elements_there_are_costs_nothing(element: object) -> None:
    """2^32 - 1 elements in 40 bytes: refused before the first is read, elements without bytes included."""
    program = program_of({"vec": element}, types=[{"name": "N", "type": {"kind": "struct"}}])
    tracemalloc.start()
    try:
        error = error_of(program, b"\xff\xff\xff\xff" + bytes(36))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert error.kind == ("invalid_value" if element == {"defined": "N"} else "short_payload")


def test_a_few_elements_without_bytes_are_believed() -> None:
    """A vec of unit structs is odd, not wrong."""
    program = program_of({"vec": {"defined": "N"}}, types=[{"name": "N", "type": {"kind": "struct"}}])
    assert program.decode_event(b"\7\2\0\0\0").values == {"f0": [{}, {}]}


def test_recursive_values_end() -> None:
    """A list of nodes is read to its end; one that is deeper than we follow is an error, not a dead process."""
    values: dict[str, Any] = {"value": 0, "next": None}
    for value in range(1, 20):
        values = {"value": value, "next": values}
    data = registry().encode_account("Node", values)
    assert tuple(registry().decode_account(data)) == ("Node", values, 0)
    with pytest.raises(DecodeError) as error:
        registry().decode_account(bytes(range(4, 13)) + b"\1\1" * 100_000)
    assert error.value.kind == "too_deep"
    for value in range(100):
        values = {"value": value, "next": values}
    with pytest.raises(EncodeError, match="nested deeper"):
        registry().encode_account("Node", values)


def test_a_struct_that_is_nothing_but_itself_is_an_error() -> None:
    """No payload can be one."""
    program = program_of({"defined": "E"})
    assert error_of(program, bytes(100)).kind == "too_deep"


def test_instructions_come_with_named_accounts() -> None:
    """Missing ones are None, the program's own id stands for an optional one left out, the rest is kept."""
    program = market()
    args = {"side": {"Ask": {}}, "limitPrice": 7, "clientId": None}
    data = program.encode_instruction("placeOrderV2", args)
    keys = [bytes([n]) * 32 for n in range(3)]
    decoded = program.decode_instruction(data, [*keys, program.program_id, b"\x99" * 32])
    assert (decoded.name, decoded.values, decoded.trailing) == ("placeOrderV2", args, 0)
    assert decoded.accounts == {
        "owner": keys[0],
        "book.bids": keys[1],
        "book.vaults.base": keys[2],
        "referrer": None,
    }
    assert decoded.remaining == (b"\x99" * 32,)
    assert program.decode_instruction(data, keys[:1]).accounts["book.bids"] is None


WRONG: list[tuple[object, object]] = [
    ("u8", 256),
    ("u8", -1),
    ("u8", True),
    ("i8", 128),
    ("u256", 1 << 256),
    ("u256", 1 << 30_000),
    ("bool", 1),
    ("string", b"x"),
    ("string", "\ud800"),
    ("bytes", "x"),
    ("pubkey", bytes(31)),
    ("f32", 1e300),
    ("f64", "1"),
    ({"array": ["u8", 2]}, b"abc"),
    ({"array": ["u16", 2]}, [1]),
    ({"vec": "u16"}, 5),
    ({"tuple": ["u8"]}, {"0": 1}),
    ({"coption": "u8"}, 256),
    ("bool", [1 << 30_000]),
]


@pytest.mark.parametrize(
    ("spelling", "value"), WRONG, ids=[f"{index}-{json.dumps(s[0])}" for index, s in enumerate(WRONG)]
)
def test_what_a_type_cannot_hold_is_not_encoded(spelling: object, value: object) -> None:
    """The message names the field."""
    with pytest.raises(EncodeError, match=r"^E\.f0"):
        program_of(spelling).encode_event("E", {"f0": value})


def test_missing_and_unknown_fields_are_not_encoded() -> None:
    """A misspelt field is said, in both directions."""
    with pytest.raises(EncodeError, match=r"missing fields \['f0'\], unknown fields \['fo'\]"):
        program_of("u8").encode_event("E", {"fo": 1})
    with pytest.raises(EncodeError, match="variants"):
        market().encode_instruction("placeOrderV2", {"side": {"Up": {}}, "limitPrice": 1, "clientId": None})
