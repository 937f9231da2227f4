"""The lake's writer is killed at any moment, between any two of its steps: nothing is lost, nothing is there twice."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexer.store.batch import Batch, TransactionRow
from indexer.store.database import INDEXER_ROLE, Database, connect
from indexer.store.duck import attach_lake, open_duckdb
from indexer.store.identity import beat
from indexer.store.lake import Lake
from indexer.store.partitions import PARTITION_SLOTS
from indexer.store.raw import iterate_bodies
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import START_UNIX_S, VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id
TOTAL = 900
KILLS = 6

# Exports in small steps, merges after every few of them, and prunes all that it may: every kind of step, all the time.
WRITER = """
import sys
from pathlib import Path
from indexer.store.lake import Lake
with Lake.open(sys.argv[1], Path(sys.argv[2]), merge_every=2) as lake:
    frontier = max(lake.watermarks().values(), default=0)
    while True:
        print("step", flush=True)
        frontier += int(sys.argv[3])
        lake.export(frontier)
        lake.prune(60.0, 0.0)
"""


def write(database: Database, *batches: Batch) -> None:
    """Write as the indexer would, with a clock long after the last slot."""

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            tables = {ID: await ensure_tables(connection, PROGRAM)}
            for batch in batches:
                await write_batch(connection, batch, tables)
            await beat(connection, "indexer", tip_slot=1, tip_time=START_UNIX_S + 10**8)

    asyncio.run(main())


def in_lake(database: Database, query: str) -> Sequence[Any]:
    """Return what a reader of the lake sees."""
    with open_duckdb() as duck:
        attach_lake(duck, database.dsn, None, read_only=True)
        return duck.execute(query).fetchall()


def run_and_kill(database: Database, lake_path: Path, step: int, moments: random.Random) -> None:
    """Let the writer do some steps, and end it somewhere inside the next one."""
    command = [sys.executable, "-c", WRITER, database.for_role(INDEXER_ROLE), str(lake_path), str(step)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(moments.randint(1, 4)):
            process.stdout.readline()
        time.sleep(moments.random() * 0.4)
        assert process.poll() is None, "the writer ended by itself"
        process.kill()


@pytest.mark.timeout(170)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_writer_killed_anywhere_loses_and_doubles_nothing(database: Database, tmp_path: Path, seed: int) -> None:
    """Exports, late rows, merges and pruning; events, transactions and bodies, in the lake and over both stores."""
    moments = random.Random(seed)
    rows = VaultRows(PROGRAM, seed)
    width = PARTITION_SLOTS // 100  # so that some partitions are filled, and may be pruned
    transactions = [rows.transaction(n * width, block_time=START_UNIX_S + n * 1_000) for n in range(TOTAL)]
    events = [rows.deposit(row, rows.key()) for row in transactions]
    raw = {row.signature: b'{"slot":%d}' % row.slot for row in transactions}
    last = transactions[-1].slot
    first: list[TransactionRow] = [replace(row, complete=n % 7 > 0) for n, row in enumerate(transactions)]
    known = [row for n, row in enumerate(first) if n % 5]
    missing = [n for n in range(TOTAL) if n % 5 == 0]
    write(
        database,
        Batch(known, [event for n, event in enumerate(events) if n % 5], raw=raw, frontiers={ID: last}),
    )
    for round_number in range(KILLS):
        run_and_kill(database, tmp_path / "lake", last // (KILLS * 3), moments)
        late = [n for n in missing if n % KILLS == round_number]
        whole = [n for n in range(TOTAL) if n % 7 == 0 and n % KILLS == round_number]
        for some in (late, whole):
            chosen = [transactions[n] for n in some]
            write(database, Batch(chosen, [events[n] for n in some], raw=raw))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        while lake.export().late:
            pass
    for table in ("ephemeral_vault.event_auto_deposit", "ephemeral_vault.raw_transactions", "capstan.transactions"):
        found = in_lake(database, f"select sum(1), count(distinct signature), sum(slot) from lake.{table}")
        assert found == [(TOTAL, TOTAL, sum(row.slot for row in transactions))], table
    assert in_lake(database, "select bool_and(complete) from lake.capstan.transactions") == [(True,)]
    bodies = [row for batch in iterate_bodies(database.for_role(INDEXER_ROLE), ID, 0, last) for row in batch]
    assert {row.signature: row.body for row in bodies} == raw
    assert len(bodies) == TOTAL
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select count(*) from capstan.late_transactions").fetchone() == (0,)
        assert connection.execute("select count(*) from capstan.pruned").fetchone() == (1,), "nothing was pruned"
