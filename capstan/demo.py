"""
`capstan demo`: a chain, an indexer, an engine and a dashboard with one command, and nothing left when it stops.

With --headless it is a proof for scripts: so many seconds of live traffic, then everything is drained, and what the
chain says happened is compared with what is stored.
"""

import asyncio
import errno
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from capstan.drain import drain
from capstan.folder import demo_folder
from capstan.parts import Plan, Urls, dashboard_part, engine_part, indexer_part, localnet_part, make_keypair
from capstan.ports import checked_port
from capstan.screen import render
from capstan.supervisor import Child, Supervisor
from indexer.console import reported, set_up_logs
from indexer.errors import RetryableError, SettingsError
from indexer.sources.rpc import Rpc
from indexer.store.audit import read_progress
from indexer.store.database import Database, open_database
from indexer.store.migrate import migrate

TICK_S = 0.2
NUMBERS_EVERY_TICKS = 5
READY_S_MAX = 300.0
MISMATCH_EXIT_CODE = 1

RPC_PORT_DEFAULT = 8899
WS_PORT_DEFAULT = 8900
DASHBOARD_PORT_DEFAULT = 8501


def demo(
    *,
    headless: Annotated[
        bool, typer.Option("--headless", help="No window: run --seconds, drain, compare, report, leave.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds of live traffic before it ends by itself [headless: 60]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="What the users do follows from it [default: a new one]")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report there; - is stdout. Headless only.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Keep the data there; emptied at the next start [default: a temporary folder]"),
    ] = None,
    history: Annotated[int, typer.Option(min=0, max=365, help="Days of history before the live traffic")] = 30,
    transactions: Annotated[int, typer.Option(min=0, help="Transactions in that history, about")] = 20_000,
    rate: Annotated[float, typer.Option(min=0, help="Live transactions a second")] = 3.0,
    rpc_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The chain's RPC; 0 picks a free one [8899, headless: 0]")
    ] = None,
    ws_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The chain's PubSub; 0 picks a free one [8900, headless: 0]")
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The dashboard; 0 picks a free one [8501, headless: 0]")
    ] = None,
) -> None:
    """Start everything on one machine: a local chain with users, indexer, engine, dashboard. Ctrl-C stops it all."""
    with reported():
        set_up_logs(as_json=False)
        if json_file is not None and not headless:
            raise SettingsError("--json writes the report of a headless demo: add --headless")
        _check_report_file(json_file)
        plan = Plan(
            seed=secrets.randbits(32) if seed is None else seed,
            history_days=history,
            transactions=transactions,
            rate=rate,
            seconds=60.0 if headless and seconds is None else seconds,
            rpc_port=checked_port(_port(rpc_port, RPC_PORT_DEFAULT, headless=headless), "the chain's RPC"),
            ws_port=checked_port(_port(ws_port, WS_PORT_DEFAULT, headless=headless), "the chain's PubSub"),
            dashboard_port=checked_port(
                _port(dashboard_port, DASHBOARD_PORT_DEFAULT, headless=headless), "the dashboard"
            ),
        )
        with ExitStack() as stack:
            folder = stack.enter_context(demo_folder(data_dir))
            database = stack.enter_context(open_database(None, data_dir=folder))
            migrate(database.dsn)
            supervisor = Supervisor()
            stack.callback(supervisor.stop_all)
            run = Run(plan, folder, database, supervisor, headless=headless)
            report = asyncio.run(run.until_done())
        if report is not None:
            _deliver(report, json_file)
            if report["mismatches"]:
                raise SystemExit(MISMATCH_EXIT_CODE)


def _port(wanted: int | None, default: int, *, headless: bool) -> int:
    return wanted if wanted is not None else (0 if headless else default)


def _check_report_file(json_file: Path | None) -> None:
    """A minute's run must not end with nowhere to write."""
    if json_file is None or str(json_file) == "-":
        return
    try:
        with tempfile.TemporaryFile(dir=json_file.absolute().parent):
            pass
        if json_file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise _unwritable(json_file, error) from None


def _unwritable(json_file: Path, error: OSError) -> SettingsError:
    return SettingsError(f"the report cannot be written to {json_file} ({error.strerror}): choose another file")


def _deliver(report: dict[str, Any], json_file: Path | None) -> None:
    text = json.dumps(report, indent=2) + "\n"
    if json_file is None or str(json_file) == "-":
        print(text, end="")
        return
    try:
        json_file.write_text(text)
    except OSError as error:
        raise _unwritable(json_file, error) from None


@dataclass
class Run:
    """One demo from its first process to its last."""

    plan: Plan
    folder: Path
    database: Database
    supervisor: Supervisor
    headless: bool
    following_since_ns: int = 0

    async def until_done(self) -> dict[str, Any] | None:
        """
        Start everything, keep it running until a signal or until `plan.seconds` are over, and return the report.

        Without --headless, or after a signal, there is no report. The caller stops the supervisor.

        Raises:
            RetryableError: a part did not come up, or the chain died.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        chain = localnet_part(self.plan, self.folder, shows_progress=not self.headless)
        self.supervisor.add(chain)
        self._say(f"seeding {self.plan.history_days} days of history (seed {self.plan.seed}) ...")
        ready = await self._ready(chain, stop)
        if ready is None:
            return None
        urls = Urls(ready["rpc_url"], ready["ws_url"])
        seeded = ready.get("seeded")
        if seeded:
            self._say(
                f"seeded {seeded['transactions']:,} transactions in {seeded['seconds']:.1f} s "
                f"({seeded['per_second']:,.0f}/s)"
            )
        keypair, engine_address = make_keypair(self.folder)
        dsn = self.database.dsn
        engine = engine_part(urls, dsn, keypair, self.folder)
        indexer = indexer_part(urls, dsn, self.folder, "--export-interval", "5")
        for child in (indexer, engine, dashboard_part(self.plan, urls, dsn, self.folder)):
            self.supervisor.add(child)
        self._say(f"chain {urls.rpc} and {urls.ws}, dashboard http://127.0.0.1:{self.plan.dashboard_port}")
        async with Rpc(urls.rpc) as rpc:
            await self._live(rpc, urls, chain, engine_address, stop)
            if stop.is_set() or not self.headless:
                return None
            self._say("draining ...")
            draining = drain(
                rpc=rpc,
                supervisor=self.supervisor,
                indexer=indexer,
                engine=engine,
                catch_up=indexer_part(urls, dsn, self.folder, "--catch-up"),
                settle=engine_part(urls, dsn, keypair, self.folder, "--settle"),
                dsn=dsn,
                following_since_ns=self.following_since_ns,
            )
            return await _unless_stopped(draining, stop)

    async def _ready(self, chain: Child, stop: asyncio.Event) -> dict[str, Any] | None:
        """Wait for localnet's JSON line; None where a signal came first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_S_MAX
        while loop.time() < deadline:
            self._check_chain(chain)
            for line in chain.log_path.read_text(errors="replace").splitlines():
                if line.startswith("{"):
                    ready: dict[str, Any] = json.loads(line)
                    return ready
            if await _stopped(stop, TICK_S):
                return None
        raise RetryableError(f"the chain was not ready after {READY_S_MAX:.0f} s: {chain.last_words()}")

    async def _live(self, rpc: Rpc, urls: Urls, chain: Child, engine_address: str, stop: asyncio.Event) -> None:
        """Keep everything running for `plan.seconds`, or until stopped; show it where there is a window."""
        places = {
            "dashboard": f"http://127.0.0.1:{self.plan.dashboard_port}",
            "chain (RPC)": urls.rpc,
            "chain (PubSub)": urls.ws,
            "data and logs": str(self.folder),
            "engine pays from": engine_address,
        }
        loop = asyncio.get_running_loop()
        ends_at = None if self.plan.seconds is None else loop.time() + self.plan.seconds
        numbers: dict[str, str] = {}
        console = Console()
        with ExitStack() as window:
            live = None
            if not self.headless and console.is_terminal:
                live = window.enter_context(Live(console=console, auto_refresh=False))
            tick = 0
            while ends_at is None or loop.time() < ends_at:
                for died in self.supervisor.tick():
                    if died is chain:
                        self._check_chain(chain)
                    self._say(f"{died.name} died with {died.exit_code} and is started again: {died.last_words()}")
                if not self.following_since_ns and read_progress(self.database.dsn).frontier is not None:
                    self.following_since_ns = time.time_ns()
                    self._say("the indexer has caught up")
                if live is not None:
                    if tick % NUMBERS_EVERY_TICKS == 0:
                        numbers = await self._numbers(rpc)
                    live.update(render(places, self.supervisor.children, numbers), refresh=True)
                tick += 1
                if await _stopped(stop, TICK_S):
                    return

    async def _numbers(self, rpc: Rpc) -> dict[str, str]:
        try:
            census = await rpc.call("localnet_census")
            progress = await asyncio.to_thread(read_progress, self.database.dsn)
        except RetryableError as error:
            return {"numbers": str(error)}
        return {
            "transactions on the chain": f"{census['transactions']:,}",
            "transactions stored": f"{progress.transactions:,}",
            "vaults cleaned": f"{census['events'].get('ephemeral_vault.VaultCleaned', 0):,}",
        }

    def _check_chain(self, chain: Child) -> None:
        if chain.pid is None:
            raise RetryableError(f"the chain died, and with it everything it held: {chain.last_words()}")

    def _say(self, sentence: str) -> None:
        """Tell a script's log, or a person before the window opens."""
        sys.stderr.write(sentence + "\n")
        sys.stderr.flush()


async def _unless_stopped(work: Coroutine[Any, Any, dict[str, Any]], stop: asyncio.Event) -> dict[str, Any] | None:
    """Return what `work` returns, or None where a signal came first."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        return None
    return task.result()


async def _stopped(stop: asyncio.Event, timeout_s: float) -> bool:
    """Wait a little, or until stopped; say which."""
    try:
        async with asyncio.timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return False
    return True
