"""
The command `engine`: settings in, process 2 running, one sentence out where it cannot.

Before it acts it makes sure that database and node speak of the same chain, and of a program that is there. Where the
indexer has not begun yet it waits. It leaves within 5 seconds of SIGTERM or Ctrl-C.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
import typer
from solders.pubkey import Pubkey

from engine.keys import Signer, read_signer
from engine.lease import Lease, new_holder
from engine.loop import Engine, Pass, release, run
from engine.programs.ephemeral_vault import ACCOUNT_TYPE, EphemeralVault
from engine.rules.cleanup import Policy
from engine.sender import Budget, Sender
from engine.settings import EngineSettings, read_settings
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.console import reported, set_up_logs, stop_with_parent
from indexer.errors import DataError, RetryableError, SettingsError
from indexer.settings import split_urls
from indexer.sources.node import check_program, fetch_genesis_hash
from indexer.sources.rpc import Rpc
from indexer.store.database import ENGINE_ROLE, open_database
from indexer.store.ledger import AccountTable, Ledger, open_ledger
from indexer.store.migrate import migrate

WAIT_FOR_INDEXER_S = 1.0

log = structlog.get_logger("engine")
T = TypeVar("T")


def engine(
    *,
    rpc: Annotated[str | None, typer.Option(help="The node's RPC url.", show_default=False)] = None,
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL 15 or newer; the embedded one without it.", show_default=False)
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded PostgreSQL is.", show_default=False)] = None,
    keypair: Annotated[
        Path | None, typer.Option(help="The engine's key, a file as solana-keygen writes it.", show_default=False)
    ] = None,
    program: Annotated[
        str | None, typer.Option(help="The id of the ephemeral_vault deployment.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run", help="Decide and record decisions; sign and send nothing.")
    ] = None,
    once: Annotated[bool | None, typer.Option("--once", help="One pass, then leave.")] = None,
    settle: Annotated[
        bool | None, typer.Option("--settle", help="Record what came of what was sent, send nothing, then leave.")
    ] = None,
    interval: Annotated[float | None, typer.Option(help="Seconds between two passes.", show_default=False)] = None,
    min_reward_lamports: Annotated[
        int | None, typer.Option(help="Clean only what pays so much; 0 cleans all.", show_default=False)
    ] = None,
    fund_from_faucet: Annotated[
        int | None, typer.Option(help="Lamports to ask of a test chain's faucet when low.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Log lines as JSON.")] = False,
) -> None:
    """Clean up expired session vaults: decide, sign, send, and record what came of it."""
    set_up_logs(as_json=json)
    settings = read_settings(
        rpc_url=rpc,
        database_url=database_url,
        data_dir=data_dir,
        keypair=keypair,
        program=program,
        dry_run=dry_run,
        once=once,
        settle=settle,
        interval_s=interval,
        min_reward_lamports=min_reward_lamports,
        fund_from_faucet_lamports=fund_from_faucet,
    )
    if settings.keypair is None:
        raise SettingsError("the engine has no key: name a solana-keygen file with --keypair or CAPSTAN_ENGINE_KEYPAIR")
    signer = read_signer(settings.keypair)
    program_id = settings.program_id
    url = None if settings.database_url is None else settings.database_url.get_secret_value()
    with open_database(url, data_dir=settings.data_dir) as database:
        migrate(database.dsn)
        asyncio.run(_serve(settings, signer, program_id, database.for_role(ENGINE_ROLE)))


async def _serve(settings: EngineSettings, signer: Signer, program_id: bytes, dsn: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        # What is signed and what decides about it must be seen by one node: of several, the preferred one.
        rpc = await stack.enter_async_context(Rpc(split_urls(settings.rpc_url.get_secret_value())[0]))
        ledger = await stack.enter_async_context(open_ledger(dsn))
        started = await _until(stop, lambda: _start(settings, signer, program_id, rpc, ledger))
        if started is None:
            return
        log.info(
            "started",
            payer=str(signer.pubkey),
            program=str(Pubkey(program_id)),
            rpc=rpc.shown_url,
            dry_run=settings.dry_run,
        )
        if settings.settle:
            await _run_once(started, lambda: _until(stop, started.settle))
        elif settings.once:
            await _run_once(started, started.run_pass)
        else:
            await run(started, stop, interval_s=settings.interval_s)
        log.info("stopped")


async def _run_once(started: Engine, work: Callable[[], Awaitable[Pass | None]]) -> None:
    try:
        done = await work()
    finally:
        await release(started)
    if done is None:
        return
    log.info(
        "pass_done",
        acting=done.acting,
        intended=done.intended,
        skipped=done.skipped,
        sent=done.sent,
        in_flight=done.in_flight,
    )


async def _start(
    settings: EngineSettings, signer: Signer, program_id: bytes, rpc: Rpc, ledger: Ledger
) -> Engine | None:
    """
    Return an engine that may act, None where the indexer has not prepared the database yet.

    Raises:
        SettingsError: no such program on this chain.
        DataError: the database is of another chain, or of another kind of program.
    """
    genesis_hash = await fetch_genesis_hash(rpc)
    known = await ledger.select_genesis_hash()
    if known is not None and known != genesis_hash:
        raise DataError(
            f"the database is of the chain with genesis hash {known}, and {rpc.shown_url} is of {genesis_hash}: "
            "point the engine at the database that indexes this chain"
        )
    await check_program(rpc, program_id)
    registered = await ledger.select_program(program_id)
    table = await ledger.select_account_table(program_id, ACCOUNT_TYPE)
    if known is None or registered is None or table is None:
        return None
    idl = load_idl(registered.idl, source=f"capstan.programs ({registered.schema_name})")
    adapter = EphemeralVault(Program.from_idl(idl, program_id))
    _check_columns(table, adapter)
    sender = Sender(
        rpc=rpc,
        ledger=ledger,
        signer=signer,
        budget=Budget(settings.compute_unit_limit, settings.compute_unit_price_micro_lamports),
        dry_run=settings.dry_run,
        resend_interval_s=settings.resend_interval_s,
    )
    name = f"engine:{Pubkey(program_id)}"
    return Engine(
        rpc=rpc,
        ledger=ledger,
        lease=Lease(ledger, name=name, holder=new_holder(), ttl_s=settings.lease_s),
        adapter=adapter,
        table=table,
        sender=sender,
        policy=Policy(min_reward_lamports=settings.min_reward_lamports),
        in_flight_max=settings.in_flight_max,
        faucet_lamports=settings.fund_from_faucet_lamports,
    )


def _check_columns(table: AccountTable, adapter: EphemeralVault) -> None:
    missing = {adapter.start_field, adapter.expiry_field} - table.columns.keys()
    if missing:
        raise DataError(
            f"{table.schema_name}.{table.table_name} has no column for {', '.join(sorted(missing))}: index it again"
        )


async def _until(stop: asyncio.Event, attempt: Callable[[], Awaitable[T | None]]) -> T | None:
    """Return the first result of `attempt` that is not None; None where `stop` is set before."""
    told = ""
    while not stop.is_set():
        work = asyncio.ensure_future(attempt())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            return None
        waiting_for = "the indexer has not prepared the database yet"
        try:
            result = work.result()
        except RetryableError as error:
            result, waiting_for = None, str(error)
        if result is not None:
            stopping.cancel()
            return result
        if waiting_for != told:
            told = waiting_for
            log.info("waiting", reason=waiting_for)
        await asyncio.wait({stopping}, timeout=WAIT_FOR_INDEXER_S)
        stopping.cancel()
    return None


def main() -> None:
    """Run `engine` by itself: python -m engine."""
    stop_with_parent()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(engine)
    with reported():
        app()


if __name__ == "__main__":
    main()
