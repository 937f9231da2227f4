"""Any program's tables, read by the registry alone: hot and cold rows together, every one once."""

import asyncio
from pathlib import Path

from indexer.store import browse
from indexer.store.accounts import AccountRow, Closed, write_accounts
from indexer.store.batch import Batch
from indexer.store.database import DASHBOARD_ROLE, INDEXER_ROLE, Database, connect
from indexer.store.lake import Lake
from indexer.store.reader import Reader
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import VaultRows, load_vault_program

PROGRAM = load_vault_program()


def test_counts_sums_and_rows_are_of_lake_and_hot_tail_together(database: Database, tmp_path: Path) -> None:
    """Three deposits in the lake and two after it are five, summed to the last unit, newest first."""
    rows = VaultRows(PROGRAM)
    vault = rows.key()
    transactions = [rows.transaction(slot) for slot in range(10, 15)]
    events = [rows.deposit(row, vault, amount=2**63 + n) for n, row in enumerate(transactions)]
    states = [
        AccountRow(rows.key(), 10, 1, "VaultDelegation", dict.fromkeys(("vault", "delegate"), bytes(32)) |
                   {"approved_at": 1, "revoked_at": None, "bump": 1})
        for _ in range(2)
    ]  # fmt: skip

    async def write(count: slice, frontier: int) -> None:
        async with await connect(database.dsn) as connection:
            tables = await ensure_tables(connection, PROGRAM)
            batch = Batch(transactions[count], events[count], frontiers={PROGRAM.program_id: frontier})
            await write_batch(connection, batch, {PROGRAM.program_id: tables})
            await write_accounts(connection, tables, [*states, Closed(states[0].address, 11)])

    asyncio.run(write(slice(0, 3), 12))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
    asyncio.run(write(slice(3, 5), 14))
    with Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:
        (program,) = browse.select_programs(reader)
        assert (program.name, program.frontier_slot) == ("ephemeral_vault", 14)
        tables = browse.select_tables(reader, program.schema_name)
        assert {table.kind for table in tables} == {"event", "account"}
        counts = browse.count_rows(reader, tables)
        assert counts["AutoDeposit"] == 5
        assert counts["VaultDelegation"] == 1
        deposits = next(table for table in tables if table.type_name == "AutoDeposit")
        assert deposits.numbers == ("amount", "total_deposited")
        (per_day,) = browse.count_per_day(reader, [t for t in tables if t.kind == "event"]).rows()
        assert (per_day[0], per_day[2]) == ("AutoDeposit", 5)
        ((_, total, count),) = browse.sum_per_day(reader, deposits, "amount").rows()
        assert (int(total), count) == (5 * 2**63 + 10, 5)
        newest = browse.select_newest(reader, deposits, limit=2, offset=1)
        assert newest["slot"].to_list() == [13, 12]
        assert browse.count_problems(reader, program.schema_name) == {}


def test_nothing_asked_is_nothing_answered(database: Database) -> None:
    """A program without events has no days, and no program has no tables."""
    with Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:
        assert browse.select_programs(reader) == []
        assert browse.select_tables(reader, "nobody") == []
        assert browse.count_rows(reader, []) == {}
        assert browse.count_per_day(reader, []).is_empty()
