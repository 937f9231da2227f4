"""
What is stored of a range, in Postgres and in the lake, for whoever compares it with the chain; and taking out what is
wrong.

Rows below the lake's watermark may have been taken out of Postgres: what is missing there is looked for in the lake.
Comparing is verify.py's business of the package above.
"""

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import duckdb

from indexer.errors import RetryableError
from indexer.store.coverage import Range
from indexer.store.database import AsyncConnection, first_line, transaction
from indexer.store.duck import attach_lake, attach_postgres, open_duckdb, quote_name, quote_text
from indexer.store.queries import load_queries
from indexer.store.raw import LAKE_TABLE_NAME, delete_bodies_of
from indexer.store.stored import delete_dependents

QUERIES = load_queries("verify")


class Kept(NamedTuple):
    """A stored transaction. `err` is JSON text; `place` is where it was found; not `read` is its version above ours."""

    slot: int
    err: str | None
    complete: bool
    finalized: bool
    place: str
    read: bool


class LakeCount(NamedTuple):
    """
    One event table of the lake below its watermark, compared with Postgres.

    Args:
        doubled: rows beyond the first of an identity.
        lacking: finalized rows in Postgres that the lake lacks.
        surplus: rows of transactions that Postgres has, which it has without these rows.
        signatures: of the transactions with lacking or surplus rows, a sample.
    """

    table: str
    rows: int
    doubled: int
    lacking: int
    surplus: int
    signatures: tuple[bytes, ...]

    @property
    def is_clean(self) -> bool:
        """Whether both hold the same."""
        return not (self.doubled or self.lacking or self.surplus)


async def select_kept(connection: AsyncConnection, program_id: bytes, span: Range) -> dict[bytes, Kept]:
    """Return everything of the program that Postgres holds in a range."""
    parameters = {"program_id": program_id, "from_slot": span.from_slot, "to_slot": span.to_slot}
    cursor = await connection.execute(QUERIES["select_stored_range"], parameters)
    return {bytes(row[0]): _kept(row) for row in await cursor.fetchall()}


async def select_kept_of(connection: AsyncConnection, signatures: Collection[bytes]) -> dict[bytes, Kept]:
    """Return what Postgres holds of these transactions, wherever it holds them."""
    cursor = await connection.execute(QUERIES["select_stored_elsewhere"], {"signatures": list(signatures)})
    return {bytes(row[0]): _kept(row) for row in await cursor.fetchall()}


def _kept(row: Sequence[Any]) -> Kept:
    _, slot, err, complete, commitment, read = row
    return Kept(slot, err, complete, commitment == "finalized", "postgres", read)


async def delete_wrong(connection: AsyncConnection, wrong: Mapping[bytes, int]) -> int:
    """
    Take out transactions (signature -> slot) that the finalized chain does not have there, from Postgres now and from
    the lake with the next export; in a transaction of its own. Return how many went from Postgres.
    """
    async with transaction(connection):
        parameters = {"signatures": list(wrong), "slots": list(wrong.values())}
        cursor = await connection.execute(QUERIES["delete_wrong_transactions"], parameters)
        gone = [bytes(row[0]) for row in await cursor.fetchall()]
        if gone:
            await delete_dependents(connection, gone)
            await delete_bodies_of(connection, {signature: wrong[signature] for signature in gone})
        await connection.execute(QUERIES["note_wrong_transactions"], parameters)
    return len(gone)


async def note_late(connection: AsyncConnection, signatures: Collection[bytes]) -> None:
    """Let the exporter write these transactions into the lake again, in a transaction of its own."""
    async with transaction(connection):
        await connection.execute(QUERIES["note_wrong_transactions"], {"signatures": list(signatures)})


class LakeView:
    """The lake beside the hot tables, to be read only. Sync, not thread-safe."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, watermarks: Mapping[tuple[str, str], int]) -> None:
        self._duck = duck
        self.watermarks = watermarks

    @classmethod
    def open(cls, dsn: str) -> "LakeView | None":
        """Return the lake of the database at `dsn`, None where it has none yet."""
        duck = open_duckdb()
        try:
            attach_postgres(duck, dsn, "hot")
            made = "select 1 from pg_namespace where nspname = 'lake_meta'"
            if not duck.execute(f"SELECT * FROM postgres_query('hot', {quote_text(made)})").fetchall():  # noqa: S608 - a constant
                duck.close()
                return None
            attach_lake(duck, dsn, None, read_only=True)
            # The last thing that its writer makes: without it there is nothing in the lake yet.
            ready = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'watermark'"
            if not duck.execute(ready).fetchall():
                duck.close()
                return None
            rows = duck.execute("SELECT schema_name, table_name, slot FROM lake.main.watermark").fetchall()
        except duckdb.Error as error:
            # A lake that cannot be read is not one that is empty: what was pruned would look as if it were missing.
            duck.close()
            raise RetryableError(f"the lake cannot be read just now: {first_line(error)}") from error
        except RetryableError:
            duck.close()
            raise
        return cls(duck, {(schema, table): slot for schema, table, slot in rows})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._duck.close()

    def find(self, signatures: Collection[bytes]) -> dict[bytes, Kept]:
        """Return what the lake holds of these transactions."""
        if not signatures or ("capstan", "transactions") not in self.watermarks:
            return {}
        rows = self._rows(
            "SELECT signature, slot, err, complete, fee IS NOT NULL FROM lake.capstan.transactions "
            "WHERE signature IN (SELECT unnest(?::BLOB[]))",
            [list(signatures)],
        )
        return {bytes(s): Kept(slot, err, complete, True, "lake", read) for s, slot, err, complete, read in rows}

    def event_signatures(self, schema_name: str, span: Range) -> dict[bytes, int]:
        """Return signature -> slot of the transactions with an event of a program in a range of the lake."""
        found: dict[bytes, int] = {}
        for schema, table in self.watermarks:
            if schema == schema_name and table != LAKE_TABLE_NAME:
                name = f"lake.{quote_name(schema)}.{quote_name(table)}"
                query = f"SELECT DISTINCT signature, slot FROM {name} WHERE slot BETWEEN ? AND ?"  # noqa: S608 - quoted
                found |= {bytes(s): slot for s, slot in self._rows(query, [*span])}
        return found

    def compare(self, schema_name: str, span: Range) -> list[LakeCount]:
        """Compare each event table of a program with the hot one, below the watermark and inside a range."""
        counts = []
        for (schema, table), watermark in sorted(self.watermarks.items()):
            if schema == schema_name and table != LAKE_TABLE_NAME:
                counts.append(self._compare(schema, table, span.from_slot, min(span.to_slot, watermark)))
        return counts

    def _compare(self, schema: str, table: str, first: int, last: int) -> LakeCount:
        name = f"{quote_name(schema)}.{quote_name(table)}"
        identity = "signature, kind, ordinal, slot"
        # One hot row for each transaction that is not waiting to be written into the lake again.
        hot = (
            f"SELECT {identity} FROM hot.{name} e SEMI JOIN settled USING (signature) "  # noqa: S608 - quoted
            "WHERE slot BETWEEN $first AND $last"
        )
        text = f"""
            WITH lake AS (SELECT {identity} FROM lake.{name} WHERE slot BETWEEN $first AND $last),
            settled AS (
                SELECT signature FROM hot.capstan.transactions
                WHERE slot BETWEEN $first AND $last AND commitment = 'finalized'
                  AND signature NOT IN (SELECT signature FROM hot.capstan.late_transactions)),
            hot_rows AS ({hot}),
            lacking AS (SELECT * FROM hot_rows EXCEPT SELECT * FROM lake),
            surplus AS (SELECT * FROM lake SEMI JOIN settled USING (signature) EXCEPT SELECT * FROM hot_rows)
            SELECT (SELECT count(*) FROM lake),
                   (SELECT count(*) FROM lake) - (SELECT count(*) FROM (SELECT DISTINCT * FROM lake)),
                   (SELECT count(*) FROM lacking), (SELECT count(*) FROM surplus),
                   (SELECT list(DISTINCT signature) FROM
                    (SELECT signature FROM lacking UNION ALL SELECT signature FROM surplus
                     UNION ALL SELECT signature FROM lake GROUP BY {identity} HAVING count(*) > 1))
        """  # noqa: S608 - quoted names
        ((rows, doubled, lacking, surplus, signatures),) = self._rows(text, {"first": first, "last": last})
        return LakeCount(f"{schema}.{table}", rows, doubled, lacking, surplus, tuple(map(bytes, signatures or ())))

    def _rows(self, text: str, parameters: Any) -> list[Any]:
        try:
            return self._duck.execute(text, parameters).fetchall()
        except duckdb.Error as error:
            raise RetryableError(f"the lake cannot be read: {first_line(error)}") from error
