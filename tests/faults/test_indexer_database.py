"""The indexer beside a database that drops its connections, and beside another indexer on the same lake."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexer.errors import RetryableError
from indexer.store.audit import read_lake, read_postgres
from indexer.store.database import Database

LOCALNET = ["--json", "--history", "0", "--rate", "30", "--slot-ms", "50", "--finalized-distance", "3", "--seed", "3"]


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command of ours; it is stopped, and its exit code checked, afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "capstan", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said


@pytest.fixture
def chain() -> Iterator[dict[str, str]]:
    """Give the settings that lead to a chain with busy users."""
    with command("localnet", "--rpc-port", "0", "--ws-port", "0", *LOCALNET) as localnet:
        assert localnet.stdout is not None
        ready: dict[str, Any] = json.loads(localnet.stdout.readline())
        yield {"CAPSTAN_RPC_URL": ready["rpc_url"], "CAPSTAN_WS_URL": ready["ws_url"]}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.2)


def exported(dsn: str) -> int:
    try:
        return len(read_lake(dsn).events)
    except RetryableError:
        return 0


@pytest.mark.timeout(170)
def test_connections_that_are_cut_cost_nothing(database: Database, chain: dict[str, str], tmp_path: Path) -> None:
    """After a failover of the database both stores go on, and hold everything."""
    settings = {**chain, "DATABASE_URL": database.dsn, "CAPSTAN_LAKE": str(tmp_path / "lake")}
    with command("index", "--export-interval", "0.5", **settings):
        for _ in range(2):
            before = exported(database.dsn)
            wait_until(lambda known=before: exported(database.dsn) > known, "an export")  # type: ignore[misc]
            with psycopg.connect(database.dsn) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid()"
                )
        before = exported(database.dsn)
        wait_until(lambda: exported(database.dsn) > before, "an export after the last cut")
    done = subprocess.run(
        [sys.executable, "-m", "capstan", "index", "--catch-up"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    final = {s for s, t in read_postgres(database.dsn).transactions.items() if t.finalized}
    hot = {key: event for key, event in read_postgres(database.dsn).events.items() if key.signature in final}
    assert dict(read_lake(database.dsn).events) == hot


def test_a_second_writer_of_one_lake_is_told(database: Database, chain: dict[str, str], tmp_path: Path) -> None:
    """Two indexers on one lake would abort each other for ever; the second says so and leaves."""
    settings = {**chain, "DATABASE_URL": database.dsn, "CAPSTAN_LAKE": str(tmp_path / "lake")}
    with command("index", "--export-interval", "0.5", **settings):
        wait_until(lambda: exported(database.dsn) > 0, "the first export")
        second = subprocess.run(
            [sys.executable, "-m", "capstan", "index"],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert second.returncode == RetryableError.exit_code
    assert "another process writes" in second.stderr
