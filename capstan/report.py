"""
The demo's report: what the chain says happened, held against what PostgreSQL and the lake say, piece by piece.

The chain's side comes from localnet's own census, which shares no code with the indexer's decoder. Every difference is
a sentence in `mismatches`; an empty list is the result that the demo exists to show.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.store.audit import EventKey, Stored, StoredAccount

# Beyond this many differences of one kind the rest is counted only.
SHOWN_MAX = 20
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Witness:
    """
    The chain, as localnet's control methods tell it; every mapping is JSON as it came.

    Args:
        transactions: {"signature", "slot", "err"}, all that mention a home program.
        events: {"signature", "slot", "kind", "ordinal", "program", "name", "values"}.
        accounts: {"address", "lamports", "program", "name", "values"}.
        slot_times_ns: slot -> wall clock at which localnet made it; live slots only.
    """

    transactions: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    accounts: Sequence[Mapping[str, Any]]
    slot_times_ns: Mapping[int, int]


def build_report(
    witness: Witness, postgres: Stored, lake: Stored, engine: Mapping[str, int], *, following_since_ns: int = 0
) -> dict[str, Any]:
    """
    Return the report.

    Args:
        engine: intent state -> how many, of the engine's ledger.
        following_since_ns: wall clock at which the indexer had caught up for the first time. Slots before that waited
            for it to start, so `lag_ms` leaves them out; `lag_ms.from_start` does not.
    """
    lags = live_lags_ms(witness, postgres, since_ns=following_since_ns)
    lags_from_start = live_lags_ms(witness, postgres)
    return {
        "localnet": {
            "transactions": len(witness.transactions),
            "failed": sum(1 for row in witness.transactions if row["err"] is not None),
            "events": _counted(f"{row['program']}.{row['name']}" for row in witness.events),
        },
        "postgres": {
            "transactions": len(postgres.transactions),
            "events": _counted(event.name for event in postgres.events.values()),
            "accounts": _counted(account.name for account in postgres.accounts.values()),
            "problems": postgres.problems,
        },
        "lake": {"events": _counted(event.name for event in lake.events.values())},
        "engine": {
            "cleanups_landed": engine.get("landed", 0),
            "cleanups_failed": engine.get("failed", 0),
            "cleanups_lost": engine.get("lost", 0),
            "cleanups_open": engine.get("open", 0),
        },
        "lag_ms": {**_spread(lags), "from_start": _spread(lags_from_start)},
        "mismatches": [
            *_transaction_mismatches(witness, postgres),
            *_event_mismatches(witness, postgres, "postgres"),
            *_event_mismatches(witness, lake, "lake"),
            *_account_mismatches(witness, postgres),
            *_double_cleanups(postgres),
        ],
    }


def live_lags_ms(witness: Witness, postgres: Stored, *, since_ns: int = 0) -> list[float]:
    """Return, for each live transaction, the time from its slot on localnet to its row in PostgreSQL, in ms."""
    lags = []
    for row in witness.transactions:
        made_at_ns = witness.slot_times_ns.get(int(row["slot"]))
        stored = postgres.transactions.get(row["signature"])
        if made_at_ns is not None and made_at_ns >= since_ns and stored is not None:
            lags.append((stored.indexed_at_ns - made_at_ns) / NS_PER_MS)
    return lags


def _spread(lags: Sequence[float]) -> dict[str, Any]:
    return {"p50": percentile(lags, 0.50), "p99": percentile(lags, 0.99), "transactions": len(lags)}


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile, rounded to 0.1; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    return round(ranked[max(0, math.ceil(share * len(ranked)) - 1)], 1)


def _transaction_mismatches(witness: Witness, postgres: Stored) -> list[str]:
    found = []
    expected = {row["signature"]: row for row in witness.transactions}
    for signature, row in expected.items():
        stored = postgres.transactions.get(signature)
        if stored is None:
            found.append(f"postgres: transaction {signature} of slot {row['slot']} is missing")
        elif (stored.slot, stored.failed) != (int(row["slot"]), row["err"] is not None):
            found.append(
                f"postgres: transaction {signature} is stored in slot {stored.slot} as "
                f"{'failed' if stored.failed else 'successful'}, the chain has slot {row['slot']}, err {row['err']}"
            )
        elif not stored.finalized:
            found.append(f"postgres: transaction {signature} of slot {stored.slot} is not finalized")
    found.extend(
        f"postgres: transaction {signature} is not on the chain"
        for signature in postgres.transactions.keys() - expected.keys()
    )
    return _shortened(found, "transactions")


def _event_mismatches(witness: Witness, stored: Stored, store: str) -> list[str]:
    found = []
    expected = {EventKey(row["signature"], row["kind"], int(row["ordinal"])): row for row in witness.events}
    for key, row in expected.items():
        name = f"{row['program']}.{row['name']}"
        event = stored.events.get(key)
        if event is None:
            found.append(f"{store}: {name} {_shown(key)} is missing")
        elif (event.name, event.slot, event.values) != (name, int(row["slot"]), row["values"]):
            found.append(f"{store}: {name} {_shown(key)} is {row['values']} on the chain and {dict(event.values)} here")
    found.extend(
        f"{store}: {stored.events[key].name} {_shown(key)} is not on the chain"
        for key in stored.events.keys() - expected.keys()
    )
    return _shortened(found, f"events in {store}")


def _account_mismatches(witness: Witness, postgres: Stored) -> list[str]:
    found = []
    expected = {
        row["address"]: StoredAccount(f"{row['program']}.{row['name']}", int(row["lamports"]), row["values"])
        for row in witness.accounts
    }
    for address, account in expected.items():
        stored = postgres.accounts.get(address)
        if stored is None:
            found.append(f"postgres: account {address} ({account.name}) is missing or closed")
        elif stored != account:
            found.append(f"postgres: account {address} is {account} on the chain and {stored} here")
    found.extend(
        f"postgres: account {address} is open here and not on the chain"
        for address in postgres.accounts.keys() - expected.keys()
    )
    return _shortened(found, "accounts")


def _double_cleanups(postgres: Stored) -> list[str]:
    """A vault may be cleaned once for each time it was created, never more often."""
    created = Counter(e.values["vault"] for e in postgres.events.values() if e.name == "ephemeral_vault.VaultCreated")
    cleaned = Counter(e.values["vault"] for e in postgres.events.values() if e.name == "ephemeral_vault.VaultCleaned")
    return [
        f"engine: vault {vault} was cleaned {times} times and created {created[vault]} times"
        for vault, times in cleaned.items()
        if times > created[vault]
    ]


def _shortened(found: list[str], what: str) -> list[str]:
    if len(found) <= SHOWN_MAX:
        return found
    return [*found[:SHOWN_MAX], f"... and {len(found) - SHOWN_MAX} more mismatches of {what}"]


def _shown(key: EventKey) -> str:
    return f"{key.signature} {key.kind} {key.ordinal}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
