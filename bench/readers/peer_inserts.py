"""
The indexer that one would write in an afternoon: json.loads, anchorpy's EventParser, one table, executemany.

    python -m bench.readers.peer_inserts FILE DATA_DIR

A process of its own, against an embedded PostgreSQL of its own. It reads log lines only and does not look at what
failed, keeps no transactions and no bodies, and has every event as JSON: less than an indexer has to do, all of which
is to its advantage. Its inserts can be repeated, as every indexer's must be.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

from bench.inputs.made_transactions import IDS
from bench.readers.peer_anchorpy import Anchorpy, plain
from indexer.store.database import open_database

BATCH_TRANSACTIONS = 1_000
TABLE = """
create table events (
    signature text, program text, ordinal integer, name text, slot bigint, data jsonb,
    primary key (signature, program, ordinal)
)
"""
INSERT = "insert into events values (%s, %s, %s, %s, %s, %s) on conflict do nothing"


def load(path: Path, dsn: str) -> dict[str, Any]:
    """Store the events of a file; return how many transactions and events that were, and the seconds it took."""
    peer = Anchorpy()
    transactions = 0
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(dsn) as connection, path.open("rb") as file:
        connection.execute(TABLE)
        connection.commit()
        started = time.perf_counter()
        for line in file:
            rows += _rows(peer, json.loads(line))
            transactions += 1
            if transactions % BATCH_TRANSACTIONS == 0:
                _insert(connection, rows)
                rows = []
        _insert(connection, rows)
        seconds = time.perf_counter() - started
        found = connection.execute("select program || '.' || name, count(*) from events group by 1").fetchall()
    counts = Counter({str(name): int(count) for name, count in found})
    return {"transactions": transactions, "events": counts.total(), "counts": counts, "seconds": seconds}


def _rows(peer: Anchorpy, body: dict[str, Any]) -> list[tuple[Any, ...]]:
    if body["meta"]["err"] is not None:
        return []
    signature, keys = body["transaction"]["signatures"][0], body["transaction"]["message"]["accountKeys"]
    rows: list[tuple[Any, ...]] = []
    for program, program_id in IDS.items():
        if program_id not in keys:
            continue
        found: list[Any] = []
        peer.parsers[program].parse_logs(body["meta"]["logMessages"], found.append)
        for ordinal, event in enumerate(found):
            values = {name: _json(value) for name, value in vars(event.data).items() if not name.startswith("_")}
            rows.append((signature, program, ordinal, event.name, body["slot"], json.dumps(values)))
    return rows


def _json(value: Any) -> Any:
    known = plain(value)
    return known.hex() if isinstance(known, bytes) else known


def _insert(connection: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(INSERT, rows)
    connection.commit()


if __name__ == "__main__":
    with open_database(None, data_dir=Path(sys.argv[2])) as database:
        print(json.dumps(load(Path(sys.argv[1]), database.dsn)))
