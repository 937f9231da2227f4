"""
The dashboard as a reader meets it: a real database and lake, the real server, the machine's Chromium.

The sessions are made here and written through the store, so that a page can be compared with what was put in. Times
are counted back from now, because the pages say how old things are.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeoutError
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.events import Event
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.store.accounts import AccountRow, Closed, write_accounts
from indexer.store.batch import Batch, TransactionRow
from indexer.store.database import Database, connect
from indexer.store.identity import beat
from indexer.store.lake import Lake
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch

ROOT = Path(__file__).parents[2]
IDL = ROOT / "indexer" / "idls" / "ephemeral_vault.json"
SOL = 1_000_000_000
SLOT_S = 0.4
START_S_MAX = 60
SETTLED_MS_MAX = 30_000
WIDTH_MS_MAX = 5_000
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SETTLED = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const busy = '[data-stale=true], [data-testid=stSkeleton], [data-testid=stAppSkeleton], [data-testid=stSpinner]';
  return app
    && app.dataset.testConnectionState === 'CONNECTED'
    && app.dataset.testScriptState === 'notRunning'
    && document.querySelector('[data-testid=stMainBlockContainer] [data-testid=stElementContainer]')
    && !document.querySelector(busy)
    && [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every((chart) => chart.querySelector('.main-svg'));
}"""
# Streamlit looks for its server under the page's own path first.
HARMLESS = ("_stcore/health", "_stcore/host-config")


def key(*parts: object) -> bytes:
    """Return 32 bytes that are always the same for the same parts."""
    return hashlib.sha256(repr(parts).encode()).digest()


def address(raw: bytes) -> str:
    """Return an address as people read it."""
    return str(Pubkey.from_bytes(raw))


@dataclass(frozen=True, kw_only=True)
class Life:
    """One session that is put in: what happened `at` (seconds after its start), in order."""

    number: int
    start: int
    duration: int
    parent: bytes
    happened: tuple[tuple[int, str, dict[str, Any]], ...] = field(repr=False)

    @property
    def vault(self) -> bytes:
        """The vault's address."""
        return key("vault", self.number)

    @property
    def id(self) -> str:
        """What a link calls it."""
        return f"{address(self.vault)}.{self.start}"

    @property
    def cleaned(self) -> bool:
        """Whether it came to its end."""
        return self.happened[-1][1] == "VaultCleaned"

    def total(self, name: str, value: str) -> int:
        """Sum a value over the session's events of a name."""
        return sum(int(values[value]) for _, event, values in self.happened if event == name)

    def signature(self, at: int) -> str:
        """Return the signature of the n-th thing that happened."""
        return str(Signature.from_bytes(self.raw_signature(at)))

    def raw_signature(self, at: int) -> bytes:
        """Return the same as bytes."""
        return key("signature", self.number, at, 0) + key("signature", self.number, at, 1)


def life(number: int, *, start: int, duration: int, trades: int, ends: str) -> Life:
    """Make a session. `ends`: "open" (whatever its age), "revoked" or "cleaned"."""
    vault, parent, wallet = key("vault", number), key("parent", number % 5), key("wallet", number)
    happened: list[tuple[int, str, dict[str, Any]]] = [
        (
            0,
            "VaultCreated",
            {
                "parent": parent,
                "vault": vault,
                "ephemeral_wallet": wallet,
                "max_deposit": 5 * SOL,
                "session_start": start,
                "session_expiry": start + duration,
            },
        ),
        (5, "DelegateApproved", {"vault": vault, "delegate": wallet, "approved_at": start + 5}),
    ]
    deposited = spent = 0
    for trade in range(trades):
        amount, fee = SOL // 2 + number, SOL // 50 + trade
        deposited, spent = deposited + amount, spent + fee
        at = 10 + (duration - 20) * trade // max(trades, 1)
        happened += [
            (at, "AutoDeposit", {"vault": vault, "amount": amount, "total_deposited": deposited}),
            (at + 2, "TradeExecuted", {"vault": vault, "delegate": wallet, "fee_paid": fee, "total_spent": spent}),
        ]
    if ends == "revoked":
        at = duration - 5
        happened.append((at, "AccessRevoked", {"vault": vault, "parent": parent, "revoked_at": start + at}))
    if ends == "cleaned":
        cleaned = {"vault": vault, "parent": parent, "cleaner": key("keeper"), "reward": 10_000 if trades else 0}
        happened.append((duration + 30, "VaultCleaned", cleaned))
    return Life(number=number, start=start, duration=duration, parent=parent, happened=tuple(happened))


def lives(now: int) -> list[Life]:
    """Return 60 sessions of ten days: mostly cleaned, some revoked, three awaiting cleanup, two still going on."""
    made = [
        life(
            n,
            start=now - 10 * 86_400 + n * 14_000,
            duration=3_600,
            trades=n % 4,
            ends="cleaned" if n % 9 else "revoked",
        )
        for n in range(1, 56)
    ]
    made += [life(n, start=now - 7_200 - n, duration=3_600, trades=2, ends="open") for n in range(56, 59)]
    return made + [life(n, start=now - 600 - n, duration=86_400, trades=1, ends="open") for n in range(59, 61)]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A filled store and where it lies."""

    dsn: str
    lake: Path
    lives: list[Life]
    now: int
    tip_slot: int


def slot_at(now: int, when: int) -> int:
    """Return the slot of a time, counted back from now."""
    return 400_000_000 - round((now - when) / SLOT_S)


def fill(dsn: str, told: list[Life], now: int, *, beaten_s_ago: int = 0) -> None:
    """Write sessions through the store; in a thread of its own, as Playwright keeps a loop in this one."""
    with ThreadPoolExecutor(1) as aside:
        aside.submit(lambda: asyncio.run(write(dsn, told, now, beaten_s_ago=beaten_s_ago))).result()


async def write(dsn: str, told: list[Life], now: int, *, beaten_s_ago: int) -> None:
    """Write sessions through the store: transactions, events, the accounts that are still open, and a heartbeat."""
    program = Program.from_idl(load_idl(IDL.read_bytes(), source=str(IDL)))
    connection = await connect(dsn)
    try:
        tables = await ensure_tables(connection, program)
        transactions, events = [], []
        for one in told:
            for number, (at, name, values) in enumerate(one.happened):
                when = min(one.start + at, now)
                signature, slot = one.raw_signature(number), slot_at(now, when)
                transactions.append(
                    TransactionRow(signature, slot, when, None, 5_000, 30_000, "finalized", True, (program.program_id,))
                )
                events.append(Event(program.program_id, name, signature, "log", 0, slot, when, values))
        frontier = {program.program_id: slot_at(now, now)}
        await write_batch(
            connection,
            Batch(transactions=transactions, events=events, frontiers=frontier),
            {program.program_id: tables},
        )
        await write_accounts(connection, tables, [account(one, now) for one in told])
        await beat(connection, "indexer", tip_slot=slot_at(now, now), tip_time=now)
        if beaten_s_ago:
            async with connection.transaction():
                await connection.execute(
                    "update capstan.heartbeats set beat_at = beat_at - make_interval(secs => %s)", (beaten_s_ago,)
                )
    finally:
        await connection.close()


def account(one: Life, now: int) -> AccountRow | Closed:
    """Return the vault's account as it is now: closed where the session was cleaned up."""
    at, _, created = one.happened[-1][0], None, one.happened[0][2]
    slot = slot_at(now, min(one.start + at, now))
    if one.cleaned:
        return Closed(one.vault, slot)
    values = {
        "parent_wallet": one.parent,
        "ephemeral_wallet": created["ephemeral_wallet"],
        "session_start": one.start,
        "session_expiry": one.start + one.duration,
        "is_active": one.happened[-1][1] != "AccessRevoked",
        "total_deposited": one.total("AutoDeposit", "amount"),
        "total_spent": one.total("TradeExecuted", "fee_paid"),
        "max_deposit": created["max_deposit"],
        "bump": 255,
    }
    return AccountRow(one.vault, slot, SOL, "EphemeralVault", values)


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    """Give a store with 60 sessions: those of the first days also in the lake, the rest only in Postgres."""
    now = int(time.time())
    told = lives(now)
    lake = tmp_path / "lake"
    fill(database.dsn, told, now)
    with Lake.open(database.dsn, lake) as opened:
        opened.export(slot_at(now, now - 4 * 86_400))
    return Stage(dsn=database.dsn, lake=lake, lives=told, now=now, tip_slot=slot_at(now, now))


@contextlib.contextmanager
def serving(dsn: str, lake: Path, folder: Path) -> Iterator[str]:
    """Run `capstan dashboard` from a strange folder and give its url; it is gone afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dashboard", "--port", str(port), "--database-url", dsn, "--lake", str(lake)]
    log = folder / "dashboard.log"
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S_MAX
        while not healthy(url):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the dashboard did not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def healthy(url: str) -> bool:
    """Whether the server says ok."""
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
            return bool(answer.read() == b"ok")
    except OSError:
        return False


@pytest.fixture
def served(stage: Stage, tmp_path: Path) -> Iterator[str]:
    """Give the url of a dashboard over the filled store."""
    with serving(stage.dsn, stage.lake, tmp_path / "away") as url:
        yield url


@pytest.fixture
def browser(chromium: Path) -> Iterator[Browser]:
    """
    Give the machine's Chromium, started for one test.

    Playwright's sync API keeps an event loop running in this thread for as long as it is open: any test with a loop of
    its own that came in between would fail.
    """
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Visit:
    """One reader's page, and what went wrong on it: console errors and requests to any other server."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def settle(self) -> Page:
        """Wait until the page has stopped changing; a crashed page also stops, and fails here."""
        self.page.wait_for_function(SETTLED, timeout=SETTLED_MS_MAX)
        self.page.evaluate("document.fonts.ready")
        crashed = self.page.get_by_test_id("stException")
        assert crashed.count() == 0, crashed.first.inner_text()
        styled = "getComputedStyle(document.querySelector('.stApp')).getPropertyValue('--teal') !== ''"
        assert self.page.evaluate(styled), "the page stands there without its frame"
        return self.page

    def go(self, path: str = "") -> Page:
        """Open a page of the dashboard."""
        self.page.goto(f"{self.url}/{path}")
        return self.settle()

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window, once its charts have found their width."""
        wider = """() => {
          const main = document.querySelector('[data-testid=stMain]');
          const root = document.documentElement;
          return Math.max(root.scrollWidth - innerWidth, main.scrollWidth - main.clientWidth);
        }"""
        with contextlib.suppress(PageTimeoutError):
            self.page.wait_for_function(f"() => ({wider})() <= 0", timeout=WIDTH_MS_MAX)
        return int(self.page.evaluate(wider))

    def clean(self) -> None:
        """Assert that nothing went wrong and nobody else was asked for anything."""
        assert self.errors == []
        assert self.outside == []

    def watch_console(self, message: ConsoleMessage) -> None:
        """Note an error."""
        said = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(part in said for part in HARMLESS):
            self.errors.append(said)

    def watch_route(self, route: Route) -> None:
        """Let requests to the dashboard pass and note all others."""
        if re.match(rf"^({re.escape(self.url)}/|data:|blob:)", route.request.url):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Give a function that opens a reader's window on a dashboard."""
    contexts = []

    def open_window(url: str, *, scheme: str = "light", width: int = 1440, height: int = 1000) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        contexts.append(context)
        opened = Visit(page=context.new_page(), url=url)
        context.route("**/*", opened.watch_route)
        opened.page.on("console", opened.watch_console)
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        return opened

    yield open_window
    for context in contexts:
        context.close()
