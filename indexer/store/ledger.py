"""
The engine's memory in Postgres: what was decided, what was signed, what came of it, and who may act.

Each method is one database transaction and one row set of `sql/queries/engine.sql`. The guarantees (one intent for a
session, one open attempt for an intent, no attempt without the lease) are constraints and conditions in SQL, so they
also hold against another engine, and against this one restarted. What the rows mean is the engine's business.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from indexer.errors import RetryableError
from indexer.store.queries import Queries
from indexer.store.typed import unescape_text

INT64_MIN = -(2**63)
POOL_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_MS = 10_000

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegisteredProgram:
    """A program in the registry: the text of the IDL its tables were made from."""

    idl: str
    schema_name: str


@dataclass(frozen=True, slots=True)
class AccountTable:
    """The typed table of one account type. `columns` maps the IDL's field names to columns."""

    schema_name: str
    table_name: str
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ExpiredSession:
    """A row of the tables that may be due: address (32 bytes), begin and end (unix s)."""

    address: bytes
    session_start: int
    session_expiry: int


@dataclass(frozen=True, slots=True)
class NewIntent:
    """A decision to act. `payload` is JSON: all that is needed to build the instruction again."""

    key: str
    subject: bytes
    payload: Mapping[str, Any]
    reason: str
    decided_slot: int


@dataclass(frozen=True, slots=True)
class NewSkip:
    """A decision not to act."""

    subject: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class ActionableIntent:
    """An open intent that nothing is signed for. `failures` counts attempts that the chain ran and refused."""

    intent_id: int
    key: str
    subject: bytes
    payload: Mapping[str, Any]
    decided_slot: int
    tries: int
    failures: int


@dataclass(frozen=True, slots=True)
class SignedAttempt:
    """A signed transaction that has not been sent: signature 64 bytes, the transaction's wire bytes."""

    intent_id: int
    signature: bytes
    transaction: bytes
    last_valid_block_height: int


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """A recorded attempt whose end is not known."""

    attempt_id: int
    intent_id: int
    key: str
    rule: str
    signature: bytes
    transaction: bytes
    last_valid_block_height: int
    sends: int
    failures: int


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The end of an attempt (landed, failed, expired) and the state its intent takes with it."""

    attempt_id: int
    outcome: str
    slot: int | None
    err: str | None
    intent_state: str
    intent_outcome: str | None


@dataclass(frozen=True, slots=True)
class IntentEnd:
    """The end of an intent without an attempt (lost, void, failed) and why."""

    intent_id: int
    state: str
    outcome: str


class Ledger:
    """The engine's tables, through a small pool. Made by `open_ledger`."""

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]]) -> None:
        self._pool = pool
        self._queries = Queries("engine")

    async def select_genesis_hash(self) -> str | None:
        """Return the genesis hash (base58) of the chain this database belongs to, None before the indexer began."""
        rows = await self._select("select_genesis_hash", {})
        return str(rows[0]["genesis_hash"]) if rows else None

    async def select_program(self, program_id: bytes) -> RegisteredProgram | None:
        """Return the program as the indexer registered it, None where it has not (yet)."""
        rows = await self._select("select_program", {"program_id": program_id})
        return RegisteredProgram(unescape_text(rows[0]["idl"]), rows[0]["schema_name"]) if rows else None

    async def select_account_table(self, program_id: bytes, type_name: str) -> AccountTable | None:
        """Return where the accounts of a type (IDL name) are, None where there is no such table (yet)."""
        rows = await self._select("select_account_table", {"program_id": program_id, "type_name": type_name})
        if not rows:
            return None
        columns = {field: column for field, column, _ in rows[0]["columns"]}
        return AccountTable(rows[0]["schema_name"], rows[0]["table_name"], columns)

    async def select_expired_sessions(
        self,
        table: AccountTable,
        *,
        start_field: str,
        expiry_field: str,
        program_id: bytes,
        rule: str,
        clock_unix_s: int,
        recheck_s: float,
        after: ExpiredSession | None,
        limit: int,
    ) -> list[ExpiredSession]:
        """
        Return one page of sessions past their expiry without an intent, oldest expiry first.

        Args:
            after: the last one of the page before; None for the first page.
            recheck_s: sessions skipped less than so many seconds ago are left out.
        """
        query = sql.SQL(self._queries["select_expired_sessions"]).format(
            table=sql.Identifier(table.schema_name, table.table_name),
            start=sql.Identifier("a", table.columns[start_field]),
            expiry=sql.Identifier("a", table.columns[expiry_field]),
        )
        params = {
            "program_id": program_id,
            "rule": rule,
            "clock": clock_unix_s,
            "recheck_s": recheck_s,
            "after_expiry": after.session_expiry if after else INT64_MIN,
            "after_address": after.address if after else b"",
            "limit": limit,
        }
        async with self._transaction() as cursor:
            await cursor.execute(query, params)
            rows = await cursor.fetchall()
        return [ExpiredSession(bytes(r["address"]), r["session_start"], r["session_expiry"]) for r in rows]

    async def record_decisions(
        self, *, rule: str, program_id: bytes, intents: Sequence[NewIntent], skips: Sequence[NewSkip]
    ) -> int:
        """Write decisions in one transaction; return how many intents were new (a known session's is not)."""
        new = 0
        async with self._transaction() as cursor:
            for intent in intents:
                params = {
                    "key": intent.key,
                    "rule": rule,
                    "program_id": program_id,
                    "subject": intent.subject,
                    "payload": json.dumps(intent.payload),
                    "reason": intent.reason,
                    "decided_slot": intent.decided_slot,
                }
                await cursor.execute(self._query("insert_intent"), params)
                new += cursor.rowcount
                await cursor.execute(self._query("delete_skip"), {"rule": rule, "subject": intent.subject})
            for skip in skips:
                params = {"rule": rule, "subject": skip.subject, "reason": skip.reason}
                await cursor.execute(self._query("upsert_skip"), params)
        return new

    async def select_actionable_intents(self, *, program_id: bytes, rule: str, limit: int) -> list[ActionableIntent]:
        """Return open intents that nothing is signed for, those with the fewest tries first."""
        rows = await self._select("select_actionable_intents", {"program_id": program_id, "rule": rule, "limit": limit})
        return [ActionableIntent(**{**r, "subject": bytes(r["subject"])}) for r in rows]

    async def select_open_attempts(self, *, program_id: bytes) -> list[OpenAttempt]:
        """Return every attempt whose end is not known, oldest first. There are at most as many as may be in flight."""
        rows = await self._select("select_open_attempts", {"program_id": program_id})
        return [
            OpenAttempt(**{**r, "signature": bytes(r["signature"]), "transaction": bytes(r["transaction"])})
            for r in rows
        ]

    async def insert_attempts(
        self, attempts: Sequence[SignedAttempt], *, lease: str, holder: str, epoch: int
    ) -> dict[int, int]:
        """
        Record signed transactions, and thereby learn which may be sent.

        Returns:
            attempt_id by intent_id, only for those that were recorded. The others must not be sent: the lease was not
            held with this epoch any more, or their intent is settled, or another attempt for it is open.
        """
        params = {
            "lease": lease,
            "holder": holder,
            "epoch": epoch,
            "intent_ids": [a.intent_id for a in attempts],
            "signatures": [a.signature for a in attempts],
            "transactions": [a.transaction for a in attempts],
            "heights": [a.last_valid_block_height for a in attempts],
        }
        rows = await self._select("insert_attempts", params)
        return {r["intent_id"]: r["attempt_id"] for r in rows}

    async def count_sends(self, attempt_ids: Sequence[int]) -> None:
        """Note that the recorded bytes of these attempts went out once more."""
        async with self._transaction() as cursor:
            await cursor.execute(self._query("count_sends"), {"attempt_ids": list(attempt_ids)})

    async def settle_attempts(self, ends: Sequence[AttemptEnd]) -> None:
        """Write the ends of attempts and of their intents, together. An attempt that has its end keeps it."""
        async with self._transaction() as cursor:
            for end in ends:
                params = {
                    "attempt_id": end.attempt_id,
                    "outcome": end.outcome,
                    "slot": end.slot,
                    "err": end.err,
                    "intent_state": end.intent_state,
                    "intent_outcome": end.intent_outcome,
                }
                await cursor.execute(self._query("settle_attempt"), params)

    async def settle_intents(self, ends: Sequence[IntentEnd]) -> int:
        """Write the ends of intents; one with an open attempt, or settled before, stays as it is. Return the number."""
        settled = 0
        async with self._transaction() as cursor:
            for end in ends:
                params = {"intent_id": end.intent_id, "state": end.state, "outcome": end.outcome}
                await cursor.execute(self._query("settle_intent"), params)
                settled += cursor.rowcount
        return settled

    async def acquire_lease(self, name: str, *, holder: str, ttl_s: float) -> int | None:
        """Take or renew a lease for `ttl_s` seconds; return its epoch, None where another holds it."""
        rows = await self._select("acquire_lease", {"name": name, "holder": holder, "ttl_s": ttl_s})
        return int(rows[0]["epoch"]) if rows else None

    async def release_lease(self, name: str, *, holder: str, epoch: int) -> None:
        """Give a lease back, if it is still held with this epoch."""
        async with self._transaction() as cursor:
            params = {"name": name, "holder": holder, "epoch": epoch}
            await cursor.execute(self._query("release_lease"), params)

    def _query(self, name: str) -> sql.SQL:
        return sql.SQL(self._queries[name])

    async def _select(self, name: str, params: Mapping[str, Any]) -> list[Row]:
        async with self._transaction() as cursor:
            await cursor.execute(self._query(name), params)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[psycopg.AsyncCursor[Row]]:
        """Yield a cursor in a transaction of its own; a lost or absent server is RetryableError."""
        try:
            async with self._pool.connection() as connection, connection.cursor() as cursor:
                yield cursor
        except (psycopg.OperationalError, PoolTimeout) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RetryableError(f"the engine's database does not answer: {reason}") from error


@asynccontextmanager
async def open_ledger(dsn: str) -> AsyncIterator[Ledger]:
    """
    Yield the ledger of the database at `dsn`. Nothing is connected before the first use, and a lost connection is
    replaced, so that a database that restarts does not end the engine.
    """
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]] = AsyncConnectionPool(
        dsn,
        min_size=0,
        max_size=2,
        timeout=POOL_TIMEOUT_S,
        open=False,
        check=AsyncConnectionPool.check_connection,
        kwargs={"row_factory": dict_row},
        configure=_configure,
    )
    await pool.open()
    try:
        yield Ledger(pool)
    finally:
        await pool.close(timeout=1.0)


async def _configure(connection: psycopg.AsyncConnection[Row]) -> None:
    await connection.execute(sql.SQL("set statement_timeout = {}").format(sql.Literal(STATEMENT_TIMEOUT_MS)))
    await connection.commit()
