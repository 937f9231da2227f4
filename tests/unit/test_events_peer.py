"""
Agreement with anchorpy, on what it can read: legacy IDLs, well-formed logs, `emit!`.

It is somebody else's reading of the same formats, so where both speak they must say the same.
"""

import base64
import importlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from indexer.chain.idl import load_idl
from indexer.chain.logs import scan_logs
from indexer.chain.program import Program

TEXT = (Path(__file__).parents[1] / "fixtures" / "idls" / "market_legacy.json").read_text()
OURS = Program.from_idl(load_idl(TEXT, source="market"))


class Peer(NamedTuple):
    """Anchorpy, and its coder for the same IDL."""

    anchorpy: Any
    coder: Any


@pytest.fixture(scope="module")
def peer() -> Peer:
    """Return the peer, ready."""
    with warnings.catch_warnings():
        # It and what it stands on use names that are deprecated in their own dependencies.
        warnings.simplefilter("ignore")
        anchorpy = importlib.import_module("anchorpy")
        return Peer(anchorpy, anchorpy.Coder(anchorpy.Idl.from_json(TEXT)))


def plain(value: Any) -> Any:
    """Return anchorpy's objects as our values."""
    if isinstance(value, Pubkey):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


u64, i64 = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
keys = st.binary(min_size=32, max_size=32)
filled = st.fixed_dictionaries(
    {
        "maker": keys,
        "amount": u64,
        "delta": st.integers(-(2**127), 2**127 - 1),
        "memo": st.text(max_size=12),
        "fees": st.lists(st.integers(0, 2**32 - 1), max_size=5),
        "taker": st.none() | keys,
    }
)
opened = st.fixed_dictionaries({"open": st.booleans(), "at": i64})
events = st.lists(st.tuples(st.just("Filled"), filled) | st.tuples(st.just("Opened"), opened), max_size=6)


@settings(max_examples=100, deadline=None)
@given(events)
def test_the_same_events_from_the_same_logs(peer: Peer, given_events: list[tuple[str, dict[str, Any]]]) -> None:
    """Their parser and ours, over one program's lines between another's."""
    key, foreign = Pubkey(OURS.program_id), Pubkey(bytes([9]) * 32)
    logs = [f"Program {key} invoke [1]"]
    for name, values in given_events:
        payload = base64.b64encode(OURS.encode_event(name, values)).decode()
        logs += ["Program log: trade", f"Program data: {payload}"]
        logs += [f"Program {foreign} invoke [2]", f"Program data: {payload}", f"Program {foreign} success"]
    logs.append(f"Program {key} success")
    theirs: list[tuple[str, dict[str, Any]]] = []

    def collect(event: Any) -> None:
        fields = {field.name: field.name for field in OURS.events[event.name].fields}
        theirs.append((event.name, {name: plain(getattr(event.data, _theirs(name))) for name in fields}))

    peer.anchorpy.EventParser(key, peer.coder).parse_logs(list(logs), collect)
    ours = [tuple(OURS.decode_event(line.payloads[0]))[:2] for line in scan_logs(logs, programs={OURS.program_id}).data]
    assert ours == theirs == given_events


def _theirs(name: str) -> str:
    """Anchorpy names fields in snake_case."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


kinds: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"Market": {}}),
    st.builds(lambda price, only: {"Limit": {"price": price, "postOnly": only}}, u64, st.booleans()),
    st.builds(lambda offset, bps: {"Pegged": [offset, bps]}, i64, st.integers(0, 65_535)),
)
books = st.fixed_dictionaries(
    {
        "authority": keys,
        "orders": st.lists(st.fixed_dictionaries({"price": u64, "kind": kinds, "expiry": st.none() | i64}), max_size=4),
        "feedId": st.binary(min_size=4, max_size=4),
        "label": st.text(max_size=9),
        "isOpen": st.booleans(),
    }
)


@settings(max_examples=100, deadline=None)
@given(books)
def test_the_same_account_from_the_same_bytes(peer: Peer, values: dict[str, Any]) -> None:
    """Nested structs, every kind of variant, options; trailing bytes are none of anybody's business."""
    data = OURS.encode_account("OrderBook", values) + bytes(7)
    theirs = peer.coder.accounts.decode(data)
    assert tuple(OURS.decode_account(data)) == ("OrderBook", values, 7)
    assert {
        "authority": bytes(theirs.authority),
        "orders": [{"price": o.price, "kind": _kind(o.kind), "expiry": o.expiry} for o in theirs.orders],
        "feedId": bytes(theirs.feed_id),
        "label": theirs.label,
        "isOpen": theirs.is_open,
    } == values


def _kind(kind: Any) -> dict[str, Any]:
    match type(kind).__name__:
        case "Limit":
            return {"Limit": {"price": kind.price, "postOnly": kind.post_only}}
        case "Pegged":
            return {"Pegged": list(kind.tuple_data)}
        case name:
            return {name: {}}


@settings(max_examples=50, deadline=None)
@given(u64, st.none() | st.integers(0, 2**128 - 1), st.sampled_from(["Bid", "Ask"]))
def test_the_same_instruction_from_the_same_data(peer: Peer, price: int, client: int | None, side: str) -> None:
    """Its discriminator is computed from a camelCase name with a digit; its arguments hold an enum and an option."""
    args = {"side": {side: {}}, "limitPrice": price, "clientId": client}
    theirs = peer.coder.instruction.parse(OURS.encode_instruction("placeOrderV2", args))
    assert theirs.name == "place_order_v2"
    assert (theirs.data.limit_price, theirs.data.client_id) == (price, client)
    assert type(theirs.data.side).__name__ == side
