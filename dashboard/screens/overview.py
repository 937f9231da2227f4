"""Overview: is everything well, and how much of it is there? Sessions, money, cleanups, and how fresh the data is."""

import datetime as dt
from collections.abc import Sequence
from html import escape

import streamlit as st

from dashboard import charts, look, source
from dashboard.amounts import duration_text, short_address, sol_text

WINDOWS = {"7 days": 7, "30 days": 30, "All": None}
SPARK_DAYS_MAX = 30
RECENT = 7


@st.fragment(run_every=3)
def numbers() -> None:
    """Show the heading and the top row; renewed every few seconds."""
    with look.explained():
        fresh = source.freshness()
        look.html(look.head("Overview", "Session vaults for gasless trading", freshness_pill(fresh)))
        if fresh.stale:
            st.warning(stale_sentence(fresh), icon=":material/warning:")
        if fresh.newest_slot is None:
            look.html(look.nothing_indexed())
            return
        if not source.has_sessions():
            look.html(look.no_sessions())
            return
        totals, daily = source.totals(), source.daily()
        look.html(look.kpi_row(kpis(totals, daily.last(SPARK_DAYS_MAX), fresh)))


def freshness_pill(fresh: source.Freshness) -> str:
    """Return the sign that says whether the numbers are live."""
    if fresh.newest_slot is None:
        return look.pill(live=False, label="No data yet", note="")
    return look.pill(live=not fresh.stale, label="Stale" if fresh.stale else "Live", note=f"slot {fresh.newest_slot:,}")


def stale_sentence(fresh: source.Freshness) -> str:
    """Say since when nothing came, and where to look."""
    if fresh.beat_age_s is None:
        return "The indexer has not reported yet: numbers appear once `capstan index` runs against this database."
    behind = f" and stands {duration_text(fresh.lag_s)} behind the chain" if fresh.lag_s is not None else ""
    return (
        f"These numbers are old: the indexer last reported {duration_text(fresh.beat_age_s)} ago{behind}. "
        "Look whether `capstan index` runs and reaches its node."
    )


def kpis(totals: source.Totals, daily: source.Daily, fresh: source.Freshness) -> list[look.Kpi]:
    """Return the five numbers of the top row."""
    beat = "no heartbeat yet" if fresh.beat_age_s is None else f"heartbeat {duration_text(fresh.beat_age_s)} ago"
    return [
        look.Kpi(label="Sessions", value=f"{totals.sessions:,}", foot=look.share_bar(totals.states)),
        look.Kpi(
            label="Deposited, SOL",
            value=look.sol(totals.deposited),
            note=latest(daily.days, daily.deposited),
            foot=look.sparkline(daily.deposited, "deposit"),
        ),
        look.Kpi(
            label="Fees paid, SOL",
            value=look.sol(totals.fees),
            note=latest(daily.days, daily.fees),
            foot=look.sparkline(daily.fees, "fee"),
        ),
        look.Kpi(
            label="Cleanups",
            value=f"{totals.cleanups:,}",
            note=f"{sol_text(totals.rewards)} SOL in rewards",
            foot=look.sparkline(daily.cleanups, "cleanup"),
        ),
        look.Kpi(
            label="Behind the chain",
            value="–" if fresh.lag_s is None else duration_text(fresh.lag_s),
            note=beat,
            stale=fresh.stale,
        ),
    ]


def latest(days: Sequence[dt.date], lamports: Sequence[int]) -> str:
    """Say what came on the newest day there is; the chain's clock need not be this machine's."""
    return f"{days[-1]:%-d %b}: {sol_text(lamports[-1])}" if days else ""


@st.fragment(run_every=15)
def pictures() -> None:
    """Show the charts; renewed now and then."""
    with look.explained(again=False):
        if source.freshness().newest_slot is None or not source.has_sessions():
            return
        totals, whole = source.totals(), source.daily()
        chosen = st.segmented_control(
            "Window", list(WINDOWS), default="30 days", required=True, key="window", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        daily, tone = whole.last(WINDOWS.get(chosen or "", 30)), look.palette()
        wide, narrow = st.columns([2, 1])
        with wide:
            money_card("Deposits per day", "deposits", daily.days, daily.deposited, tone.deposit)
        with narrow, look.card("Sessions by state", "states"):
            look.chart(
                charts.states_chart(totals.states, palette=tone),
                key="states",
                alt="Bars: how many sessions are in each state",
            )
        left, right = st.columns(2)
        with left:
            money_card("Fees per day", "fees", daily.days, daily.fees, tone.fee)
        with right, look.card("Cleanups per day", "cleanups"):
            series = [
                ("with reward", tone.cleanup, daily.rewarded),
                ("without reward", tone.muted, daily.unrewarded),
            ]
            look.chart(
                charts.daily_counts(daily.days, series, palette=tone),
                key="cleanups",
                alt="Bars: cleanups per day, with and without reward",
            )


def money_card(title: str, key: str, days: Sequence[dt.date], lamports: Sequence[int], colour: str) -> None:
    """Show an amount per day, with its sum."""
    with look.card(title, key):
        figure = charts.daily_amounts(days, lamports, name=title, colour=colour, palette=look.palette())
        look.chart(figure, key=key, alt=f"Bars: {title.lower()}, in SOL")


@st.fragment(run_every=5)
def lists() -> None:
    """Show what was cleaned up last, and how far each part of the machinery is."""
    with look.explained(again=False):
        fresh = source.freshness()
        if fresh.newest_slot is None or not source.has_sessions():
            return
        cleanups = source.recent_cleanups(RECENT)
        left, right = st.columns([2, 1])
        with left, look.card("Recent cleanups", "recent"):
            look.html(
                cleanup_table(cleanups) if cleanups else look.empty("No cleanups yet", "Nothing has expired so far.")
            )
        with right, look.card("Freshness", "freshness"):
            look.html(look.facts(freshness_facts(fresh), columns=1))


def cleanup_table(cleanups: Sequence[source.Cleanup]) -> str:
    """Return the newest cleanups, each linking to its session and to its transaction."""
    columns = [
        look.Column(title="When (UTC)", quiet=True),
        look.Column(title="Session"),
        look.Column(title="Cleaner", wide=True),
        look.Column(title="Reward, SOL", right=True),
        look.Column(title="Transaction"),
    ]
    return look.table(columns, [cleanup_row(cleanup) for cleanup in cleanups], caption="Recent cleanups")


def cleanup_row(cleanup: source.Cleanup) -> list[str]:
    """Return one cleanup's cells."""
    session = look.mono(short_address(cleanup.vault), title=cleanup.vault)
    if cleanup.session_id is not None:
        session = look.link(f"sessions?session={cleanup.session_id}", session, outside=False)
    explorer = source.settings().explorer_link(cleanup.signature)
    return [
        look.clock(cleanup.when),
        session,
        look.mono(short_address(cleanup.cleaner), title=cleanup.cleaner),
        sol_text(cleanup.reward),
        look.link(explorer, look.mono(short_address(cleanup.signature), title=cleanup.signature), outside=True),
    ]


def freshness_facts(fresh: source.Freshness) -> list[tuple[str, str]]:
    """Return how far each part is, as names and values."""

    def slot(number: int | None) -> str:
        return "–" if number is None else f"{number:,}"

    def ago(seconds: float | None) -> str:
        return "never" if seconds is None else f"{duration_text(seconds)} ago"

    def engine(lease_left_s: float | None) -> str:
        if lease_left_s is None:
            return "never started"
        return "acting" if lease_left_s > 0 else f"not acting since {duration_text(-lease_left_s)}"

    pairs = [
        ("Newest slot indexed", slot(fresh.newest_slot)),
        ("Newest slot of the chain", slot(fresh.tip_slot)),
        ("Proven complete up to slot", slot(fresh.frontier_slot)),
        ("Indexer heartbeat", ago(fresh.beat_age_s)),
        ("Engine", engine(fresh.engine_lease_left_s)),
    ]
    return [*pairs, ("Last error", escape(fresh.last_error))] if fresh.last_error else pairs


numbers()
pictures()
lists()
