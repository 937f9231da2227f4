"""
`capstan index`: reads flags and environment, opens what the indexer needs, runs it, closes everything.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer

from indexer.catchup import CatchUp
from indexer.console import reported, run_until_signalled, set_up_logs
from indexer.health import served
from indexer.idls import named_programs
from indexer.intake import Programs
from indexer.load import load_files, read_request
from indexer.loop import Indexer, check_chain
from indexer.settings import IndexerSettings
from indexer.sources import node
from indexer.sources.rpc import Rpc
from indexer.store.database import INDEXER_ROLE, Database, connect, open_database, open_pool
from indexer.store.lake import Lake
from indexer.store.migrate import migrate
from indexer.store.typed import ensure_tables

# Fewer attempts than later on: who starts a command wants to know soon that the url is wrong.
START_ATTEMPTS_MAX = 4

log = structlog.get_logger("indexer")


def index(
    *,
    rpc: Annotated[
        str | None, typer.Option(help="HTTP url of a Solana node [CAPSTAN_RPC_URL, default http://127.0.0.1:8899]")
    ] = None,
    ws: Annotated[
        str | None, typer.Option(help="PubSub url of the node [CAPSTAN_WS_URL, default: the RPC's host, next port]")
    ] = None,
    idl: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PROGRAM=]FILE",
            help="An Anchor IDL to index, with the program id where the file has none; repeat for more. "
            "Default: the home programs.",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="PostgreSQL 15 or newer [DATABASE_URL, default: an embedded server in the data folder]"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where embedded server and lake live [CAPSTAN_DATA_DIR, default .data]")
    ] = None,
    lake: Annotated[
        Path | None, typer.Option(help="Folder of the lake's Parquet files [CAPSTAN_LAKE, default DATA_DIR/lake]")
    ] = None,
    export_interval: Annotated[
        float | None, typer.Option(help="Seconds between two exports to the lake [CAPSTAN_EXPORT_INTERVAL_S, 10]")
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(
            metavar="AGE|off",
            help="Keep finalized rows this long in PostgreSQL, such as 36h, 7d or 4w, and after that in the lake alone "
            "[CAPSTAN_RETENTION, off]",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve /metrics (Prometheus), /health and /ready there; 0 picks a port [CAPSTAN_METRICS_PORT, off]"
        ),
    ] = None,
    metrics_host: Annotated[
        str | None, typer.Option(help="The address to serve them on [CAPSTAN_METRICS_HOST, default 127.0.0.1]")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="file:PATH",
            help="Read a file of transactions instead of a node: one getTransaction body a line, plain or zstd; "
            "file:- is standard input; repeat for more.",
        ),
    ] = None,
    covers: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO", help="The files have every finalized transaction of the programs in these slots."
        ),
    ] = None,
    genesis: Annotated[
        str | None,
        typer.Option(
            metavar="HASH|mainnet-beta|testnet|devnet",
            help="The chain that the files are of; needed while the database knows none.",
        ),
    ] = None,
    lake_only: Annotated[
        bool, typer.Option("--lake-only", help="Files go into the lake and not into PostgreSQL; needs --covers.")
    ] = False,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="Stop once everything finalized is stored and in the lake.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Log as JSON lines, and print what --catch-up did as JSON.")
    ] = False,
) -> None:
    """Index Anchor programs: events and accounts into PostgreSQL, finalized history on into the lake."""
    with reported():
        settings = IndexerSettings.read(
            rpc_url=rpc,
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
            asyncio.run(_index(settings, programs, database, catch_up=catch_up, as_json=json_output))


async def _index(
    settings: IndexerSettings, programs: Programs, database: Database, *, catch_up: bool, as_json: bool
) -> None:
    rpc_url = settings.rpc_url.get_secret_value()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(database.for_role(INDEXER_ROLE)))
        async with Rpc(rpc_url, attempts_max=START_ATTEMPTS_MAX) as first:
            # Before the first migration: a wrong url must not leave tables behind.
            await node.fetch_genesis_hash(first)
            await asyncio.to_thread(migrate, database.dsn)
            await check_chain(first, pool, programs)
        async with await connect(database.dsn) as owner:
            tables = {key: await ensure_tables(owner, program) for key, program in programs.items()}
        rpc = await stack.enter_async_context(Rpc(rpc_url))
        role = database.for_role(INDEXER_ROLE)
        indexer = Indexer(settings, rpc, pool, lambda: Lake.open(role, settings.lake_path), programs, tables)
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
