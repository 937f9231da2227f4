"""
How far files of transactions were read, so that a load that was killed goes on where it was.

A row says where to begin again, never that anything is stored: it is written after what it is about, and a part that is
read twice changes nothing.
"""

from dataclasses import dataclass

from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries
from indexer.store.typed import escape_text

QUERIES = load_queries("storage")


@dataclass(frozen=True, slots=True)
class FileProgress:
    """What was read of a file: bytes and lines, the transactions in them, and the lines that were none."""

    bytes_read: int = 0
    lines_read: int = 0
    transactions: int = 0
    bad_lines: int = 0
    done: bool = False


async def select_file(connection: AsyncConnection, file_id: str | None, target: str) -> FileProgress:
    """Return how far the file was read into `target` ("postgres" or "lake"); nothing where it is not known."""
    if file_id is None:
        return FileProgress()
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_file"], {"file_id": file_id, "target": target})
        row = await cursor.fetchone()
    return FileProgress(*row) if row else FileProgress()


async def upsert_file(
    connection: AsyncConnection,
    file_id: str | None,
    target: str,
    path: str,
    progress: FileProgress,
    *,
    is_durable: bool = True,
) -> None:
    """
    Say how far the file was read. What can be read only once is not remembered.

    Args:
        is_durable: as of `transaction`. A crash that takes this leaves nothing behind that was written after it.
    """
    if file_id is None:
        return
    async with transaction(connection, is_durable=is_durable):
        await connection.execute(
            QUERIES["upsert_file"],
            {
                "file_id": file_id,
                "target": target,
                "path": escape_text(path),
                "bytes_read": progress.bytes_read,
                "lines_read": progress.lines_read,
                "transactions": progress.transactions,
                "bad_lines": progress.bad_lines,
                "done": progress.done,
            },
        )


async def select_other_programs(connection: AsyncConnection, program_ids: list[bytes]) -> list[str]:
    """Return the names of the database's programs that are not among these."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["select_other_programs"], {"program_ids": program_ids})
        return [str(name) for (name,) in await cursor.fetchall()]


async def count_hot_between(connection: AsyncConnection, after: int, upto: int) -> int:
    """Return how many transactions Postgres holds in the slots (after, upto]."""
    async with transaction(connection):
        cursor = await connection.execute(QUERIES["count_hot_between"], {"after": after, "upto": upto})
        row = await cursor.fetchone()
    return int(row[0]) if row else 0
