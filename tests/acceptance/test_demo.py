"""The whole house with one command: what the chain did is what the stores hold, whoever is killed in between."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "capstan", "demo", "--headless"]
# Shorter slots than a cluster's: finality is 32 of them away, and these tests wait for it.
FAST_CHAIN = {"CAPSTAN_LOCALNET_SLOT_MS": "150"}


@contextmanager
def running(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, "--data-dir", str(tmp_path / "demo"), "--json", str(tmp_path / "report.json"), *arguments]
    process = subprocess.Popen(
        command, env={**os.environ, **FAST_CHAIN}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        if process.stderr is not None:
            process.stderr.close()


def report_of(tmp_path: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    _, said = process.communicate(timeout=170)
    logs = "".join(f"\n--- {log.name}\n{log.read_text()[-3_000:]}" for log in sorted((tmp_path / "demo").glob("*.log")))
    assert (tmp_path / "report.json").exists(), said + logs
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert report["mismatches"] == [], said + logs
    assert process.returncode == 0, said + logs
    return report


def children(process: subprocess.Popen[str], part: str) -> list[int]:
    """Return the ids of the demo's own processes that run `part`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == process.pid and arguments[1:4] == [b"-m", b"capstan", part.encode()]:
            found.append(int(folder.name))
    return found


def left_over(folder: Path) -> list[str]:
    """Return the command lines of processes that still work for the demo in `folder`."""
    lines = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if process.name.isdigit() and str(folder).encode() in words and int(process.name) != os.getpid():
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return lines


@pytest.mark.timeout(240)
def test_chain_postgres_and_lake_agree(short_tmp_path: Path) -> None:
    """A short demo ends with exit 0, an empty list of mismatches, cleanups landed, and nothing left running."""
    arguments = ["--seed", "7", "--seconds", "15", "--history", "3", "--transactions", "1500", "--rate", "6"]
    with running(short_tmp_path, *arguments) as process:
        report = report_of(short_tmp_path, process)
    assert report["localnet"]["transactions"] > 1_500
    assert report["postgres"]["transactions"] == report["localnet"]["transactions"]
    assert report["localnet"]["failed"] > 0
    assert report["lake"]["events"] == report["postgres"]["events"] == report["localnet"]["events"]
    happened = {name.partition(".")[0] for name in report["localnet"]["events"]}
    assert happened == {"ephemeral_vault", "collateral_vault", "liquidation_engine"}
    sessions = ("AccessRevoked", "AutoDeposit", "DelegateApproved", "TradeExecuted", "VaultCleaned", "VaultCreated")
    assert {f"ephemeral_vault.{name}" for name in sessions} <= set(report["localnet"]["events"])
    assert report["postgres"]["accounts"]["ephemeral_vault.EphemeralVault"] > 0
    assert report["engine"]["cleanups_landed"] > 0
    assert report["engine"]["cleanups_failed"] == 0
    assert report["lag_ms"]["transactions"] > 0
    assert left_over(short_tmp_path) == []


@pytest.mark.timeout(300)
def test_ten_kills_of_indexer_and_engine_lose_and_double_nothing(short_tmp_path: Path) -> None:
    """kill -9 at ten random moments, from the backfill on: still no mismatch, and no session cleaned twice."""
    rng = random.Random(20_260_101)
    seconds = 40
    arguments = ["--seed", "11", "--seconds", str(seconds), "--history", "3", "--transactions", "3000", "--rate", "8"]
    with running(short_tmp_path, *arguments) as process:
        deadline = time.monotonic() + 60
        while not (children(process, "index") and children(process, "engine")) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = time.monotonic()
        moments = sorted((rng.uniform(0.2, seconds - 4), rng.choice(["index", "engine"])) for _ in range(10))
        killed = 0
        for at, part in moments:
            time.sleep(max(0.0, started + at - time.monotonic()))
            waited_until = time.monotonic() + 3
            while not (pids := children(process, part)) and time.monotonic() < waited_until:
                time.sleep(0.05)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        report = report_of(short_tmp_path, process)
    assert killed == 10
    assert report["engine"]["cleanups_landed"] > 0


def test_a_signal_stops_everything(short_tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves no process behind, neither ours nor PostgreSQL."""
    with running(short_tmp_path, "--seconds", "60", "--history", "1", "--transactions", "200") as process:
        deadline = time.monotonic() + 60
        while not children(process, "dashboard") and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not (short_tmp_path / "report.json").exists()
    deadline = time.monotonic() + 5
    while left_over(short_tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(short_tmp_path) == []
