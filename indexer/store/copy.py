"""
Rows into a Postgres table, by whichever way is faster for their number.

Few rows go as prepared statements in a pipeline. Many go as packed binary COPY into a temporary table, and from there
by one INSERT, so that conflicts are still resolved. Both end in the same INSERT text; what happens on a conflict is the
caller's clause. Where nearly all batches are new, `copy_new` spares them the way over the temporary table.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncCursor, errors, sql

from indexer.store.database import AsyncConnection

# Below this many rows the temporary table costs more than it saves (about 2 ms to make and drop one).
COPY_ROWS_MIN = 64
COPY_CHUNK_BYTES = 1 << 20
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
# Postgres counts microseconds from 2000-01-01.
POSTGRES_EPOCH_UNIX_S = 946_684_800

_int16 = struct.Struct(">ih").pack
_int32 = struct.Struct(">ii").pack
_int64 = struct.Struct(">iq").pack
_float64 = struct.Struct(">id").pack
_length = struct.Struct(">i").pack
# length, number of digits, weight, sign, scale, five digits of base 10,000: room for 2^64. Leading zeros are allowed.
_numeric = struct.Struct(">ihhHhhhhhh").pack


def _pack_numeric(value: int) -> bytes:
    rest, d0 = divmod(value, 10_000)
    rest, d1 = divmod(rest, 10_000)
    rest, d2 = divmod(rest, 10_000)
    d4, d3 = divmod(rest, 10_000)
    return _numeric(18, 5, 4, 0, 0, d4, d3, d2, d1, d0)


def _pack_text(value: str) -> bytes:
    data = value.encode()
    return _length(len(data)) + data


def _pack_jsonb(value: str) -> bytes:
    data = value.encode()
    return _length(len(data) + 1) + b"\x01" + data


PACK: Mapping[str, Callable[[Any], bytes]] = {
    "smallint": lambda value: _int16(2, value),
    "integer": lambda value: _int32(4, value),
    "bigint": lambda value: _int64(8, value),
    "numeric(20,0)": _pack_numeric,
    "boolean": lambda value: b"\0\0\0\1\1" if value else b"\0\0\0\1\0",
    "double precision": lambda value: _float64(8, value),
    "bytea": lambda value: _length(len(value)) + value,
    "text": _pack_text,
    "jsonb": _pack_jsonb,
    "timestamptz": lambda value: _int64(8, (value - POSTGRES_EPOCH_UNIX_S) * 1_000_000),
}
"""A column's value as COPY's binary format has it, with its length in front. timestamptz takes unix seconds."""


DO_NOTHING = sql.SQL("on conflict do nothing")


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go. `columns` are (name, Postgres type) in the order of the rows; `on_conflict` follows the INSERT
    into the table, which it may call `t`."""

    table: sql.Identifier
    columns: tuple[tuple[str, str], ...]
    on_conflict: sql.Composable

    @property
    def types(self) -> list[str]:
        """The columns' Postgres types."""
        return [pg_type for _, pg_type in self.columns]

    def insert(self, source: sql.Composable) -> sql.Composed:
        """The INSERT that both ways end in."""
        names = sql.SQL(", ").join(sql.Identifier(name) for name, _ in self.columns)
        return sql.SQL("insert into {} as t ({}) {} {}").format(self.table, names, source, self.on_conflict)


async def insert_rows(connection: AsyncConnection, target: Target, rows: Sequence[Sequence[Any]]) -> int:
    """
    Insert rows inside the caller's transaction and return how many were inserted or changed.

    Args:
        rows: plain values in the order of `target.columns`; times as unix seconds. Keys must not repeat where
            `on_conflict` updates.
    """
    if not rows:
        return 0
    if len(rows) < COPY_ROWS_MIN:
        return await _insert_few(connection, target, rows)
    return await _insert_many(connection, target, rows)


async def _insert_few(connection: AsyncConnection, target: Target, rows: Sequence[Sequence[Any]]) -> int:
    values = sql.SQL("values ({})").format(sql.SQL(", ").join(sql.Placeholder() for _ in target.columns))
    times = [index for index, (_, pg_type) in enumerate(target.columns) if pg_type == "timestamptz"]
    plain = [list(row) for row in rows]
    for row in plain:
        for index in times:
            if row[index] is not None:
                row[index] = datetime.fromtimestamp(row[index], UTC)
    async with connection.cursor() as cursor:
        await cursor.executemany(target.insert(values), plain)
        return cursor.rowcount


async def _insert_many(connection: AsyncConnection, target: Target, rows: Sequence[Sequence[Any]]) -> int:
    return await copy_rows(connection, target, pack_rows(target.types, rows))


async def copy_rows(connection: AsyncConnection, target: Target, chunks: Sequence[bytes | memoryview]) -> int:
    """
    Insert rows that are packed already, inside the caller's transaction; return how many were inserted or changed.

    Args:
        chunks: together one whole binary COPY of `target.columns`.
    """
    incoming = sql.Identifier("pg_temp", "incoming")
    names = sql.SQL(", ").join(sql.Identifier(name) for name, _ in target.columns)
    async with connection.cursor() as cursor:
        await cursor.execute(
            sql.SQL("create temporary table incoming on commit drop as select {} from {} with no data").format(
                names, target.table
            )
        )
        await _copy(cursor, incoming, names, chunks)
        await cursor.execute(target.insert(sql.SQL("select {} from {}").format(names, incoming)))
        changed = cursor.rowcount
        await cursor.execute(sql.SQL("drop table {}").format(incoming))
    return changed


async def copy_new(connection: AsyncConnection, target: Target, chunks: Sequence[bytes | memoryview]) -> bool:
    """
    Insert rows that are probably all new, inside the caller's transaction; return False where one is there already, and
    nothing was inserted. Then `copy_rows` has to do it, which resolves conflicts.

    Args:
        chunks: together one whole binary COPY of `target.columns`.
    """
    try:
        # A savepoint: the server gives up the transaction that meets a row of the same key.
        async with connection.transaction():
            await copy_into(connection, target, chunks)
    except errors.UniqueViolation:
        return False
    return True


async def copy_into(connection: AsyncConnection, target: Target, chunks: Sequence[bytes | memoryview]) -> None:
    """
    Insert rows that must all be new, inside the caller's transaction.

    Args:
        chunks: together one whole binary COPY of `target.columns`.

    Raises:
        psycopg.errors.UniqueViolation: one is there already; the caller's transaction is lost.
    """
    names = sql.SQL(", ").join(sql.Identifier(name) for name, _ in target.columns)
    async with connection.cursor() as cursor:
        await _copy(cursor, target.table, names, chunks)


async def _copy(
    cursor: AsyncCursor[Any], table: sql.Identifier, names: sql.Composed, chunks: Sequence[bytes | memoryview]
) -> None:
    async with cursor.copy(sql.SQL("copy {} ({}) from stdin (format binary)").format(table, names)) as copy:
        for chunk in chunks:
            await copy.write(chunk)


def pack_rows(pg_types: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return rows in COPY's binary format, in chunks of about a megabyte."""
    packs = [PACK[pg_type] for pg_type in pg_types]
    head = struct.pack(">h", len(packs))
    chunks: list[bytes] = []
    parts: list[bytes] = [COPY_HEADER]
    size = 0
    for row in rows:
        packed = head + b"".join(
            [NULL if value is None else pack(value) for pack, value in zip(packs, row, strict=True)]
        )
        parts.append(packed)
        size += len(packed)
        if size >= COPY_CHUNK_BYTES:
            chunks.append(b"".join(parts))
            parts, size = [], 0
    parts.append(COPY_TRAILER)
    chunks.append(b"".join(parts))
    return chunks
