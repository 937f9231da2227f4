"""
Account state: one row an address, the newest slot wins, closed accounts stay.

Over RPC nothing carries a write version, so the slot decides, and at the same slot what was written last: ties are
fetched again by the indexer. An address can live again after it was closed, also as another type. A closure is
remembered by address (`capstan.closures`), so that an older state which arrives after it is stored as closed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from psycopg import sql

from indexer.errors import DataError
from indexer.store.copy import Target, insert_rows
from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries
from indexer.store.rows import adapt_values
from indexer.store.typed import ProgramTables, TypedTable

QUERIES = load_queries("accounts")


@dataclass(frozen=True, slots=True)
class AccountRow:
    """
    An account of the program as it was at the end of a slot.

    Args:
        address: 32 bytes.
        name: its type as in the IDL; None where the IDL knows none: it is stored as no account of the program, and
            the caller records the problem.
        values: decoded fields.
        version_slot: a slot for which the IDL was valid that decoded it; None where there is only one.
    """

    address: bytes
    slot: int
    lamports: int
    name: str | None
    values: Mapping[str, Any]
    version_slot: int | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """At this slot the address held nothing, or nothing of the program's."""

    address: bytes
    slot: int


@dataclass(frozen=True, slots=True)
class WrittenAccounts:
    """What changed: rows inserted or updated, rows marked closed, strings escaped (see typed.py)."""

    changed: int = 0
    closed: int = 0
    escaped: int = 0


async def write_accounts(
    connection: AsyncConnection, tables: ProgramTables, rows: Sequence[AccountRow | Closed]
) -> WrittenAccounts:
    """
    Write account states and closures in one transaction. Replaying them, or older ones, changes nothing.

    Raises:
        DataError: a type that has no table.
    """
    states, closures = _newest(rows)
    async with transaction(connection):
        await _lock_accounts(connection, tables.program_id)
        changed, escaped = await _upsert_states(connection, tables, list(states.values()))
        closed = await _close_replaced(connection, tables, list(states.values()))
        # After the states: at the same slot what was given last counts.
        gone = [(tables.program_id, address, slot) for address, slot in sorted(closures.items())]
        await insert_rows(connection, CLOSURES, gone)
        closed += await _close_superseded(connection, tables, sorted({*states, *closures}))
    return WrittenAccounts(changed, closed, escaped)


async def reconcile_accounts(
    connection: AsyncConnection, tables: ProgramTables, *, slot: int, alive: Collection[bytes]
) -> tuple[bytes, ...]:
    """
    Close what a whole snapshot (getProgramAccounts, answered at `slot`) does not hold, and return those addresses.

    Args:
        alive: every address of the snapshot. Rows newer than the snapshot are left alone.
    """
    missing: set[bytes] = set()
    async with transaction(connection):
        await _lock_accounts(connection, tables.program_id)
        for table in tables.accounts.values():
            query = sql.SQL(QUERIES["select_not_in_snapshot"]).format(table=table.identifier)
            cursor = await connection.execute(query, {"slot": slot, "alive": list(alive)})
            missing |= {bytes(row[0]) for row in await cursor.fetchall()}
        rows = [(tables.program_id, address, slot) for address in sorted(missing)]
        await insert_rows(connection, CLOSURES, rows)
        await _close_superseded(connection, tables, sorted(missing))
    return tuple(sorted(missing))


async def select_open(
    connection: AsyncConnection, tables: ProgramTables, addresses: Collection[bytes]
) -> tuple[bytes, ...]:
    """Return those of `addresses` that the tables show as open accounts of the program."""
    found: set[bytes] = set()
    if addresses:
        for table in tables.accounts.values():
            query = sql.SQL(QUERIES["select_open"]).format(table=table.identifier)
            cursor = await connection.execute(query, {"addresses": list(addresses)})
            found |= {bytes(row[0]) for row in await cursor.fetchall()}
    return tuple(sorted(found))


CLOSURES = Target(
    sql.Identifier("capstan", "closures"),
    (("program_id", "bytea"), ("address", "bytea"), ("slot", "bigint")),
    sql.SQL(QUERIES["closure_conflict"]),
)


def _newest(rows: Sequence[AccountRow | Closed]) -> tuple[dict[bytes, AccountRow], dict[bytes, int]]:
    """
    The newest state of each address, and the slot of its closure where that came after; in a slot the last one given.

    A state is kept beside its closure: the row stays, closed.
    """
    states: dict[bytes, AccountRow] = {}
    closures: dict[bytes, int] = {}
    for row in rows:
        state, closed_slot = states.get(row.address), closures.get(row.address, -1)
        if isinstance(row, AccountRow) and row.name is not None:
            if state is None or row.slot >= state.slot:
                states[row.address] = row
            if row.slot >= closed_slot:
                closures.pop(row.address, None)
        elif row.slot >= max(closed_slot, -1 if state is None else state.slot):
            closures[row.address] = row.slot
    return states, closures


async def _lock_accounts(connection: AsyncConnection, program_id: bytes) -> None:
    """One writer of a program's accounts at a time: a row may have to be compared with several tables."""
    await connection.execute(QUERIES["lock_accounts"], {"program_id": program_id})


async def _upsert_states(
    connection: AsyncConnection, tables: ProgramTables, states: Sequence[AccountRow]
) -> tuple[int, int]:
    # The same table may come more than once: each version of an IDL has its own columns in it.
    by_table: dict[tuple[str, int], tuple[TypedTable, list[AccountRow]]] = {}
    for state in states:
        assert state.name is not None
        table = tables.account_table(state.name, state.version_slot)
        if table is None:
            raise DataError(f"there is no table for the account {state.name} in schema {tables.schema_name!r}")
        by_table.setdefault((state.name, id(table)), (table, []))[1].append(state)
    changed = escaped = 0
    for _, (table, group) in sorted(by_table.items(), key=lambda item: item[0]):
        rows = []
        absent = (None,) * len(table.absent)
        for state in group:
            values, strange = adapt_values(table, state.values)
            escaped += strange
            rows.append((state.address, state.slot, state.lamports, *values, *absent))
        changed += await insert_rows(connection, _states_target(table), sorted(rows, key=itemgetter(0)))
    # An address that lives at a slot after its closure is not closed any more.
    lived: dict[str, Any] = {"addresses": [s.address for s in states], "slots": [s.slot for s in states]}
    await connection.execute(QUERIES["delete_outlived_closures"], {"program_id": tables.program_id, **lived})
    return changed, escaped


async def _close_replaced(connection: AsyncConnection, tables: ProgramTables, states: Sequence[AccountRow]) -> int:
    """Mark rows of other types closed whose address has just been seen as a new type."""
    closed = 0
    for table in tables.accounts.values():
        others = [state for state in states if state.name != table.type_name]
        if others:
            parameters = {"addresses": [state.address for state in others], "slots": [state.slot for state in others]}
            query = sql.SQL(QUERIES["close_replaced"]).format(table=table.identifier)
            closed += (await connection.execute(query, parameters)).rowcount
    return closed


def _states_target(table: TypedTable) -> Target:
    columns = (
        ("address", "bytea"),
        ("slot", "bigint"),
        ("lamports", "numeric(20,0)"),
        *((column.name, column.pg_type) for column in table.columns),
        # What only another version has is empty from now on: a row is one state, not a mixture of two.
        *table.absent,
    )
    names = [name for name, _ in columns if name != "address"]
    conflict = sql.SQL(QUERIES["state_conflict"]).format(
        sets=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names),
        old=sql.SQL(", ").join(sql.Identifier("t", name) for name in names),
        new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in names),
    )
    return Target(table.identifier, columns, conflict)


async def _close_superseded(connection: AsyncConnection, tables: ProgramTables, addresses: list[bytes]) -> int:
    """Mark rows closed whose address was seen closed at the same slot or after, or as another type after."""
    seen = sql.SQL(" union all select address, slot - 1 from {} where address = any(%(addresses)s)")
    closed = 0
    for table in tables.accounts.values():
        others = [other for other in tables.accounts.values() if other is not table]
        newer = sql.SQL("").join(seen.format(other.identifier) for other in others)
        query = sql.SQL(QUERIES["close_superseded"]).format(table=table.identifier, others=newer)
        cursor = await connection.execute(query, {"program_id": tables.program_id, "addresses": addresses})
        closed += cursor.rowcount
    return closed
