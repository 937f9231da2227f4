"""The dashboard's reader: lake and hot tail as one, with rights to read only."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.errors import DataError, RetryableError, SettingsError
from indexer.store.accounts import AccountRow, Closed, write_accounts
from indexer.store.batch import Batch
from indexer.store.database import DASHBOARD_ROLE, INDEXER_ROLE, Database, connect
from indexer.store.identity import beat
from indexer.store.lake import Lake
from indexer.store.migrate import migrate
from indexer.store.reader import Reader
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import START_UNIX_S, VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id


def write(database: Database, *batches: Batch, accounts: tuple[AccountRow | Closed, ...] = (), now: int = 0) -> None:
    """Write as the indexer would, and set the cluster's clock."""

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            tables = await ensure_tables(connection, PROGRAM)
            for batch in batches:
                await write_batch(connection, batch, {ID: tables})
            await write_accounts(connection, tables, accounts)
            if now:
                await beat(connection, "indexer", tip_slot=999, tip_time=now)

    asyncio.run(main())


def open_reader(database: Database, lake_path: Path | None = None) -> Reader:
    """Open a reader with the dashboard's role."""
    return Reader.open(database.for_role(DASHBOARD_ROLE), lake_path)


def test_nothing_indexed_yet_is_a_sentence_and_what_comes_is_found(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dashboard may be started first: no schema, no program, no lake, and then each of them."""
    monkeypatch.setattr("indexer.store.reader.LAKE_RETRY_S", 0.0)
    with open_reader(empty_database, tmp_path / "lake") as reader:
        with pytest.raises(RetryableError, match="not indexed yet"):
            reader.query("overview_counts")
        migrate(empty_database.dsn)
        with pytest.raises(RetryableError, match="not indexed yet"):
            reader.query("overview_counts")
        rows = VaultRows(PROGRAM)
        row = rows.transaction(5)
        write(empty_database, Batch([row], [rows.created(row, rows.key(), 1, 2)], frontiers={ID: 5}))
        assert reader.query("overview_counts")["expired"].to_list() == [1]
        with Lake.open(empty_database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
            lake.export()
        with psycopg.connect(empty_database.dsn) as connection:
            connection.execute("truncate ephemeral_vault.event_vault_created")
        assert reader.query("overview_counts")["expired"].to_list() == [1], "read from the lake"


def test_each_session_has_one_row_with_its_state(database: Database, tmp_path: Path) -> None:
    """Active, expired by the cluster's clock, revoked, cleaned; sums of their own events only."""
    rows = VaultRows(PROGRAM)
    now = START_UNIX_S + 1000
    vaults = {name: rows.key() for name in ("active", "expired", "revoked", "cleaned", "gone")}
    batch_rows, events = [], []
    for number, (name, vault) in enumerate(vaults.items()):
        row = rows.transaction(10 + number)
        expiry = now + 1 if name in ("active", "revoked") else now
        batch_rows.append(row)
        events += [rows.created(row, vault, START_UNIX_S, expiry), rows.deposit(row, vault, 2**63, 2**63)]
    events = [event._replace(ordinal=number) for number, event in enumerate(events)]
    revoked, cleaned = rows.transaction(50), rows.transaction(51)
    events.append(rows.event(revoked, "AccessRevoked", vault=vaults["revoked"], parent=rows.key(), revoked_at=now))
    events.append(rows.cleaned(cleaned, vaults["cleaned"], 10_000))
    account = {
        "parent_wallet": rows.key(),
        "ephemeral_wallet": rows.key(),
        "session_start": START_UNIX_S,
        "session_expiry": now,
        "is_active": True,
        "total_deposited": 0,
        "total_spent": 0,
        "max_deposit": 1,
        "bump": 1,
    }
    write(
        database,
        Batch([*batch_rows, revoked, cleaned], events, frontiers={ID: 12}),
        accounts=(AccountRow(vaults["gone"], 14, 1, "EphemeralVault", account), Closed(vaults["gone"], 60)),
        now=now,
    )
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
    with open_reader(database) as reader:
        counts = reader.query("overview_counts").to_dicts()[0]
        assert {state: counts[state] for state in ("active", "expired", "revoked", "cleaned")} == {
            "active": 1,
            "expired": 1,
            "revoked": 1,
            "cleaned": 2,
        }
        assert counts["deposited"] == 5 * 2**63
        assert (counts["cleanups"], counts["rewards"]) == (1, 10_000)
        page = reader.query("sessions", state=None, text="", parent="", limit=10, offset=0)
        assert {row["vault"]: row["state"] for row in page.to_dicts()} == {
            str(Pubkey(vault)): "cleaned" if name == "gone" else name for name, vault in vaults.items()
        }
        assert page["deposited"].to_list() == [2**63] * 5


def test_a_vault_that_lives_again_is_two_sessions(database: Database) -> None:
    """Events belong to the session they happened in, also where one ends and the next begins in the same slot."""
    rows = VaultRows(PROGRAM)
    vault = rows.key()
    first, deposit, ended, again, second_deposit = (rows.transaction(slot) for slot in (10, 11, 20, 20, 20))
    write(
        database,
        Batch(
            [first, deposit, ended, again, second_deposit],
            [
                rows.created(first, vault, 100, 110),
                rows.deposit(deposit, vault, 1, 1),
                rows.cleaned(ended, vault, 3),
                rows.created(again, vault, 200, 210),
                rows.deposit(second_deposit, vault, 2, 2),
            ],
        ),
    )
    with open_reader(database) as reader:
        one = reader.query("session_story", vault=str(Pubkey(vault)), session_start=100).to_dicts()
        other = reader.query("session_story", vault=vault, session_start=200).to_dicts()
        assert [(event["name"], event["amount"]) for event in one] == [
            ("VaultCreated", 2**64 - 1),
            ("AutoDeposit", 1),
            ("VaultCleaned", 3),
        ]
        assert [(event["name"], event["amount"]) for event in other] == [
            ("VaultCreated", 2**64 - 1),
            ("AutoDeposit", 2),
        ]
        assert one[2]["signature"] == str(Signature(ended.signature))
        assert reader.query("session", vault=vault, session_start=100)["state"].to_list() == ["cleaned"]
        cleanup = reader.query("recent_cleanups", limit=5).to_dicts()
        assert [(row["session_start"], row["reward"], row["slot"]) for row in cleanup] == [(100, 3, 20)]


def test_sessions_are_filtered_by_state_and_by_the_beginning_of_an_address(database: Database) -> None:
    """Page, filter and count agree."""
    rows = VaultRows(PROGRAM)
    vaults = [rows.key() for _ in range(30)]
    parent = rows.key()
    transactions = [rows.transaction(slot) for slot in range(30)]
    events = [
        rows.created(row, vault, 5, START_UNIX_S * 2, parent if row.slot % 3 == 0 else None)
        for row, vault in zip(transactions, vaults, strict=True)
    ]
    write(database, Batch(transactions, events), now=START_UNIX_S)
    with open_reader(database) as reader:
        pages = [
            reader.query("sessions", state="active", text=None, parent=None, limit=12, offset=offset)["vault"].to_list()
            for offset in (0, 12, 24)
        ]
        assert [vault for page in pages for vault in page] == [str(Pubkey(vault)) for vault in reversed(vaults)]
        name = str(Pubkey(parent))
        for params in ({"text": name[:9], "parent": ""}, {"text": "", "parent": name}):
            found = reader.query("sessions", state=None, limit=50, offset=0, **params)
            assert set(found["parent"].to_list()) == {name}
            assert reader.query("count_sessions", state=None, **params)["n"].to_list() == [len(found)] == [10]
        one = str(Pubkey(vaults[7]))
        assert reader.query("sessions", text=one[:8], limit=5, offset=0)["vault"].to_list() == [one]
        assert reader.query("count_sessions", state="cleaned", text="", parent="")["n"].to_list() == [0]
        assert reader.query("count_sessions", text="no 0 such")["n"].to_list() == [0]
        with pytest.raises(DataError, match="vault='x' is no pubkey"):
            reader.query("session", vault="x", session_start=1)


def test_days_and_freshness(database: Database) -> None:
    """Numbers a day in UTC; how new they are by the cluster's clock and by the database's."""
    rows = VaultRows(PROGRAM)
    day = 86_400
    transactions = [rows.transaction(slot, block_time=START_UNIX_S + at) for slot, at in ((1, 0), (2, 60), (3, day))]
    vault = rows.key()
    events = [rows.deposit(row, vault, 2**64 - 1, 1) for row in transactions]
    trade = rows.event(transactions[2], "TradeExecuted", 1, vault=vault, delegate=vault, fee_paid=9, total_spent=9)
    cleaned = [rows.cleaned(transactions[0], vault, 0)._replace(ordinal=1), rows.cleaned(transactions[1], vault)]
    cleaned[1] = cleaned[1]._replace(ordinal=1)
    write(database, Batch(transactions, [*events, trade, *cleaned], frontiers={ID: 2}), now=START_UNIX_S + day + 30)
    with open_reader(database) as reader:
        deposits = reader.query("deposits_per_day").to_dicts()
        assert [row["lamports"] for row in deposits] == [2 * (2**64 - 1), 2**64 - 1]
        assert (deposits[1]["day"] - deposits[0]["day"]).days == 1
        assert reader.query("fees_per_day")["lamports"].to_list() == [9]
        cleanups = reader.query("cleanups_per_day").to_dicts()
        assert [(row["rewarded"], row["unrewarded"]) for row in cleanups] == [(1, 1)]
        fresh = reader.query("freshness").to_dicts()[0]
        assert (fresh["newest_slot"], fresh["tip_slot"], fresh["frontier_slot"], fresh["behind_s"]) == (3, 999, 2, 30)
        assert 0 <= fresh["beat_age_s"] < 60
        assert fresh["engine_lease_left_s"] is None


@pytest.mark.timeout(170)
def test_every_row_is_seen_once_while_it_moves_to_the_lake(database: Database, tmp_path: Path) -> None:
    """Readers beside an exporter: no query ever misses a row or sees one twice."""
    total = 600
    whole = VaultRows(PROGRAM).batch(range(1, total + 1), frontier=False)
    write(database, whole)
    stop = threading.Event()
    wrong: list[int] = []
    seen = 0

    with (
        Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake", merge_every=7) as lake,
        open_reader(database, tmp_path / "lake") as reader,
    ):

        def read() -> int:
            count = 0
            while not stop.is_set():
                (deposits,) = [sum(reader.query("deposits_per_day")["deposits"].to_list())]
                if deposits != total:
                    wrong.append(deposits)
                count += 1
            return count

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for frontier in range(20, total + 1, 20):
                    write(database, Batch(frontiers={ID: frontier}))
                    lake.export()
            finally:
                stop.set()
            seen = sum(future.result() for future in readers)
    assert wrong == []
    assert seen > 20


def test_the_reader_goes_on_after_its_connections_were_cut(database: Database) -> None:
    """A server that restarted is found again within the same query."""
    write(database, VaultRows(PROGRAM).batch(range(10)))
    with open_reader(database) as reader:
        before = reader.query("deposits_per_day")
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        assert reader.query("deposits_per_day").equals(before)


def test_a_lake_in_another_folder_is_refused(database: Database, tmp_path: Path) -> None:
    """A wrong setting is not a lake without rows."""
    Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "one").close()
    with pytest.raises(SettingsError, match="the lake of this database lies in"):
        open_reader(database, tmp_path / "two")


def test_queries_and_views_of_the_house_all_run(database: Database) -> None:
    """Every query of dashboard.sql and every view of sql/analytics answers, also over empty tables."""
    write(database)
    with open_reader(database) as reader:
        for name in reader.queries:
            reader.query(name, **{p: 1 for p, kind in reader.queries.query(name).params if kind == "int"})
        for view in ("delegations", "cleanup_events", "vault_transactions", "transactions", "sessions"):
            assert reader.select(f"select * from {view}").is_empty()


def test_dropped_commitments_do_not_matter_to_a_reader(database: Database) -> None:
    """Confirmed rows are shown as soon as they are stored."""
    rows = VaultRows(PROGRAM)
    row = replace(rows.transaction(5), commitment="confirmed")
    write(database, Batch([row], [rows.deposit(row, rows.key())]))
    with open_reader(database) as reader:
        assert reader.query("deposits_per_day")["deposits"].to_list() == [1]
