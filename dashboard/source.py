"""
What the pages know: the store's named queries as small values, cached for all visitors together.

The one place that opens the reader, and the one place that knows column names. It ends where a page decides how
something looks. Tests put their own reader in place of `open_reader`.
"""

import atexit
import datetime as dt
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl
import streamlit as st

from dashboard.settings import DashboardSettings, from_environment
from indexer.errors import DataError, SettingsError
from indexer.store import browse
from indexer.store.database import DASHBOARD_ROLE, Database, open_database
from indexer.store.reader import Reader

LIVE_TTL_S = 2
CHART_TTL_S = 15
CACHED_MAX = 200
STALE_AFTER_S = 30
SLOT_S = 0.4
SESSION_PROGRAM = "ephemeral_vault"
SESSION_ID = re.compile(r"^([1-9A-HJ-NP-Za-km-z]{32,44})\.(-?\d{1,18})$")


class QueryReader(Protocol):
    """What the pages need of `indexer.store.reader.Reader`."""

    def query(self, name: str, **params: Any) -> pl.DataFrame:
        """Run one named query of sql/queries/dashboard.sql."""
        ...

    def select(self, text: str) -> pl.DataFrame:
        """Run one SELECT of indexer/store/browse.py."""
        ...


@dataclass(frozen=True, kw_only=True)
class Totals:
    """All sessions together. Amounts in lamports; `states` counts sessions by state."""

    states: dict[str, int]
    deposited: int
    fees: int
    cleanups: int
    rewards: int

    @property
    def sessions(self) -> int:
        """How many sessions there ever were."""
        return sum(self.states.values())


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """
    How new the numbers are. None where nothing was reported yet.

    Attributes:
        newest_slot: of the newest transaction stored.
        tip_slot: the chain's newest, as the indexer saw it.
        frontier_slot: everything up to here is proven to be stored.
        behind_s: the cluster's clock at `tip_slot` less the newest transaction's time.
        beat_age_s: since the indexer last reported.
        engine_lease_left_s: until the engine's lease ends; negative since it has ended, as no engine is acting then.
    """

    newest_slot: int | None
    tip_slot: int | None
    frontier_slot: int | None
    behind_s: float | None
    beat_age_s: float | None
    engine_lease_left_s: float | None
    last_error: str | None

    @property
    def lag_s(self) -> float | None:
        """
        How far the numbers are behind the cluster's clock.

        A program nobody uses has no new transactions, and is not behind for it: what is proven counts as well. While
        the indexer is silent, the distance grows with the silence.
        """
        lags = [] if self.behind_s is None else [self.behind_s]
        if self.tip_slot is not None and self.frontier_slot is not None:
            lags.append(max(self.tip_slot - self.frontier_slot, 0) * SLOT_S)
        lag_s = min(lags, default=None)
        if lag_s is None or self.beat_age_s is None or self.beat_age_s <= STALE_AFTER_S:
            return lag_s
        return lag_s + self.beat_age_s

    @property
    def stale(self) -> bool:
        """Whether a reader should be warned: no report for a while, or far behind the chain."""
        if self.beat_age_s is None:
            return True
        return self.beat_age_s > STALE_AFTER_S or (self.lag_s or 0) > STALE_AFTER_S


@dataclass(frozen=True, kw_only=True)
class Daily:
    """One number a day for each series, without gaps; `days` is UTC. Amounts in lamports."""

    days: tuple[dt.date, ...] = ()
    deposited: tuple[int, ...] = ()
    fees: tuple[int, ...] = ()
    rewarded: tuple[int, ...] = ()
    unrewarded: tuple[int, ...] = ()

    @property
    def cleanups(self) -> tuple[int, ...]:
        """Cleanups a day, with reward or without."""
        return tuple(a + b for a, b in zip(self.rewarded, self.unrewarded, strict=True))

    def last(self, days: int | None) -> "Daily":
        """Return the newest `days` days; all of them where that is None."""
        if days is None:
            return self
        tail = slice(-days, None)
        return Daily(
            days=self.days[tail],
            deposited=self.deposited[tail],
            fees=self.fees[tail],
            rewarded=self.rewarded[tail],
            unrewarded=self.unrewarded[tail],
        )


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session: one life of a vault. Addresses in base58, amounts in lamports, times aware UTC."""

    vault: str
    session_start: int
    session_expiry: int
    parent: str
    ephemeral_wallet: str
    state: str
    max_deposit: int
    deposited: int
    spent: int
    trades: int

    @property
    def id(self) -> str:
        """What names this session in a link: a vault address can live again, so it needs its start too."""
        return f"{self.vault}.{self.session_start}"

    @property
    def started_at(self) -> dt.datetime:
        """Return the session's start."""
        return unix_time(self.session_start)

    @property
    def expires_at(self) -> dt.datetime:
        """Return the session's expiry."""
        return unix_time(self.session_expiry)


@dataclass(frozen=True, kw_only=True)
class Cleanup:
    """One session that was cleaned up. `reward` in lamports."""

    vault: str
    session_start: int | None
    cleaner: str
    reward: int
    signature: str
    slot: int
    when: dt.datetime | None

    @property
    def session_id(self) -> str | None:
        """What names the cleaned session in a link, where its creation is known."""
        return None if self.session_start is None else f"{self.vault}.{self.session_start}"


@dataclass(frozen=True, kw_only=True)
class StoryEvent:
    """One event of a session. Only the values its kind carries are set; amounts in lamports."""

    name: str
    signature: str
    slot: int
    when: dt.datetime | None
    amount: int | None
    total: int | None
    actor: str | None


def unix_time(seconds: int) -> dt.datetime:
    """Return unix seconds as a UTC time; what no calendar has (a hostile i64) becomes the nearest day it has."""
    latest = int(dt.datetime(9998, 1, 1, tzinfo=dt.UTC).timestamp())
    return dt.datetime.fromtimestamp(min(max(seconds, 0), latest), dt.UTC)


def parse_session_id(text: str) -> tuple[str, int] | None:
    """Return (vault, session_start) of a link's `session`, None where it names none: anybody can write a link."""
    found = SESSION_ID.match(text)
    return (found[1], int(found[2])) if found else None


# --- the reader ------------------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def settings() -> DashboardSettings:
    """Return this process's settings, read once."""
    return from_environment()


@st.cache_resource(show_spinner=False)
def database() -> Database:
    """
    Return the database, joined for as long as this process lives.

    Raises:
        SettingsError: there is none, or it does not let us in.
    """
    chosen = settings()
    if chosen.database_url is None and not (chosen.data_dir / "postgres").is_dir():
        raise SettingsError(
            f"Nothing has been indexed in {chosen.data_dir} yet: start `capstan index` with that folder."
        )
    stay = ExitStack()
    joined = stay.enter_context(open_database(chosen.database_url, data_dir=chosen.data_dir))
    atexit.register(stay.close)
    return joined


def open_reader() -> QueryReader:
    """Return a new reader of the store, with the rights of the dashboard's role."""
    return Reader.open(database().for_role(DASHBOARD_ROLE), settings().lake)


@st.cache_resource(show_spinner=False)
def reader() -> QueryReader:
    """Return the reader all visitors share."""
    return open_reader()


def run(name: str, **params: object) -> list[dict[str, Any]]:
    """
    Run a named query and return its rows.

    Raises:
        CapstanError: the database does not answer, or a parameter is not what the query wants.
    """
    return reader().query(name, **params).to_dicts()


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False)
def totals() -> Totals:
    """Return the numbers over all sessions."""
    row = run("overview_counts")[0]
    return Totals(
        states={state: int(row[state]) for state in ("active", "expired", "revoked", "cleaned")},
        deposited=int(row["deposited"]),
        fees=int(row["fees"]),
        cleanups=int(row["cleanups"]),
        rewards=int(row["rewards"]),
    )


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False)
def freshness() -> Freshness:
    """Return how new everything is."""
    row = run("freshness")[0]
    return Freshness(**{name: row[name] for name in Freshness.__dataclass_fields__})


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False)
def daily() -> Daily:
    """Return every day from the first to the last with anything on it."""
    deposited = {row["day"]: int(row["lamports"]) for row in run("deposits_per_day")}
    fees = {row["day"]: int(row["lamports"]) for row in run("fees_per_day")}
    cleanups = {row["day"]: (int(row["rewarded"]), int(row["unrewarded"])) for row in run("cleanups_per_day")}
    seen = [*deposited, *fees, *cleanups]
    if not seen:
        return Daily()
    first = min(seen)
    days = tuple(first + dt.timedelta(days=at) for at in range((max(seen) - first).days + 1))
    return Daily(
        days=days,
        deposited=tuple(deposited.get(day, 0) for day in days),
        fees=tuple(fees.get(day, 0) for day in days),
        rewarded=tuple(cleanups.get(day, (0, 0))[0] for day in days),
        unrewarded=tuple(cleanups.get(day, (0, 0))[1] for day in days),
    )


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False)
def recent_cleanups(limit: int) -> list[Cleanup]:
    """Return the newest `limit` cleanups, newest first."""
    return [Cleanup(**row) for row in run("recent_cleanups", limit=limit)]


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False, max_entries=CACHED_MAX)
def sessions(*, state: str | None, text: str, parent: str, limit: int, offset: int) -> list[Session]:
    """Return one page of sessions, newest first. `text` and `parent` begin addresses; "" filters nothing."""
    rows = run("sessions", state=state, text=text, parent=parent, limit=limit, offset=offset)
    return [Session(**row) for row in rows]


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False, max_entries=CACHED_MAX)
def count_sessions(*, state: str | None, text: str, parent: str) -> int:
    """Return how many sessions `sessions` would page through."""
    return int(run("count_sessions", state=state, text=text, parent=parent)[0]["n"])


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False, max_entries=CACHED_MAX)
def session(vault: str, session_start: int) -> Session | None:
    """Return one session, None where there is none, or where `vault` only looks like an address."""
    try:
        rows = run("session", vault=vault, session_start=session_start)
    except DataError:
        return None
    return Session(**rows[0]) if rows else None


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False, max_entries=CACHED_MAX)
def story(vault: str, session_start: int) -> list[StoryEvent]:
    """Return everything that happened in one session, in its order."""
    return [StoryEvent(**row) for row in run("session_story", vault=vault, session_start=session_start)]


# --- any program -----------------------------------------------------------------------------------------------------


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False)
def programs() -> list[browse.ProgramRow]:
    """Return the indexed programs."""
    return browse.select_programs(reader())


def has_sessions() -> bool:
    """Return whether the session vaults are indexed here, which Overview and Sessions are about."""
    return any(program.name == SESSION_PROGRAM for program in programs())


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False)
def tables(schema_name: str) -> list[browse.Table]:
    """Return one program's typed tables."""
    return browse.select_tables(reader(), schema_name)


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False)
def row_counts(schema_name: str) -> dict[str, int]:
    """Return how many rows each type of a program has; of accounts the open ones."""
    return browse.count_rows(reader(), tables(schema_name))


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False)
def problem_counts(schema_name: str) -> dict[str, int]:
    """Return how much of a program could not be read, by kind."""
    return browse.count_problems(reader(), schema_name)


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False)
def events_per_day(schema_name: str) -> dict[str, dict[dt.date, int]]:
    """Return event name -> day -> how many."""
    found: dict[str, dict[dt.date, int]] = {}
    events = [table for table in tables(schema_name) if table.kind == "event"]
    for name, day, count in browse.count_per_day(reader(), events).iter_rows():
        found.setdefault(name, {})[day] = count
    return found


@st.cache_data(ttl=CHART_TTL_S, show_spinner=False, max_entries=CACHED_MAX)
def total_per_day(table: browse.Table, column: str) -> list[tuple[dt.date, int | float, int]]:
    """Return (day, sum of the column, how many events)."""
    rows = browse.sum_per_day(reader(), table, column).iter_rows()
    return [(day, total if isinstance(total, float) else int(total or 0), count) for day, total, count in rows]


@st.cache_data(ttl=LIVE_TTL_S, show_spinner=False, max_entries=CACHED_MAX)
def newest_rows(table: browse.Table, limit: int, offset: int) -> pl.DataFrame:
    """Return one page of a table's rows, newest first."""
    return browse.select_newest(reader(), table, limit=limit, offset=offset)
