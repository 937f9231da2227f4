"""Finalized rows go to the lake once, whatever happens in between."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexer.errors import RetryableError, SettingsError
from indexer.store import lake as lake_module
from indexer.store.batch import Batch
from indexer.store.database import INDEXER_ROLE, Database, connect
from indexer.store.duck import attach_lake, open_duckdb
from indexer.store.lake import Lake
from indexer.store.registry import ensure_tables
from indexer.store.stored import promote
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import START_UNIX_S, VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id
DEPOSITS = ("ephemeral_vault", "event_auto_deposit")
TRANSACTIONS = ("capstan", "transactions")


def write(database: Database, *batches: Batch) -> None:
    """Write batches as the indexer would."""

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            tables = {ID: await ensure_tables(connection, PROGRAM)}
            for batch in batches:
                await write_batch(connection, batch, tables)

    asyncio.run(main())


def in_lake(database: Database, query: str) -> Sequence[Any]:
    """Return what a reader of the lake sees. Sums and distinct counts: plain counts come from the catalog."""
    with open_duckdb() as duck:
        attach_lake(duck, database.dsn, None, read_only=True)
        return duck.execute(query).fetchall()


def deposits(database: Database) -> tuple[int, int, int]:
    """Return rows, distinct signatures and the sum of slots of the deposits in the lake."""
    query = "select sum(1), count(distinct signature), sum(slot) from lake.ephemeral_vault.event_auto_deposit"
    return tuple(map(int, in_lake(database, query)[0]))  # type: ignore[return-value] # three columns


def expected(slots: range) -> tuple[int, int, int]:
    """Return what `deposits` gives for one deposit a slot."""
    return len(slots), len(slots), sum(slots)


def test_an_export_takes_finalized_rows_up_to_the_frontier_once(database: Database, tmp_path: Path) -> None:
    """Above the frontier nothing; a second export adds what has come, and a third nothing."""
    whole = VaultRows(PROGRAM).batch(range(1, 301))
    write(database, replace(whole, frontiers={ID: 100}))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        assert lake.export().rows == {DEPOSITS: 100, TRANSACTIONS: 100}
        write(database, Batch(frontiers={ID: 250}))
        assert lake.export(200).rows == {DEPOSITS: 100, TRANSACTIONS: 100}
        second = lake.export()
        assert second.rows == {DEPOSITS: 50, TRANSACTIONS: 50}
        assert set(second.watermarks.values()) == {250}
        assert lake.export().rows == {}
    assert deposits(database) == expected(range(1, 251))


def test_values_in_the_lake_are_those_of_postgres(database: Database, tmp_path: Path) -> None:
    """u64::MAX, 32-byte keys, times and a missing time arrive exactly."""
    rows = VaultRows(PROGRAM)
    with_time, without = rows.transaction(5, fee=2**64 - 1), rows.transaction(6, block_time=None, err='{"x": 1}')
    vault, parent = rows.key(), rows.key()
    events = [rows.created(row, vault, -5, 2**63 - 1, parent) for row in (with_time, without)]
    write(database, Batch([with_time, without], events, frontiers={ID: 6}))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
    found = in_lake(
        database, "select signature, slot, epoch(block_time), err, fee from lake.capstan.transactions order by 2"
    )
    assert found == [
        (with_time.signature, 5, with_time.block_time, None, 2**64 - 1),
        (without.signature, 6, None, '{"x": 1}', 5000),
    ]
    found = in_lake(
        database,
        "select vault, parent, max_deposit, session_start, session_expiry, kind, ordinal "
        "from lake.ephemeral_vault.event_vault_created",
    )
    assert found == [(vault, parent, 2**64 - 1, -5, 2**63 - 1, "log", 0)] * 2


def test_rows_that_are_only_confirmed_wait(database: Database, tmp_path: Path) -> None:
    """Promoted below the frontier they are late, and go with the next export."""
    rows = VaultRows(PROGRAM)
    row = rows.transaction(5, commitment="confirmed")
    write(database, Batch([row], [rows.deposit(row, rows.key())], frontiers={ID: 10}))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        assert lake.export().rows == {}

        async def finalize() -> None:
            async with await connect(database.for_role(INDEXER_ROLE)) as connection:
                await promote(connection, {row.signature: 5})

        asyncio.run(finalize())
        assert lake.export().rows == {DEPOSITS: 1, TRANSACTIONS: 1}
        assert lake.export().rows == {}
    assert deposits(database) == (1, 1, 5)


def test_late_rows_replace_by_signature(database: Database, tmp_path: Path) -> None:
    """New ones are added; one that moved, or whose logs were completed, is there once, as it is now."""
    rows = VaultRows(PROGRAM)
    vault = rows.key()
    cut = rows.transaction(5, complete=False)
    whole = replace(cut, complete=True)
    stays, late = rows.transaction(6), rows.transaction(7)
    events = [rows.event(whole, "AutoDeposit", n, vault=vault, amount=n, total_deposited=n) for n in range(3)]
    write(database, Batch([cut, stays], [events[0], rows.deposit(stays, vault)], frontiers={ID: 100}))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
        write(database, Batch([whole, late], [*events, rows.deposit(late, vault)]))
        exported = lake.export()
        assert exported.late == 2
        assert exported.rows == {DEPOSITS: 4, TRANSACTIONS: 2}
        assert lake.export().late == 0
    assert deposits(database) == (5, 3, 5 * 3 + 6 + 7)
    assert in_lake(database, "select bool_and(complete), sum(1) from lake.capstan.transactions") == [(True, 3)]
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select count(*) from capstan.late_transactions").fetchone() == (0,)


def test_a_late_row_that_is_noted_again_meanwhile_is_not_forgotten(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the lake's commit and striking it off, the row may change once more."""
    rows = VaultRows(PROGRAM)
    write(database, Batch(frontiers={ID: 100}))
    row = rows.transaction(5)
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
        write(database, Batch([row]))
        forget = lake._forget_late

        def change_first(late: Any) -> None:
            with psycopg.connect(database.dsn) as connection:
                connection.execute("update capstan.late_transactions set noted_at = clock_timestamp()")
            forget(late)

        monkeypatch.setattr(lake, "_forget_late", change_first)
        lake.export()
        monkeypatch.undo()
        assert lake.export().late == 1
    assert in_lake(database, "select sum(1) from lake.capstan.transactions") == [(1,)]


def test_merging_changes_files_and_no_rows(database: Database, tmp_path: Path) -> None:
    """Many exports leave many small files; after a merge they are few, and the rows the same."""
    rows = VaultRows(PROGRAM)
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake", merge_every=1000) as lake:
        for start in range(0, 60, 10):
            write(database, rows.batch(range(start, start + 10)))
            lake.export()
        files = "select count(*) from ducklake_list_files('lake', 'event_auto_deposit', schema => 'ephemeral_vault')"
        before = in_lake(database, files)
        lake.merge()
        assert in_lake(database, files)[0][0] < before[0][0] == 6
    assert deposits(database) == expected(range(60))


def test_another_folder_for_the_same_lake_is_refused(database: Database, tmp_path: Path) -> None:
    """Half of a lake in each of two folders would be no lake."""
    dsn = database.for_role(INDEXER_ROLE)
    Lake.open(dsn, tmp_path / "one").close()
    with pytest.raises(
        SettingsError, match=f"the lake of this database lies in {tmp_path / 'one'}: choose that folder"
    ):
        Lake.open(dsn, tmp_path / "two")


def test_a_folder_that_cannot_be_written_is_refused(database: Database) -> None:
    """Before anything is made in the database."""
    with pytest.raises(SettingsError, match=r"/proc/lake cannot be written"):
        Lake.open(database.for_role(INDEXER_ROLE), Path("/proc/lake"))


def test_a_second_writer_waits_and_then_says_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lake, one writer; the next one may have it when the first has let go."""
    monkeypatch.setattr(lake_module, "LOCK_WAIT_S_MAX", 0.3)
    dsn = database.for_role(INDEXER_ROLE)
    with Lake.open(dsn, tmp_path / "lake"), pytest.raises(RetryableError, match="another process writes the lake"):
        Lake.open(dsn, tmp_path / "lake")
    Lake.open(dsn, tmp_path / "lake").close()


def test_a_server_that_went_away_is_retryable(database: Database, tmp_path: Path) -> None:
    """And a new opening exports what the old one could not."""
    write(database, VaultRows(PROGRAM).batch(range(1, 51)))
    dsn = database.for_role(INDEXER_ROLE)
    lake = Lake.open(dsn, tmp_path / "lake")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    try:
        lake.export()
    except RetryableError:
        pass
    finally:
        lake.close()
    with Lake.open(dsn, tmp_path / "lake") as again:
        again.export()
    assert deposits(database) == expected(range(1, 51))


EXPORTER = """
import sys
from pathlib import Path
from indexer.store.lake import Lake
with Lake.open(sys.argv[1], Path(sys.argv[2]), merge_every=3) as lake:
    frontier = int(sys.argv[3])
    while True:
        print("export", flush=True)
        lake.export(frontier)
        frontier += 10
"""


@pytest.mark.timeout(170)
def test_a_killed_exporter_neither_loses_nor_doubles(database: Database, tmp_path: Path) -> None:
    """kill -9 at seeded moments: rows and watermark are one commit, so the next exporter goes on exactly there."""
    moments = random.Random(4)
    write(database, VaultRows(PROGRAM).batch(range(1, 2001)))
    dsn = database.for_role(INDEXER_ROLE)
    for _ in range(6):
        last = 0
        if (tmp_path / "lake").exists():
            rows = in_lake(database, "select coalesce(max(slot), 0) from lake.main.watermark")
            last = int(rows[0][0])
        command = [sys.executable, "-c", EXPORTER, dsn, str(tmp_path / "lake"), str(last + 10)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(moments.randint(1, 6)):
                process.stdout.readline()
            try:
                process.wait(moments.random() * 0.1)
            except subprocess.TimeoutExpired:
                process.kill()
    with Lake.open(dsn, tmp_path / "lake") as lake:
        lake.export()
    assert deposits(database) == expected(range(1, 2001))
    found = in_lake(database, "select sum(1), count(distinct signature) from lake.capstan.transactions")
    assert found == [(2000, 2000)]


def test_rows_whose_time_is_not_known_hide_no_others(database: Database, tmp_path: Path) -> None:
    """A first export of such rows and of two months; after another one, a filter on time still finds them all."""
    rows = VaultRows(PROGRAM)
    month = 31 * 86_400
    times = [None, START_UNIX_S, START_UNIX_S + month, START_UNIX_S + 3 * month]
    transactions = [rows.transaction(n, block_time=block_time) for n, block_time in enumerate(times, 1)]
    events = [rows.deposit(row, rows.key()) for row in transactions]
    write(database, Batch(transactions, events, frontiers={ID: 3}))
    query = (
        "select sum(slot) from lake.ephemeral_vault.event_auto_deposit "
        f"where block_time < to_timestamp({START_UNIX_S + 2 * month})"
    )
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
        assert in_lake(database, query) == [(5,)]
        write(database, Batch(frontiers={ID: 4}))
        lake.export()
    assert in_lake(database, query) == [(5,)]
    assert deposits(database) == expected(range(1, 5))
