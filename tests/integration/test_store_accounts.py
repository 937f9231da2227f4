"""Account state: the newest slot wins, closures stay, an address can live again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.errors import DataError
from indexer.store.accounts import AccountRow, Closed, WrittenAccounts, reconcile_accounts, write_accounts
from indexer.store.copy import COPY_ROWS_MIN
from indexer.store.database import INDEXER_ROLE, AsyncConnection, Database, connect
from indexer.store.registry import ensure_tables
from indexer.store.typed import ProgramTables
from tests.fixtures.vault_rows import VaultRows, load_vault_program

PROGRAM = load_vault_program()
ROWS = VaultRows(PROGRAM)
A, B, C = ROWS.key(), ROWS.key(), ROWS.key()
NOTHING = WrittenAccounts()


def vault(address: bytes, slot: int, *, deposited: int = 0) -> AccountRow:
    """Return an open session vault."""
    values = {
        "parent_wallet": A,
        "ephemeral_wallet": B,
        "session_start": 1,
        "session_expiry": 2,
        "is_active": True,
        "total_deposited": deposited,
        "total_spent": 0,
        "max_deposit": 2**64 - 1,
        "bump": 255,
    }
    return AccountRow(address, slot, 2_000_000, "EphemeralVault", values)


def delegation(address: bytes, slot: int) -> AccountRow:
    """Return a delegation that was not revoked."""
    values = {"vault": A, "delegate": B, "approved_at": 1, "revoked_at": None, "bump": 1}
    return AccountRow(address, slot, 1_000_000, "VaultDelegation", values)


Work = Callable[[AsyncConnection, ProgramTables], Awaitable[Any]]


def run(database: Database, work: Work) -> Any:
    """Run `work` as the indexer would."""

    async def main() -> Any:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            return await work(connection, await ensure_tables(connection, PROGRAM))

    return asyncio.run(main())


def vaults(database: Database) -> dict[bytes, tuple[int, int | None, int]]:
    """Return address -> (slot, closed_slot, total_deposited)."""
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute(
            "select address, slot, closed_slot, total_deposited from ephemeral_vault.account_ephemeral_vault"
        ).fetchall()
    return {address: (slot, closed, int(deposited)) for address, slot, closed, deposited in rows}


@pytest.mark.parametrize("n", [1, COPY_ROWS_MIN])
def test_the_newest_slot_wins_and_replays_change_nothing(database: Database, n: int) -> None:
    """An older state that arrives later is not written; the same slot written again is the newer word."""
    addresses = [ROWS.key() for _ in range(n)]

    async def work(connection: AsyncConnection, tables: ProgramTables) -> None:
        newer = [vault(address, 10, deposited=7) for address in addresses]
        assert (await write_accounts(connection, tables, newer)).changed == n
        assert await write_accounts(connection, tables, newer) == NOTHING
        assert await write_accounts(connection, tables, [vault(address, 9) for address in addresses]) == NOTHING
        again = [vault(address, 10, deposited=8) for address in addresses]
        assert (await write_accounts(connection, tables, again)).changed == n

    run(database, work)
    assert vaults(database) == dict.fromkeys(addresses, (10, None, 8))


def test_a_closed_account_stays_and_can_live_again(database: Database) -> None:
    """The row keeps its last state with the slot of its end; a newer state opens it again."""

    async def work(connection: AsyncConnection, tables: ProgramTables) -> None:
        await write_accounts(connection, tables, [vault(A, 10, deposited=1)])
        assert await write_accounts(connection, tables, [Closed(A, 12)]) == WrittenAccounts(closed=1)
        assert await write_accounts(connection, tables, [Closed(A, 12), Closed(A, 11)]) == NOTHING
        assert vaults(database) == {A: (10, 12, 1)}
        assert await write_accounts(connection, tables, [vault(A, 11)]) == NOTHING
        assert vaults(database) == {A: (10, 12, 1)}
        await write_accounts(connection, tables, [vault(A, 13, deposited=2)])

    run(database, work)
    assert vaults(database) == {A: (13, None, 2)}


def test_a_state_that_arrives_after_its_closure_is_stored_as_closed(database: Database) -> None:
    """Live notifications may overtake the snapshot: the address was never seen, and yet it is known to be gone."""

    async def work(connection: AsyncConnection, tables: ProgramTables) -> None:
        await write_accounts(connection, tables, [Closed(A, 20)])
        await write_accounts(connection, tables, [vault(A, 15)])

    run(database, work)
    assert vaults(database) == {A: (15, 20, 0)}


def test_an_address_that_comes_back_as_another_type_ends_the_old_row(database: Database) -> None:
    """In whatever order the two are seen, one row is open: that of the newer slot."""

    async def work(connection: AsyncConnection, tables: ProgramTables) -> list[Any]:
        await write_accounts(connection, tables, [vault(A, 10), vault(B, 10)])
        await write_accounts(connection, tables, [delegation(A, 11), delegation(B, 9)])
        cursor = await connection.execute(
            "select address, closed_slot is null from ephemeral_vault.account_vault_delegation order by slot"
        )
        return await cursor.fetchall()

    assert run(database, work) == [(B, False), (A, True)]
    assert {address: row[1] is None for address, row in vaults(database).items()} == {A: False, B: True}


def test_a_snapshot_closes_what_it_does_not_hold(database: Database) -> None:
    """Only rows older than the snapshot; newer ones it could not know."""

    async def work(connection: AsyncConnection, tables: ProgramTables) -> Any:
        await write_accounts(connection, tables, [vault(A, 10), vault(B, 10), vault(C, 30)])
        closed = await reconcile_accounts(connection, tables, slot=20, alive={A})
        assert await reconcile_accounts(connection, tables, slot=20, alive={A}) == ()
        return closed

    assert run(database, work) == (B,)
    assert vaults(database) == {A: (10, None, 0), B: (10, 20, 0), C: (30, None, 0)}


def test_an_account_of_an_unknown_type_is_no_account_of_the_program(database: Database) -> None:
    """It ends the row that was there; a type without a table is our own mistake and stops."""

    async def work(connection: AsyncConnection, tables: ProgramTables) -> None:
        await write_accounts(connection, tables, [vault(A, 10)])
        assert (await write_accounts(connection, tables, [AccountRow(A, 11, 5, None, {})])).closed == 1
        with pytest.raises(DataError, match="no table for the account Strange"):
            await write_accounts(connection, tables, [AccountRow(B, 11, 5, "Strange", {})])

    run(database, work)
    assert vaults(database) == {A: (10, 11, 0)}


def test_a_state_and_its_closure_in_one_batch_are_a_closed_row(database: Database) -> None:
    """The last state stays to be read; at the same slot what was given last counts."""

    async def work(connection: AsyncConnection, tables: ProgramTables) -> None:
        rows: list[AccountRow | Closed] = [
            vault(A, 10, deposited=4),
            Closed(A, 12),
            vault(B, 10),
            Closed(B, 10),
            Closed(C, 10),
            vault(C, 10),
        ]
        assert await write_accounts(connection, tables, rows) == WrittenAccounts(changed=3, closed=2)

    run(database, work)
    assert vaults(database) == {A: (10, 12, 4), B: (10, 10, 0), C: (10, None, 0)}


CHANGES = st.lists(
    st.tuples(st.sampled_from([A, B]), st.integers(1, 6), st.booleans()), max_size=8, unique_by=lambda c: (c[0], c[1])
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES, st.randoms(use_true_random=False))
def test_any_order_of_arrival_ends_in_the_same_state(database: Database, changes: Any, order: Any) -> None:
    """One state or closure a slot: whatever overtakes whatever, who is open, and as what, is the same."""
    rows = [
        vault(address, slot, deposited=slot) if open_ else Closed(address, slot) for address, slot, open_ in changes
    ]
    shuffled = list(rows)
    order.shuffle(shuffled)

    async def work(connection: AsyncConnection, tables: ProgramTables) -> list[Any]:
        results = []
        for sequence in (sorted(rows, key=lambda row: row.slot), shuffled):
            await connection.execute("delete from ephemeral_vault.account_ephemeral_vault")
            await connection.execute("delete from capstan.closures")
            for row in sequence:
                await write_accounts(connection, tables, [row])
            open_rows = {key: value for key, value in vaults(database).items() if value[1] is None}
            results.append(open_rows)
        await connection.execute("delete from ephemeral_vault.account_ephemeral_vault")
        await connection.execute("delete from capstan.closures")
        await write_accounts(connection, tables, shuffled)
        assert {key: value for key, value in vaults(database).items() if value[1] is None} == results[0]
        return results

    in_order, in_disorder = run(database, work)
    assert in_disorder == in_order
