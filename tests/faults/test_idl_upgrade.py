"""A program is upgraded in the middle of its history: nothing becomes unreadable, and what was misread is read anew."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from capstan.__main__ import app
from indexer.chain.program import Program
from indexer.errors import DataError, RetryableError, SettingsError
from indexer.intake import read_bodies
from indexer.loop import Indexer
from indexer.redecode import Redecoded, redecode
from indexer.registry import Registry, decode_account, open_registry
from indexer.settings import IndexerSettings
from indexer.store.accounts import AccountRow, write_accounts
from indexer.store.batch import Batch, Commitment
from indexer.store.database import DASHBOARD_ROLE, INDEXER_ROLE, Database, connect, open_pool
from indexer.store.lake import Lake
from indexer.store.migrate import migrate
from indexer.store.raw import RawBody, iterate_bodies
from indexer.store.reader import Reader
from indexer.store.registry import Added, add_version, ensure_tables, load_registered
from indexer.store.stored import drop_transactions
from indexer.store.typed import escape_text
from indexer.store.writer import write_batch
from tests.fixtures.upgraded_program import (
    ADDRESS,
    AFTER,
    BEFORE,
    OWNER,
    PROGRAM_ID,
    UPGRADE_SLOT,
    body,
    idl_text,
    load_program,
    signature,
)

SLOTS = range(95, 107)
NEW_SLOTS = range(UPGRADE_SLOT, SLOTS[-1] + 1)
T = TypeVar("T")


def run(database: Database, work: Callable[[Any], Awaitable[T]]) -> T:
    """Run `work` with a connection of the operator's own."""

    async def main() -> T:
        async with await connect(database.dsn) as connection:
            return await work(connection)

    return asyncio.run(main())


def index(
    database: Database, registry: Registry, slots: Iterator[int] | range = SLOTS, commitment: Commitment = "finalized"
) -> None:
    """Store one transaction a slot, as the frontier or the live feed does."""
    read = read_bodies([body(slot, slot) for slot in slots], registry, commitment)
    frontiers = {PROGRAM_ID: max(row.slot for row in read.transactions)} if commitment == "finalized" else {}
    write(database, registry, read.batch(finalized={}, frontiers=frontiers))


def write(database: Database, registry: Registry, batch: Batch) -> None:
    """Write a batch with the indexer's rights."""

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            await write_batch(connection, batch, registry.tables)

    asyncio.run(main())


def registered(database: Database, *programs: Program) -> Registry:
    """Register the program, or read what is registered."""
    return run(database, lambda connection: open_registry(connection, programs or [BEFORE]))


def add(database: Database, program: Program, from_slot: int) -> Added:
    """Register a version."""
    return run(database, lambda connection: add_version(connection, program, from_slot))


def decode_again(database: Database, *, from_slot: int = 0, batches: int | None = None) -> Redecoded:
    """Decode stored transactions again, five at a time; stop after some batches as if killed."""

    async def main() -> Redecoded:
        async with open_pool(database.for_role(INDEXER_ROLE)) as pool:
            async with pool.connection() as connection:
                registry = Registry(await load_registered(connection))
            bodies = iterate_bodies(database.dsn, PROGRAM_ID, from_slot, 2**62, batch_rows=5)
            try:
                return await redecode(pool, registry, islice(bodies, batches), lambda _: None)
            finally:
                bodies.close()  # type: ignore[attr-defined] # it is a generator

    return asyncio.run(main())


def export(database: Database, folder: Path) -> None:
    """Bring the lake up to the frontier."""
    with Lake.open(database.for_role(INDEXER_ROLE), folder / "lake") as lake:
        lake.export()


def stored(database: Database) -> dict[str, list[str]]:
    """Return every row that depends on how transactions were decoded, as text, by table."""
    tables: dict[str, sql.Composable] = {
        "transactions": sql.SQL("select signature, slot, err, commitment, complete from capstan.transactions"),
        "mentions": sql.SQL("select * from capstan.mentions"),
        "problems": sql.SQL("select subject, kind, ordinal, detail, slot from capstan.problems"),
        "events": sql.SQL("select * from capstan.events"),
    }
    with psycopg.connect(database.dsn) as connection:
        for schema, table in connection.execute("select schema_name, table_name from capstan.typed_tables").fetchall():
            tables[table] = sql.SQL("select * from {}").format(sql.Identifier(schema, table))
        return {
            name: sorted(str(row[0]) for row in connection.execute(sql.SQL("select t::text from ({}) t").format(query)))
            for name, query in tables.items()
        }


def in_lake(database: Database) -> list[str]:
    """Return every event that a reader of lake and hot tables sees."""
    with Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:
        frame = reader.select("select * exclude (value, block_time), value::varchar as value from events")
    return sorted(str(row) for row in frame.rows())


def problems(database: Database) -> Mapping[str, int]:
    """Count problems by kind."""
    with psycopg.connect(database.dsn) as connection:
        return dict(connection.execute("select kind, count(*) from capstan.problems group by kind").fetchall())


@pytest.fixture
def second_database(make_database: Callable[[], Database]) -> Database:
    """Give another database at this code's version."""
    other = make_database()
    migrate(other.dsn)
    return other


@pytest.fixture
def clean(second_database: Database, tmp_path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Give what a clean index with both IDLs holds: in PostgreSQL, and as a reader of the lake sees it."""
    registered(second_database)
    add(second_database, AFTER, UPGRADE_SLOT)
    index(second_database, registered(second_database))
    export(second_database, tmp_path / "clean")
    return stored(second_database), in_lake(second_database)


def test_what_was_misread_is_read_again_as_a_clean_index_reads_it(
    database: Database, clean: tuple[dict[str, list[str]], list[str]], tmp_path: Path
) -> None:
    """Before the new IDL its events are counted as problems; after it and one redecode every row is the clean one's."""
    index(database, registered(database))
    export(database, tmp_path)
    new = len(NEW_SLOTS)
    counted = problems(database)
    assert counted["unknown_discriminator"] == new
    assert counted["trailing_bytes"] == new
    added = add(database, AFTER, UPGRADE_SLOT)
    assert (added.stored, added.replaced) == (new, False)
    export(database, tmp_path)
    assert len(in_lake(database)) > 0, "the lake is read while its tables are being widened"
    done = decode_again(database, from_slot=UPGRADE_SLOT)
    assert (done.transactions, done.events, done.problems) == (new, 3 * new, 0)
    assert problems(database) == {}
    assert stored(database) == clean[0]
    export(database, tmp_path)
    assert in_lake(database) == clean[1]
    decode_again(database)
    export(database, tmp_path)
    assert (stored(database), in_lake(database)) == clean


def test_old_rows_keep_their_values_and_columns_say_why_they_are_there(database: Database) -> None:
    """A changed type gets a column of its own; an added field is empty before; a field that is gone stays."""
    index(database, registered(database), range(95, 98))
    added = add(database, AFTER, UPGRADE_SLOT)
    index(database, registered(database), range(101, 103))
    with psycopg.connect(database.dsn) as connection:
        notes = connection.execute("select slot, text, tip, text_2 from till.event_note order by slot").fetchall()
        fees = connection.execute("select fee from till.event_deposit order by slot").fetchall()
        reasons = connection.execute(
            "select table_name, column_name, field, from_slot, reason from capstan.column_changes order by 1, 2"
        ).fetchall()
        values = connection.execute("select value from events where name = 'Note' order by slot").fetchall()
    assert notes == [(n, f"note {n}", n, None) for n in range(95, 98)] + [
        (n, None, None, str(2**100 + n)) for n in range(101, 103)
    ]
    assert [fee for (fee,) in fees] == [None] * 3 + [2**64 - 102, 2**64 - 103]
    assert reasons == [
        ("account_pool", "cap", "cap", 101, "new field cap (bigint)"),
        ("event_deposit", "fee", "fee", 101, "new field fee (numeric(20,0))"),
        ("event_note", "text_2", "text", 101, "field text has another type (string as text became wide as text)"),
    ]
    assert values[0] == ({"text": "note 95", "tip": 95},)
    assert values[-1] == ({"text": str(2**100 + 102)},)
    assert any("till.event_burn" in change for change in added.changes)
    assert any("field tip is gone" in change for change in added.changes)


def test_a_batch_that_was_decoded_before_the_upgrade_was_known_is_decoded_again(database: Database) -> None:
    """It is refused when it is written, so that nothing is stored that `capstan redecode` has not seen."""
    registry = registered(database)
    read = read_bodies([body(200, 200)], registry, "confirmed")
    add(database, AFTER, UPGRADE_SLOT)
    batch = read.batch(finalized={}, frontiers={})
    with pytest.raises(RetryableError, match="registry of IDLs has changed"):
        write(database, registry, batch)
    assert run(database, registry.reload)
    assert not run(database, registry.reload)
    write(database, registry, read_bodies([body(200, 200)], registry, "confirmed").batch(finalized={}, frontiers={}))
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select name from events order by name").fetchall() == [
            ("Burn",),
            ("Deposit",),
            ("Note",),
        ]


async def test_a_running_indexer_takes_the_new_idl_up(database: Database, tmp_path: Path) -> None:
    """Without a restart, and fetches account state anew; a node that fails just then is asked again."""
    absent = cast("Any", None)
    snapshots: Iterator[RetryableError | int] = iter([RetryableError("not now"), 0])

    async def snapshot() -> int:
        outcome = next(snapshots)
        if isinstance(outcome, RetryableError):
            raise outcome
        done.set()
        return outcome

    done = asyncio.Event()
    async with await connect(database.dsn) as owner, open_pool(database.for_role(INDEXER_ROLE)) as pool:
        registry = await open_registry(owner, [BEFORE])
        settings = IndexerSettings(data_dir=tmp_path)
        indexer = Indexer(settings, absent, pool, lambda: absent, registry, registry.tables)
        indexer.accounts = cast("Any", SimpleNamespace(snapshot=snapshot))
        following = asyncio.create_task(indexer._follow_registry())
        await add_version(owner, AFTER, UPGRADE_SLOT)
        await done.wait()
        following.cancel()
        assert "Burn" in indexer.programs[PROGRAM_ID].events
        assert indexer.tables[PROGRAM_ID].event_table("Burn", UPGRADE_SLOT) is not None
        assert indexer.tables[PROGRAM_ID].event_table("Burn", UPGRADE_SLOT - 1) is None


def test_redecode_that_is_killed_is_finished_by_the_next_one(
    database: Database, clean: tuple[dict[str, list[str]], list[str]], tmp_path: Path
) -> None:
    """Every batch is one transaction; repeating one changes nothing."""
    index(database, registered(database))
    export(database, tmp_path)
    add(database, AFTER, UPGRADE_SLOT)
    decode_again(database, batches=1)
    assert stored(database) != clean[0]
    export(database, tmp_path)
    decode_again(database)
    export(database, tmp_path)
    assert (stored(database), in_lake(database)) == clean


def test_redecode_brings_nothing_back_that_a_fork_took(database: Database) -> None:
    """A confirmed transaction that was dropped or moved since its body was read is left as it is now."""
    registry = registered(database)
    index(database, registry, iter([150, 151, 152]), "confirmed")
    add(database, AFTER, UPGRADE_SLOT)
    run(database, registry.reload)
    bodies = [RawBody(signature(n), n, None, body(n, n), finalized=False) for n in (150, 151, 152)]
    run(database, lambda connection: drop_transactions(connection, {signature(150): 150}))
    moved = read_bodies([body(151, 160)], registry, "confirmed")
    write(database, registry, moved.batch(finalized={}, frontiers={}))

    async def main() -> Redecoded:
        async with open_pool(database.dsn) as pool:
            return await redecode(pool, registry, iter([bodies]), lambda _: None)

    done = asyncio.run(main())
    assert (done.transactions, done.left_out) == (1, 2)
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute("select slot, commitment from capstan.transactions order by slot").fetchall()
        assert rows == [(152, "confirmed"), (160, "confirmed")]
        assert connection.execute("select slot from till.event_burn order by slot").fetchall() == [(152,), (160,)]


def test_a_version_that_was_wrong_is_replaced(database: Database) -> None:
    """The same slot again with another text replaces it; the same text changes nothing."""
    registered(database)
    assert add(database, load_program(upgraded=False, docs="of a later day"), 50).changes == ()
    assert add(database, AFTER, 80).to_slot is None
    replaced = add(database, AFTER, 50)
    assert (replaced.replaced, replaced.to_slot) == (True, 79)
    assert add(database, AFTER, 50).known
    registry = registered(database)
    assert [version.from_slot for version in registry.versions(PROGRAM_ID)] == [0, 50, 80]
    assert set(registry.at(49)[PROGRAM_ID].events) == {"Deposit", "Note"}
    assert set(registry.at(50)[PROGRAM_ID].events) == {"Deposit", "Note", "Burn"}
    split = registry.split([80, 1, 49, 50])
    assert [positions for _, positions in split] == [[1, 2], [3], [0]]


def test_the_command_line_does_not_change_what_decodes(database: Database) -> None:
    """Another IDL is refused with the command that adds it; docs may change, and a known version may be named."""
    run(database, lambda connection: ensure_tables(connection, BEFORE))
    with pytest.raises(DataError, match=r"capstan idl add till_2.json --from-slot SLOT"):
        run(database, lambda connection: ensure_tables(connection, AFTER))
    described = load_program(upgraded=False, docs="told better")
    run(database, lambda connection: ensure_tables(connection, described))
    with psycopg.connect(database.dsn) as connection:
        texts = connection.execute("select idl from capstan.idls").fetchall()
        assert texts == [(escape_text(str(described.idl.text)),)]
        assert connection.execute("select idl from capstan.programs").fetchall() == texts
    add(database, AFTER, UPGRADE_SLOT)
    for program in (AFTER, described):
        tables = run(database, lambda connection, named=program: ensure_tables(connection, named))  # type: ignore[misc]
        assert [version.from_slot for version in tables.versions] == [0, UPGRADE_SLOT]


def test_an_account_is_read_by_the_idl_of_its_time(database: Database) -> None:
    """One that was not written since the upgrade has the old layout, and its new column is empty."""
    registered(database)
    add(database, AFTER, UPGRADE_SLOT)
    registry = registered(database)
    old, new = BEFORE.encode_account("Pool", {"total": 1}), AFTER.encode_account("Pool", {"total": 2, "cap": 3})

    async def work(connection: Any) -> None:
        for slot, data in ((102, new), (103, old), (104, new), (105, old)):
            decoded, version_slot = decode_account(registry, PROGRAM_ID, data, slot)
            row = AccountRow(OWNER, slot, 1, decoded.name, decoded.values, version_slot)
            await write_accounts(connection, registry.tables[PROGRAM_ID], [row])
            cursor = await connection.execute("select total, cap from till.account_pool")
            assert await cursor.fetchall() == [(2, 3) if data is new else (1, None)]

    run(database, work)


def test_the_commands(database: Database, tmp_path: Path) -> None:
    """What is said: the slot that was chosen, what changed, how many transactions to decode again, and with what."""
    index(database, registered(database))
    file = tmp_path / "till.json"
    file.write_text(idl_text(upgraded=True))
    tool, where = CliRunner(), ["--database-url", database.dsn]
    chosen = tool.invoke(app, ["idl", "add", str(file), *where])
    assert chosen.exit_code == 0, chosen.output
    assert f"valid from slot {SLOTS[-1] + 1} on" in chosen.output
    assert "add the IDL again with --from-slot" in chosen.output
    told = tool.invoke(app, ["idl", "add", str(file), "--from-slot", str(UPGRADE_SLOT), *where])
    assert "events.Burn is new" in told.output
    assert f"capstan redecode --program {ADDRESS} --from {UPGRADE_SLOT}" in told.output
    assert f"{len(NEW_SLOTS)} stored transactions" in told.output
    again = ["redecode", "--program", ADDRESS, "--from", str(UPGRADE_SLOT), *where]
    done = json.loads(tool.invoke(app, [*again, "--json"]).output)
    expected = {"transactions": len(NEW_SLOTS), "events": 3 * len(NEW_SLOTS), "problems": 0, "without_body": 0}
    assert {key: done[key] for key in expected} == expected
    assert "account state is not decoded again" in tool.invoke(app, again).output
    known = json.loads(tool.invoke(app, ["idl", "add", str(file), "--from-slot", "101", "--json", *where]).output)
    assert known["known"]
    refused = tool.invoke(app, ["redecode", "--program", "nobody", *where])
    assert refused.exit_code == SettingsError.exit_code
