"""
A local chain: its past backfilled by both commands, and its present followed, from the slot to the committed row.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
from solders.signature import Signature

from bench.ingesting.commands import CommandError, Following, Ran, Told, following, localnet, run
from bench.ingesting.found import check_census, held_by_postgres
from capstan.report import percentile
from indexer.store.database import open_database

READY_S_MAX = 120.0
DRAIN_S_MAX = 180.0
POLL_S = 0.2
# A history's last block is final a few slots of 50 ms later.
FINAL_S = 2.0
WARM_UP_S = 2.0
PAST_TRANSACTIONS = 100
# The hour of commit of the transaction that a mention was first written in: unlike a transaction's own row, which is
# written again when it is final, a mention stays as it is.
COMMITTED = """
select encode(signature, 'hex'), (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint * 1000
from capstan.mentions
"""


class Backfilled(NamedTuple):
    """Both ways to backfill the same chain, each into a new database, and the transactions of its past."""

    transactions: int
    catch_up: Ran
    backfill: Ran


def backfill(folder: Path, transactions: int) -> Backfilled:
    """
    Seed a chain and backfill it.

    Raises:
        CommandError: a command failed, or what is stored is not what the chain says happened.
    """
    still = ("--rate", "0", "--slot-ms", "50", "--finalized-distance", "1", "--seed", "1")
    with localnet(*still, "--transactions", str(transactions)) as told:
        time.sleep(FINAL_S)
        census = _call(told["rpc_url"], "localnet_census", {"commitment": "finalized"})
        ran = []
        for name, command in (
            ("catch-up", ("index", "--catch-up")),
            ("backfill", ("backfill", "--workers", "2")),
        ):
            data_dir = folder / name
            environment = {"CAPSTAN_DATA_DIR": str(data_dir), "CAPSTAN_RPC_URL": told["rpc_url"]}
            ran.append(run("capstan", *command, "--json", environment=environment))
            with open_database(None, data_dir=data_dir) as database:
                check_census(f"after {' '.join(command)} PostgreSQL", held_by_postgres(database.dsn), census)
    return Backfilled(int(census["transactions"]), *ran)


class Lived(NamedTuple):
    """
    Some seconds of following.

    Args:
        transactions: that the chain made in these seconds; `per_second` is what it reached of what it was asked for.
        delay_ms: the commitment's own: nobody can see a slot as confirmed before.
        lags_ms: of each transaction, from its slot to the commit of its row, the delay included.
        backlog: transactions, confirmed by then and not stored, at the end of these seconds.
        late: `backlog` in seconds of the chain's pace.
    """

    rate: int
    transactions: int
    per_second: float
    delay_ms: int
    lags_ms: Sequence[float]
    backlog: int
    peak_mb: float
    cpu_s: float

    @property
    def late_s(self) -> float:
        """The backlog in seconds of the chain's pace."""
        return self.backlog / self.per_second

    def spread(self) -> dict[str, float]:
        """Return percentiles, ms: as they are, and without the commitment's own delay."""
        p50, p99 = percentile(self.lags_ms, 0.50), percentile(self.lags_ms, 0.99)
        assert p50 is not None, "there are transactions"
        assert p99 is not None
        return {"p50": p50, "p99": p99, "p50_own": p50 - self.delay_ms, "p99_own": p99 - self.delay_ms}


def live(folder: Path, rate: int, seconds: float, *, slot_ms: int = 400, distance: int = 1) -> Lived:
    """
    Follow a chain that makes `rate` transactions a second, and measure those of `seconds` seconds.

    Raises:
        CommandError: the indexer ended, did not catch up at first, or did not store everything in the end.
    """
    _keep_commit_times(folder)
    chain = (
        *("--rate", str(rate), "--transactions", str(PAST_TRANSACTIONS), "--history", "1", "--seed", "1"),
        *("--slot-ms", str(slot_ms), "--confirmed-distance", str(distance)),
    )
    with localnet(*chain) as told, open_database(None, data_dir=folder) as database:
        environment = {
            "CAPSTAN_DATA_DIR": str(folder),
            "CAPSTAN_RPC_URL": told["rpc_url"],
            "CAPSTAN_WS_URL": told["ws_url"],
        }
        with following("capstan", "index", "--json", environment=environment) as indexer:
            _wait_caught_up(database.dsn, told["rpc_url"], indexer, slots_max=25_000 // slot_ms)
            time.sleep(WARM_UP_S)
            first = _call(told["rpc_url"], "getSlot", {"commitment": "processed"}) + 1
            time.sleep(seconds)
            last = _call(told["rpc_url"], "localnet_stopTraffic")
            confirmed = _signatures(told["rpc_url"], first, last)
            backlog = len(confirmed.keys() - _committed(database.dsn).keys())
            wanted, committed = _wait_drained(database.dsn, told["rpc_url"], first, last)
            indexer.check()
        times = {int(slot): int(ns) for slot, ns in _slot_times(told["rpc_url"], first, last).items()}
    lags = [(committed[signature] - times[slot]) / 1e6 for signature, slot in wanted.items()]
    if not lags:
        raise CommandError(f"the chain made no transactions at {rate} a second")
    duration_s = (max(times.values()) - min(times.values())) / 1e9
    return Lived(
        *(rate, len(wanted), len(wanted) / duration_s, slot_ms * distance),
        *(lags, backlog, indexer.peak_mb, indexer.cpu_s),
    )


def _keep_commit_times(folder: Path) -> None:
    """Have the server note when each transaction commits; it reads that setting when it starts."""
    with (
        open_database(None, data_dir=folder) as database,
        psycopg.connect(database.dsn, autocommit=True) as connection,
    ):
        connection.execute("alter system set track_commit_timestamp = on")


def _wait_caught_up(dsn: str, rpc_url: str, indexer: Following, *, slots_max: int) -> None:
    """Wait until the newest stored transaction is of the chain's last moments."""
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        indexer.check()
        slot = _call(rpc_url, "getSlot", {"commitment": "confirmed"})
        with psycopg.connect(dsn) as connection:
            if connection.execute("select to_regclass('capstan.transactions')").fetchone() == (None,):
                continue
            row = connection.execute("select max(slot) from capstan.transactions").fetchone()
            beating = connection.execute("select count(*) from capstan.frontiers").fetchone()
        if row and row[0] is not None and slot - row[0] <= slots_max and beating and beating[0]:
            return
    raise CommandError(f"the indexer had not caught up after {READY_S_MAX:.0f} s")


def _wait_drained(dsn: str, rpc_url: str, first: int, last: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the transactions of the slots, and when each was committed, once all are."""
    deadline = time.monotonic() + DRAIN_S_MAX
    while True:
        tip = _call(rpc_url, "getSlot", {"commitment": "confirmed"})
        wanted, committed = _signatures(rpc_url, first, last), _committed(dsn)
        if tip > last and wanted.keys() <= committed.keys():
            return wanted, committed
        if time.monotonic() > deadline:
            missing = len(wanted.keys() - committed.keys())
            raise CommandError(f"{missing:,} of {len(wanted):,} transactions were not stored {DRAIN_S_MAX:.0f} s later")
        time.sleep(POLL_S)


def _signatures(rpc_url: str, first: int, last: int) -> dict[str, int]:
    """Return the confirmed transactions of some slots, signature in hex -> slot."""
    found: dict[str, int] = {}
    after = -1
    while page := _call(rpc_url, "localnet_transactions", {"commitment": "confirmed", "after_index": after}):
        found |= {_hex(row["signature"]): row["slot"] for row in page if first <= row["slot"] <= last}
        after = page[-1]["index"]
    return found


def _hex(signature: str) -> str:
    return bytes(Signature.from_string(signature)).hex()


def _committed(dsn: str) -> dict[str, int]:
    """Return when each transaction was committed, signature in hex -> nanoseconds since 1970."""
    with psycopg.connect(dsn) as connection:
        committed: dict[str, int] = {}
        for signature, at_ns in connection.execute(COMMITTED):
            committed[signature] = min(at_ns, committed.get(signature, at_ns))
        return committed


def _slot_times(rpc_url: str, first: int, last: int) -> Told:
    times: Told = _call(rpc_url, "localnet_slotTimes", {"first_slot": first, "last_slot": last})
    return times


def _call(rpc_url: str, method: str, *params: Any) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = httpx.post(rpc_url, json=request, timeout=60).raise_for_status().json()
    if "error" in answer:
        raise CommandError(f"{method} was answered with {answer['error']}")
    return answer["result"]
