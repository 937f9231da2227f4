"""Sessions: which ones are there, and what happened in one of them from creation to cleanup?"""

from html import escape

import polars as pl
import streamlit as st

from dashboard import charts, look, source, story
from dashboard.amounts import duration_text, short_address, sol_text, utc_text
from dashboard.charts import STATE_LABELS, STATES

PAGE_ROWS = 25
SEARCH_CHARS_MAX = 100
EVENT_ROWS_MAX = 500


def close_story() -> None:
    """Go back from a story to the list."""
    st.query_params.pop("session", None)


def list_page() -> None:
    """Show the filters and the table they leave."""
    look.html(look.head("Sessions", "Every session vault, newest first. Click a row for its story."))
    if source.freshness().newest_slot is None:
        look.html(look.nothing_indexed())
        return
    if not source.has_sessions():
        look.html(look.no_sessions())
        return
    state, text, parent = filters()
    total = source.count_sessions(state=state, text=text, parent=parent)
    if not total:
        look.html(look.empty("No session matches", "Change the search, the parent wallet or the state."))
        return
    pages = -(-total // PAGE_ROWS)
    bar = st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center")
    place = st.container(border=True, key="card_sessions")
    with bar:
        st.caption(f"{total:,} session{'' if total == 1 else 's'}")
        page = st.pagination(pages, key="page", max_visible_pages=5) if pages > 1 else 1
    rows = source.sessions(state=state, text=text, parent=parent, limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
    with place:
        chosen = session_table(rows)
    if chosen is not None:
        st.session_state["opened"] = st.session_state.get("opened", 0) + 1
        st.query_params["session"] = chosen.id
        st.rerun()


def filters() -> tuple[str | None, str, str]:
    """Show the filters and return (state, text, parent) as they stand. All of them are in the page's address."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        text = st.text_input(
            "Search", key="q", bind="query-params", type="search", max_chars=SEARCH_CHARS_MAX, width=330,
            placeholder="Beginning of a vault or parent address", icon=":material/search:",
        )  # fmt: skip
        parent = st.text_input(
            "Parent wallet", key="parent", bind="query-params", type="search", max_chars=SEARCH_CHARS_MAX, width=330,
            placeholder="Only sessions of this parent",
        )  # fmt: skip
        label = st.segmented_control(
            "State", [STATE_LABELS[state] for state in STATES], key="state", bind="query-params"
        )
    state = next((state for state in STATES if STATE_LABELS[state] == label), None)
    return state, (text or "").strip(), (parent or "").strip()


def session_table(rows: list[source.Session]) -> source.Session | None:
    """Show one page of sessions; return the one that was clicked."""
    frame = pl.DataFrame(
        {
            "State": [[STATE_LABELS.get(row.state, row.state)] for row in rows],
            "Vault": [short_address(row.vault) for row in rows],
            "Parent": [short_address(row.parent) for row in rows],
            "Started (UTC)": [utc_text(row.started_at) for row in rows],
            "Lasts": [duration_text(row.session_expiry - row.session_start) for row in rows],
            "Deposited, SOL": [sol_text(row.deposited) for row in rows],
            "Fees, SOL": [sol_text(row.spent) for row in rows],
            "Trades": [row.trades for row in rows],
        }
    )
    tone = look.palette()
    event = st.dataframe(
        frame,
        key=f"table_{st.session_state.get('opened', 0)}",
        hide_index=True,
        row_height=36,
        on_select="rerun",
        selection_mode="single-cell",
        height="content",
        alt="Sessions; click one for its story",
        column_config={
            "State": st.column_config.MultiselectColumn(
                options=[STATE_LABELS[state] for state in STATES],
                color=[tone.state(state) for state in STATES],
                width=140,
            ),
            "Deposited, SOL": st.column_config.TextColumn(alignment="right"),
            "Fees, SOL": st.column_config.TextColumn(alignment="right"),
            "Trades": st.column_config.NumberColumn(width="small"),
        },
    )
    cells = event["selection"]["cells"]
    return rows[cells[0][0]] if cells and cells[0][0] < len(rows) else None


def story_page(named: str) -> None:
    """Show one session from creation to cleanup."""
    st.button("All sessions", icon=":material/arrow_back:", on_click=close_story, type="tertiary", key="back")
    session_id = source.parse_session_id(named)
    session = None if session_id is None else source.session(*session_id)
    if session is None:
        look.html(look.head("Session", "The link names none that is indexed here"))
        look.html(look.empty("No such session", "It may not be indexed yet, or the link was cut short."))
        return
    events = source.story(session.vault, session.session_start)
    tone = look.palette()
    subtitle = f"Vault {session.vault}"
    look.html(look.head(f"Session {short_address(session.vault)}", subtitle, look.badge(session.state)))
    look.html(look.kpi_row(story_kpis(session, events)))
    with look.card("From creation to cleanup", "life"):
        look.html(look.steps(story.stations(session, events)))
    told = story.moments(events, tone)
    if told:
        with look.card("Deposits and fees, SOL", "story"):
            figure = charts.story_chart(
                told, start=session.started_at, expiry=session.expires_at, max_deposit=session.max_deposit, palette=tone
            )
            look.chart(figure, key="story", alt="Lines: deposited and spent so far, with every event of the session")
    with look.card("Events", "events"):
        look.html(event_table(events[:EVENT_ROWS_MAX]))
        if len(events) > EVENT_ROWS_MAX:
            st.caption(f"The first {EVENT_ROWS_MAX} of {len(events):,} events.")
    with look.card("Addresses and terms", "terms"):
        look.html(look.facts(terms(session), columns=2))


def story_kpis(session: source.Session, events: list[source.StoryEvent]) -> list[look.Kpi]:
    """Return the numbers at the top of a story."""
    length = session.session_expiry - session.session_start
    cleaned = next((event for event in events if event.name == "VaultCleaned"), None)
    return [
        look.Kpi(
            label="Deposited, SOL",
            value=look.sol(session.deposited),
            note=f"of at most {sol_text(session.max_deposit)}",
        ),
        look.Kpi(label="Fees paid, SOL", value=look.sol(session.spent), note=f"{session.trades:,} trades"),
        look.Kpi(label="Not spent, SOL", value=look.sol(session.deposited - session.spent), note="deposited less fees"),
        look.Kpi(label="Length", value=duration_text(length), note=f"until {utc_text(session.expires_at)}"),
        look.Kpi(
            label="Cleanup reward, SOL",
            value="–" if cleaned is None else look.sol(cleaned.amount or 0),
            note="not cleaned up yet" if cleaned is None else f"to {short_address(cleaned.actor or '')}",
        ),
    ]


def event_table(events: list[source.StoryEvent]) -> str:
    """Return a session's events, each linking to its transaction."""
    columns = [
        look.Column(title="When (UTC)", quiet=True),
        look.Column(title="Event"),
        look.Column(title="Amount, SOL", right=True),
        look.Column(title="Total after, SOL", right=True, wide=True),
        look.Column(title="Slot", right=True, quiet=True, wide=True),
        look.Column(title="Transaction"),
    ]
    explorer = source.settings().explorer_link
    rows = [
        [
            look.clock(event.when),
            escape(story.event_label(event.name)),
            "" if event.amount is None else sol_text(event.amount),
            "" if event.total is None else sol_text(event.total),
            f"{event.slot:,}",
            look.link(
                explorer(event.signature),
                look.mono(short_address(event.signature), title=event.signature),
                outside=True,
            ),
        ]
        for event in events
    ]
    return look.table(columns, rows, caption="Events of this session")


def terms(session: source.Session) -> list[tuple[str, str]]:
    """Return a session's addresses and what was agreed, as names and values."""
    same_parent = look.link(f"sessions?parent={session.parent}", "all of its sessions", outside=False)
    return [
        ("Vault", look.mono(session.vault)),
        ("Parent wallet", f"{look.mono(session.parent)} <small>{same_parent}</small>"),
        ("Ephemeral wallet", look.mono(session.ephemeral_wallet)),
        ("Largest deposit allowed, SOL", look.sol(session.max_deposit)),
        ("Session start", f"{utc_text(session.started_at)} UTC"),
        ("Session expiry", f"{utc_text(session.expires_at)} UTC"),
    ]


asked = st.query_params.get("session", "")
with look.explained():
    if asked:
        story_page(asked)
    else:
        list_page()
