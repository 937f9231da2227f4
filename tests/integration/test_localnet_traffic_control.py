"""The `localnet_*` methods: what a checker learns from the chain itself."""

import json
from typing import Any

import pytest
from solders.pubkey import Pubkey

from localnet.chain import Chain
from localnet.clients import ephemeral_vault as client
from localnet.control import ControlMethods
from localnet.programs import load_elf
from localnet.rpc.errors import INVALID_PARAMS, RpcError
from localnet.traffic.history import fill_purses, play_history
from localnet.traffic.schedule import Company, plan_history
from localnet.traffic.sessions import SessionCast

BEGIN = 1_750_032_000
END = BEGIN + 10 * 86_400


@pytest.fixture(scope="module")
def chain() -> Chain:
    """Return a chain with a small history and three live slots after it."""
    chain = Chain(seed=4, start_time=BEGIN)
    chain.add_program(client.PROGRAM_ID, load_elf("ephemeral_vault"))
    companies = [Company(SessionCast(seed=4, parents=20))]
    fill_purses(chain, companies)
    plan = plan_history(companies, seed=4, begin=BEGIN, end=END, transactions=500)
    play_history(chain, plan.acts, begin=BEGIN, end=END, slot_ms=400)
    for number in range(3):
        chain.open_slot(chain.slot + 1, chain.unix_time, produced_ns=1_700_000_000_000_000_000 + number)
    return chain


@pytest.fixture
def control(chain: Chain) -> ControlMethods:
    """Return the methods, with a stop that nobody hears."""
    return ControlMethods(chain, stop_traffic=lambda: None)


def call(control: ControlMethods, method: str, **config: Any) -> Any:
    """Return a method's answer as it looks after JSON."""
    return json.loads(json.dumps(control.methods()[f"localnet_{method}"]([config])))


def pages(control: ControlMethods, method: str, limit: int, **config: Any) -> list[dict[str, Any]]:
    """Return all rows of a list, page by page."""
    rows: list[dict[str, Any]] = []
    while page := call(
        control, method, limit=limit, **(config if not rows else {**config, "after_index": rows[-1]["index"]})
    ):
        assert len(page) <= limit
        rows += page
    return rows


def test_the_census_is_the_sum_of_its_lists(control: ControlMethods) -> None:
    """Counts and lists come from one reading."""
    census = call(control, "census", commitment="processed")
    transactions = pages(control, "transactions", 200, commitment="processed")
    events = pages(control, "events", 200, commitment="processed")
    assert census["transactions"] == len(transactions) >= 500
    assert census["failed"] == sum(row["err"] is not None for row in transactions) > 0
    assert sum(census["events"].values()) == len(events)
    assert set(census["events"]) == {f"ephemeral_vault.{name}" for name in client.EVENTS}


def test_pages_have_no_gap_and_no_overlap(control: ControlMethods) -> None:
    """Small pages and one large page are the same rows."""
    small = pages(control, "events", 37, commitment="processed")
    assert small == call(control, "events", commitment="processed")
    assert [row["index"] for row in small] == list(range(len(small)))
    assert call(control, "events", limit=0) == []
    assert call(control, "events", commitment="processed", after_index=-1, limit=3) == small[:3]
    assert call(control, "events", commitment="processed", after_index=0, limit=3) == small[1:4]


def test_events_are_named_by_their_identity(control: ControlMethods) -> None:
    """Signature, kind and ordinal tell every event from every other; amounts and addresses are text."""
    events = call(control, "events", commitment="processed")
    assert len({(row["signature"], row["kind"], row["ordinal"]) for row in events}) == len(events)
    deposit = next(row for row in events if row["name"] == "AutoDeposit")
    assert deposit["program"] == "ephemeral_vault"
    assert deposit["values"]["amount"].isdecimal()
    assert str(client.find_delegation(Pubkey.from_string(deposit["values"]["vault"])))


def test_accounts_are_those_of_the_vm(control: ControlMethods, chain: Chain) -> None:
    """Every account of the program, with its lamports as text."""
    rows = call(control, "accounts", commitment="processed")
    owned = {str(Pubkey(address)): state for address, state in chain.accounts_of(client.PROGRAM_ID, "processed")}
    assert {row["address"]: int(row["lamports"]) for row in rows} == {a: state.lamports for a, state in owned.items()}
    assert {row["name"] for row in rows} == {"EphemeralVault", "VaultDelegation"}


def test_a_weaker_commitment_shows_more(control: ControlMethods) -> None:
    """What is not finalized yet is not in the finalized census."""
    finalized, confirmed = call(control, "census", commitment="finalized"), call(control, "census")
    assert finalized["slot"] < confirmed["slot"]
    assert finalized["transactions"] < confirmed["transactions"]


def test_only_live_slots_have_a_wall_clock(control: ControlMethods, chain: Chain) -> None:
    """History was made in no time, so its slots say nothing; a range narrows the rest."""
    times = call(control, "slotTimes")
    assert sorted(int(ns) % 10 for ns in times.values()) == [0, 1, 2]
    newest = chain.block_at("processed").slot
    assert list(call(control, "slotTimes", first_slot=newest, last_slot=newest)) == [str(newest)]


def test_stopping_tells_the_users(chain: Chain) -> None:
    """The stop reaches the traffic, and the answer is the open slot."""
    heard: list[bool] = []
    control = ControlMethods(chain, stop_traffic=lambda: heard.append(True))
    assert call(control, "stopTraffic") == chain.slot
    assert heard == [True]


@pytest.mark.parametrize(
    "params",
    [
        [{"commitment": "someday"}],
        [{"after_index": -2}],
        [{"limit": "10"}],
        [{"limit": True}],
        [{"afterIndex": 5}],
        ["confirmed"],
        [{}, {}],
        {"commitment": "confirmed"},
    ],
    ids=repr,
)
def test_wrong_params_are_refused_as_solana_refuses_them(control: ControlMethods, params: Any) -> None:
    """Each gets -32602 and a message, never an exception of another kind."""
    with pytest.raises(RpcError) as refused:
        control.methods()["localnet_events"](params)
    assert refused.value.code == INVALID_PARAMS
