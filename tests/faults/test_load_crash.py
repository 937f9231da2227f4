"""A server that crashes under a load of a file loses no more of it than the load is told when it begins again."""

import asyncio
import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
from solders.hash import Hash

from indexer.archive import Archive, Loaded
from indexer.errors import RetryableError
from indexer.registry import open_registry
from indexer.sources import files
from indexer.sources.files import FileSource
from indexer.store.audit import read_postgres
from indexer.store.database import INDEXER_ROLE, Database, connect, open_database, open_pool
from indexer.store.identity import ensure_chain
from indexer.store.migrate import migrate
from tests.fixtures.scripted_node import PROGRAM, Entry

COUNT = 900


def load(database: Database, path: Path, crash_after: int | None) -> Loaded:
    """Load the file; the server is crashed once so many transactions are told to be stored."""
    pid = int((database_folder(database) / "postmaster.pid").read_text().split("\n", 1)[0])

    def crash(loaded: Loaded) -> None:
        if crash_after is not None and loaded.transactions >= crash_after:
            # What a machine without power does to it: nothing is written any more.
            os.kill(pid, signal.SIGQUIT)

    async def main() -> Loaded:
        async with await connect(database.dsn) as owner:
            await ensure_chain(owner, str(Hash(bytes(range(32)))))
            registry = await open_registry(owner, [PROGRAM])
        async with open_pool(database.for_role(INDEXER_ROLE)) as pool:
            return await Archive(pool, registry, on_batch=crash).to_postgres([FileSource.open(path)])

    return asyncio.run(main())


def database_folder(database: Database) -> Path:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("show data_directory").fetchone()
    assert row is not None
    return Path(row[0])


def counts(database: Database) -> tuple[int, int]:
    """Return how many transactions the load remembers, and how many are stored."""
    with psycopg.connect(database.dsn) as connection:
        query = (
            "select coalesce((select transactions from capstan.files), 0), (select count(*) from capstan.transactions)"
        )
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def test_a_server_that_crashes_under_a_load_loses_nothing_that_is_remembered(
    short_tmp_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches do not wait for the disk: what a crash takes, it takes together with the place to begin again from."""
    monkeypatch.setattr(files, "BATCH_BYTES", 20_000)
    made = [Entry(n, 10 + n // 3, amount=n).body(PROGRAM) for n in range(1, COUNT + 1)]
    path = tmp_path / "some.ndjson"
    path.write_bytes(b"".join(httpx.Response(200, json=body).content + b"\n" for body in made))
    moments = random.Random(5)
    with ExitStack() as stack:
        database = stack.enter_context(open_database(None, data_dir=short_tmp_path))
        migrate(database.dsn)
        for _ in range(3):
            with pytest.raises(RetryableError):
                load(database, path, moments.randrange(1, COUNT // 4))
            database = stack.enter_context(open_database(None, data_dir=short_tmp_path))
            remembered, stored = counts(database)
            assert remembered <= stored < COUNT
        load(database, path, None)
        assert counts(database) == (COUNT, COUNT)
        amounts = sorted(int(event.values["amount"]) for event in read_postgres(database.dsn).events.values())
        assert amounts == list(range(1, COUNT + 1))
