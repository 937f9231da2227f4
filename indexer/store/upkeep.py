"""
The lake's files kept few: small ones merged, rows that were replaced written out of their files, old ones deleted.

An export leaves a file a table; thousands of them would make every scan slow. The work is cut into short
pieces, because exports wait for it: one table after the other, and none is begun once the time is up. Readers beside it
notice nothing: what was replaced stays for as long as any may read.
"""

import time
from typing import Any

import duckdb
import psycopg

from indexer.store.duck import quote_text
from indexer.store.queries import load_queries

# Files and snapshots that were replaced stay for readers that still hold them: longer than any query may run.
GRACE = "1 day"
# Files smaller than this are worth merging; the catalog makes none above 128 MB.
SMALL_BYTES_MAX = 32 << 20
FILES_PER_CALL_MAX = 400
UPKEEP_S_MAX = 1.0
EXPIRE_EVERY_S = 600.0

QUERIES = load_queries("lake")


class Upkeep:
    """
    Looks after one lake, of which `duck` is the writer and `catalog` a connection to its database.

    Args:
        files_max: small files that a table may gather before they are merged.
    """

    def __init__(self, duck: duckdb.DuckDBPyConnection, catalog: psycopg.Connection[Any], files_max: int) -> None:
        self._duck = duck
        self._catalog = catalog
        self._files_max = files_max
        # What the last merge could not make fewer.
        self._left: dict[tuple[str, str], tuple[int, int]] = {}
        self._expired_at = time.monotonic()

    def tend(self, seconds_max: float = UPKEEP_S_MAX) -> int:
        """Do what is worth it within about so many seconds, and return how many tables were worked on."""
        deadline = time.monotonic() + seconds_max
        worked: set[tuple[str, str]] = set()
        for key, small, deleted in self._count():
            merged, rewritten = self._left.get(key, (0, 0))
            if small - merged < self._files_max and deleted - rewritten < self._files_max:
                continue
            self._rewrite(key, deletes=deleted - rewritten >= self._files_max)
            worked.add(key)
            if time.monotonic() > deadline:
                break
        if worked:
            self._left |= {key: (small, deleted) for key, small, deleted in self._count() if key in worked}
        if time.monotonic() - self._expired_at > EXPIRE_EVERY_S:
            self.expire()
        return len(worked)

    def merge_all(self) -> None:
        """Merge and expire everything now, however long it takes."""
        for key, _, deleted in self._count():
            self._rewrite(key, deletes=deleted > 0)
        self.expire()

    def expire(self) -> None:
        """Delete what was replaced longer ago than a reader may read."""
        self._expired_at = time.monotonic()
        for procedure in ("ducklake_expire_snapshots", "ducklake_cleanup_old_files"):
            self._duck.execute(f"CALL {procedure}('lake', older_than => now() - INTERVAL {quote_text(GRACE)})")

    def _count(self) -> list[tuple[tuple[str, str], int, int]]:
        """Return ((schema, table), small files, files of deletions), most files first."""
        rows = self._catalog.execute(QUERIES["count_lake_files"], {"bytes_max": SMALL_BYTES_MAX}).fetchall()
        return [((schema, table), small, deleted) for schema, table, small, deleted in rows]

    def _rewrite(self, key: tuple[str, str], *, deletes: bool) -> None:
        schema_name, table_name = key
        arguments = f"'lake', {quote_text(table_name)}, schema => {quote_text(schema_name)}"
        if deletes:
            self._duck.execute(f"CALL ducklake_rewrite_data_files({arguments}, delete_threshold => 0)")
        bound = f"max_compacted_files => {FILES_PER_CALL_MAX}"
        self._duck.execute(f"CALL ducklake_merge_adjacent_files({arguments}, {bound})")
