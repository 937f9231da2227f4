"""The `localnet` command as a person or a script runs it: a process, its output, its ports and its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--history", "3", "--transactions", "300", "--rpc-port", "0", "--ws-port", "0", "--json")
Start = Callable[..., "subprocess.Popen[str]"]


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "localnet", *arguments]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts a localnet that is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return the JSON line that says that it is up."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"localnet left: {process.communicate()[1]}")
    told: dict[str, Any] = json.loads(line)
    return told


def call(told: dict[str, Any], method: str, *params: Any) -> Any:
    """Return the body of one JSON-RPC answer."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return httpx.post(told["rpc_url"], json=body, timeout=20).raise_for_status().json()


def refused(*arguments: str, **environment: str) -> tuple[int, str]:
    """Return exit code and stderr of a command that cannot start."""
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_it_prints_one_json_line_answers_and_stops_on_sigterm(start: Start) -> None:
    """A script reads the urls, uses them, and ends the chain without a complaint."""
    process = start(*SMALL, "--control")
    told = ready(process)
    assert call(told, "getGenesisHash")["result"] == told["genesis_hash"]
    assert told["ws_url"].startswith("ws://127.0.0.1:")
    assert told["seeded"]["transactions"] >= 300
    assert told["seeded"]["per_second"] > 0
    assert call(told, "localnet_census", {"commitment": "confirmed"})["result"]["transactions"] >= 290
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err
    assert "seeded 3" in err


def test_control_c_is_an_ordinary_end(start: Start) -> None:
    """SIGINT ends it as SIGTERM does, also while the history is still played."""
    process = start("--rpc-port", "0", "--ws-port", "0", "--transactions", "1000000")
    assert process.stderr is not None
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_without_json_it_prints_urls_for_a_person(start: Start) -> None:
    """The urls, and how to end it."""
    process = start("--no-traffic", "--rpc-port", "0", "--ws-port", "0")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]
    assert "http://127.0.0.1:" in lines[0]
    assert "ws://127.0.0.1:" in lines[1]
    assert "Ctrl-C" in lines[4]


def test_without_control_its_methods_are_unknown(start: Start) -> None:
    """Whatever could disturb a chain is off unless asked for."""
    told = ready(start(*SMALL, "--no-traffic"))
    assert call(told, "localnet_census")["error"]["code"] == -32601


def test_without_traffic_the_chain_is_empty_and_runs(start: Start) -> None:
    """No history, no users: slots pass, and the clock is the wall's."""
    told = ready(start(*SMALL, "--no-traffic", "--control", "--slot-ms", "50"))
    assert told["seeded"]["transactions"] == 0
    before = call(told, "getSlot", {"commitment": "processed"})["result"]
    time.sleep(0.5)
    slot = call(told, "getSlot", {"commitment": "processed"})["result"]
    assert slot > before
    block_time = call(told, "getBlockTime", slot)
    assert "error" in block_time or abs(block_time["result"] - time.time()) < 5
    assert call(told, "localnet_census")["result"]["transactions"] == 0


def test_the_history_ends_at_the_present(start: Start) -> None:
    """Charts end today: the chain's clock is the wall's when the first client asks."""
    told = ready(start(*SMALL, "--rate", "0"))
    time.sleep(1.2)
    slot = call(told, "getSlot", {"commitment": "confirmed"})["result"]
    assert abs(call(told, "getBlockTime", slot)["result"] - time.time()) < 4
    assert abs(time.time() - 3 * 86_400 - told["start_time"]) < 60


def test_seed_and_start_time_decide_the_whole_history(start: Start) -> None:
    """Two processes agree on every signature; the seed may come from the environment, and a flag wins over it."""
    fixed = (*SMALL, "--rate", "0", "--control", "--start-time", "1750032000")
    first, second = start(*fixed, "--seed", "7"), start(*fixed, "--seed", "7", CAPSTAN_LOCALNET_SEED="8")
    third = start(*fixed, CAPSTAN_LOCALNET_SEED="8")
    one, two, other = ready(first), ready(second), ready(third)
    assert one["genesis_hash"] == two["genesis_hash"] != other["genesis_hash"]
    config = {"commitment": "processed", "limit": 250}
    lists = [call(told, "localnet_transactions", config)["result"] for told in (one, two, other)]
    assert len(lists[0]) == 250
    assert lists[0] == lists[1] != lists[2]


def test_users_act_live_until_they_are_stopped(start: Start) -> None:
    """Transactions keep coming, each live slot has its wall clock, and stopTraffic ends it."""
    told = ready(start(*SMALL, "--control", "--rate", "20", "--slot-ms", "100"))
    config = {"commitment": "processed"}
    before = call(told, "localnet_census", config)["result"]["transactions"]
    time.sleep(3)
    after = call(told, "localnet_census", config)["result"]["transactions"]
    assert after > before + 10
    assert len(call(told, "localnet_slotTimes")["result"]) > 10
    last = call(told, "localnet_stopTraffic")["result"]
    time.sleep(0.5)
    rows = call(told, "localnet_transactions", config)["result"]
    assert max(row["slot"] for row in rows) <= last
    time.sleep(1)
    assert call(told, "localnet_transactions", config)["result"] == rows


def test_a_chain_in_a_folder_goes_on_after_a_stop(start: Start, tmp_path: Path) -> None:
    """Same genesis, same transactions and accounts, its clock the wall's again, and new users on it."""
    fixed = (*SMALL, "--control", "--ledger", str(tmp_path))
    first = start(*fixed, "--seed", "7", "--rate", "20", "--slot-ms", "100")
    told = ready(first)
    time.sleep(2)
    call(told, "localnet_stopTraffic")
    time.sleep(0.5)
    config = {"commitment": "processed"}
    before = {name: call(told, f"localnet_{name}", config)["result"] for name in ("transactions", "events", "accounts")}
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=10) == 0
    again = ready(start(*fixed, "--rate", "0"))
    assert (again["genesis_hash"], again["seed"], again["start_time"]) == (
        told["genesis_hash"],
        told["seed"],
        told["start_time"],
    )
    assert {name: call(again, f"localnet_{name}", config)["result"] for name in before} == before
    time.sleep(1)
    slot = call(again, "getSlot", {"commitment": "confirmed"})["result"]
    assert abs(call(again, "getBlockTime", slot)["result"] - time.time()) < 4
    busy = refused(*fixed)
    assert busy[0] == 78
    assert "another localnet runs on" in busy[1]


def test_users_come_back_to_a_resumed_chain(start: Start, tmp_path: Path) -> None:
    """New lives, of whom none meets what another left behind."""
    fixed = (*SMALL, "--control", "--ledger", str(tmp_path), "--rate", "20", "--slot-ms", "100")
    config = {"commitment": "processed"}
    counts = []
    for _ in range(2):
        process = start(*fixed)
        told = ready(process)
        time.sleep(2)
        census = call(told, "localnet_census", config)["result"]
        counts.append((census["transactions"], census["failed"]))
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
    grown, failed = counts[1][0] - counts[0][0], counts[1][1] - counts[0][1]
    assert grown > 20
    assert failed < grown / 3


def test_a_saved_chain_keeps_its_own_seed(start: Start, tmp_path: Path) -> None:
    """Whoever names another one is told which it is; a file that is none is refused as well."""
    process = start(*SMALL, "--no-traffic", "--seed", "7", "--ledger", str(tmp_path))
    ready(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    code, err = refused(*SMALL, "--seed", "8", "--ledger", str(tmp_path))
    assert (code, err.count("\n")) == (78, 1)
    assert "has seed 7, not 8" in err
    (tmp_path / "localnet.ledger").write_bytes(b"something else")
    code, err = refused(*SMALL, "--ledger", str(tmp_path))
    assert (code, err.count("\n")) == (78, 1)
    assert "is not a localnet ledger" in err


def test_a_port_in_use_is_one_sentence() -> None:
    """Known before a long history is played, said with the port, and not with a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, err = refused("--rpc-port", port, "--ws-port", "0")
    assert code == 78
    assert err.startswith("capstan: ")
    assert port in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("--rate", "-1"), {}, "rate"),
        (("--rpc-port", "70000"), {}, "rpc_port"),
        (("--slot-ms", "0"), {}, "slot_ms"),
        (("--confirmed-distance", "9", "--finalized-distance", "3"), {}, "finalized_distance"),
        ((), {"CAPSTAN_LOCALNET_HISTORY": "many"}, "history"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    """The sentence names the setting, from wherever it came."""
    code, err = refused(*arguments, **environment)
    assert code == 78
    assert named in err
    assert err.count("\n") == 1


def test_help_explains_every_option() -> None:
    """A stranger finds each option with words beside it, and nothing starts."""
    done = subprocess.run(
        command("--help"), cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True
    )
    for option in ("--rpc-port", "--ws-port", "--no-traffic", "--history", "--transactions", "--rate", "--seed"):
        assert option in done.stdout
    for option in ("--start-time", "--slot-ms", "--confirmed-distance", "--finalized-distance", "--control", "--json"):
        assert option in done.stdout
    assert "--ledger" in done.stdout
