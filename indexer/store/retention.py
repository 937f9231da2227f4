"""
What leaves Postgres, when the lake has had it for long enough.

Only ranges of slots as wide as a partition go, and only where everything in them is finalized, older than the retention
by the cluster's clock, and was below the lake's watermarks longer ago than any reader reads. Each range is compared
with the lake row by row first; what the lake lacks is noted for the exporter, and the range waits.

The order keeps every state between the steps right: first the program's mentions, which say for the exporter that the
hot side speaks for a transaction; then its events; and when no program mentions anything in a range, its transactions
and bodies. Account state, coverage and problems stay. A crash anywhere is made good by the next round.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb
import psycopg
from psycopg import sql

from indexer.store.duck import quote_name, quote_text
from indexer.store.partitions import PARTITION_SLOTS, RAW_TABLE, TableName, partition_number
from indexer.store.queries import load_queries
from indexer.store.raw import LAKE_TABLE_NAME as RAW_TABLE_NAME

# Longer than any reader's query may run.
GRACE_S = 3_600.0
ROUND_S_MAX = 20.0
# Rows deleted in one transaction, in tables without partitions: some 50 ms for which writers wait.
DELETE_ROWS = 5_000
# About so many rows are compared with the lake at a time.
COMPARE_ROWS = 200_000
# A reader that holds a table is waited for so long; then the next round tries again.
LOCK_TIMEOUT = "500ms"
# Missing rows named to the exporter at a time.
MISSING_MAX = 10_000

QUERIES = load_queries("storage")
INDEXER = load_queries("indexer")
TRANSACTIONS = TableName("capstan", "transactions")


@dataclass(frozen=True, slots=True)
class Pruned:
    """
    What a round took out of Postgres.

    Args:
        ranges: of a program's rows, or of the transactions.
        missing: rows that the lake should have had and had not; they were noted for the exporter.
    """

    ranges: int = 0
    missing: int = 0


class _Table(NamedTuple):
    name: TableName
    partitioned: bool


class _Range(NamedTuple):
    """All slots of one partition."""

    number: int

    @property
    def span(self) -> dict[str, int]:
        """Its first and last slot, as the queries call them."""
        first = self.number * PARTITION_SLOTS
        return {"from_slot": first, "to_slot": first + PARTITION_SLOTS - 1}

    @property
    def last(self) -> int:
        """Its last slot."""
        return self.span["to_slot"]


class Retention:
    """
    Prunes one database.

    Args:
        duck: the lake's writer, with `hot` and `lake` attached, not in a transaction.
        connection: of the indexer's role, in autocommit mode.
        age_s: how old a range must be.
        grace_s: how long the lake must have had it.
    """

    def __init__(
        self,
        duck: duckdb.DuckDBPyConnection,
        connection: psycopg.Connection[Any],
        age_s: float,
        grace_s: float = GRACE_S,
    ) -> None:
        self._duck = duck
        self._connection = connection
        self._age_s = age_s
        self._grace_s = grace_s

    def prune(self, watermarks: Sequence[tuple[str, str, int]]) -> Pruned:
        """
        Take out what may go, for about ROUND_S_MAX seconds; the rest is for the next round.

        Args:
            watermarks: (schema, table, slot) as the lake has them now.
        """
        deadline = time.monotonic() + ROUND_S_MAX
        settled = self._settle(watermarks)
        programs: dict[bytes, list[_Table]] = {}
        for program_id, schema, table, partitioned in self._connection.execute(
            QUERIES["select_event_tables_of_programs"]
        ).fetchall():
            programs.setdefault(bytes(program_id), []).append(_Table(TableName(schema, table), partitioned))
        ranges = missing = 0
        limit = settled.get(TRANSACTIONS, -1)
        for program_id, tables in programs.items():
            schema = tables[0].name.schema_name
            names = [table.name for table in tables] + [TableName(schema, RAW_TABLE_NAME)]
            bound = min(limit, *(settled.get(name, -1) for name in names))
            for found in self._candidates("first_mention", program_id, tables, bound):
                if time.monotonic() > deadline:
                    break
                lacking = self._lacking(found, [*tables, _Table(names[-1], partitioned=True)], program_id)
                missing += lacking
                ranges += not lacking and self._prune_program(found, program_id, tables)
        raw = [_Table(RAW_TABLE, partitioned=True)]
        for found in self._candidates("first_transaction", None, raw, limit):
            if time.monotonic() > deadline:
                break
            if self._asks("is_mentioned", **found.span):
                continue
            lacking = self._lacking(found, [_Table(TRANSACTIONS, partitioned=False)], None)
            missing += lacking
            ranges += not lacking and self._prune_transactions(found, list(programs))
        return Pruned(ranges, missing)

    def _settle(self, watermarks: Sequence[tuple[str, str, int]]) -> dict[TableName, int]:
        """Note how far the lake is now, and return how far it was when the grace period began."""
        schemas, tables, slots = (list(column) for column in zip(*watermarks, strict=True)) if watermarks else ([],) * 3
        grace = {"grace_s": self._grace_s}
        with self._connection.transaction():
            self._connection.execute(QUERIES["note_exports"], {"schemas": schemas, "tables": tables, "slots": slots})
            rows = self._connection.execute(QUERIES["select_settled"], grace).fetchall()
            self._connection.execute(QUERIES["forget_exports"], grace)
        return {TableName(schema, table): slot for schema, table, slot in rows}

    def _candidates(
        self, first_query: str, program_id: bytes | None, tables: Sequence[_Table], bound: int
    ) -> list[_Range]:
        """Return the ranges with rows, oldest first, that end at or below `bound`, are old, and are settled."""
        row = self._connection.execute(QUERIES[first_query], {"program_id": program_id}).fetchone()
        numbers = set()
        if row is not None and row[0] is not None:
            numbers |= set(range(partition_number(row[0]), (bound + 1) // PARTITION_SLOTS))
        for table in tables:
            if table.partitioned:
                names = {"schema": table.name.schema_name, "table": table.name.table_name}
                numbers |= {n for (n,) in self._connection.execute(QUERIES["select_partition_numbers"], names)}
        ranges = [_Range(number) for number in sorted(numbers) if _Range(number).last <= bound]
        old = []
        for found in ranges:
            if not self._asks("is_old", to_slot=found.last, age_s=self._age_s):
                break
            if not self._asks("is_unsettled", **found.span):
                old.append(found)
        return old

    def _asks(self, name: str, **parameters: Any) -> bool:
        row = self._connection.execute(QUERIES[name], parameters).fetchone()
        return bool(row and row[0])

    def _lacking(self, found: _Range, tables: Sequence[_Table], program_id: bytes | None) -> int:
        """Compare a range with the lake, note for the exporter what the lake has not, and return how much that is."""
        lacking = 0
        for table in tables:
            pieces = -(-self._count(table.name, found) // COMPARE_ROWS)
            width = PARTITION_SLOTS // max(pieces, 1) + 1
            for first in range(found.span["from_slot"], found.last + 1, width) if pieces else ():
                span = (first, min(first + width - 1, found.last))
                signatures = self._absent(table.name, program_id, *span)
                if signatures:
                    lacking += len(signatures)
                    self._connection.execute(QUERIES["mark_late"], {"signatures": signatures})
        return lacking

    def _count(self, name: TableName, found: _Range) -> int:
        hot = RAW_TABLE if name.table_name == RAW_TABLE_NAME else name
        query = sql.SQL(QUERIES["count_hot"]).format(table=sql.Identifier(*hot))
        row = self._connection.execute(query, found.span).fetchone()
        return int(row[0]) if row else 0

    def _absent(self, name: TableName, program_id: bytes | None, first: int, last: int) -> list[bytes]:
        is_raw = name.table_name == RAW_TABLE_NAME
        identity = ["signature"] if is_raw or name == TRANSACTIONS else ["signature", "kind", "ordinal"]
        text = (
            sql.SQL(QUERIES["select_hot_raw_identities" if is_raw else "select_hot_identities"])
            .format(
                identity=sql.SQL(", ").join(map(sql.Identifier, identity)),
                table=sql.Identifier(*name),
                program_id=sql.Literal(program_id or b""),
                from_slot=sql.Literal(first),
                to_slot=sql.Literal(last),
            )
            .as_string(None)
        )
        same = " AND ".join(f"h.{column} = l.{column}" for column in identity)
        cold = f"lake.{quote_name(name.schema_name)}.{quote_name(name.table_name)}"
        rows = self._duck.execute(
            f"SELECT DISTINCT h.signature FROM postgres_query('hot', {quote_text(text)}) h "  # noqa: S608 - quoted names
            f"ANTI JOIN (SELECT * FROM {cold} WHERE slot BETWEEN ? AND ?) l ON {same} LIMIT ?",
            [first, last, MISSING_MAX],
        ).fetchall()
        return [bytes(signature) for (signature,) in rows]

    def _prune_program(self, found: _Range, program_id: bytes, tables: Sequence[_Table]) -> bool:
        """Take a program's mentions and events of a range; False where nothing is there, or somebody is in the way."""
        who = {"program_id": program_id}
        self._connection.execute(QUERIES["mark_pruned"], {**who, "to_slot": found.last})
        gone = self._delete_in_batches([program_id], QUERIES["prune_mentions"], {**who, **found.span})
        for table in tables:
            if not table.partitioned:
                query = sql.SQL(QUERIES["prune_events"]).format(
                    table=sql.Identifier(*table.name),
                    from_slot=sql.Literal(found.span["from_slot"]),
                    to_slot=sql.Literal(found.last),
                    rows=sql.Literal(DELETE_ROWS),
                )
                gone += self._delete_in_batches([program_id], query, {})
        try:
            with self._connection.transaction():
                self._hold([program_id])
                if self._asks("is_unsettled", **found.span):
                    return False  # written again since; the exporter needs it
                self._connection.execute(QUERIES["prune_mentions"], {**who, **found.span, "rows": None})
                gone += sum(self._drop(table.name, found) for table in tables)
        except psycopg.errors.LockNotAvailable:
            return False
        return gone > 0

    def _prune_transactions(self, found: _Range, programs: Sequence[bytes]) -> bool:
        """Take the transactions and bodies of a range that no program mentions any more."""
        gone = self._delete_in_batches(programs, QUERIES["prune_transactions"], found.span)
        try:
            with self._connection.transaction():
                self._hold(programs)
                if self._asks("is_mentioned", **found.span) or self._asks("is_stored", **found.span):
                    return False
                gone += self._drop(RAW_TABLE, found)
        except psycopg.errors.LockNotAvailable:
            return False
        return gone > 0

    def _delete_in_batches(self, programs: Sequence[bytes], query: Any, parameters: dict[str, Any]) -> int:
        total = 0
        while True:
            with self._connection.transaction():
                self._hold(programs)
                deleted = self._connection.execute(query, {**parameters, "rows": DELETE_ROWS}).rowcount
            total += deleted
            if deleted < DELETE_ROWS:
                return total

    def _hold(self, programs: Sequence[bytes]) -> None:
        """Wait for the writers of these programs, and they for us, until the transaction ends."""
        for program_id in sorted(programs):
            self._connection.execute(INDEXER["lock_frontier"], {"program_id": program_id})
        self._connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))

    def _drop(self, name: TableName, found: _Range) -> bool:
        names = {"schema": name.schema_name, "table": name.table_name, "number": found.number}
        return self._asks("drop_partition", **names)
