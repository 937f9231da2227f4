"""
How fast events and accounts are decoded: by Capstan, by its peers, and by a loop that one would write oneself.

    python bench/decode.py [--quick] [--with-gc] [--json FILE]

All read the same made transactions and accounts in one run, in turns, so that a slow moment of the machine is
everybody's. What each finds is compared with what was made before any time is shown: a difference that a peer is not
known for ends the run. Known ones are listed with the figures.
"""

import gc
import json
import os
import platform
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

# This file's own tree is measured, whichever is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.inputs.made_accounts import make_positions
from bench.inputs.made_transactions import Made, Way, make_transactions, write_bodies
from bench.readers import handwritten, ours_batch, ours_loop, peer_anchorpy, peer_node
from bench.readers.checks import DifferenceError, check_events, check_positions
from bench.readers.reading import Reader, Took, logs_of, timed
from indexer.chain.transaction import parse_transaction
from tests.fixtures.node import NoPackagesError, install_packages

Figures = dict[str, dict[str, dict[str, Any]]]


class Scale(NamedTuple):
    """How much is measured; the peers' account coders are given fewer accounts, and their rate is compared."""

    transactions: int
    accounts: int
    peer_accounts: int
    runs: int


FULL, QUICK = Scale(200_000, 1_000_000, 20_000, 3), Scale(10_000, 100_000, 5_000, 2)
LINES, BODIES, ACCOUNTS = "Log lines in memory", "getTransaction bodies in a file", "Position accounts"
MISSED: dict[Way, str] = {
    "top": "of top-level calls",
    "nested": "of calls by other programs",
    "cpi": "in inner instructions",
}


Run: TypeAlias = Callable[[], tuple[Took, Any]]


class Subject(NamedTuple):
    """
    One row.

    Args:
        given: how many transactions, or accounts, it is given.
        run: does all once; returns how long that took, and a result.
        check: compares a result with what was made; returns how many events or accounts there are in it.
        ratio_min: how many times the baseline's pace it is meant to reach.
    """

    group: str
    name: str
    given: int
    run: Run
    check: Callable[[Any], int]
    baseline: bool = False
    ratio_min: float | None = None


class Measured(NamedTuple):
    """A row's figures: how many it found, and how long each run took."""

    subject: Subject
    found: int
    took: list[Took]


def measure(subjects: Sequence[Subject], runs: int, console: Console, *, with_gc: bool) -> list[Measured]:
    """
    Let all run in turns, once more than is timed: of the first run the result is checked, and caches come with it.

    Args:
        with_gc: leave Python's collector of cycles on. Otherwise it is off while anybody is timed, as `timeit` has it:
            how often it goes through all objects depends on what else is kept, which is all results here.

    Raises:
        DifferenceError: a result is not what was made.
    """
    times: list[list[Took]] = [[] for _ in subjects]
    found = [0 for _ in subjects]
    turns = [(run, number) for run in range(runs + 1) for number in range(len(subjects))]
    for run, number in track(turns, "measuring", console=console, disable=not console.is_terminal):
        gc.collect()
        if not with_gc:
            gc.disable()
        try:
            took, result = subjects[number].run()
        finally:
            gc.enable()
        if run == 0:
            found[number] = subjects[number].check(result)
        else:
            times[number].append(took)
        del result
    return [Measured(*row) for row in zip(subjects, found, times, strict=True)]


class Events(NamedTuple):
    """The readers of transactions by group, why some are not there, what the peers are, and the process of one."""

    readers: list[tuple[str, Reader]]
    absent: dict[str, str]
    versions: dict[str, str]
    node: peer_node.Node | None


def event_readers(made: Sequence[Made], folder: Path, stack: ExitStack) -> Events:
    """Return all readers of events, with what they read ready."""
    path = folder / "bodies.ndjson"
    write_bodies(made, path)
    logs = logs_of(made)
    transactions = [parse_transaction(one.body) for one in made]
    rows = [peer_anchorpy.readers(peer_anchorpy.Anchorpy(), logs, path)]
    absent, versions = {}, {name: version(name) for name in ("anchorpy", "construct", "pyarrow", "msgspec", "pybase64")}
    node = None
    try:
        node = stack.enter_context(peer_node.Node(install_packages(), path, folder / "found"))
        versions |= {"node": node.versions["node"], "@coral-xyz/anchor": node.versions["version"]}
        rows.append(peer_node.readers(node))
    except NoPackagesError as absence:
        absent["@coral-xyz/anchor"] = str(absence)
    rows.append(handwritten.readers(logs, path))
    readers = [pair for in_lines, in_bodies in rows for pair in ((LINES, in_lines), (BODIES, in_bodies))]
    of_lines, of_transactions, of_bodies = ours_loop.readers(logs, transactions, path)
    readers += [(LINES, of_lines), (LINES, of_transactions), (BODIES, of_bodies)]
    groups = (LINES, LINES, BODIES, BODIES)
    readers += list(zip(groups, ours_batch.readers(logs, path), strict=True))
    return Events(readers, absent, versions, node)


def event_subjects(readers: Sequence[tuple[str, Reader]], made: Sequence[Made]) -> list[Subject]:
    """Return the readers as rows."""

    def subject(group: str, reader: Reader) -> Subject:
        def check(result: Any) -> int:
            return check_events(reader, made, result)

        return Subject(group, reader.name, len(made), reader.run, check, reader.baseline, reader.target)

    return [subject(*pair) for pair in readers]


def account_subjects(scale: Scale, node: peer_node.Node | None) -> list[Subject]:
    """Return the rows about accounts, with the accounts made."""
    datas = [made.data for made in make_positions(scale.accounts)]
    arrow = pa.array(datas, pa.binary())
    few = datas[: scale.peer_accounts]
    peer = peer_anchorpy.Anchorpy()
    fields = ours_loop.ENGINE.accounts["Position"].fields
    names = [field.name for field in fields]

    def from_peer(decoded: list[Any]) -> Iterator[list[Any]]:
        return ([peer_anchorpy.plain(getattr(one, name)) for name in names] for one in decoded)

    def from_loop(decoded: list[Any]) -> Iterator[list[Any]]:
        return ([one.values[name] for name in names] for one in decoded)

    def subject(name: str, given: list[bytes], run: Run, rows: Callable[[Any], Any], **more: Any) -> Subject:
        def check(result: Any) -> int:
            return check_positions(name, len(given), rows(result))

        return Subject(ACCOUNTS, name, len(given), run, check, **more)

    decode, batch = ours_loop.ENGINE.decode_account, ours_loop.ENGINE.decode_accounts
    some = f"{len(few):,} of them"
    subjects = [
        subject(
            f"anchorpy account coder, {some}", few, timed(lambda: peer.read_accounts(few)), from_peer, baseline=True
        ),
        subject("hand-written loop", datas, timed(lambda: handwritten.read_positions(datas)), lambda rows: rows),
        subject("Capstan, a loop: decode_account", datas, timed(lambda: [decode(data) for data in datas]), from_loop),
    ]
    for source, given in (("a list", datas), ("Arrow", arrow)):
        name = f"Capstan, a batch: decode_accounts, from {source}"
        subjects.append(subject(name, datas, timed(partial(batch, given)), ours_batch.position_rows))
    if node is not None:
        node.load(ours_loop.ENGINE.name, "Position", few)
        name = f"@coral-xyz/anchor BorshAccountsCoder, {some}"
        subjects.insert(1, subject(name, few, partial(node.run, "accounts"), lambda _: node.found_accounts(fields)))
    return subjects


def facts(made: Sequence[Made], readers: Sequence[tuple[str, Reader]]) -> list[str]:
    """Return what readers by their nature miss or make up, with how often."""
    ways = Counter(event.way for one in made for event in one.events)
    told = []
    for group, reader in readers:
        notes = [
            f"misses {ways[way]:,} events {where}"
            for way, where in MISSED.items()
            if way not in reader.finds and ways[way]
        ]
        if "quoted" in reader.finds and ways["quoted"]:
            notes.append(f"takes {ways['quoted']:,} texts that a caller gave for events")
        if notes:
            told.append(f"{reader.name} ({group}): {'; '.join(notes)}")
    return told


def figures_of(rows: Sequence[Measured]) -> Figures:
    """
    Return each row's figures, by group and name.

    `ratio` is the pace over that of the group's baseline, in medians: of transactions or accounts read, not of events
    found, so that whoever finds less gains nothing by it. `cpu_ratio` is the same by seconds on a core.
    """
    figures: Figures = {}
    baselines = {row.subject.group: _medians(row) for row in rows if row.subject.baseline}
    for row in rows:
        subject, found = row.subject, row.found
        per_given, of_baseline = _medians(row), baselines[subject.group]
        walls = [took.wall_s for took in row.took]
        figures.setdefault(subject.group, {})[subject.name] = {
            "given": subject.given,
            "found": found,
            "seconds": walls,
            "cpu_seconds": [took.cpu_s for took in row.took],
            "per_second": {
                "min": found / max(walls),
                "median": found / statistics.median(walls),
                "max": found / min(walls),
            },
            "ratio": of_baseline.wall_s / per_given.wall_s,
            "cpu_ratio": of_baseline.cpu_s / per_given.cpu_s,
            "ratio_wanted": subject.ratio_min,
        }
    return figures


def _medians(row: Measured) -> Took:
    """Return how long one transaction, or account, takes."""
    walls, cpus = zip(*row.took, strict=True)
    return Took(statistics.median(walls) / row.subject.given, statistics.median(cpus) / row.subject.given)


def show(console: Console, title: str, figures: Figures, events: Events, told: list[str]) -> None:
    """Print one table for each group, and what is to be known about its rows."""
    for group, rows in figures.items():
        table = Table(title=f"{group}; {title}")
        for column in ("", "found", "a second: min", "median", "max", "x anchorpy", "in CPU time", "wanted"):
            table.add_column(column, justify="right" if column else "left")
        for name, one in rows.items():
            wanted = "" if one["ratio_wanted"] is None else f">= {one['ratio_wanted']:g}"
            paces = (f"{value:,.0f}" for value in one["per_second"].values())
            table.add_row(name, f"{one['found']:,}", *paces, f"{one['ratio']:,.1f}", f"{one['cpu_ratio']:,.1f}", wanted)
        console.print(table)
    for name, reason in events.absent.items():
        console.print(f"{name} is skipped: {reason}", highlight=False)
    console.print("Equal to what was made, event by event and account by account, but for this:", highlight=False)
    for note in told:
        console.print(f"- {note}", highlight=False)


def machine(events: Events) -> dict[str, str]:
    """Return what the figures were measured on, and with."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **events.versions,
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer transactions and runs; within a minute.")] = False,
    with_gc: Annotated[
        bool, typer.Option("--with-gc", help="Leave Python's collector of cycles on while anybody is timed.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
    transactions: Annotated[int | None, typer.Option("--transactions", min=1, hidden=True)] = None,
) -> None:
    """Measure decoding, side by side with peers."""
    scale = QUICK if quick else FULL
    if transactions is not None:
        scale = Scale(transactions, transactions * 5, transactions, 1)
    console, progress = Console(), Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="capstan-bench-") as folder, ExitStack() as stack:
        made = list(make_transactions(scale.transactions))
        events = event_readers(made, Path(folder), stack)
        subjects = [*event_subjects(events.readers, made), *account_subjects(scale, events.node)]
        on = machine(events)
        # What was made is not the readers' to look through whenever they make the collector run.
        gc.collect()
        gc.freeze()
        try:
            figures = figures_of(measure(subjects, scale.runs, progress, with_gc=with_gc))
        except DifferenceError as difference:
            console.print(f"Not equal, so nothing is compared: {difference}", highlight=False)
            raise typer.Exit(1) from None
    failed = sum(one.failed for one in made)
    title = f"{scale.runs} run{'s' if scale.runs > 1 else ''}, collector {'on' if with_gc else 'off'}"
    console.print(
        f"{len(made):,} transactions, {failed:,} of them failed; {scale.accounts:,} accounts", highlight=False
    )
    told = facts(made, events.readers)
    show(console, title, figures, events, told)
    if scale != FULL:
        sizes = [
            f"{one.transactions:,} transactions, {one.accounts:,} accounts, runs: {one.runs}" for one in (scale, FULL)
        ]
        console.print(f"Smaller than the full run: {sizes[0]}, instead of {sizes[1]}.", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in on.items()), highlight=False)
    if json_file is not None:
        facts_json = {
            "quick": quick,
            "with_gc": with_gc,
            "scale": scale._asdict(),
            "figures": figures,
            "differences": told,
            "on": on,
        }
        json_file.write_text(json.dumps(facts_json, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
