"""
The command `localnet`: a chain with its past played, its users at work and its ports open, until told to stop.

Settings in, urls out. `chain.py` knows what the chain is, `traffic/` who acts on it, `server.py` how others talk to it.
"""

import asyncio
import contextlib
import gc
import json as jsonlib
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from indexer.console import reported, stop_with_parent
from indexer.errors import SettingsError
from localnet.chain import Chain
from localnet.control import ControlMethods
from localnet.ledger_file import LedgerFolder, Notes
from localnet.programs import PROGRAM_IDS, load_elf
from localnet.rpc.faults import Faults
from localnet.server import Server, Urls
from localnet.settings import LocalnetSettings
from localnet.steering import SteeringMethods
from localnet.traffic.history import Seeded, Told, seed_history, unheard
from localnet.traffic.live import LiveTraffic
from localnet.traffic.mix import gather
from localnet.traffic.price_board import PriceBoard

SEED_MAX = 2**31


def localnet(
    *,
    rpc_port: Annotated[
        int | None,
        typer.Option(help="Port of JSON-RPC over HTTP; 0 takes a free one (default 8899).", show_default=False),
    ] = None,
    ws_port: Annotated[
        int | None,
        typer.Option(help="Port of PubSub over WebSocket; 0 takes a free one (default 8900).", show_default=False),
    ] = None,
    traffic: Annotated[
        bool | None,
        typer.Option("--traffic/--no-traffic", help="Have users, a history first and then live (default), or none."),
    ] = None,
    history: Annotated[
        float | None, typer.Option(help="Days of past to play first; 0 for none (default 30).", show_default=False)
    ] = None,
    transactions: Annotated[
        int | None, typer.Option(help="Transactions in that past, at least (default 20000).", show_default=False)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Live transactions a second, on average; 0 for none (default 3).", show_default=False),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            help="Which users, and how much of each (default sessions=9,collateral=1,market=2).", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides keys, amounts and times (default: drawn anew).", show_default=False)
    ] = None,
    start_time: Annotated[
        int | None,
        typer.Option(help="Unix seconds of the first slot (default: so that the past ends now).", show_default=False),
    ] = None,
    slot_ms: Annotated[
        int | None, typer.Option(help="Milliseconds from slot to slot (default 400).", show_default=False)
    ] = None,
    confirmed_distance: Annotated[
        int | None, typer.Option(help="Slots until a slot is confirmed (default 1).", show_default=False)
    ] = None,
    finalized_distance: Annotated[
        int | None, typer.Option(help="Slots until a slot is finalized (default 32).", show_default=False)
    ] = None,
    control: Annotated[
        bool | None,
        typer.Option(
            "--control",
            help="Answer localnet_* methods, which steer the chain, make it misbehave, and count events.",
            show_default=False,
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Folder to save the chain in on stop and resume it from (default: nothing is kept)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line to stdout when ready.")] = False,
) -> None:
    """Run a local Solana chain with the home programs and their users: a real VM, JSON-RPC and PubSub."""
    settings = LocalnetSettings.read(
        rpc_port=rpc_port,
        ws_port=ws_port,
        traffic=traffic,
        history=history,
        transactions=transactions,
        rate=rate,
        mix=mix,
        seed=seed,
        start_time=start_time,
        slot_ms=slot_ms,
        confirmed_distance=confirmed_distance,
        finalized_distance=finalized_distance,
        control=control,
        ledger=ledger,
    )
    _stop_quietly()
    _run(settings, json=json)


def _run(settings: LocalnetSettings, *, json: bool) -> None:
    """Bind the ports first, so that a port in use is known before a long history is played; then play, then serve."""
    folder = None if settings.ledger is None else LedgerFolder(settings.ledger)
    resumed = None if folder is None else folder.load(_add_programs)
    if resumed is None:
        chain, notes = _new_chain(settings), None
        _add_programs(chain)
    else:
        chain, notes = resumed
        _refuse_another_chain(settings, chain)
    prices = PriceBoard(chain)
    live, faults = _Live(prices), Faults()
    control = ControlMethods(chain, stop_traffic=live.stop)
    steering = SteeringMethods(
        chain,
        faults,
        slot_ms=settings.slot_ms,
        on_slot=lambda: live.on_slot(settings.slot_ms),
        on_price=prices.hold,
    )
    server = Server(
        chain,
        {**control.methods(), **steering.methods()} if settings.control else None,
        rpc_port=settings.rpc_port,
        ws_port=settings.ws_port,
        slot_ms=settings.slot_ms,
        on_slot=lambda: live.on_slot(settings.slot_ms),
        faults=faults,
    )
    urls = server.open()
    seeded = Seeded(0, 0, 0.0)
    if notes is not None:
        live.first_life = notes.next_life
        live.traffic = _go_on(chain, settings, notes, prices)
    elif settings.traffic:
        seeded, live.first_life, live.traffic = _populate(chain, settings, prices)
    if settings.control:
        control.census(None)  # reads the history now, not in the middle of a live slot
    # A history is a million objects that live until the end: the collector need not look at them in every slot.
    gc.freeze()
    asyncio.run(_serve(server, lambda: _announce(chain, urls, seeded, settings.ledger, json=json)))
    if folder is not None:
        begun = notes or Notes(settings.start_time is None, settings.traffic, settings.transactions, 0, settings.mix)
        folder.save(chain, msgspec.structs.replace(begun, next_life=live.lives()))
        folder.close()


def _new_chain(settings: LocalnetSettings) -> Chain:
    return Chain(
        seed=secrets.randbelow(SEED_MAX) if settings.seed is None else settings.seed,
        start_time=int(time.time() - settings.history_s) if settings.start_time is None else settings.start_time,
        confirmed_distance=settings.confirmed_distance,
        finalized_distance=settings.finalized_distance,
    )


def _add_programs(chain: Chain) -> None:
    for name, program_id in PROGRAM_IDS.items():
        chain.add_program(program_id, load_elf(name))


def _refuse_another_chain(settings: LocalnetSettings, chain: Chain) -> None:
    """Refuse settings that the saved chain was not made with; those that were not given are the chain's."""
    has = dict(zip(("confirmed_distance", "finalized_distance"), chain.distances, strict=True))
    for name, value in {"seed": chain.seed, "start_time": chain.start_time, **has}.items():
        wanted = getattr(settings, name)
        if name in settings.model_fields_set and wanted not in (None, value):
            raise SettingsError(
                f"the chain in --ledger {settings.ledger} has {name} {value}, not {wanted}: leave that out, or name"
                " another folder"
            )


class _Live:
    """The place of the live traffic, which begins only when the server is already known, and of live prices."""

    def __init__(self, prices: PriceBoard) -> None:
        self.prices = prices
        self.traffic: LiveTraffic | None = None
        self.first_life = 0

    def lives(self) -> int:
        """Return the number of the first user who has not acted yet."""
        return self.first_life if self.traffic is None else self.traffic.lives

    def on_slot(self, slot_ms: int) -> None:
        self.prices.write()
        if self.traffic is not None:
            self.traffic.on_slot(slot_ms)

    def stop(self) -> None:
        if self.traffic is not None:
            self.traffic.stop()


def _populate(chain: Chain, settings: LocalnetSettings, prices: PriceBoard) -> tuple[Seeded, int, LiveTraffic | None]:
    """Play the history; return what it came to, how many lives it told, and the users who go on from there."""
    seed = chain.seed
    companies = gather(settings.mix, seed=seed, transactions=settings.transactions)
    transactions = settings.transactions if settings.history_s else 0
    with _progress(transactions) as (planned, played):
        plan, seeded = seed_history(
            chain,
            companies,
            seed=seed,
            end=chain.unix_time + settings.history_s,
            transactions=transactions,
            slot_ms=settings.slot_ms,
            prices=prices,
            planned=planned,
            played=played,
        )
    if settings.start_time is None:
        _catch_up(chain, settings.slot_ms)
    if not settings.rate:
        return seeded, plan.lives, None
    live = LiveTraffic(
        chain,
        companies,
        seed=seed,
        rate_tps=settings.rate,
        first_life=plan.lives,
        later=plan.later,
        queue=plan.queue,
        prices=prices,
    )
    return seeded, plan.lives, live


def _go_on(chain: Chain, settings: LocalnetSettings, notes: Notes, prices: PriceBoard) -> LiveTraffic | None:
    """Return new users for a resumed chain; those of before the stop do not come back."""
    if notes.wall_clock:
        _catch_up(chain, settings.slot_ms)
    if not settings.traffic or not settings.rate or not notes.populated:
        return None
    companies = gather(notes.mix, seed=chain.seed, transactions=notes.transactions)
    return LiveTraffic(
        chain, companies, seed=chain.seed, rate_tps=settings.rate, first_life=notes.next_life, prices=prices
    )


def _catch_up(chain: Chain, slot_ms: int) -> None:
    """Skip the slots of the seconds that making the history took, so that the chain's clock is the wall's."""
    now = int(time.time())
    missed = (now - chain.unix_time) * 1000 // slot_ms
    if missed > 0:
        chain.open_slot(chain.slot + missed, now)


async def _serve(server: Server, announce: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; announce it once both ports answer."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    starting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    if not running.done():
        announce()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _stop_quietly() -> None:
    """Make SIGINT and SIGTERM an ordinary end also while the history is played, before the loop hears them."""

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


def _announce(chain: Chain, urls: Urls, seeded: Seeded, ledger: Path | None, *, json: bool) -> None:
    """Say how the seeding went (stderr), and where the chain is (stdout)."""
    if seeded.transactions:
        count, seconds, rate = f"{seeded.transactions:,}", f"{seeded.seconds:.1f}", f"{seeded.per_second:,.0f}"
        sys.stderr.write(f"seeded {count} transactions in {seconds} s: {rate}/s\n")
    if json:
        ready = {
            "rpc_url": urls.rpc_url,
            "ws_url": urls.ws_url,
            "genesis_hash": chain.genesis_hash,
            "seed": chain.seed,
            "start_time": chain.start_time,
            "seeded": {
                "transactions": seeded.transactions,
                "failed": seeded.failed,
                "seconds": round(seeded.seconds, 3),
                "per_second": round(seeded.per_second, 1),
            },
        }
        sys.stdout.write(jsonlib.dumps(ready) + "\n")
    else:
        end = "nothing of it is kept" if ledger is None else f"it is saved in {ledger}"
        sys.stdout.write(
            f"JSON-RPC  {urls.rpc_url}\nPubSub    {urls.ws_url}\ngenesis   {chain.genesis_hash}\n"
            f"seed      {chain.seed}\nCtrl-C stops the chain; {end}.\n"
        )
    sys.stdout.flush()


class _RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextlib.contextmanager
def _progress(transactions: int) -> Iterator[tuple[Told, Told]]:
    """Show two bars on stderr, and yield what moves them: for acts planned, for acts played."""
    if not transactions:
        yield unheard, unheard
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        planning = progress.add_task("planning lives", total=transactions)
        playing = progress.add_task("playing history", total=transactions, start=False)

        def planned(count: int) -> None:
            progress.update(planning, completed=count, total=max(count, transactions))

        def played(count: int) -> None:
            if not count:
                progress.start_task(playing)
            progress.update(playing, completed=count, total=max(count, transactions))

        yield planned, played


def main() -> None:
    """Run `localnet` by itself: python -m localnet."""
    stop_with_parent()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(localnet)
    with reported():
        app()


if __name__ == "__main__":
    main()
