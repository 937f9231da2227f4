"""
Which chain a database belongs to, and that its parts are alive.
"""

from datetime import UTC, datetime

from indexer.errors import DataError
from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries
from indexer.store.typed import escape_text

QUERIES = load_queries("indexer")


async def ensure_chain(connection: AsyncConnection, genesis_hash: str) -> None:
    """
    Make this database the one of the chain with that genesis hash (base58), or prove that it is.

    Raises:
        DataError: it belongs to another chain.
    """
    async with transaction(connection):
        await connection.execute(QUERIES["insert_chain"], {"genesis_hash": genesis_hash})
        cursor = await connection.execute(QUERIES["select_chain"])
        row = await cursor.fetchone()
    if row is None or row[0] != genesis_hash:
        raise DataError(
            f"this database belongs to the chain with genesis hash {row[0] if row else None}, and the RPC is of "
            f"{genesis_hash}: choose another database, or the RPC of that chain"
        )


async def select_chain(connection: AsyncConnection) -> str | None:
    """Return the genesis hash (base58) of this database's chain, None before the first."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_chain"])
        row = await cursor.fetchone()
    return str(row[0]) if row else None


async def beat(
    connection: AsyncConnection,
    name: str,
    *,
    tip_slot: int | None = None,
    tip_time: int | None = None,
    error: str | None = None,
) -> None:
    """
    Say that the part called `name` is alive, and what it saw.

    Args:
        tip_slot: newest slot seen from the chain; None keeps the last one. Also `tip_time`.
        tip_time: the cluster's own clock at that slot, unix seconds.
        error: what went wrong just now, without secrets; kept until the next one.
    """
    seen = None if tip_time is None else datetime.fromtimestamp(tip_time, UTC)
    detail = None if error is None else escape_text(error)
    async with transaction(connection):
        await connection.execute(
            QUERIES["upsert_heartbeat"], {"name": name, "tip_slot": tip_slot, "tip_time": seen, "error": detail}
        )
