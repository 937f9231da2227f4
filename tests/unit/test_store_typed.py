"""From an IDL to names and column types."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.store.typed import (
    IDENTIFIER_BYTES_MAX,
    Column,
    cut_identifier,
    escape_text,
    plan_tables,
    unescape_text,
    unique_identifier,
)
from tests.fixtures.vault_rows import load_vault_program


def _program(fields: list[tuple[str, object]], types: list[object] | None = None) -> Program:
    idl = {
        "address": "EpheVau1t1111111111111111111111111111111111",
        "metadata": {"name": "odd", "version": "0.1.0", "spec": "0.1.0"},
        "instructions": [],
        "events": [{"name": "Thing", "discriminator": [1, 2, 3, 4, 5, 6, 7, 8]}],
        "types": [
            {
                "name": "Thing",
                "type": {"kind": "struct", "fields": [{"name": name, "type": type_} for name, type_ in fields]},
            },
            *(types or []),
        ],
    }
    return Program.from_idl(load_idl(json.dumps(idl), source="odd.json"))


def _columns(fields: list[tuple[str, object]], types: list[object] | None = None) -> dict[str, Column]:
    (table,) = plan_tables(_program(fields, types))
    return {column.field: column for column in table.columns}


def test_the_home_program_gets_a_table_an_event_and_an_account() -> None:
    """Names are the IDL's in snake_case, in a schema called as the program."""
    tables = plan_tables(load_vault_program())
    assert {table.schema_name for table in tables} == {"ephemeral_vault"}
    assert {table.table_name for table in tables} == {
        "event_vault_created",
        "event_delegate_approved",
        "event_auto_deposit",
        "event_trade_executed",
        "event_access_revoked",
        "event_vault_cleaned",
        "account_ephemeral_vault",
        "account_vault_delegation",
    }


@pytest.mark.parametrize(
    ("type_", "pg_type"),
    [
        ("u8", "smallint"),
        ("i16", "smallint"),
        ("u16", "integer"),
        ("i32", "integer"),
        ("u32", "bigint"),
        ("i64", "bigint"),
        ("u64", "numeric(20,0)"),
        ("u128", "text"),
        ("i128", "text"),
        ("i256", "text"),
        ("f32", "double precision"),
        ("f64", "double precision"),
        ("bool", "boolean"),
        ("string", "text"),
        ("pubkey", "bytea"),
        ("bytes", "bytea"),
        ({"array": ["u8", 32]}, "bytea"),
        ({"array": ["u16", 2]}, "jsonb"),
        ({"vec": "u8"}, "jsonb"),
        ({"option": "u64"}, "numeric(20,0)"),
        ({"option": {"option": "u64"}}, "jsonb"),
        ({"defined": {"name": "Side"}}, "jsonb"),
    ],
)
def test_each_type_gets_a_column_that_holds_all_its_values(type_: object, pg_type: str) -> None:
    """No u64 in a bigint, no u128 in a float, everything nested as jsonb."""
    side = {"name": "Side", "type": {"kind": "enum", "variants": [{"name": "Long"}, {"name": "Short"}]}}
    assert _columns([("x", type_)], [side])["x"].pg_type == pg_type


def test_fields_called_like_our_columns_get_an_underscore() -> None:
    """A program's own `slot` and `signature` do not hide the transaction's."""
    columns = _columns([("slot", "u64"), ("signature", "string"), ("blockTime", "i64"), ("amount", "u64")])
    assert [column.name for column in columns.values()] == ["slot_", "signature_", "block_time_", "amount"]


def test_long_names_are_cut_with_a_hash_and_stay_apart() -> None:
    """PostgreSQL would cut two long names to the same one without a word."""
    one, other = cut_identifier("a" * 80 + "b"), cut_identifier("a" * 80 + "c")
    assert one != other
    assert len(one.encode()) <= IDENTIFIER_BYTES_MAX
    taken: set[str] = set()
    assert unique_identifier("Amount", taken) == "Amount"
    assert unique_identifier("amount", taken) == "amount_"


@given(st.text(st.sampled_from(["\0", "\u241b", "0", "a", "\\", "é"]), max_size=12))
def test_escaped_text_has_no_nul_and_comes_back_exactly(text: str) -> None:
    """PostgreSQL refuses NUL; the escape loses nothing, whatever the text."""
    assert "\0" not in escape_text(text)
    assert unescape_text(escape_text(text)) == text


def test_nul_inside_nested_values_is_escaped_too() -> None:
    """jsonb refuses the escape \\u0000 as text refuses the character."""
    adapt = _columns([("x", {"vec": "string"})])["x"].adapt
    assert adapt is not None
    assert json.loads(adapt(["a\0b", "plain \\u0000"])) == ["a\u241b0b", "plain \\u0000"]
