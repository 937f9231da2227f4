"""Event tables and raw bodies lie in partitions by slot, which nobody has to think of."""

import asyncio
import random
from typing import Any

import psycopg
import pytest
from psycopg import sql

from indexer.store.batch import Batch, Written
from indexer.store.database import DASHBOARD_ROLE, INDEXER_ROLE, Database, connect, open_pool, session
from indexer.store.partitions import PARTITION_SLOTS, TableName, ensure_partitions
from indexer.store.raw import decompress_body
from indexer.store.registry import ensure_tables
from indexer.store.stored import drop_transactions
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id
EVENTS = TableName("ephemeral_vault", "event_auto_deposit")


def prepare(database: Database, role: str | None = None) -> ProgramTables:
    """Make the program's tables, as the operator does."""

    async def main() -> ProgramTables:
        async with await connect(database.for_role(role) if role else database.dsn) as connection:
            return await ensure_tables(connection, PROGRAM)

    return asyncio.run(main())


def write(database: Database, tables: ProgramTables, *batches: Batch) -> list[Written]:
    """Write as the indexer's role."""

    async def main() -> list[Written]:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            return [await write_batch(connection, batch, {ID: tables}) for batch in batches]

    return asyncio.run(main())


def select(database: Database, query: str) -> list[Any]:
    """Return what the operator's login sees."""
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(query).fetchall()


def spread(rows: VaultRows, count: int, partitions: int) -> Batch:
    """Return deposits with bodies in random slots over so many partitions."""
    rng = random.Random(7)
    transactions = [rows.transaction(rng.randrange(partitions * PARTITION_SLOTS)) for _ in range(count)]
    raw = {row.signature: b'{"slot":%d}' % row.slot for row in transactions}
    return Batch(transactions, [rows.deposit(row, rows.key()) for row in transactions], raw=raw)


@pytest.mark.parametrize("maker", [None, INDEXER_ROLE])
def test_rows_find_their_partitions_whoever_made_the_tables(database: Database, maker: str | None) -> None:
    """The writer owns no tables where the operator made them; its partitions belong to their table's owner."""
    tables = prepare(database, maker)
    batch = spread(VaultRows(PROGRAM), 500, 20)
    assert write(database, tables, batch, batch) == [Written(transactions=500, events=500), Written()]
    assert select(database, "select count(*), count(distinct tableoid) from ephemeral_vault.event_auto_deposit") == [
        (500, 20)
    ]
    assert select(database, "select count(*), count(distinct tableoid) from capstan.raw_transactions") == [(500, 20)]
    owners = select(
        database,
        "select distinct c.relowner = p.relowner from pg_inherits join pg_class c on c.oid = inhrelid "
        "join pg_class p on p.oid = inhparent",
    )
    assert owners == [(True,)]
    with psycopg.connect(database.for_role(DASHBOARD_ROLE)) as connection:
        assert connection.execute("select count(*) from ephemeral_vault.event_auto_deposit").fetchone() == (500,)


def test_many_writers_make_the_same_partitions_once(database: Database) -> None:
    """All begin at once over the same empty tables; none fails, and nothing is lost."""
    tables = prepare(database)
    whole = spread(VaultRows(PROGRAM), 400, 12)

    async def main() -> None:
        async with open_pool(database.for_role(INDEXER_ROLE), size_max=6) as pool:

            async def part(first: int) -> None:
                for start in range(first, 400, 60):
                    span = slice(start, start + 120)
                    batch = Batch(whole.transactions[span], whole.events[span], raw=whole.raw)
                    async with session(pool) as connection:
                        await write_batch(connection, batch, {ID: tables})

            await asyncio.gather(*(part(first) for first in range(0, 60, 10)))

    asyncio.run(main())
    assert select(database, "select count(*), sum(slot) from ephemeral_vault.event_auto_deposit") == [
        (400, sum(row.slot for row in whole.transactions))
    ]
    assert select(database, "select count(*) from capstan.raw_transactions") == [(400,)]


def test_a_table_of_an_earlier_version_goes_on_without_partitions(database: Database) -> None:
    """Its key has no slot; both kinds of table take rows and replays side by side."""
    tables = prepare(database)
    with psycopg.connect(database.dsn) as connection:
        connection.execute("drop table ephemeral_vault.event_auto_deposit cascade")
        connection.execute(
            "create table ephemeral_vault.event_auto_deposit (signature bytea not null, kind text not null, "
            "ordinal bigint not null, slot bigint not null, block_time timestamptz, vault bytea, "
            "amount numeric(20,0), total_deposited numeric(20,0), primary key (signature, kind, ordinal))"
        )
        connection.execute(
            "grant select, insert, update, delete on ephemeral_vault.event_auto_deposit to capstan_indexer"
        )
    rows = VaultRows(PROGRAM)
    row = rows.transaction(5 * PARTITION_SLOTS)
    events = [rows.deposit(row, rows.key()), rows.cleaned(row, rows.key())._replace(ordinal=1)]
    batch = Batch([row], events, raw={row.signature: b"{}"})
    assert write(database, tables, batch, batch) == [Written(transactions=1, events=2), Written()]

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            wanted = {EVENTS: [1], TableName("ephemeral_vault", "event_vault_cleaned"): [1]}
            assert await ensure_partitions(connection, wanted) == {TableName("ephemeral_vault", "event_vault_cleaned")}

    asyncio.run(main())


def test_only_our_tables_are_divided(database: Database) -> None:
    """The function runs with its owner's rights, so it touches nothing that the registry does not name."""
    prepare(database)
    with psycopg.connect(database.dsn) as connection:
        connection.execute("create table public.other (slot bigint) partition by range (slot)")
    with psycopg.connect(database.for_role(INDEXER_ROLE)) as connection:
        query = "select * from capstan.ensure_partitions(array['public'], array['other'], array[1::bigint])"
        assert connection.execute(query).fetchall() == []
        assert connection.execute("select capstan.drop_partition('public', 'other', 1)").fetchone() == (False,)
    with psycopg.connect(database.for_role(DASHBOARD_ROLE)) as connection:
        connection.read_only = False
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(query)


def test_long_table_names_have_partitions_of_their_own(database: Database) -> None:
    """PostgreSQL cuts names at 63 bytes without a word; two that begin alike must not meet."""
    names = [("x" * 60 + end)[:63] for end in ("one", "two")]
    with psycopg.connect(database.dsn) as connection:
        found = [connection.execute("select capstan.partition_name(%s, 123456)", (name,)).fetchone() for name in names]
        assert len(set(found)) == 2
        assert all(len(row[0]) <= 63 for row in found if row)
        assert connection.execute("select capstan.partition_width()").fetchone() == (PARTITION_SLOTS,)


def bodies(database: Database) -> dict[int, int]:
    """Return slot -> length of the stored bodies."""
    return dict(select(database, "select slot, length(body) from capstan.raw_transactions"))


def test_a_body_goes_where_its_transaction_goes(database: Database) -> None:
    """Moved by a fork, dropped, completed: the body is always that of the row that is stored."""
    tables = prepare(database)
    rows = VaultRows(PROGRAM)
    confirmed = rows.transaction(10, commitment="confirmed")
    moved = rows.transaction(PARTITION_SLOTS + 1, signature=confirmed.signature)
    cut = rows.transaction(20, complete=False)
    dropped = rows.transaction(30, commitment="confirmed")
    elsewhere = rows.transaction(40, mentions=())

    def batch(row: Any, body: bytes) -> Batch:
        return Batch([row], raw={row.signature: body})

    write(database, tables, *(batch(row, b"first") for row in (confirmed, cut, dropped, elsewhere)))
    assert set(bodies(database)) == {10, 20, 30}, "a transaction of no indexed program has no body"
    whole = rows.transaction(20, signature=cut.signature)
    write(database, tables, batch(moved, b"second"), batch(whole, b"w" * 500), batch(cut, b"again"))

    async def drop() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            await drop_transactions(connection, {dropped.signature: 30})

    asyncio.run(drop())
    query = sql.SQL("select slot, body from capstan.raw_transactions order by slot")
    with psycopg.connect(database.dsn) as connection:
        stored = {slot: decompress_body(body) for slot, body in connection.execute(query)}
    assert stored == {20: b"w" * 500, PARTITION_SLOTS + 1: b"second"}


def test_a_body_that_fits_a_page_lies_in_its_row(database: Database) -> None:
    """Only one that does not goes into a table of its own, and comes back as well."""
    tables = prepare(database)
    rows = VaultRows(PROGRAM)
    fitting, long = rows.transaction(5), rows.transaction(6)
    toasted = "select pg_relation_size(reltoastrelid) from pg_class where relname = 'raw_transactions_p0'"
    bodies = {row.signature: rows.rng.randbytes(size) for row, size in ((fitting, 6_000), (long, 20_000))}
    write(database, tables, Batch([fitting], raw={fitting.signature: bodies[fitting.signature]}))
    assert select(database, toasted) == [(0,)]
    write(database, tables, Batch([long], raw={long.signature: bodies[long.signature]}))
    assert select(database, toasted) != [(0,)]
    stored = select(database, "select signature, body from capstan.raw_transactions")
    assert {signature: decompress_body(body) for signature, body in stored} == bodies
