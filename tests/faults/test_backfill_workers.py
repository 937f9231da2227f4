"""Two processes on one backfill, one of them killed twice: what is stored is what one process alone stores."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from indexer.store.audit import read_postgres
from indexer.store.database import Database

LOCALNET = ["--json", "--rate", "0", "--transactions", "5000", "--seed", "11", "--slot-ms", "50"]
LOCALNET += ["--finalized-distance", "1", "--rpc-port", "0", "--ws-port", "0", "--control"]
# What is documented, and as long again for a busy machine.
STOP_S_MAX = 5.0 + 5.0


@pytest.fixture(scope="module")
def rpc_url() -> Iterator[str]:
    """Give a chain with a history and nobody on it any more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "capstan", "localnet", *LOCALNET],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready: dict[str, Any] = json.loads(process.stdout.readline())
        time.sleep(0.5)  # the history's last block is final a few slots of 50 ms later
        yield ready["rpc_url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@contextmanager
def another(database: Database) -> Iterator[Database]:
    """Give a second database of the same server."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        yield replace(database, dsn=make_conninfo(database.dsn, dbname=name))
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def start(database: Database, rpc_url: str, to_slot: int, *more: str, lease_s: float = 1.5) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "capstan", "backfill", "--json", "--to", str(to_slot), *more],
        env={
            **os.environ,
            "DATABASE_URL": database.dsn,
            "CAPSTAN_RPC_URL": rpc_url,
            "CAPSTAN_LEASE_S": str(lease_s),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def jobs_of(database: Database, state: str) -> int:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("select to_regclass('capstan.jobs') is not null").fetchone()
        if row is None or not row[0]:
            return 0
        query = "select count(*) from capstan.jobs where state = %s and (state = 'done' or leased_until > now())"
        row = connection.execute(query, (state,)).fetchone()
    return row[0] if row else 0


def wait_for(database: Database, state: str, count: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while jobs_of(database, state) < count:
        assert process.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end(process: "subprocess.Popen[str]") -> int:
    """Wait for a process and return how many transactions it says it did."""
    said, complained = process.communicate(timeout=90)
    assert process.returncode == 0, complained
    return int(json.loads(said)["transactions"])


def everything(database: Database) -> tuple[Any, ...]:
    stored = read_postgres(database.dsn)
    with psycopg.connect(database.dsn) as connection:
        coverage = connection.execute(
            "select program_id, from_slot, to_slot, means from capstan.coverage order by 1, 2"
        ).fetchall()
        mentions = connection.execute("select count(*), count(distinct signature) from capstan.mentions").fetchall()
        open_ = connection.execute(
            "select (select count(*) from capstan.jobs), (select count(*) from capstan.backfills where done_at is null)"
        ).fetchall()
    rows = {s: (t.slot, t.failed, t.finalized) for s, t in stored.transactions.items()}
    return rows, dict(stored.events), stored.problems, coverage, mentions, open_


@pytest.mark.timeout(170)
def test_killed_workers_leave_the_rows_of_one_worker_alone(empty_database: Database, rpc_url: str) -> None:
    """No row is lost, doubled or different, and every job of a killed process is done by another."""
    head = finalized_slot(rpc_url)
    with another(empty_database) as alone:
        assert end(start(alone, rpc_url, head)) >= 5_000
        expected = everything(alone)
    slow = ("--rpc-rate", "700", "--workers", "2")
    steady = start(empty_database, rpc_url, head, *slow)
    for jobs_done in (1, 3):
        victim = start(empty_database, rpc_url, head, *slow)
        wait_for(empty_database, "done", jobs_done, victim)
        wait_for(empty_database, "open", 3, victim)  # both hold some
        victim.send_signal(signal.SIGKILL)
        victim.communicate(timeout=30)
    done = end(steady)
    assert everything(empty_database) == expected
    assert done <= 5_000 * 3
    assert end(start(empty_database, rpc_url, head)) == 0, "a second run had something left to do"


@contextmanager
def slowed(rpc_url: str) -> Iterator[None]:
    """Let the node answer nobody for a while."""
    call(rpc_url, "localnet_faults", {"http_timeout": 1.0, "timeout_s": 60})
    try:
        yield
    finally:
        call(rpc_url, "localnet_faults", {})


@pytest.mark.timeout(170)
@pytest.mark.parametrize("waits_for", ["the node", "the database"])
def test_a_signal_ends_a_backfill_soon_and_the_next_one_goes_on(
    empty_database: Database, rpc_url: str, waits_for: str
) -> None:
    """Whatever it waits for, it gives its jobs back and exits with 0; nothing is lost, and nobody waits for leases."""
    head = finalized_slot(rpc_url)
    rate = ("--rpc-rate", "1000", "--workers", "2")
    stopped = start(empty_database, rpc_url, head, *rate, lease_s=600)
    wait_for(empty_database, "done", 1, stopped)
    wait_for(empty_database, "open", 1, stopped)
    with contextlib.ExitStack() as stack:
        if waits_for == "the node":
            stack.enter_context(slowed(rpc_url))
        if waits_for == "the database":
            connection = stack.enter_context(psycopg.connect(empty_database.dsn))
            connection.execute("lock table capstan.transactions in access exclusive mode")
        time.sleep(1.0)  # until it stands still
        stopped.send_signal(signal.SIGTERM)
        _, complained = stopped.communicate(timeout=STOP_S_MAX)
    assert (stopped.returncode, "Traceback" in complained) == (0, False), complained
    with psycopg.connect(empty_database.dsn) as connection:
        query = "select count(*) from capstan.jobs where holder is not null and state = 'open'"
        assert connection.execute(query).fetchall() == [(0,)]
        query = "select count(*), count(holder) from capstan.backfills where done_at is null"
        ((still_open, held),) = connection.execute(query).fetchall()
        assert (still_open > 0, held) == (True, 0)
    assert end(start(empty_database, rpc_url, head)) > 0
    assert verified(empty_database, rpc_url)["clean"] is True


def verified(database: Database, rpc_url: str) -> dict[str, Any]:
    """Return what `capstan verify` finds."""
    command = [sys.executable, "-m", "capstan", "verify", "--json", "--rpc", rpc_url, "--database-url", database.dsn]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=90).stdout)
    return found


def finalized_slot(rpc_url: str) -> int:
    """Return the newest finalized slot."""
    return int(call(rpc_url, "getSlot", {"commitment": "finalized"}))


def call(rpc_url: str, method: str, *params: Any) -> Any:
    """Return the result of one call."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return httpx.post(rpc_url, json=body).json()["result"]
