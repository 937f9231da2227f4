"""
How fast transactions become rows: from files, from a node's past, and while they happen.

    python bench/ingest.py [--quick] [--json FILE]

Everything is done by the commands that a user runs, each with a new database, and what they stored is compared with
what was made before any time is shown. Beside the files: parsing their JSON and doing nothing else, and a peer that
reads with json.loads and anchorpy and writes with executemany, twice: keeping events alone, and keeping everything that
Capstan keeps. Both read the first transactions of the same file.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

# This file's own tree is measured, whichever is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.ingesting import chain, files
from bench.ingesting.commands import CommandError, Ran

LAKE_TPS_MIN = 100_000
PARSE_RATIO_MAX = 2.0
POSTGRES_EVENTS_MIN = 40_000
PEER_RATIO_MIN = 15.0
LIVE_P99_MS_MAX, LIVE_RATE = 150, 100
PACKAGES = ("anchorpy", "psycopg", "duckdb", "pyarrow", "msgspec")

Row = dict[str, Any]


class Scale(NamedTuple):
    """How much: transactions of the file, of the peer's part of it and of the chain's past; live rates, seconds."""

    transactions: int
    part: int
    past: int
    rates: tuple[int, ...]
    live_s: float


FULL = Scale(200_000, 10_000, 20_000, (10, 100, 500), 20.0)
QUICK = Scale(10_000, 1_000, 1_000, (100,), 3.0)


class Report(NamedTuple):
    """What was measured; the rows are as they are printed, and as they are written as JSON."""

    files: list[Row]
    ratios: list[Row]
    parse: list[Row]
    past: list[Row]
    live: list[Row]
    targets: list[Row]


def _file_row(name: str, ran: Ran) -> Row:
    seconds = float(ran.told["seconds"])
    transactions, events = int(ran.told["transactions"]), int(ran.told["events"])
    return {
        "": name,
        "transactions": transactions,
        "events": events,
        "seconds": seconds,
        "transactions/s": transactions / seconds,
        "events/s": events / seconds,
        "whole process, s": ran.seconds,
        "its CPU, s": ran.cpu_s,
        "peak MB": ran.peak_mb,
    }


def _past_row(name: str, ran: Ran) -> Row:
    return {
        "": name,
        "transactions": int(ran.told["transactions"]),
        "seconds": float(ran.told["seconds"]),
        "transactions/s": float(ran.told["per_second"]),
        "whole process, s": ran.seconds,
        "its CPU, s": ran.cpu_s,
        "peak MB": ran.peak_mb,
    }


def _live_row(lived: chain.Lived) -> Row:
    spread = lived.spread()
    return {
        "asked for, tx/s": lived.rate,
        "made, tx/s": lived.per_second,
        "transactions": lived.transactions,
        "p50, ms": spread["p50"],
        "p99, ms": spread["p99"],
        "commitment, ms": lived.delay_ms,
        "p50 less it": spread["p50_own"],
        "p99 less it": spread["p99_own"],
        "backlog at the end": lived.backlog,
        "kept up": lived.late_s < 2.0,
        "peak MB": lived.peak_mb,
    }


def measure(scale: Scale, folder: Path, tell: Callable[[str], None]) -> Report:
    """
    Measure everything once.

    Raises:
        CommandError: a command failed, or something that was made is not where it has to be.
    """
    tell("making a file")
    given = files.write_input(folder, scale.transactions, scale.part)
    tell("parsing it")
    parsed = files.parse_seconds(given.path)
    tell("into the lake")
    lake = files.into_lake(given, folder / "lake-only")
    tell("into PostgreSQL")
    postgres = files.into_postgres(given, folder / "postgres")
    tell("by the peer, events alone")
    lighter = files.by_peer(given, folder / "peer-events", keep_all=False)
    tell("by the peer, keeping what Capstan keeps")
    fuller = files.by_peer(given, folder / "peer-all", keep_all=True)
    tell("backfilling a chain")
    past = chain.backfill(folder / "past", scale.past)
    lives = []
    for rate in scale.rates:
        tell(f"following a chain at {rate} transactions a second")
        lives.append(chain.live(folder / f"live-{rate}", rate, scale.live_s))
    file_rows = [
        _file_row("Capstan, into the lake", lake),
        _file_row("Capstan, into PostgreSQL", postgres),
        _file_row("peer, keeping events alone", lighter),
        _file_row("peer, keeping what Capstan keeps", fuller),
    ]
    parse_rows = [
        {
            "": name,
            "seconds": seconds,
            "transactions/s": scale.transactions / seconds,
            "MB/s": given.megabytes / seconds,
            "lake over it": file_rows[0]["seconds"] / seconds,
        }
        for name, seconds in parsed.items()
    ]
    past_rows = [
        _past_row("capstan index --catch-up", past.catch_up),
        _past_row("capstan backfill --workers 2", past.backfill),
    ]
    live_rows = [_live_row(lived) for lived in lives]
    ratio_rows = _ratios(file_rows)
    return Report(file_rows, ratio_rows, parse_rows, past_rows, live_rows, _targets(file_rows, parse_rows, live_rows))


def _ratios(file_rows: list[Row]) -> list[Row]:
    """How many times as many transactions a second as each peer."""
    ours, peers = file_rows[:2], file_rows[2:]
    return [
        {"": row[""]} | {f"times the {peer['']}": row["transactions/s"] / peer["transactions/s"] for peer in peers}
        for row in ours
    ]


def _targets(file_rows: list[Row], parse_rows: list[Row], live_rows: list[Row]) -> list[Row]:
    lake, postgres, *peers = file_rows
    # The fastest parser of whole bodies that is at hand: what the reader takes out is less than its JSON.
    over = next(row["lake over it"] for row in parse_rows if row[""] == files.WHOLE_PARSER)
    lake_tps = lake["transactions/s"]
    targets = [
        _target(
            f"file to lake, or of the time of its JSON alone by {files.WHOLE_PARSER}",
            f"{LAKE_TPS_MIN:,} tx/s, or {PARSE_RATIO_MAX:g}x",
            f"{lake_tps:,.0f} tx/s, {over:.1f}x",
            met=lake_tps >= LAKE_TPS_MIN or over <= PARSE_RATIO_MAX,
        ),
        _target(
            "file to PostgreSQL",
            f"{POSTGRES_EVENTS_MIN:,} events/s",
            f"{postgres['events/s']:,.0f} events/s",
            met=postgres["events/s"] >= POSTGRES_EVENTS_MIN,
        ),
    ]
    for peer in peers:
        ratio = postgres["transactions/s"] / peer["transactions/s"]
        what = f"file to PostgreSQL, against the {peer['']}"
        targets.append(_target(what, f"{PEER_RATIO_MIN:g}x", f"{ratio:.1f}x", met=ratio >= PEER_RATIO_MIN))
    for row in live_rows:
        if row["asked for, tx/s"] == LIVE_RATE:
            own = row["p99 less it"]
            wanted = f"p99 {LIVE_P99_MS_MAX} ms and the commitment's own"
            met = own <= LIVE_P99_MS_MAX
            targets.append(_target(f"live at {LIVE_RATE} a second", wanted, f"p99 {own:,.0f} ms and that", met=met))
    return targets


def _target(what: str, wanted: str, measured: str, *, met: bool) -> Row:
    return {"": what, "wanted": wanted, "measured": measured, "met in this run": met}


def show(console: Console, report: Report) -> None:
    """Print one table for each part."""
    titles = (
        "A file of transactions",
        "Against the peers, in transactions a second",
        "Its JSON alone, in one process",
        "A local chain's past into PostgreSQL and the lake",
        "Live: from the slot to the committed row",
        "What was wanted",
    )
    for title, rows in zip(titles, report, strict=True):
        if not rows:
            continue
        table = Table(title=title)
        for column in rows[0]:
            table.add_column(column, justify="right" if column else "left")
        for row in rows:
            table.add_row(*map(_shown, row.values()))
        console.print(table)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.1f}" if abs(value) < 1_000 else f"{value:,.0f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def machine() -> dict[str, str]:
    """Return what the figures were measured on, and with."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything; within a minute.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
    transactions: Annotated[int | None, typer.Option("--transactions", min=1, hidden=True)] = None,
) -> None:
    """Measure ingest: files, backfill, live."""
    scale = QUICK if quick else FULL
    if transactions is not None:
        scale = Scale(transactions, transactions, transactions, (20,), 2.0)
    console, progress = Console(), Console(stderr=True)
    on = machine()
    with tempfile.TemporaryDirectory(prefix="capstan-bench-") as name:
        folder = Path(name)
        # As root the embedded PostgreSQL runs as somebody else, who has to get in.
        folder.chmod(0o755)
        try:
            report = measure(scale, folder, lambda what: progress.print(what, style="dim"))
        except CommandError as error:
            console.print(f"Nothing is compared: {error}", highlight=False)
            raise typer.Exit(1) from None
    show(console, report)
    if scale != FULL:
        console.print("Smaller than the full run; start and end weigh more than they do there.", highlight=False)
    console.print("What was stored is what was made: counts, and sums of every integer field.", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in on.items()), highlight=False)
    if json_file is not None:
        told = {"quick": quick, "scale": scale._asdict(), **report._asdict(), "on": on}
        json_file.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
