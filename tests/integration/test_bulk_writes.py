"""A batch of columns is stored as its rows would be, whatever is there already."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from indexer.chain.batch import IDENTITY_SCHEMA, EventColumns
from indexer.chain.events import Event, Problem
from indexer.errors import RetryableError
from indexer.store.batch import Batch, PackedEvents, TransactionRow, Written
from indexer.store.bulk import Bulk, occurring_partitions, pack_bulk, write_bulk
from indexer.store.columns import join, pack_events
from indexer.store.copy import COPY_ROWS_MIN
from indexer.store.database import INDEXER_ROLE, AsyncConnection, Database, connect
from indexer.store.raw import decompress_body
from indexer.store.registry import ensure_tables
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id
OTHER = bytes(31) + b"\1"
COUNT = COPY_ROWS_MIN + 20

Tables = Mapping[bytes, ProgramTables]
Before = Callable[[AsyncConnection, Tables, "Made"], Awaitable[Any]]


class Made:
    """Transactions of falling slots, most with a deposit and a body, and the same as one bulk."""

    def __init__(self, seed: int = 0, count: int = COUNT) -> None:
        made = VaultRows(PROGRAM, seed)
        vault = made.key()
        self.rows = [
            made.transaction(
                1_000_000 - 9_000 * number,
                fee=2**63 - 1 - number,
                err='{"a":1}' if number % 7 == 0 else None,
                block_time=None if number % 5 == 0 else 1_700_000_000 + number,
                compute_units=None if number % 3 == 0 else number,
                complete=number % 11 != 0,
                mentions=[(ID,), (ID, OTHER), ()][number % 3],
            )
            for number in range(count)
        ]
        self.events = [made.deposit(row, vault, number) for number, row in enumerate(self.rows) if row.err is None]
        self.problems = [Problem(ID, row.signature, "truncated", 0, "cut\0", row.slot) for row in self.rows[:1]]

    def bulk(self, tables: Tables, generation: int | None = None) -> Bulk:
        """Pack them."""
        names = ("signature", "slot", "block_time", "err", "fee", "compute_units", "complete")
        types = (pa.binary(64), pa.int64(), pa.int64(), pa.string(), pa.int64(), pa.int64(), pa.bool_())
        columns: list[Any] = [
            pa.array([getattr(row, name) for row in self.rows], pa_type)
            for name, pa_type in zip(names, types, strict=True)
        ]
        # One more in front, so that everything is a slice of something longer.
        bodies: Any = pa.array([b"?", *map(body_of, self.rows)], pa.binary())
        return pack_bulk(
            pa.RecordBatch.from_arrays(columns, list(names)),
            bodies.slice(1),
            {key: np.array([key in row.mentions for row in self.rows], np.bool_) for key in (ID, OTHER)},
            [packed_deposits(self.events, tables)] if self.events else [],
            problems=self.problems,
            generation=generation,
        )


def body_of(row: TransactionRow) -> bytes:
    return b'{"slot":%d,"filler":"%s"}' % (row.slot, b"x" * (row.slot % 3_000))


def packed_deposits(events: list[Event], tables: Tables) -> PackedEvents:
    identity: Any = pa.RecordBatch.from_arrays(
        [
            pa.array([event.signature for event in events], pa.binary(64)),
            pa.array([event.kind for event in events]).dictionary_encode().cast(IDENTITY_SCHEMA.field("kind").type),
            pa.array([event.ordinal for event in events], pa.int64()),
            pa.array([event.slot for event in events], pa.int64()),
            pa.array([event.block_time for event in events], pa.int64()),
        ],
        schema=IDENTITY_SCHEMA,
    )
    payloads = [PROGRAM.encode_event(event.name, event.values) for event in events]
    group = PROGRAM.decode_events(payloads).groups["AutoDeposit"]
    table = tables[ID].events["AutoDeposit"]
    columns, escaped = pack_events(table, PROGRAM, EventColumns(group.rows, identity, group.values))
    slots = occurring_partitions(identity.column("slot").to_numpy())
    return PackedEvents(table, join(columns, len(events)), len(events), slots, escaped)


def run(database: Database, work: Callable[[AsyncConnection, Tables], Awaitable[Any]]) -> Any:
    """Run `work` as the indexer would: its role, its tables."""

    async def main() -> Any:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            return await work(connection, {ID: await ensure_tables(connection, PROGRAM)})

    return asyncio.run(main())


CONTENT = {
    "transactions": "signature, slot, block_time, err, fee, compute_units, commitment, complete, blockhash",
    "mentions": "program_id, slot, signature",
    "raw_transactions": "slot, signature, body",
    "problems": "program_id, subject, kind, ordinal, detail, slot",
    "late_transactions": "signature",
    "frontiers": "program_id, slot",
}


def content(database: Database, *, empty: bool = False) -> dict[str, list[Any]]:
    """Return what is stored, but for the times of storing, and then take it out if asked to."""
    tables = {f"capstan.{name}": columns for name, columns in CONTENT.items()}
    tables["ephemeral_vault.event_auto_deposit"] = "*"
    with psycopg.connect(database.dsn) as connection:
        found: dict[str, list[Any]] = {
            table: sorted(connection.execute(f"select {columns} from {table}").fetchall(), key=repr)
            for table, columns in tables.items()
        }
        if empty:
            connection.execute(f"truncate {', '.join(tables)}, capstan.coverage")
    return found


async def nothing(*_: Any) -> None:
    """An empty database."""


async def the_same(connection: AsyncConnection, tables: Tables, made: Made) -> None:
    await write_bulk(connection, made.bulk(tables), tables)


async def a_frontier_that_passed_them(connection: AsyncConnection, tables: Tables, _: Made) -> None:
    await write_batch(connection, Batch(frontiers={ID: 600_000}), tables)


async def one_in_another_slot(connection: AsyncConnection, tables: Tables, made: Made) -> None:
    moved = replace(made.rows[5], slot=77, commitment="confirmed", blockhash="x")
    deposit = VaultRows(PROGRAM, 9).deposit(moved, bytes(32))
    raw = {moved.signature: b"{}"}
    await write_batch(connection, Batch([moved], [deposit], raw=raw), tables)


async def some_only_confirmed(connection: AsyncConnection, tables: Tables, made: Made) -> None:
    rows = [replace(row, commitment="confirmed", complete=False, blockhash="y") for row in made.rows[::4]]
    await write_batch(connection, Batch(rows, raw={row.signature: b"{}" for row in rows}), tables)


async def bodies_without_transactions(connection: AsyncConnection, tables: Tables, made: Made) -> None:
    await the_same(connection, tables, made)
    await connection.execute("delete from capstan.transactions")


@pytest.mark.parametrize(
    "before",
    [
        *(nothing, the_same, a_frontier_that_passed_them),
        *(one_in_another_slot, some_only_confirmed, bodies_without_transactions),
    ],
)
def test_columns_and_rows_are_stored_alike(database: Database, before: Before) -> None:
    """Whatever was there: the same tables, and the same is told. A second time nothing changes."""
    made = Made()

    async def by_columns(connection: AsyncConnection, tables: Tables) -> Written:
        await before(connection, tables, made)
        return await write_bulk(connection, made.bulk(tables), tables)

    async def by_rows(connection: AsyncConnection, tables: Tables) -> Written:
        await before(connection, tables, made)
        return await write_batch(connection, made.bulk(tables).as_rows(), tables)

    async def again(connection: AsyncConnection, tables: Tables) -> Written:
        return await write_bulk(connection, made.bulk(tables), tables)

    written = run(database, by_columns)
    stored = content(database)
    assert run(database, again) == Written()
    assert content(database, empty=True) == stored
    assert run(database, by_rows) == written
    assert content(database) == stored
    assert [row[1] for row in stored["capstan.transactions"]] != []
    bodies = {signature: decompress_body(body) for _, signature, body in stored["capstan.raw_transactions"]}
    assert bodies == {row.signature: body_of(row) for row in made.rows if row.mentions}


def test_what_mentions_nothing_has_no_body(database: Database) -> None:
    """Such a transaction is stored all the same; a batch of none at all changes nothing."""
    made = Made()
    made.rows = [replace(row, mentions=()) for row in made.rows]

    async def work(connection: AsyncConnection, tables: Tables) -> None:
        assert await write_bulk(connection, Made(count=0).bulk(tables), tables) == Written()
        await write_bulk(connection, made.bulk(tables), tables)

    run(database, work)
    stored = content(database)
    assert len(stored["capstan.transactions"]) == len(made.rows)
    assert not stored["capstan.mentions"]
    assert not stored["capstan.raw_transactions"]


def test_columns_that_another_registry_read_are_refused_whole(database: Database) -> None:
    """An IDL came meanwhile: they have to be decoded again."""
    made = Made()

    async def work(connection: AsyncConnection, tables: Tables) -> None:
        with pytest.raises(RetryableError, match="has changed"):
            await write_bulk(connection, made.bulk(tables, generation=10**6), tables)

    run(database, work)
    assert not any(content(database).values())


def test_writers_of_the_same_columns_at_the_same_time_agree(database: Database) -> None:
    """Each waits for the other's rows in one order, and the one that comes second changes nothing."""
    made = Made()
    half = Made()
    half.rows = made.rows[::-2]
    half.events = [event for event in made.events if event.signature in {row.signature for row in half.rows}]

    async def work(_: AsyncConnection, tables: Tables) -> list[Written]:
        async def one(bulk: Bulk) -> Written:
            async with await connect(database.for_role(INDEXER_ROLE)) as mine:
                return await write_bulk(mine, bulk, tables, is_durable=False)

        return list(await asyncio.gather(*(one(each.bulk(tables)) for each in (made, half, made, half))))

    written = run(database, work)
    assert sum(one.transactions for one in written) == len(made.rows)
    assert sum(one.events for one in written) == len(made.events)
    assert len(content(database)["capstan.transactions"]) == len(made.rows)
