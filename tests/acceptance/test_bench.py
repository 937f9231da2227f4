"""The benchmarks run from a checkout and compare what is equal; how fast it was is nobody's business here."""

import gc
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.decode import Subject, measure
from bench.ingesting.commands import CommandError
from bench.ingesting.found import Tally, check_held
from bench.inputs.made_transactions import Made, make_transactions
from bench.readers import ours_loop
from bench.readers.checks import DifferenceError, check_events
from bench.readers.reading import Found, Reader, Took, logs_of

BENCH = Path(__file__).parents[2] / "bench"
BENCHMARKS = sorted(path.stem for path in BENCH.glob("*.py"))
RUN_TIMEOUT_S = 300
TRANSACTIONS = 400

PYTHON_ROWS = {
    "Log lines in memory": [
        "anchorpy EventParser",
        "hand-written loop",
        "Capstan, a loop: scan_logs, decode_event",
        "Capstan, a loop: extract_events",
        "Capstan, a batch: scan_log_columns, decode_events, from lists",
        "Capstan, a batch: scan_log_columns, decode_events, from Arrow",
    ],
    "getTransaction bodies in a file": [
        "json.loads, anchorpy",
        "json.loads, hand-written loop",
        "Capstan, a loop: parse_transaction, extract_events",
        "Capstan, a batch: read_bodies, extract_batch",
        "Capstan, a batch: read_bodies, extract_batch, 2 threads",
    ],
    "Position accounts": [
        "anchorpy account coder, 400 of them",
        "hand-written loop",
        "Capstan, a loop: decode_account",
        "Capstan, a batch: decode_accounts, from a list",
        "Capstan, a batch: decode_accounts, from Arrow",
    ],
}
NODE_ROWS = {
    "Log lines in memory": ["@coral-xyz/anchor EventParser"],
    "getTransaction bodies in a file": ["JSON.parse, @coral-xyz/anchor"],
    "Position accounts": ["@coral-xyz/anchor BorshAccountsCoder, 400 of them"],
}


def run(name: str, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a benchmark to its end, from a folder that is not the checkout; `path` replaces PATH."""
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), *arguments],
        cwd=BENCH.anchor,
        env=environment if path is None else {**environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )


def decode(tmp_path: Path, *, path: str | None = None) -> tuple[str, dict[str, Any]]:
    """Run bench/decode.py small; return what it printed and what it wrote."""
    report = tmp_path / "report.json"
    done = run("decode", "--transactions", str(TRANSACTIONS), "--json", str(report), path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(report.read_text())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_file_in_bench_is_a_benchmark(name: str) -> None:
    """What stands in bench/ itself is run in one and the same way; what it reads and compares has folders."""
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.usefixtures("node_packages")
def test_every_row_is_there_and_found_what_was_made(tmp_path: Path) -> None:
    """All readers and peers run, and those that read the same found the same number."""
    printed, told = decode(tmp_path)
    assert {group: sorted(rows) for group, rows in told["figures"].items()} == {
        group: sorted(PYTHON_ROWS[group] + NODE_ROWS[group]) for group in PYTHON_ROWS
    }
    for rows in told["figures"].values():
        for name, row in rows.items():
            assert name in printed
            assert row["found"] > 0
            assert row["ratio"] > 0
            assert len(row["seconds"]) == 1
    found = {name: row["found"] for rows in told["figures"].values() for name, row in rows.items()}
    made = [event.way for one in make_transactions(TRANSACTIONS) for event in one.events]
    logged = made.count("top") + made.count("nested")
    assert found["Capstan, a loop: extract_events"] == logged + made.count("cpi")
    assert found["Capstan, a batch: read_bodies, extract_batch"] == logged + made.count("cpi")
    assert found["anchorpy EventParser"] == logged + made.count("quoted")
    assert found["@coral-xyz/anchor EventParser"] == made.count("top") + made.count("quoted")
    assert found["Capstan, a loop: decode_account"] == TRANSACTIONS * 5
    assert "misses" in printed


def test_without_node_its_rows_are_skipped_with_the_reason(tmp_path: Path) -> None:
    """A machine that lacks a peer compares the others."""
    printed, told = decode(tmp_path, path=str(tmp_path))
    assert {group: sorted(rows) for group, rows in told["figures"].items()} == {
        group: sorted(rows) for group, rows in PYTHON_ROWS.items()
    }
    assert "@coral-xyz/anchor is skipped: no node on the PATH" in printed


@pytest.mark.parametrize("with_gc", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_is_off_while_anybody_is_timed(*, with_gc: bool, fails: bool) -> None:
    """Unless it was asked for; afterwards it is on again, also where a reader fails."""
    seen = []

    def run() -> tuple[Took, None]:
        seen.append(gc.isenabled())
        if fails:
            raise DifferenceError
        return Took(1.0, 1.0), None

    subjects = [Subject("group", name, 1, run, lambda _: 1) for name in ("one", "other")]
    console = Console(file=io.StringIO())
    with pytest.raises(DifferenceError) if fails else nullcontext():
        measure(subjects, 2, console, with_gc=with_gc)
    # Once more than is timed.
    assert seen == [with_gc] * (1 if fails else 6)
    assert gc.isenabled()


@pytest.fixture(scope="module")
def made() -> list[Made]:
    """A few transactions."""
    return list(make_transactions(TRANSACTIONS, seed=5))


@pytest.fixture
def reader(made: list[Made]) -> Reader:
    """Our loop over their lines."""
    return ours_loop.readers(logs_of(made), (), Path())[0]


Spoil = Callable[[list[Found]], list[Found]]
SPOILED: dict[str, Spoil] = {
    "left out": lambda found: found[:200] + found[201:],
    "last left out": lambda found: found[:-1],
    "twice": lambda found: [*found[:200], *found[199:]],
    "other value": lambda found: [*found[:200], found[200]._replace(text=found[200].text + "0"), *found[201:]],
    "other ordinal": lambda found: [*found[:200], found[200]._replace(ordinal=9), *found[201:]],
    "other transaction": lambda found: [*found[:200], found[200]._replace(place=399), *found[201:]],
}


def test_a_reader_that_finds_all_is_equal(made: list[Made], reader: Reader) -> None:
    """The number is that of its events."""
    _, result = reader.run()
    assert check_events(reader, made, result) == len(result)


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_reader_that_differs_is_told_apart(made: list[Made], reader: Reader, spoil: Spoil) -> None:
    """An event that is missing, too many, or not as it was made ends the comparison."""
    _, result = reader.run()
    spoiled = reader._replace(found=lambda result: spoil(list(reader.found(result))))
    with pytest.raises(DifferenceError):
        check_events(spoiled, made, result)


def test_ingest_stores_what_was_made_before_it_tells_a_time(tmp_path: Path) -> None:
    """Files, a past and a present go through the commands, and every figure has its target beside it."""
    report = tmp_path / "report.json"
    done = run("ingest", "--transactions", "300", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What was stored is what was made" in done.stdout
    told = json.loads(report.read_text())
    made = [event.way for one in make_transactions(300) for event in one.events]
    lake, postgres, *peers = told["files"]
    assert lake["events"] == postgres["events"] == len(made) - made.count("quoted")
    assert [peer["events"] for peer in peers] == [len(made) - made.count("cpi")] * 2
    assert all(value > 0 for row in told["ratios"] for name, value in row.items() if name)
    catch_up, backfill = told["past"]
    assert catch_up["transactions"] == backfill["transactions"] >= 300
    (live,) = told["live"]
    assert live["transactions"] > 0
    assert live["p50 less it"] == pytest.approx(live["p50, ms"] - live["commitment, ms"])
    assert live["p99, ms"] >= live["p50, ms"]
    for row in (*told["files"], *told["past"], *told["live"]):
        assert row["peak MB"] > 0
    assert [row[""] for row in told["targets"]]


def test_ingest_counts_a_value_that_was_stored_wrong() -> None:
    """Counts alone would let a wrong amount pass."""
    tally = Tally()
    for one in make_transactions(50):
        tally.add(one)
    held = tally.held()
    check_held("the same", held, held)
    name, sums = next(iter(held.events.items()))
    wrong = held._replace(events={**held.events, name: (*sums[:-1], sums[-1] + 1)})
    with pytest.raises(CommandError, match=name):
        check_held("PostgreSQL", wrong, held)
    with pytest.raises(CommandError, match="transactions"):
        check_held("PostgreSQL", held._replace(transactions=49), held)
