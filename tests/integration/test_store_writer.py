"""Batches of transactions and events: one database transaction, and replaying changes nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
import pytest

from indexer.chain.events import Problem
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import DataError, RetryableError
from indexer.store.batch import Batch, TransactionRow, Written
from indexer.store.copy import COPY_ROWS_MIN
from indexer.store.database import INDEXER_ROLE, AsyncConnection, Database, connect, open_pool
from indexer.store.holds import select_frontier
from indexer.store.identity import beat, ensure_chain
from indexer.store.registry import ensure_tables
from indexer.store.stored import drop_transactions, promote, select_known, select_unfinalized
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import VaultRows, load_vault_program

T = TypeVar("T")
PROGRAM = load_vault_program()
ID = PROGRAM.program_id


def run(database: Database, work: Callable[[AsyncConnection, dict[bytes, ProgramTables]], Awaitable[T]]) -> T:
    """Run `work` as the indexer would: its role, its tables."""

    async def main() -> T:
        connection = await connect(database.for_role(INDEXER_ROLE))
        async with connection:
            return await work(connection, {ID: await ensure_tables(connection, PROGRAM)})

    return asyncio.run(main())


def rows_of(database: Database, query: str) -> list[Any]:
    """Return what the operator's login sees."""
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(query).fetchall()


EVERYTHING = """
    select 't', md5(string_agg(t::text, '|' order by signature)) from capstan.transactions t
    union all select 'm', md5(string_agg(m::text, '|' order by signature)) from capstan.mentions m
    union all select 'e', md5(string_agg(e::text, '|' order by signature)) from ephemeral_vault.event_auto_deposit e
    union all select 'f', md5(string_agg(f::text, '|')) from capstan.frontiers f
"""


@pytest.mark.parametrize("n", [3, COPY_ROWS_MIN + 50])
def test_a_batch_is_written_and_its_replay_changes_nothing(database: Database, n: int) -> None:
    """Statements for few rows and COPY for many give the same rows, once."""
    batch = VaultRows(PROGRAM).batch(range(100, 100 + n))

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> tuple[Written, list[Any]]:
        first = await write_batch(connection, batch, tables)
        before = rows_of(database, EVERYTHING)
        assert await write_batch(connection, batch, tables) == Written()
        assert (
            await write_batch(connection, replace(batch, transactions=[*batch.transactions] * 2), tables) == Written()
        )
        return first, before

    first, before = run(database, work)
    assert first == Written(transactions=n, events=n)
    assert rows_of(database, EVERYTHING) == before
    assert rows_of(database, "select count(*), min(slot), max(slot) from capstan.transactions") == [(n, 100, 99 + n)]
    assert rows_of(database, "select slot from capstan.frontiers") == [(99 + n,)]
    assert rows_of(database, "select distinct extract(epoch from block_time)::bigint - slot from capstan.transactions")


@pytest.mark.parametrize("n", [1, COPY_ROWS_MIN])
def test_values_come_back_as_they_went_in(database: Database, n: int) -> None:
    """u64::MAX, negative times, options and NUL survive both ways into the table."""
    rows = VaultRows(PROGRAM, seed=1)
    vault, parent = rows.key(), rows.key()
    transactions = [rows.transaction(5, block_time=None, fee=2**64 - 1, err='{"a":1}') for _ in range(n)]
    events = [rows.created(row, vault, -(2**63), 2**63 - 1, parent) for row in transactions]
    batch = Batch(transactions, events)
    run(database, lambda connection, tables: write_batch(connection, batch, tables))
    assert rows_of(database, "select distinct block_time, fee, err from capstan.transactions") == [
        (None, 2**64 - 1, '{"a":1}')
    ]
    query = (
        "select distinct vault, parent, max_deposit, session_start, session_expiry "
        "from ephemeral_vault.event_vault_created"
    )
    assert rows_of(database, query) == [(vault, parent, 2**64 - 1, -(2**63), 2**63 - 1)]


@pytest.mark.parametrize("n", [1, COPY_ROWS_MIN])
def test_every_type_of_column_takes_its_extremes(database: Database, n: int) -> None:
    """A generated program with one field of each kind; strings with NUL are escaped and counted."""
    types = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128", "i128", "f32", "f64", "bool", "string"]
    fields: list[dict[str, Any]] = [{"name": f"f_{name}", "type": name} for name in types]
    fields += [{"name": "list", "type": {"vec": "string"}}, {"name": "maybe", "type": {"option": "u64"}}]
    fields += [{"name": "data", "type": "bytes"}, {"name": "feed", "type": {"array": ["u8", 4]}}]
    program = Program.from_idl(
        load_idl(
            json.dumps(
                {
                    "address": "EpheVau1t1111111111111111111111111111111111",
                    "metadata": {"name": "kinds", "version": "0.1.0", "spec": "0.1.0"},
                    "instructions": [],
                    "events": [{"name": "All", "discriminator": [1] * 8}],
                    "types": [{"name": "All", "type": {"kind": "struct", "fields": fields}}],
                }
            ),
            source="kinds.json",
        )
    )
    values: dict[str, Any] = {
        "f_u8": 255,
        "f_i8": -128,
        "f_u16": 65535,
        "f_i16": -32768,
        "f_u32": 2**32 - 1,
        "f_i32": -(2**31),
        "f_u64": 2**64 - 1,
        "f_i64": -(2**63),
        "f_u128": 2**128 - 1,
        "f_i128": -(2**127),
        "f_f32": 0.5,
        "f_f64": float("-inf"),
        "f_bool": True,
        "f_string": "a\0b",
        "list": ["x\0"],
        "maybe": None,
        "data": b"\x00\xff",
        "feed": b"\0\1\2\3",
    }
    rows = VaultRows(program)
    transactions = [rows.transaction(1) for _ in range(n)]
    batch = Batch(transactions, [rows.event(row, "All", **values) for row in transactions])

    async def main() -> Written:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            return await write_batch(connection, batch, {program.program_id: await ensure_tables(connection, program)})

    written = asyncio.run(main())
    assert written.escaped == 2 * n
    with psycopg.connect(database.dsn) as connection:
        cursor = connection.execute("select * from kinds.event_all limit 1")
        row = dict(zip([column.name for column in cursor.description or ()], cursor.fetchone() or (), strict=True))
    expected = values | {
        "f_u128": str(2**128 - 1),
        "f_i128": str(-(2**127)),
        "f_string": "a\u241b0b",
        "list": ["x\u241b0"],
    }
    assert {name: row[name] for name in expected} == expected


def test_a_signature_that_lands_in_another_slot_takes_its_events_along(database: Database) -> None:
    """After a fork the new landing replaces transaction, mention, events and problems."""
    rows = VaultRows(PROGRAM)
    old = rows.transaction(10, commitment="confirmed")
    new = replace(old, slot=12)
    vault = rows.key()
    problem = Problem(ID, old.signature, "trailing_bytes", 3, "x", 10)

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> Written:
        await write_batch(
            connection,
            Batch(
                [old],
                [
                    rows.deposit(old, vault, 1),
                ],
                [problem],
            ),
            tables,
        )
        return await write_batch(connection, Batch([new], [rows.deposit(new, vault, 2)]), tables)

    assert run(database, work) == Written(transactions=1, events=1, replaced=(old.signature,))
    assert rows_of(database, "select slot from capstan.transactions") == [(12,)]
    assert rows_of(database, "select slot from capstan.mentions") == [(12,)]
    assert rows_of(database, "select slot, amount from ephemeral_vault.event_auto_deposit") == [(12, 2)]
    assert rows_of(database, "select count(*) from capstan.problems") == [(0,)]


def test_a_late_notification_of_a_dropped_slot_does_not_undo_a_finalized_row(database: Database) -> None:
    """Finalized in one slot is stronger than confirmed in another."""
    rows = VaultRows(PROGRAM)
    row = rows.transaction(12)
    stale = replace(row, slot=10, commitment="confirmed")
    vault = rows.key()

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> Written:
        await write_batch(connection, Batch([row], [rows.deposit(row, vault)]), tables)
        return await write_batch(connection, Batch([stale], [rows.deposit(stale, vault)]), tables)

    assert run(database, work) == Written(refused=(row.signature,))
    assert rows_of(database, "select slot, commitment from capstan.transactions") == [(12, "finalized")]
    assert rows_of(database, "select slot from ephemeral_vault.event_auto_deposit") == [(12,)]


def test_confirmed_becomes_finalized_and_never_goes_back(database: Database) -> None:
    """By a second reading, by the batch's list, or by promote; a replay of the confirmed one changes nothing."""
    rows = VaultRows(PROGRAM)
    first, second, third, elsewhere = (rows.transaction(slot, commitment="confirmed") for slot in (1, 2, 3, 4))
    everyone = [first, second, third, elsewhere]

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        await write_batch(connection, Batch(everyone), tables)
        assert await select_unfinalized(connection, ID, 3) == {r.signature: r.slot for r in (first, second, third)}
        await write_batch(connection, Batch([replace(first, commitment="finalized")]), tables)
        written = await write_batch(
            connection, Batch(finalized={second.signature: 2, elsewhere.signature: 9}, frontiers={ID: 3}), tables
        )
        assert written.promoted == 1
        assert await promote(connection, {third.signature: 3}) == 1
        assert await write_batch(connection, Batch([first, second, third]), tables) == Written()
        assert await select_frontier(connection, ID) == 3
        known = await select_known(connection, {first.signature: 1, second.signature: 7, bytes(64): 1})
        assert known == {first.signature: True}

    run(database, work)
    found = rows_of(database, "select slot, commitment from capstan.transactions order by slot")
    assert found == [(1, "finalized"), (2, "finalized"), (3, "finalized"), (4, "confirmed")]


def test_dropped_transactions_go_with_everything_that_hangs_on_them(database: Database) -> None:
    """But not one that is finalized, nor one that has landed elsewhere since."""
    rows = VaultRows(PROGRAM)
    dropped, finalized, moved = (
        rows.transaction(5, commitment="confirmed"),
        rows.transaction(5),
        rows.transaction(7, commitment="confirmed"),
    )
    events = [rows.deposit(row, rows.key()) for row in (dropped, finalized, moved)]

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> int:
        problem = Problem(ID, dropped.signature, "truncated", 0, "cut", 5)
        await write_batch(connection, Batch([dropped, finalized, moved], events, [problem]), tables)
        return await drop_transactions(connection, {row.signature: 5 for row in (dropped, finalized, moved)})

    assert run(database, work) == 1
    left = {finalized.signature, moved.signature}
    for table in ("capstan.transactions", "capstan.mentions", "ephemeral_vault.event_auto_deposit"):
        assert {row[0] for row in rows_of(database, f"select signature from {table}")} == left
    assert rows_of(database, "select count(*) from capstan.problems") == [(0,)]


def test_a_complete_reading_ends_what_an_incomplete_one_left_open(database: Database) -> None:
    """Events that were missing are added, the problem goes, and an incomplete replay takes nothing back."""
    rows = VaultRows(PROGRAM)
    whole = rows.transaction(5)
    cut = replace(whole, complete=False)
    vault = rows.key()
    events = [rows.event(whole, "AutoDeposit", n, vault=vault, amount=n, total_deposited=n) for n in range(2)]
    problem = Problem(ID, whole.signature, "truncated", 0, "cut", 5)

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        await write_batch(connection, Batch([cut], events[:1], [problem]), tables)
        assert await write_batch(connection, Batch([whole], events), tables) == Written(transactions=1, events=1)
        assert await write_batch(connection, Batch([cut], events[:1]), tables) == Written()

    run(database, work)
    assert rows_of(database, "select complete from capstan.transactions") == [(True,)]
    assert rows_of(database, "select count(*) from ephemeral_vault.event_auto_deposit") == [(2,)]
    assert rows_of(database, "select count(*) from capstan.problems") == [(0,)]


def test_what_comes_below_a_frontier_is_noted_for_the_lake(database: Database) -> None:
    """New, moved, promoted or completed below the frontier; not what is above it, and not a replay."""
    rows = VaultRows(PROGRAM)
    known = rows.transaction(50)
    confirmed = rows.transaction(51, commitment="confirmed")
    late, above = rows.transaction(60), rows.transaction(101)

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        await write_batch(connection, Batch([known, confirmed], frontiers={ID: 100}), tables)
        await write_batch(connection, Batch([known, late, above]), tables)
        await promote(connection, {confirmed.signature: 51})

    run(database, work)
    noted = {row[0] for row in rows_of(database, "select signature from capstan.late_transactions")}
    assert noted == {late.signature, confirmed.signature}


def test_a_large_batch_is_stored_whole_whether_all_of_it_is_new_or_not(database: Database) -> None:
    """One stored row among many new ones, in another slot, is replaced, and the new ones come in all the same."""
    rows = VaultRows(PROGRAM)
    stored = rows.transaction(10, commitment="confirmed")
    many = [rows.transaction(20 + n, err=None if n % 3 else '{"InstructionError":[0,1]}') for n in range(COPY_ROWS_MIN)]
    again = replace(stored, slot=11, commitment="finalized")
    body = b'{"slot":1}' * 50
    vault = rows.key()

    def batch(transactions: list[TransactionRow]) -> Batch:
        events = [rows.deposit(row, vault, row.slot) for row in transactions]
        return Batch(transactions, events, raw={row.signature: body for row in transactions})

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> Written:
        await write_batch(connection, batch([stored]), tables)
        written = await write_batch(connection, batch([again, *many]), tables)
        assert await write_batch(connection, batch([again, *many]), tables) == Written()
        return written

    count = len(many) + 1
    assert run(database, work) == Written(transactions=count, events=count, replaced=(stored.signature,))
    slots = [(11,), *((row.slot,) for row in many)]
    for table in ("transactions", "mentions", "raw_transactions"):
        assert rows_of(database, f"select slot from capstan.{table} order by slot") == slots
    assert rows_of(database, "select amount from ephemeral_vault.event_auto_deposit order by slot") == slots
    kept = "select err from capstan.transactions where slot > 11 order by slot"
    assert rows_of(database, kept) == [(row.err,) for row in many]


def test_a_large_new_batch_below_a_frontier_is_noted_for_the_lake(database: Database) -> None:
    """All of it that lies below, and nothing above; what is only confirmed is not the lake's yet."""
    rows = VaultRows(PROGRAM)
    below = [rows.transaction(slot) for slot in range(COPY_ROWS_MIN)]
    confirmed, above = rows.transaction(50, commitment="confirmed"), rows.transaction(101)

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        await write_batch(connection, Batch(frontiers={ID: 100}), tables)
        await write_batch(connection, Batch([*below, confirmed, above]), tables)

    run(database, work)
    noted = {row[0] for row in rows_of(database, "select signature from capstan.late_transactions")}
    assert noted == {row.signature for row in below}


def test_a_failing_batch_leaves_nothing_behind(database: Database) -> None:
    """Rows and frontier are one transaction: an event without a table takes all of it back."""
    rows = VaultRows(PROGRAM)
    row = rows.transaction(5)

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        batch = Batch([row], [rows.event(row, "Unheard", x=1)], frontiers={ID: 5})
        with pytest.raises(DataError, match="no table for the event Unheard"):
            await write_batch(connection, batch, tables)
        assert await select_frontier(connection, ID) is None

    run(database, work)
    assert rows_of(database, "select count(*) from capstan.transactions") == [(0,)]


def test_a_frontier_never_moves_back(database: Database) -> None:
    """An older enumeration that ends later does not undo a newer one."""

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> int | None:
        await write_batch(connection, Batch(frontiers={ID: 9}), tables)
        await write_batch(connection, Batch(frontiers={ID: 4}), tables)
        return await select_frontier(connection, ID)

    assert run(database, work) == 9


def test_writers_at_the_same_time_agree(database: Database) -> None:
    """Overlapping batches from several connections end as one would have, without dead-lock."""
    whole = VaultRows(PROGRAM).batch(range(400))

    async def main() -> None:
        async with open_pool(database.for_role(INDEXER_ROLE), size_max=4) as pool:
            async with pool.connection() as connection:
                tables = {ID: await ensure_tables(connection, PROGRAM)}

            async def part(first: int, step: int) -> None:
                for start in range(first, 400, step):
                    span = slice(start, start + 100)
                    async with pool.connection() as connection:
                        batch = Batch(whole.transactions[span], whole.events[span], frontiers={ID: start})
                        await write_batch(connection, batch, tables)

            await asyncio.gather(*(part(first, 40) for first in (0, 10, 20, 30)))

    asyncio.run(main())
    assert rows_of(database, "select count(*) from capstan.transactions") == [(400,)]
    assert rows_of(database, "select count(*) from ephemeral_vault.event_auto_deposit") == [(400,)]


def test_a_database_belongs_to_one_chain(database: Database) -> None:
    """The first genesis hash stays; another one is refused by name."""

    async def work(connection: AsyncConnection, _: dict[bytes, ProgramTables]) -> None:
        await ensure_chain(connection, "here")
        await ensure_chain(connection, "here")
        with pytest.raises(DataError, match="belongs to the chain with genesis hash here, and the RPC is of there"):
            await ensure_chain(connection, "there")

    run(database, work)


def test_a_heartbeat_keeps_what_it_is_not_told(database: Database) -> None:
    """The newest tip and the last error stay until there are newer ones."""

    async def work(connection: AsyncConnection, _: dict[bytes, ProgramTables]) -> None:
        await beat(connection, "indexer", tip_slot=7, tip_time=1_700_000_000)
        await beat(connection, "indexer", error="no answer\0")
        await beat(connection, "indexer", tip_slot=8)

    run(database, work)
    query = "select tip_slot, extract(epoch from tip_time)::bigint, last_error from capstan.heartbeats"
    assert rows_of(database, query) == [(8, 1_700_000_000, "no answer\u241b0")]


def test_tables_of_an_idl_are_made_once_and_a_changed_one_is_refused(database: Database) -> None:
    """Docs and instructions may change; what decodes events otherwise stops, naming it and the command that adds it."""
    text = PROGRAM.idl.text if isinstance(PROGRAM.idl.text, str) else PROGRAM.idl.text.decode()
    changed = Program.from_idl(load_idl(text.replace('"name": "fee_paid",', '"name": "fee_given",'), source="x.json"))

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        assert {ID: await ensure_tables(connection, PROGRAM)} == tables
        with pytest.raises(DataError, match=r"fee_paid is called fee_given now\).*capstan idl add x.json"):
            await ensure_tables(connection, changed)

    run(database, work)


def test_a_schema_that_is_somebody_elses_is_left_alone(database: Database) -> None:
    """A program called like a schema that is there gets a suffix, and keeps it."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute("create schema ephemeral_vault")

    async def work(connection: AsyncConnection, tables: dict[bytes, ProgramTables]) -> None:
        assert tables[ID].schema_name == f"ephemeral_vault_{ID.hex()[:8]}"
        assert await ensure_tables(connection, PROGRAM) == tables[ID]

    run(database, work)


def test_a_server_that_went_away_is_retryable(unused_port: int) -> None:
    """The same call may succeed later."""
    with pytest.raises(RetryableError, match="does not answer"):
        asyncio.run(connect(f"postgresql://me@127.0.0.1:{unused_port}/db"))
