"""
Account state from the chain to the tables: snapshots, notifications, and what seen transactions touched.

programSubscribe reports no closures and may skip states, so nothing here trusts it alone: a snapshot is taken on every
connection, and the writable accounts of each seen transaction are fetched again. What could not be fetched is owed
until it is: no later notification would bring it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from indexer.chain.codec import DecodeError
from indexer.chain.events import Problem
from indexer.intake import Programs
from indexer.registry import decode_account
from indexer.sources import node
from indexer.sources.node import RawAccount
from indexer.sources.rpc import Caller
from indexer.store.accounts import AccountRow, Closed, reconcile_accounts, select_open, write_accounts
from indexer.store.batch import Batch
from indexer.store.database import Pool, session
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch

# More accounts than this are fetched as a snapshot: one call instead of many.
REFETCH_MAX = 1_000

Seen = tuple[int, bytes, RawAccount | None]


@dataclass(slots=True)
class Accounts:
    """Writes account state of some programs. `commitment` is what state is read at."""

    rpc: Caller
    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]
    commitment: str = "confirmed"
    _owed: dict[bytes, int] = field(default_factory=dict)
    _all_owed: bool = False

    async def snapshot(self) -> int:
        """
        Fetch every account of every program, write them, and close what is no longer there. Return how many there are.

        Raises:
            RetryableError: the node did not answer.
        """
        count = 0
        for program_id in self.programs:
            slot, accounts = await node.fetch_program_accounts(self.rpc, program_id, commitment=self.commitment)
            await self._write(program_id, [(slot, account.address, account) for account in accounts])
            async with session(self.pool) as connection:
                alive = [account.address for account in accounts]
                await reconcile_accounts(connection, self.tables[program_id], slot=slot, alive=alive)
            count += len(accounts)
        return count

    async def refetch(self, touched: Mapping[bytes, int]) -> None:
        """
        Fetch accounts again that transactions may have changed, and write what they are now.

        Args:
            touched: address -> slot of the newest transaction; the answer must not be older.

        Raises:
            RetryableError: node or database did not answer; they are owed.
        """
        if not touched:
            return
        try:
            seen = await node.fetch_accounts(
                self.rpc, touched, commitment=self.commitment, min_slot=max(touched.values())
            )
            await self.write_seen(seen)
        except BaseException:
            self.owe(touched)
            raise

    def owe(self, touched: Mapping[bytes, int], *, everything: bool = False) -> None:
        """Remember what has to be fetched again: some accounts (as `refetch` has them), or every one."""
        for address, slot in touched.items():
            self._owed[address] = max(slot, self._owed.get(address, 0))
        self._all_owed = self._all_owed or everything

    async def repair(self) -> None:
        """
        Fetch what is owed.

        Raises:
            RetryableError: node or database did not answer; it stays owed.
        """
        owed, self._owed = self._owed, {}
        if not self._all_owed and len(owed) <= REFETCH_MAX:
            await self.refetch(owed)
            return
        self._all_owed = False
        try:
            await self.snapshot()
        except BaseException:
            self._all_owed = True
            raise

    async def write_seen(self, seen: Iterable[Seen]) -> None:
        """Write (slot, address, account or None) wherever it belongs; accounts of other programs may be closures."""
        rows = list(seen)
        for program_id in self.programs:
            await self._write(program_id, rows)

    async def _write(self, program_id: bytes, seen: Iterable[Seen]) -> None:
        # Taken together with the programs, as both change together when an IDL is added.
        tables = self.tables[program_id]
        rows: list[AccountRow | Closed] = []
        problems: list[Problem] = []
        elsewhere: dict[bytes, int] = {}
        for slot, address, account in seen:
            if account is None or account.lamports == 0:
                rows.append(Closed(address, slot))
                continue
            if account.owner != program_id:
                elsewhere[address] = slot
                continue
            try:
                decoded, version_slot = decode_account(self.programs, program_id, account.data, slot)
            except DecodeError as error:
                problems.append(Problem(program_id, address, error.kind, 0, str(error), slot))
                continue
            rows.append(AccountRow(address, slot, account.lamports, decoded.name, decoded.values, version_slot))
        async with session(self.pool) as connection:
            # Of wallets and foreign accounts only those matter that the tables still show as the program's own.
            known = await select_open(connection, tables, list(elsewhere))
            rows.extend(Closed(address, elsewhere[address]) for address in known)
            await write_accounts(connection, tables, rows)
            if problems:
                await write_batch(connection, Batch(problems=problems), self.tables)
