"""The edge format, names in snake_case, base58 and program addresses."""

import json
import string
from pathlib import Path

import pyheck
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer.chain.base58 import decode_base58
from indexer.chain.idl import load_idl
from indexer.chain.pda import find_pda
from indexer.chain.program import Program
from indexer.chain.value import base58_pubkey, snake_case, to_json_value
from indexer.errors import DataError

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"


def edge(program: Program, name: str, values: dict[str, object]) -> dict[str, object]:
    type_ = program.events.get(name) or program.accounts[name]
    return {f.name: to_json_value(f.type, values[f.name]) for f in type_.fields}


def test_the_edge_format_of_everything() -> None:
    """Wide integers are texts, keys base58, bytes hex, variants objects, the rest what JSON has."""
    document = {
        "metadata": {"name": "edge"},
        "instructions": [],
        "events": [{"name": "E"}],
        "types": [
            {
                "name": "E",
                "type": {
                    "kind": "struct",
                    "fields": [
                        {"name": name, "type": type_}
                        for name, type_ in {
                            "u32": "u32", "i64": "i64", "u64": "u64", "u256": "u256", "f": "f64", "nan": "f32",
                            "inf": "f64", "b": "bool", "s": "string", "key": "pubkey", "raw": "bytes",
                            "fixed": {"array": ["u8", 2]}, "none": {"option": "u64"}, "some": {"coption": "u64"},
                            "vec": {"vec": "i128"}, "tuple": {"tuple": ["u64", "pubkey"]},
                            "unit": {"defined": "Kind"}, "named": {"defined": "Kind"}, "pair": {"defined": "Kind"},
                            "price": {"defined": "Price"}, "list": {"defined": "List"},
                        }.items()
                    ],
                },
            },
            {"name": "Price", "type": {"kind": "type", "alias": "u64"}},
            {"name": "List", "type": {"kind": "struct", "fields": [
                {"name": "Head", "type": "u64"}, {"name": "tail", "type": {"option": {"defined": "List"}}},
            ]}},
            {"name": "Kind", "type": {"kind": "enum", "variants": [
                {"name": "Unit"}, {"name": "named_one", "fields": [{"name": "amount", "type": "u64"}]},
                {"name": "Pair", "fields": ["u8", "u64"]},
            ]}},
        ],
    }  # fmt: skip
    program = Program.from_idl(load_idl(json.dumps(document), source="edge"), bytes(32))
    key = Pubkey.from_string("So11111111111111111111111111111111111111112")
    values = {
        "u32": 7, "i64": -5, "u64": 2**64 - 1, "u256": 2**255, "f": 0.25, "nan": float("nan"), "inf": float("-inf"),
        "b": True, "s": "é", "key": bytes(key), "raw": b"\xab\x01", "fixed": b"\x01\xff", "none": None, "some": 3,
        "vec": [-1, 2], "tuple": [4, bytes(key)], "unit": {"Unit": {}}, "named": {"named_one": {"amount": 6}},
        "pair": {"Pair": [1, 2]}, "price": 8, "list": {"Head": 1, "tail": {"Head": 2, "tail": None}},
    }  # fmt: skip
    _, decoded, _ = program.decode_event(program.encode_event("E", values))
    assert edge(program, "E", decoded) == {
        "u32": 7, "i64": "-5", "u64": str(2**64 - 1), "u256": str(2**255), "f": 0.25, "nan": "NaN",
        "inf": "-Infinity", "b": True, "s": "é", "key": str(key), "raw": "ab01", "fixed": [1, 255], "none": None,
        "some": "3", "vec": ["-1", "2"], "tuple": ["4", str(key)], "unit": {"Unit": {}},
        "named": {"named_one": {"amount": "6"}}, "pair": {"Pair": [1, "2"]}, "price": "8",
        "list": {"Head": "1", "tail": {"Head": "2", "tail": None}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("createVault", "create_vault"),
        ("initializeV2", "initialize_v2"),
        ("swapV2Exact", "swap_v2_exact"),
        ("getU64Value", "get_u64_value"),
        ("parseURLFast", "parse_url_fast"),
        ("createATA", "create_ata"),
        ("a1b2", "a1b2"),
        ("U8Array", "u8_array"),
        ("foo_bar", "foo_bar"),
        ("name-registry", "name_registry"),
        ("__x", "x"),
        ("", ""),
    ],
)
def test_snake_case(name: str, snake: str) -> None:
    """Digits belong to the word before them, an acronym is one word."""
    assert snake_case(name) == snake


@settings(max_examples=1000, deadline=None)
@given(st.text(alphabet="aBcDE12_" + string.ascii_letters + string.digits, max_size=14))
def test_snake_case_is_the_crates(name: str) -> None:
    """Checked against the Rust crate itself, through its Python binding."""
    assert snake_case(name) == pyheck.snake(name)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_base58_of_keys_both_ways(key: bytes) -> None:
    """Our reader of any length agrees with solders on the lengths that it knows, leading zeros included."""
    assert decode_base58(base58_pubkey(key)) == key
    assert decode_base58(base58_pubkey(bytes(3) + key[3:])) == bytes(3) + key[3:]


def test_base58_without_end_is_refused() -> None:
    """Reading takes the square of its length, and no instruction is that long."""
    with pytest.raises(DataError, match="base58 of 70000 letters is longer than any data"):
        decode_base58("z" * 70_000)


def test_base58_of_other_lengths() -> None:
    """Nothing, zeros, 64 bytes, thousands of digits, and what is not base58."""
    assert decode_base58("") == b""
    assert decode_base58("111") == bytes(3)
    assert decode_base58("2g") == b"a"
    keypair = Keypair.from_seed(bytes(32))
    assert decode_base58(str(keypair)) == bytes(keypair)
    # The largest number of 1,000 digits.
    assert int.from_bytes(decode_base58("z" * 1000), "big") == 58**1000 - 1
    for text in ("0", "O", "é", "a b", "l"):
        with pytest.raises(DataError, match="not base58"):
            decode_base58(text)


def test_program_addresses_are_the_runtimes() -> None:
    """The associated token account program's well-known derivation; seeds that the runtime refuses are refused."""
    program_id = bytes(Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"))
    address, bump = find_pda([b"a", bytes(32)], program_id)
    assert bytes(Pubkey.create_program_address([b"a", bytes(32), bytes([bump])], Pubkey(program_id))) == address
    with pytest.raises(DataError, match="33 bytes"):
        find_pda([bytes(33)], program_id)
    with pytest.raises(DataError, match="16 seeds"):
        find_pda([b""] * 16, program_id)
