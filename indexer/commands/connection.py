"""
How the commands that talk to a chain and a database open both. Their flags are in options.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from indexer.intake import Programs
from indexer.loop import check_chain
from indexer.registry import Registry, open_registry
from indexer.settings import IndexerSettings
from indexer.sources.endpoints import Endpoints
from indexer.store.database import INDEXER_ROLE, Database, Pool, connect, open_pool
from indexer.store.migrate import migrate

# Fewer attempts than later on: who starts a command wants to know soon that the url is wrong.
START_ATTEMPTS_MAX = 4


class Opened(NamedTuple):
    """A chain and a database that belong together, and the programs in all their versions."""

    rpc: Endpoints
    pool: Pool
    registry: Registry


@asynccontextmanager
async def opened(
    settings: IndexerSettings, programs: Programs, database: Database, *, pool_size: int | None = None
) -> AsyncIterator[Opened]:
    """
    Open nodes and database, brought to this code's version, with a table for every event and account.

    Raises:
        SettingsError: a url is wrong, or a program is not there.
        DataError: the database holds another chain.
        RetryableError: a node or the database does not answer.
    """
    urls, rate = settings.rpc_urls, settings.rpc_rate
    async with AsyncExitStack() as stack:
        # Each worker holds one to write and one to renew its lease, besides those of the other parts.
        size = pool_size if pool_size is not None else 4 + 2 * settings.workers
        pool = await stack.enter_async_context(open_pool(database.for_role(INDEXER_ROLE), size_max=size))
        async with Endpoints(urls, rate=rate, attempts_max=START_ATTEMPTS_MAX) as first:
            # Before the first migration: a wrong url must not leave tables behind.
            await first.check()
            await asyncio.to_thread(migrate, database.dsn)
            await check_chain(first, pool, programs)
        async with await connect(database.dsn) as owner:
            registry = await open_registry(owner, programs.values())
        rpc = await stack.enter_async_context(Endpoints(urls, rate=rate))
        await rpc.check()
        yield Opened(rpc, pool, registry)
