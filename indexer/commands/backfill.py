"""
`capstan backfill`: proves a range of the past, together with whoever else works on it.
"""

import asyncio
from typing import Annotated

import typer

from indexer.backfill import Backfills
from indexer.catchup import CatchUp
from indexer.commands.connection import opened
from indexer.commands.options import (
    By,
    DatabaseUrl,
    DataDir,
    FirstSlot,
    Idls,
    LastSlot,
    Means,
    RpcRate,
    RpcUrls,
    Workers,
    joined_urls,
)
from indexer.console import reported, run_until_signalled, set_up_logs
from indexer.idls import named_programs
from indexer.intake import Programs
from indexer.loop import FAILURES_MAX
from indexer.settings import IndexerSettings
from indexer.store.database import Database, open_database


def backfill(
    *,
    first: FirstSlot = None,
    last: LastSlot = None,
    by: By = Means.SIGNATURES,
    workers: Workers = None,
    rpc: RpcUrls = None,
    rpc_rate: RpcRate = None,
    idl: Idls = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log as JSON lines, and print what was done as JSON.")
    ] = False,
) -> None:
    """Store a range of the past and prove it complete; what is proven is left alone, and more processes may join."""
    with reported():
        settings = IndexerSettings.read(
            rpc_url=joined_urls(rpc),
            rpc_rate=rpc_rate,
            database_url=database_url,
            data_dir=data_dir,
            workers=workers,
        )
        set_up_logs(as_json=as_json)
        programs = named_programs(idl or [])
        url = settings.database_url.get_secret_value() if settings.database_url else None
        with open_database(url, data_dir=settings.data_dir) as database:
            work = _backfill(settings, programs, database, by=by, first=first, last=last, as_json=as_json)
            asyncio.run(run_until_signalled(work))


async def _backfill(
    settings: IndexerSettings,
    programs: Programs,
    database: Database,
    *,
    by: Means,
    first: int | None,
    last: int | None,
    as_json: bool,
) -> None:
    async with opened(settings, programs, database) as (rpc, pool, registry):
        backfills = Backfills(
            rpc,
            pool,
            registry,
            registry.tables,
            lease_s=settings.lease_s,
            workers=settings.workers,
            failures_max=FAILURES_MAX,
        )
        await backfills.open("blocks" if by is Means.BLOCKS else "signatures", first, last)
        with CatchUp() as progress:
            if await backfills.is_open():
                await backfills.run(progress)
            progress.report(as_json=as_json)
