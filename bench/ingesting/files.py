"""
A file of transactions into Postgres and into the lake by the command itself; beside it, the JSON alone, and the peer.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.ingesting.commands import CommandError, Ran, run
from bench.ingesting.found import Held, Tally, check_held, held_by_lake, held_by_postgres
from bench.inputs.made_transactions import PACE, START_SLOT, Made, make_transactions
from bench.readers.reading import LOGGED
from indexer.chain.body_columns import parse_columns
from indexer.chain.body_lines import BodyLines
from indexer.sources.base import Place
from indexer.sources.files import FileSource
from indexer.store.database import open_database

GENESIS = "mainnet-beta"
WHOLE_PARSER = "msgspec"


class Input(NamedTuple):
    """
    A made file.

    Args:
        made: what a store must hold of it.
        part: the beginning of it, for the peer.
        part_counts: what a reader of log lines finds in the part: events, and texts that it takes for some.
    """

    path: Path
    megabytes: float
    made: Held
    part: Path
    part_counts: dict[str, int]


def write_input(folder: Path, transactions: int, part: int) -> Input:
    """Make a file of transactions, and one of the first `part` of them."""
    path, part_path = folder / "transactions.ndjson", folder / "part.ndjson"
    tally, counts = Tally(), Counter[str]()
    made = make_transactions(transactions)
    with path.open("wb") as file, part_path.open("wb") as part_file:
        for one in islice(made, part):
            part_file.write(one.body + b"\n")
            file.write(one.body + b"\n")
            tally.add(one)
            counts.update(_logged(one))
        for one in made:
            file.write(one.body + b"\n")
            tally.add(one)
    # What is still on its way to the disk would be written while others are timed.
    os.sync()
    return Input(path, path.stat().st_size / 1e6, tally.held(), part_path, dict(counts))


def _logged(made: Made) -> list[str]:
    return [
        f"{event.program}.{event.text.split('|')[0]}"
        for event in made.events
        if event.way in LOGGED or event.way == "quoted"
    ]


def parse_seconds(path: Path) -> dict[str, float]:
    """Return how long it takes to parse every line of a file in one thread, and do nothing else, in this process."""
    ways: dict[str, Callable[[bytes], Any]] = {WHOLE_PARSER: msgspec.json.decode, "json.loads": json.loads}
    seconds = {"the columns that the reader asks DuckDB for": _columns_seconds(path)}
    for name, parse in ways.items():
        started = time.perf_counter()
        with path.open("rb") as file:
            for line in file:
                parse(line)
        seconds[name] = time.perf_counter() - started
    return seconds


def _columns_seconds(path: Path) -> float:
    started = time.perf_counter()
    # As a load cuts it, and without holding all of it: a child's peak memory begins with what its parent has.
    for batch in FileSource.open(path).batches(Place()):
        parse_columns(BodyLines(batch.bodies).texts())
    return time.perf_counter() - started


def into_postgres(given: Input, folder: Path) -> Ran:
    """
    Load the file into a new embedded PostgreSQL.

    Raises:
        CommandError: it failed, or what is stored is not what was made.
    """
    return _load(given, folder, ())


def into_lake(given: Input, folder: Path) -> Ran:
    """
    Load the file into a new lake alone.

    Raises:
        CommandError: it failed, or what is stored is not what was made.
    """
    last_slot = START_SLOT + (given.made.transactions - 1) // PACE
    return _load(given, folder, ("--lake-only", "--covers", f"{START_SLOT}:{last_slot}"))


def _load(given: Input, folder: Path, more: tuple[str, ...]) -> Ran:
    command = ("capstan", "index", "--json", "--source", f"file:{given.path}", "--genesis", GENESIS)
    ran = run(*command, *more, environment={"CAPSTAN_DATA_DIR": str(folder)})
    read = held_by_lake if more else held_by_postgres
    with open_database(None, data_dir=folder) as database:
        check_held("the lake" if more else "PostgreSQL", read(database.dsn), given.made)
    if ran.told["events"] != given.made.event_count or ran.told["bad_lines"]:
        raise CommandError(f"the load says {ran.told}, and {given.made.event_count:,} events were made")
    return ran


def by_peer(given: Input, folder: Path, *, keep_all: bool) -> Ran:
    """
    Let the peer store the part of the file: its events alone, or everything that Capstan keeps.

    Raises:
        CommandError: it failed, or does not have what a reader of log lines has to find.
    """
    ran = run("bench.readers.peer_inserts", str(given.part), str(folder), *(["--keep-all"] if keep_all else []))
    if ran.told["counts"] != given.part_counts:
        raise CommandError(f"the peer stored {ran.told['counts']}, and {given.part_counts} were made")
    rows, transactions = ran.told["rows"], ran.told["transactions"]
    if keep_all and not rows["transactions"] == rows["bodies"] == transactions <= rows["mentions"]:
        raise CommandError(f"the peer stored {rows}, and read {transactions:,} transactions")
    return ran
