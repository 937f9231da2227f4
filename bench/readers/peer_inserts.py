"""
The indexer that one would write in an afternoon: json.loads, anchorpy's EventParser, executemany.

    python -m bench.readers.peer_inserts FILE DATA_DIR [--keep-all]

A process of its own, against an embedded PostgreSQL of its own. It reads log lines only and has every event as JSON,
in one table; its inserts can be repeated, as every indexer's must be. By itself it keeps nothing but events, which is
less than an indexer has to do. With --keep-all it keeps what Capstan keeps: transactions, which programs they mention,
and their bodies, compressed by zlib at its fastest level.
"""

import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from bench.inputs.made_transactions import IDS
from bench.readers.peer_anchorpy import Anchorpy, plain
from indexer.store.database import open_database

BATCH_TRANSACTIONS = 1_000
ZLIB_LEVEL = 1

Row = tuple[Any, ...]


class Kept(NamedTuple):
    """A table, and what of a transaction goes into it."""

    name: str
    columns: str
    rows: Callable[[Anchorpy, dict[str, Any], bytes], list[Row]]

    @property
    def insert(self) -> str:
        """The statement for a row. The columns end with the key, a definition each."""
        marks = ", ".join(["%s"] * (self.columns.split("primary key")[0].count(",")))
        return f"insert into {self.name} values ({marks}) on conflict do nothing"


def _events(peer: Anchorpy, body: dict[str, Any], _: bytes) -> list[Row]:
    if body["meta"]["err"] is not None:
        return []
    rows: list[Row] = []
    for program in _mentioned(body):
        found: list[Any] = []
        peer.parsers[program].parse_logs(body["meta"]["logMessages"], found.append)
        for ordinal, event in enumerate(found):
            values = {name: _json(value) for name, value in vars(event.data).items() if not name.startswith("_")}
            rows.append((_signature(body), program, ordinal, event.name, body["slot"], json.dumps(values)))
    return rows


def _transactions(_: Anchorpy, body: dict[str, Any], __: bytes) -> list[Row]:
    meta = body["meta"]
    err = None if meta["err"] is None else json.dumps(meta["err"])
    return [(_signature(body), body["slot"], body["blockTime"], err, meta["fee"], meta["computeUnitsConsumed"])]


def _mentions(_: Anchorpy, body: dict[str, Any], __: bytes) -> list[Row]:
    return [(_signature(body), program) for program in _mentioned(body)]


def _bodies(_: Anchorpy, body: dict[str, Any], line: bytes) -> list[Row]:
    return [(_signature(body), zlib.compress(line, ZLIB_LEVEL))]


EVENTS = Kept(
    "events",
    "signature text, program text, ordinal integer, name text, slot bigint, data jsonb, "
    "primary key (signature, program, ordinal)",
    _events,
)
ALL = (
    EVENTS,
    Kept(
        "transactions",
        "signature text, slot bigint, block_time bigint, err jsonb, fee bigint, compute_units bigint, "
        "primary key (signature)",
        _transactions,
    ),
    Kept("mentions", "signature text, program text, primary key (signature, program)", _mentions),
    Kept("bodies", "signature text, body bytea, primary key (signature)", _bodies),
)


def load(path: Path, dsn: str, kept: tuple[Kept, ...]) -> dict[str, Any]:
    """Store a file; return how many transactions and events that were, the rows of each table, and the seconds."""
    peer = Anchorpy()
    transactions = 0
    rows: dict[str, list[Row]] = {table.name: [] for table in kept}
    with psycopg.connect(dsn) as connection, path.open("rb") as file:
        for table in kept:
            connection.execute(f"create table {table.name} ({table.columns})".encode())
        connection.commit()
        started = time.perf_counter()
        for line in file:
            body = json.loads(line)
            for table in kept:
                rows[table.name] += table.rows(peer, body, line)
            transactions += 1
            if transactions % BATCH_TRANSACTIONS == 0:
                _insert(connection, kept, rows)
        _insert(connection, kept, rows)
        seconds = time.perf_counter() - started
        found = connection.execute("select program || '.' || name, count(*) from events group by 1").fetchall()
        held = {table.name: _count(connection, table.name) for table in kept}
    counts = Counter({str(name): int(count) for name, count in found})
    return {"transactions": transactions, "events": counts.total(), "counts": counts, "rows": held, "seconds": seconds}


def _insert(connection: psycopg.Connection[Any], kept: tuple[Kept, ...], rows: dict[str, list[Row]]) -> None:
    with connection.cursor() as cursor:
        for table in kept:
            cursor.executemany(table.insert.encode(), rows[table.name])
            rows[table.name] = []
    connection.commit()


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def _signature(body: dict[str, Any]) -> str:
    return str(body["transaction"]["signatures"][0])


def _mentioned(body: dict[str, Any]) -> list[str]:
    keys = body["transaction"]["message"]["accountKeys"]
    return [program for program, program_id in IDS.items() if program_id in keys]


def _json(value: Any) -> Any:
    known = plain(value)
    return known.hex() if isinstance(known, bytes) else known


if __name__ == "__main__":
    with open_database(None, data_dir=Path(sys.argv[2])) as database:
        print(json.dumps(load(Path(sys.argv[1]), database.dsn, ALL if "--keep-all" in sys.argv[3:] else (EVENTS,))))
