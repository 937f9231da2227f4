"""
How fast a local chain is seeded and backfilled, as the commands themselves say it.

    python bench/backfill.py [--quick] [--json FILE]

Each figure is the minimum, median and maximum of several runs in a row on this machine, chain and database new each
time.
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

FULL, QUICK = (20_000, 3), (4_000, 2)
READY_S_MAX = 120
# The history's last block is final a few slots of 50 ms later.
FINAL_S = 1.0


def one_run(transactions: int, seed: int) -> dict[str, float]:
    """Seed a chain, backfill it into a new embedded PostgreSQL and a new lake, and do that again over what is there."""
    with tempfile.TemporaryDirectory(prefix="capstan-bench-") as folder:
        Path(folder).chmod(0o755)
        command = [sys.executable, "-m", "capstan"]
        chain = subprocess.Popen(
            [
                *(*command, "localnet", "--json", "--rate", "0", "--rpc-port", "0", "--ws-port", "0"),
                *("--seed", str(seed), "--transactions", str(transactions)),
                *("--slot-ms", "50", "--finalized-distance", "1"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert chain.stdout is not None
            ready = json.loads(chain.stdout.readline())
            environment = {**os.environ, "CAPSTAN_RPC_URL": ready["rpc_url"], "CAPSTAN_DATA_DIR": folder}
            environment.pop("DATABASE_URL", None)
            time.sleep(FINAL_S)
            runs = []
            for _ in range(2):
                done = subprocess.run(
                    [*command, "index", "--catch-up", "--json"],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=True,
                    timeout=READY_S_MAX,
                )
                runs.append(json.loads(done.stdout))
        finally:
            chain.send_signal(signal.SIGTERM)
            chain.wait(30)
            if chain.stdout is not None:
                chain.stdout.close()
    assert runs[0]["transactions"] >= transactions, runs
    assert runs[1]["transactions"] == 0, "the second run had something left to do"
    return {
        "seeded transactions/s": float(ready["seeded"]["per_second"]),
        "backfilled transactions/s": float(runs[0]["per_second"]),
        "backfill, s": float(runs[0]["seconds"]),
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer transactions and runs; within a minute.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
) -> None:
    """Measure seeding and backfill."""
    transactions, runs = QUICK if quick else FULL
    console = Console(stderr=True)
    figures: dict[str, list[float]] = {}
    for seed in track(range(runs), "measuring", console=console, disable=not console.is_terminal):
        for name, value in one_run(transactions, seed).items():
            figures.setdefault(name, []).append(value)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    table = Table(title=f"{transactions:,} transactions, {runs} runs; {machine}")
    for title in ("", "min", "median", "max"):
        table.add_column(title, justify="left" if not title else "right")
    for name, values in figures.items():
        row = (min(values), statistics.median(values), max(values))
        table.add_row(name, *(f"{value:,.1f}" for value in row))
    Console().print(table)
    if json_file is not None:
        facts: dict[str, Any] = {"machine": machine, "transactions": transactions, "runs": figures}
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
