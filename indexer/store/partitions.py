"""
Partitions by slot range of the tables that grow: typed event tables, and raw transactions.

Old rows can then be dropped by the table instead of deleted one by one. Partitions are made by a function of the
database (sql/migrations/0005_storage.sql) with its owner's rights, on demand, in a transaction of their own before the
rows come. Tables made by an earlier version are not partitioned; they go on working, and only their conflicts are found
by another key. When a partition goes is retention.py's business.
"""

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries

# As capstan.partition_width() says; two days at 400 ms a slot.
PARTITION_SLOTS = 432_000

QUERIES = load_queries("storage")


class TableName(NamedTuple):
    """A table and its schema."""

    schema_name: str
    table_name: str


RAW_TABLE = TableName("capstan", "raw_transactions")


def partition_number(slot: int) -> int:
    """Return the number of the partition that holds `slot`: those of [number * width, (number + 1) * width)."""
    return slot // PARTITION_SLOTS


async def ensure_partitions(connection: AsyncConnection, wanted: Mapping[TableName, Iterable[int]]) -> Set[TableName]:
    """
    Make the partitions that rows in these slots need, and return which of the tables are partitioned.

    Args:
        connection: not in a transaction: one that waits for another to be made must see it.
        wanted: table -> slots, any number and order.
    """
    pairs = sorted({(table, partition_number(slot)) for table, slots in wanted.items() for slot in slots})
    if not pairs:
        return frozenset()
    parameters = {
        "schemas": [table.schema_name for table, _ in pairs],
        "tables": [table.table_name for table, _ in pairs],
        "numbers": [number for _, number in pairs],
    }
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["ensure_partitions"], parameters)
        return frozenset(TableName(schema, table) for schema, table in await cursor.fetchall())
