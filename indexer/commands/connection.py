"""
What the commands that talk to a chain and a database have in common: their flags, and how both are opened.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from indexer.intake import Programs
from indexer.loop import check_chain
from indexer.registry import Registry, open_registry
from indexer.settings import IndexerSettings
from indexer.sources.endpoints import Endpoints
from indexer.store.database import INDEXER_ROLE, Database, Pool, connect, open_pool
from indexer.store.migrate import migrate

# Fewer attempts than later on: who starts a command wants to know soon that the url is wrong.
START_ATTEMPTS_MAX = 4

RpcUrls = Annotated[
    list[str] | None,
    typer.Option(
        help="HTTP url of a Solana node; repeat it for nodes that stand in for each other "
        "[CAPSTAN_RPC_URL with commas, default http://127.0.0.1:8899]"
    ),
]
RpcRate = Annotated[
    float | None, typer.Option(help="Calls a second that each node is asked at most [CAPSTAN_RPC_RATE, no limit]")
]
Idls = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[PROGRAM=]FILE",
        help="An Anchor IDL to index, with the program id where the file has none; repeat for more. "
        "Default: the home programs.",
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="PostgreSQL 15 or newer [DATABASE_URL, default: an embedded server in the data folder]"),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where embedded server and lake live [CAPSTAN_DATA_DIR, default .data]")
]
LakeFolder = Annotated[
    Path | None, typer.Option(help="Folder of the lake's Parquet files [CAPSTAN_LAKE, default DATA_DIR/lake]")
]
FirstSlot = Annotated[int | None, typer.Option("--from", help="The first slot; default 0.")]
LastSlot = Annotated[int | None, typer.Option("--to", help="The last slot, inclusive; default the newest final one.")]


class Opened(NamedTuple):
    """A chain and a database that belong together, and the programs in all their versions."""

    rpc: Endpoints
    pool: Pool
    registry: Registry


def joined_urls(urls: Sequence[str] | None) -> str | None:
    """Return repeated flags as the setting has them; None where there was no flag."""
    return ",".join(urls) if urls else None


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
