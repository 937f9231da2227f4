"""
What a store holds, in numbers that a lost, doubled or wrong row would change: counts, and sums of every integer column.

The same numbers are taken of what was made, from the made texts and not with the code that stores.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg

from bench.ingesting.commands import CommandError, Told
from bench.inputs.made_transactions import PROGRAMS, Made
from indexer.chain.types import Integer
from indexer.store.duck import attach_lake, open_duckdb, quote_name
from indexer.store.queries import load_queries

TABLES = load_queries("audit")["typed_tables"]
INTEGERS = frozenset({"smallint", "integer", "bigint", "numeric(20,0)"})

Sums = dict[str, tuple[int, ...]]
"""By "program.Event": how many, the sum of their ordinals, and the sum of each integer field in the IDL's order."""


class Held(NamedTuple):
    """What is in a store."""

    transactions: int
    events: Sums

    @property
    def event_count(self) -> int:
        """All events."""
        return sum(sums[0] for sums in self.events.values())

    @property
    def counts(self) -> dict[str, int]:
        """Events by full name, as localnet counts them."""
        return {name: sums[0] for name, sums in self.events.items()}


class Tally:
    """Counts transactions as they are made, so that they need not be kept."""

    def __init__(self) -> None:
        self.transactions = 0
        self._sums: dict[str, list[int]] = defaultdict(list)
        self._fields: dict[str, list[int]] = {}

    def add(self, made: Made) -> None:
        """Count a transaction and its events, not the texts that only look like one."""
        self.transactions += 1
        for event in made.events:
            if event.way == "quoted":
                continue
            type_name, *texts = event.text.split("|")
            name = f"{event.program}.{type_name}"
            places = self._places(event.program, type_name)
            values = [1, event.ordinal, *(int(texts[place]) for place in places)]
            known = self._sums[name] or [0] * len(values)
            self._sums[name] = [a + b for a, b in zip(known, values, strict=True)]

    def held(self) -> Held:
        """Return what a store must hold."""
        return Held(self.transactions, {name: tuple(sums) for name, sums in self._sums.items()})

    def _places(self, program: str, type_name: str) -> list[int]:
        name = f"{program}.{type_name}"
        if name not in self._fields:
            fields = PROGRAMS[program].events[type_name].fields
            self._fields[name] = [place for place, one in enumerate(fields) if isinstance(one.type, Integer)]
        return self._fields[name]


def held_by_postgres(dsn: str) -> Held:
    """Return what Postgres holds."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(TABLES, {"kind": "event"}).fetchall()
        return _held(rows, "", lambda query: connection.execute(query.encode()).fetchone())


def held_by_lake(dsn: str) -> Held:
    """Return what the lake holds."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(TABLES, {"kind": "event"}).fetchall()
    with open_duckdb(threads=2) as duck:
        attach_lake(duck, dsn, None, read_only=True)
        return _held(rows, "lake.", lambda query: duck.execute(query).fetchone())


def _held(tables: Iterable[Sequence[Any]], prefix: str, ask: Callable[[str], Sequence[Any] | None]) -> Held:
    events: Sums = {}
    for program, type_name, schema_name, table_name, columns in tables:
        summed = ["ordinal", *(name for _, name, pg_type in columns if pg_type in INTEGERS)]
        sums = ", ".join(f"sum({quote_name(name)})" for name in summed)
        row = ask(f"select count(*), {sums} from {prefix}{quote_name(schema_name)}.{quote_name(table_name)}")
        assert row is not None
        if row[0]:
            events[f"{program}.{type_name}"] = tuple(map(int, row))
    counted = ask(f"select count(*) from {prefix}capstan.transactions")
    assert counted is not None
    return Held(int(counted[0]), events)


def check_held(what: str, held: Held, made: Held) -> None:
    """Raise CommandError where a store does not hold what was made."""
    if held.transactions != made.transactions:
        raise CommandError(f"{what} holds {held.transactions:,} transactions where {made.transactions:,} were made")
    for name in sorted(held.events.keys() | made.events.keys()):
        ours, theirs = held.events.get(name), made.events.get(name)
        if ours != theirs:
            raise CommandError(f"{what} holds {name} with counts and sums {ours} where {theirs} was made")


def check_census(what: str, held: Held, census: Told) -> None:
    """Raise CommandError where a store does not hold what localnet counted."""
    if held.transactions != census["transactions"]:
        raise CommandError(f"{what} holds {held.transactions:,} transactions of {census['transactions']:,}")
    if Counter(held.counts) != Counter(census["events"]):
        raise CommandError(f"{what} holds the events {held.counts}, and the chain had {census['events']}")
