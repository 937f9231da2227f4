"""The home program's IDL and its hand-written client: two descriptions of the same bytes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain import types as t
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from localnet.clients.ephemeral_vault import EVENTS, parse_account, parse_event

IDL = Path(__file__).parents[2] / "indexer" / "idls" / "ephemeral_vault.json"
PROGRAM = Program.from_idl(load_idl(IDL.read_bytes(), source=IDL.name))


def values_of(type_: t.Type) -> st.SearchStrategy[Any]:
    match type_:
        case t.Pubkey():
            return st.binary(min_size=32, max_size=32)
        case t.Bool():
            return st.booleans()
        case t.Option(inner):
            return st.none() | values_of(inner)
        case t.Integer(signed=True):
            return st.integers(-(1 << (type_.bits - 1)), (1 << (type_.bits - 1)) - 1)
        case t.Integer():
            return st.integers(0, (1 << type_.bits) - 1)
    raise AssertionError(type_)


def fields_of(fields: tuple[t.Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field.name: values_of(field.type) for field in fields})


def test_both_know_the_same_events() -> None:
    """None is missing on either side."""
    assert set(PROGRAM.events) == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_both_read_the_same_event(name: str, data: st.DataObject) -> None:
    """Whatever its values."""
    values = data.draw(fields_of(PROGRAM.events[name].fields))
    payload = PROGRAM.encode_event(name, values)
    assert parse_event(payload) == tuple(PROGRAM.decode_event(payload))[:2] == (name, values)


@pytest.mark.parametrize(("name", "size"), [("EphemeralVault", 114), ("VaultDelegation", 90)])
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_both_read_the_same_account_at_its_allocated_size(name: str, size: int, data: st.DataObject) -> None:
    """A delegation that was never revoked is 8 bytes shorter than its room."""
    values = data.draw(fields_of(PROGRAM.accounts[name].fields))
    raw = PROGRAM.encode_account(name, values).ljust(size, b"\0")
    assert len(raw) == size
    assert parse_account(raw) == tuple(PROGRAM.decode_account(raw))[:2] == (name, values)
