"""The demo's report: every planted difference between chain and stores is found, and nothing else is."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from capstan.report import Witness, build_report, percentile
from indexer.store.audit import EventKey, Stored, StoredAccount, StoredEvent, StoredTransaction

VAULT = "EphemeralVau1t111111111111111111111111111111"
CREATED = {"vault": VAULT, "max_deposit": "18446744073709551615"}
CLEANED = {"vault": VAULT, "reward": "10000"}


def witness() -> Witness:
    return Witness(
        transactions=[
            {"signature": "s1", "slot": 5, "err": None},
            {"signature": "s2", "slot": 6, "err": {"InstructionError": [0, {"Custom": 6001}]}},
            {"signature": "s3", "slot": 7, "err": None},
        ],
        events=[event("s1", 5, "VaultCreated", CREATED), event("s3", 7, "VaultCleaned", CLEANED)],
        accounts=[account("a1", {"is_active": True, "total_deposited": "3"})],
        slot_times_ns={7: 1_000_000_000},
    )


def event(signature: str, slot: int, name: str, values: dict[str, Any]) -> dict[str, Any]:
    row = {"signature": signature, "slot": slot, "kind": "log", "ordinal": 0}
    return {**row, "program": "ephemeral_vault", "name": name, "values": values}


def account(address: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": address,
        "lamports": 7,
        "program": "ephemeral_vault",
        "name": "EphemeralVault",
        "values": values,
    }


def stored(lag_ms: int = 250) -> Stored:
    at = 1_000_000_000 + lag_ms * 1_000_000
    return Stored(
        transactions={
            "s1": StoredTransaction(5, False, True, at),
            "s2": StoredTransaction(6, True, True, at),
            "s3": StoredTransaction(7, False, True, at),
        },
        events={
            EventKey("s1", "log", 0): StoredEvent("ephemeral_vault.VaultCreated", 5, dict(CREATED)),
            EventKey("s3", "log", 0): StoredEvent("ephemeral_vault.VaultCleaned", 7, dict(CLEANED)),
        },
        accounts={
            "a1": StoredAccount("ephemeral_vault.EphemeralVault", 7, {"is_active": True, "total_deposited": "3"})
        },
    )


def mismatches(chain: Witness, postgres: Stored, lake: Stored) -> list[str]:
    found: list[str] = build_report(chain, postgres, lake, {})["mismatches"]
    return found


def test_two_equal_sides_have_no_mismatch() -> None:
    """What agrees is counted, and its latency measured for live slots alone."""
    report = build_report(witness(), stored(), stored(), {"landed": 4, "failed": 1})
    assert report["mismatches"] == []
    assert report["localnet"] == {
        "transactions": 3,
        "failed": 1,
        "events": {"ephemeral_vault.VaultCleaned": 1, "ephemeral_vault.VaultCreated": 1},
    }
    assert report["postgres"]["events"] == report["lake"]["events"] == report["localnet"]["events"]
    assert report["postgres"]["accounts"] == {"ephemeral_vault.EphemeralVault": 1}
    assert (report["engine"]["cleanups_landed"], report["engine"]["cleanups_failed"]) == (4, 1)
    lag = {"p50": 250.0, "p99": 250.0, "transactions": 1}
    assert report["lag_ms"] == {**lag, "from_start": lag}


def test_slots_before_the_indexer_followed_are_told_apart() -> None:
    """Waiting for a process to start is not the latency of following, and is not hidden either."""
    report = build_report(witness(), stored(), stored(), {}, following_since_ns=1_000_000_001)
    assert report["lag_ms"]["transactions"] == 0
    assert report["lag_ms"]["from_start"] == {"p50": 250.0, "p99": 250.0, "transactions": 1}


def change(stored_: Stored, **changes: Any) -> Stored:
    return replace(stored_, **changes)


def without(mapping: Any, key: Any) -> Any:
    return {k: v for k, v in mapping.items() if k != key}


KEY, LAST = EventKey("s1", "log", 0), EventKey("s3", "log", 0)
OFF_BY_ONE = StoredEvent("ephemeral_vault.VaultCreated", 5, {**CREATED, "max_deposit": "18446744073709551616"})
FORGED = StoredEvent("ephemeral_vault.VaultCreated", 7, CREATED)


@pytest.mark.parametrize(
    ("postgres", "sentence"),
    [
        (change(stored(), transactions=without(stored().transactions, "s2")), "transaction s2 of slot 6 is missing"),
        (
            change(stored(), transactions={**stored().transactions, "s2": StoredTransaction(6, False, True, 0)}),
            "s2 is stored in slot 6 as successful",
        ),
        (
            change(stored(), transactions={**stored().transactions, "s1": StoredTransaction(4, False, True, 0)}),
            "s1 is stored in slot 4",
        ),
        (
            change(stored(), transactions={**stored().transactions, "s1": StoredTransaction(5, False, False, 0)}),
            "s1 of slot 5 is not finalized",
        ),
        (
            change(stored(), transactions={**stored().transactions, "s9": StoredTransaction(5, False, True, 0)}),
            "s9 is not on the chain",
        ),
        (change(stored(), events=without(stored().events, LAST)), "VaultCleaned s3 log 0 is missing"),
        (change(stored(), events={**stored().events, KEY: OFF_BY_ONE}), "18446744073709551616"),
        (
            change(stored(), events={**stored().events, EventKey("s3", "log", 1): FORGED}),
            "s3 log 1 is not on the chain",
        ),
        (change(stored(), accounts={}), "account a1 (ephemeral_vault.EphemeralVault) is missing or closed"),
        (
            change(stored(), accounts={"a1": StoredAccount("ephemeral_vault.EphemeralVault", 7, {"is_active": False})}),
            "account a1 is",
        ),
        (
            change(stored(), accounts={**stored().accounts, "a2": stored().accounts["a1"]}),
            "account a2 is open here and not on the chain",
        ),
    ],
)
def test_every_difference_in_postgres_is_told(postgres: Stored, sentence: str) -> None:
    """Missing, altered, early, forged and left-over rows are each one sentence."""
    (found,) = mismatches(witness(), postgres, stored())
    assert sentence in found


def test_a_lake_that_lags_is_told() -> None:
    """The lake is compared event by event too."""
    (found,) = mismatches(witness(), stored(), change(stored(), events=without(stored().events, KEY)))
    assert found == "lake: ephemeral_vault.VaultCreated s1 log 0 is missing"


def test_a_vault_cleaned_twice_is_told() -> None:
    """Cleaning one session twice is the worst the engine can do, so it is looked for by itself."""
    chain = copy.deepcopy(witness())
    again = event("s3", 7, "VaultCleaned", CLEANED) | {"ordinal": 1}
    chain = replace(chain, events=[*chain.events, again])
    events = {
        **stored().events,
        EventKey("s3", "log", 1): StoredEvent("ephemeral_vault.VaultCleaned", 7, dict(CLEANED)),
    }
    found = mismatches(chain, change(stored(), events=events), change(stored(), events=events))
    assert found == [f"engine: vault {VAULT} was cleaned 2 times and created 1 times"]


def test_percentiles_are_nearest_rank() -> None:
    """The p99 of a hundred values is the 99th, and of none there is none."""
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([3.0], 0.5) == 3.0
    assert percentile([], 0.5) is None
