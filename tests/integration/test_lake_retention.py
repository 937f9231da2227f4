"""Old rows leave Postgres only when the lake has them, and no reader ever notices."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexer.errors import SettingsError
from indexer.settings import IndexerSettings
from indexer.store.accounts import AccountRow, write_accounts
from indexer.store.batch import Batch
from indexer.store.database import DASHBOARD_ROLE, INDEXER_ROLE, Database, connect
from indexer.store.identity import beat
from indexer.store.lake import Lake
from indexer.store.partitions import PARTITION_SLOTS
from indexer.store.raw import iterate_bodies
from indexer.store.reader import Reader
from indexer.store.registry import ensure_tables
from indexer.store.retention import Pruned
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import START_UNIX_S, VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id
DAY = 86_400.0
SLOTS_PER_DAY = PARTITION_SLOTS // 2
NOW = 12


def write(database: Database, *batches: Batch) -> None:
    """Write as the indexer would, twelve days after the first slot."""

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            tables = await ensure_tables(connection, PROGRAM)
            for batch in batches:
                await write_batch(connection, batch, {ID: tables})
            await beat(connection, "indexer", tip_slot=1, tip_time=START_UNIX_S + NOW * int(DAY))

    asyncio.run(main())


def history(rows: VaultRows, per_day: int = 10) -> Batch:
    """Return deposits with bodies, spread over twelve days, and the frontier at their end."""
    transactions = [
        rows.transaction(number * SLOTS_PER_DAY // per_day, block_time=START_UNIX_S + int(number * DAY) // per_day)
        for number in range(per_day * NOW)
    ]
    events = [rows.deposit(row, rows.key()) for row in transactions]
    raw = {row.signature: b'{"slot":%d}' % row.slot for row in transactions}
    return Batch(transactions, events, frontiers={ID: NOW * SLOTS_PER_DAY}, raw=raw)


@contextmanager
def lake_of(database: Database, tmp_path: Path) -> Iterator[Lake]:
    """Give the lake, exported."""
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
        yield lake


def hot(database: Database) -> dict[str, int]:
    """Return how many rows Postgres holds."""
    tables = {
        "transactions": "capstan.transactions",
        "mentions": "capstan.mentions",
        "raw": "capstan.raw_transactions",
        "events": "ephemeral_vault.event_auto_deposit",
    }
    with psycopg.connect(database.dsn) as connection:
        rows = {name: connection.execute(f"select count(*) from {table}").fetchone() for name, table in tables.items()}
    return {name: row[0] for name, row in rows.items() if row}


def seen(database: Database) -> tuple[Any, ...]:
    """Return what the dashboard's reader says of the deposits, and how many bodies are to be read."""
    with Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:
        per_day = reader.query("deposits_per_day").rows()
        counted = reader.select("select count(*), count(distinct signature), sum(slot) from transactions").row(0)
    bodies = [row for rows in iterate_bodies(database.for_role(INDEXER_ROLE), ID, 0, 2**60) for row in rows]
    return per_day, counted, len(bodies), len({row.signature for row in bodies})


def all_rows(count: int) -> dict[str, int]:
    return {"transactions": count, "mentions": count, "raw": count, "events": count}


def test_what_is_old_and_in_the_lake_goes_and_everything_is_still_seen(database: Database, tmp_path: Path) -> None:
    """Whole ranges of two days; account state stays, and a second round finds nothing."""
    rows = VaultRows(PROGRAM)
    write(database, history(rows))
    account = {
        **dict.fromkeys(("parent_wallet", "ephemeral_wallet"), rows.key()),
        **dict.fromkeys(("session_start", "session_expiry", "total_deposited", "total_spent", "max_deposit"), 1),
        "is_active": True,
        "bump": 1,
    }

    async def store_account() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            tables = await ensure_tables(connection, PROGRAM)
            await write_accounts(connection, tables, [AccountRow(rows.key(), 5, 1, "EphemeralVault", account)])

    asyncio.run(store_account())
    with lake_of(database, tmp_path) as lake:
        before = seen(database)
        assert lake.prune(5 * DAY, 0) == Pruned(ranges=6)
        assert hot(database) == all_rows(60), "three ranges of two days are older than five days"
        assert seen(database) == before
        assert lake.prune(5 * DAY, 0) == Pruned()
        assert lake.export().rows == {}
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select count(*) from ephemeral_vault.account_ephemeral_vault").fetchone() == (1,)
        assert connection.execute("select to_slot from capstan.pruned").fetchone() == (3 * PARTITION_SLOTS - 1,)


def test_the_lake_must_have_had_it_for_the_grace_period(database: Database, tmp_path: Path) -> None:
    """However old rows are: a reader may have begun before they came into the lake."""
    write(database, history(VaultRows(PROGRAM)))
    with lake_of(database, tmp_path) as lake:
        assert lake.prune(5 * DAY, 3_600) == Pruned()
        with psycopg.connect(database.dsn) as connection:
            connection.execute("update capstan.exports set seen_at = seen_at - interval '2 hours'")
        assert lake.prune(5 * DAY, 3_600).ranges == 6


@pytest.mark.parametrize("what", ["confirmed", "unexported", "lacking"])
def test_a_range_with_anything_that_the_lake_lacks_stays(database: Database, tmp_path: Path, what: str) -> None:
    """Rows that are only confirmed, above the frontier, or gone from the lake keep their range; the others go."""
    rows = VaultRows(PROGRAM)
    whole = history(rows)
    if what == "confirmed":
        transactions = [
            replace(row, commitment="confirmed") if n == 5 else row for n, row in enumerate(whole.transactions)
        ]
        whole = replace(whole, transactions=transactions)
    if what == "unexported":
        whole = replace(whole, frontiers={ID: PARTITION_SLOTS // 3})
    write(database, whole)
    with lake_of(database, tmp_path) as lake:
        if what == "lacking":
            lake._duck.execute("DELETE FROM lake.ephemeral_vault.event_auto_deposit WHERE slot = 0")
        pruned = lake.prune(5 * DAY, 0)
        kept = {"confirmed": 80, "unexported": 120, "lacking": 80}[what]
        assert hot(database)["events"] == kept
        assert pruned.missing == (what == "lacking")
        if what == "lacking":
            assert lake.export().late == 1, "the exporter was told"
            assert lake.prune(5 * DAY, 0).ranges == 2
            assert hot(database) == all_rows(60)


def test_a_pruned_range_that_comes_again_doubles_nothing(database: Database, tmp_path: Path) -> None:
    """A listing from the start fetches and writes it again; it is late, replaces itself, and is pruned again."""
    whole = history(VaultRows(PROGRAM))
    write(database, whole)
    with lake_of(database, tmp_path) as lake:
        before = seen(database)
        lake.prune(5 * DAY, 0)
        again = Batch(whole.transactions[:30], whole.events[:30], raw=whole.raw)
        write(database, again)
        assert seen(database) == before
        assert lake.prune(5 * DAY, 0) == Pruned(), "not while the exporter has to look at it"
        assert lake.export().late == 30
        assert seen(database) == before
        assert lake.prune(5 * DAY, 0).ranges > 0
        assert hot(database) == all_rows(60)
        assert seen(database) == before


def test_a_pruned_transaction_that_is_noted_without_its_rows_stays_in_the_lake(
    database: Database, tmp_path: Path
) -> None:
    """Another indexer, of another program, may write the transaction again; the lake keeps this program's rows."""
    whole = history(VaultRows(PROGRAM))
    write(database, whole)
    with lake_of(database, tmp_path) as lake:
        before = seen(database)
        lake.prune(5 * DAY, 0)
        write(database, Batch([replace(whole.transactions[3], mentions=())]))
        with psycopg.connect(database.dsn) as connection:
            connection.execute(
                "insert into capstan.late_transactions (signature) values (%s)", (whole.transactions[3].signature,)
            )
        assert lake.export().late == 1
        assert seen(database) == before


def test_tables_without_partitions_are_pruned_by_rows(database: Database, tmp_path: Path) -> None:
    """Those of an earlier version."""
    write(database)
    with psycopg.connect(database.for_role(INDEXER_ROLE)) as connection:
        connection.execute("drop table ephemeral_vault.event_auto_deposit")
        connection.execute(
            "create table ephemeral_vault.event_auto_deposit (signature bytea not null, kind text not null, "
            "ordinal bigint not null, slot bigint not null, block_time timestamptz, vault bytea, "
            "amount numeric(20,0), total_deposited numeric(20,0), primary key (signature, kind, ordinal))"
        )
        connection.execute("grant select on ephemeral_vault.event_auto_deposit to capstan_dashboard")
    write(database, history(VaultRows(PROGRAM)))
    with lake_of(database, tmp_path) as lake:
        before = seen(database)
        assert lake.prune(5 * DAY, 0).ranges == 6
        assert hot(database) == all_rows(60)
        assert seen(database) == before


@pytest.mark.timeout(170)
def test_readers_beside_pruning_see_everything_once(database: Database, tmp_path: Path) -> None:
    """Two threads read while range after range goes."""
    whole = history(VaultRows(PROGRAM))
    write(database, whole)
    stop = threading.Event()
    with lake_of(database, tmp_path) as lake, Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:

        def read() -> set[int]:
            found = set()
            while not stop.is_set():
                found.add(sum(reader.query("deposits_per_day")["deposits"].to_list()))
            return found

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for days in range(10, 0, -2):
                    while lake.prune(days * DAY, 0) != Pruned():
                        pass
            finally:
                stop.set()
            assert set().union(*(future.result() for future in readers)) == {len(whole.events)}
    assert hot(database)["events"] == 40


@pytest.mark.parametrize(("text", "seconds"), [("off", None), ("36h", 129_600), ("7d", 604_800), (" 2W ", 1_209_600)])
def test_a_retention_is_a_number_of_hours_days_or_weeks(text: str, seconds: float | None) -> None:
    """Off unless the operator asks for it."""
    assert IndexerSettings.read(retention=text).retention_s == seconds
    assert IndexerSettings.read().retention_s is None


@pytest.mark.parametrize("text", ["7", "d", "-1d", "0d", "1.5d", "forever"])
def test_a_retention_that_is_none_is_refused(text: str) -> None:
    """Before anything is started."""
    with pytest.raises(SettingsError, match="retention is not valid"):
        IndexerSettings.read(retention=text)
