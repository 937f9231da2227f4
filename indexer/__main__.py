"""
`capstan index`: reads flags and environment, opens what the indexer needs, runs it, closes everything.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import structlog
import typer

from indexer.backfill import checked_range
from indexer.catchup import CatchUp
from indexer.commands.connection import opened
from indexer.commands.options import (
    CatchUpOnly,
    Covers,
    DatabaseUrl,
    DataDir,
    ExportInterval,
    Genesis,
    HistoryStart,
    Idls,
    LakeFolder,
    LakeOnly,
    MetricsHost,
    MetricsPort,
    Retention,
    RpcRate,
    RpcUrls,
    SourceFiles,
    WsUrl,
    joined_urls,
)
from indexer.console import reported, run_until_signalled, set_up_logs
from indexer.health import served
from indexer.idls import named_programs
from indexer.intake import Programs
from indexer.load import load_files, read_request
from indexer.loop import Indexer
from indexer.settings import IndexerSettings
from indexer.sources import node
from indexer.sources.rpc import Caller
from indexer.store.coverage import start_history
from indexer.store.database import INDEXER_ROLE, Database, Pool, open_database, session
from indexer.store.lake import Lake

log = structlog.get_logger("indexer")


def index(
    *,
    rpc: RpcUrls = None,
    ws: WsUrl = None,
    rpc_rate: RpcRate = None,
    idl: Idls = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    lake: LakeFolder = None,
    start: HistoryStart = None,
    export_interval: ExportInterval = None,
    retention: Retention = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
    source: SourceFiles = None,
    covers: Covers = None,
    genesis: Genesis = None,
    lake_only: LakeOnly = False,
    catch_up: CatchUpOnly = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Log as JSON lines, and print what --catch-up did as JSON.")
    ] = False,
) -> None:
    """Index Anchor programs: events and accounts into PostgreSQL, finalized history on into the lake."""
    with reported():
        settings = IndexerSettings.read(
            rpc_url=joined_urls(rpc),
            rpc_rate=rpc_rate,
            ws_url=ws,
            database_url=database_url,
            data_dir=data_dir,
            lake=lake,
            export_interval_s=export_interval,
            retention=retention,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
        )
        set_up_logs(as_json=json_output)
        programs = named_programs(idl or [])
        asked = read_request(source or [], covers=covers, genesis=genesis, lake_only=lake_only)
        url = settings.database_url.get_secret_value() if settings.database_url else None
        with open_database(url, data_dir=settings.data_dir) as database:
            if asked is not None:
                asyncio.run(load_files(asked, settings, programs, database, as_json=json_output))
                return
            asyncio.run(_index(settings, programs, database, start=start, catch_up=catch_up, as_json=json_output))


async def _index(
    settings: IndexerSettings,
    programs: Programs,
    database: Database,
    *,
    start: int | None,
    catch_up: bool,
    as_json: bool,
) -> None:
    async with AsyncExitStack() as stack:
        rpc, pool, registry = await stack.enter_async_context(opened(settings, programs, database))
        if start is not None:
            await _start_history(rpc, pool, programs, start)
        role = database.for_role(INDEXER_ROLE)
        indexer = Indexer(settings, rpc, pool, lambda: Lake.open(role, settings.lake_path), registry, registry.tables)
        stack.callback(indexer.close)
        # Once before anything else: a folder that cannot be written, or another writer, is told now.
        await indexer.export()
        if settings.metrics_port is not None:
            pages = served(indexer.health, settings.metrics_host, settings.metrics_port)
            port = await stack.enter_async_context(pages)
            log.info("serving metrics", host=settings.metrics_host, port=port)
        with CatchUp() as progress:
            if catch_up:
                await indexer.catch_up(progress)
                progress.report(as_json=as_json)
            else:
                await run_until_signalled(indexer.run(progress))


async def _start_history(rpc: Caller, pool: Pool, programs: Programs, start: int) -> None:
    """What lies below `start` counts as never having been, until an earlier start is named or a backfill proves it."""
    checked_range(start, None, await node.fetch_slot(rpc, "finalized"))
    async with session(pool) as connection:
        for program_id in programs:
            await start_history(connection, program_id, start)
