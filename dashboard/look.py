"""
The house look: the frame of a page, and the few pieces of HTML Streamlit has no element for.

Every piece is a function from values to HTML text in which every value is escaped. Colours and sizes stand in
`static/capstan.css`; the Streamlit theme in `.streamlit/config.toml`.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.amounts import split_sol, utc_text
from dashboard.charts import DARK, LIGHT, PLOTLY_CONFIG, STATE_LABELS, STATES, Palette
from indexer.errors import CapstanError

MARKDOWN = re.compile(r"([\\`*_\[\]$:<>#~])")
STATIC = Path(__file__).with_name("static")


@cache
def stylesheet() -> str:
    """Return the stylesheet as an element for `st.html`."""
    return f"<style>{(STATIC / 'capstan.css').read_text('utf-8')}</style>"


def palette() -> Palette:
    """Return the chart colours for the theme this reader looks at."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def html(body: str) -> None:
    """Show a piece made in this module."""
    st.html(f'<div class="cap">{body}</div>')


def chart(figure: go.Figure, *, key: str, alt: str) -> None:
    """Show a figure. The key keeps it in place when its part of the page is renewed; `alt` is read out."""
    st.plotly_chart(figure, key=f"chart_{key}", config=PLOTLY_CONFIG, alt=alt)


def card(title: str, key: str) -> DeltaGenerator:
    """Return a framed part of the page with its heading."""
    frame = st.container(border=True, key=f"card_{key}", height="stretch")
    frame.subheader(title, anchor=False)
    return frame


def head(title: str, subtitle: str, aside: str = "") -> str:
    """Return a page's heading; `aside` is HTML made by this module and stands at its right."""
    return f'<header class="cap-head"><div><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></div>{aside}</header>'


def empty(title: str, text: str) -> str:
    """Return what stands where there is nothing to show yet."""
    return f'<div class="cap-empty"><b>{escape(title)}</b><p>{escape(text)}</p></div>'


def nothing_indexed() -> str:
    """Return what stands on a page before there is anything to show."""
    return empty(
        "Nothing indexed yet", "Numbers and sessions appear here as soon as the indexer has stored the first ones."
    )


def no_sessions() -> str:
    """Return what stands on the pages about sessions where other programs are indexed."""
    return empty(
        "Session vaults are not indexed here",
        "This page is about the program ephemeral_vault. The page Programs shows what is indexed.",
    )


@contextmanager
def explained(*, again: bool = True) -> Iterator[None]:
    """
    Show one of our errors as its sentence instead of what the block would have shown.

    Args:
        again: False in every part of a page but its first, so that the sentence stands there once.
    """
    try:
        yield
    except CapstanError as error:
        if not again:
            return
        html(head("Capstan", "The data cannot be read just now"))
        st.error(sentence(error), icon=":material/cloud_off:")


def sentence(error: CapstanError) -> str:
    """Return an error as one sentence, none of its characters read as Markdown."""
    text = " ".join(str(error).split())
    if text.startswith("not indexed yet"):
        return "Nothing has been indexed in this database yet: start `capstan index`."
    return MARKDOWN.sub(r"\\\1", text[:1].upper() + text[1:])


def pill(*, live: bool, label: str, note: str) -> str:
    """Return the sign beside the heading that says whether the numbers are fresh."""
    dot = "live" if live else "stale"
    inside = f'<i class="cap-dot {dot}"></i>{escape(label)}<small>{escape(note)}</small>'
    return f'<span class="cap-pill" role="status">{inside}</span>'


def badge(state: str) -> str:
    """Return a session's state as a small label."""
    known = state if state in STATES else "cleaned"
    return f'<span class="cap-badge"><i class="bg-{known}"></i>{escape(STATE_LABELS.get(state, state))}</span>'


def link(url: str, body: str, *, outside: bool) -> str:
    """
    Return a link around `body`, HTML made by this module.

    One that leads outside opens in its own tab and is told nothing about this page.
    """
    target = ' target="_blank" rel="noopener noreferrer"' if outside else ""
    return f'<a href="{escape(url)}"{target}>{body}</a>'


def mono(text: str, *, title: str = "") -> str:
    """Return an address or signature; the whole of it as the tooltip where it is shortened."""
    return f'<code title="{escape(title or text)}">{escape(text)}</code>'


def sol(lamports: int) -> str:
    """Return an amount in SOL, exact, the decimals smaller than the whole."""
    whole, decimals = split_sol(lamports)
    return f"{whole}<small>.{decimals}</small>" if decimals else whole


def clock(when: dt.datetime | None) -> str:
    """Return a time, of which a phone leaves out the year."""
    text = escape(utc_text(when))
    return text if when is None else f'<span class="wide">{text[:5]}</span>{text[5:]}'


@dataclass(frozen=True, kw_only=True)
class Kpi:
    """One number of the top row. `value` and `foot` are HTML made by this module; the rest is text."""

    label: str
    value: str
    note: str = ""
    foot: str = ""
    stale: bool = False


def kpi_row(kpis: Iterable[Kpi]) -> str:
    """Return the top row of numbers."""
    cells = "".join(
        f'<div class="cap-kpi{" stale" if kpi.stale else ""}"><dt>{escape(kpi.label)}</dt>'
        f'<dd class="value">{kpi.value}</dd>'
        + (f'<dd class="note">{escape(kpi.note)}</dd>' if kpi.note else "")
        + f"{kpi.foot}</div>"
        for kpi in kpis
    )
    return f'<dl class="cap-kpis">{cells}</dl>'


def share_bar(counts: dict[str, int]) -> str:
    """Return a thin bar of how many sessions are in each state, with its legend."""
    present = [(state, counts.get(state, 0)) for state in STATES]
    bar = "".join(f'<i class="bg-{state}" style="flex:{count}"></i>' for state, count in present if count)
    legend = "".join(
        f'<span><i class="bg-{state}"></i>{count:,} {escape(STATE_LABELS[state].lower())}</span>'
        for state, count in present
    )
    return f'<dd class="cap-share" aria-hidden="true">{bar}</dd><dd class="cap-legend">{legend}</dd>'


def sparkline(values: Sequence[int], meaning: str) -> str:
    """Return the shape of a series as thin bars without any number; `meaning` is the CSS class of its colour."""
    top = max(values, default=0)
    if len(values) < 2 or top <= 0:
        return ""
    bars = "".join(f'<i style="height:{max(100 * value // top, 2)}%"></i>' for value in values)
    return f'<dd class="cap-spark {meaning}" aria-hidden="true">{bars}</dd>'


@dataclass(frozen=True, kw_only=True)
class Column:
    """A table's column: its heading, and how its cells stand. `wide` columns are left out on a phone."""

    title: str
    right: bool = False
    quiet: bool = False
    wide: bool = False

    @property
    def classes(self) -> str:
        """Return the CSS classes of the column's cells."""
        return " ".join(name for name in ("right", "quiet", "wide") if getattr(self, name))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """Return a table. Cells are HTML made by this module or escaped by the caller; `caption` is for screen readers."""
    top = "".join(f'<th scope="col" class="{column.classes}">{escape(column.title)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td class="{c.classes}">{cell}</td>' for c, cell in zip(columns, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="cap-table"><table aria-label="{escape(caption)}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One station of a session's life. `mark` is "done", "warn" or "" for what has not happened."""

    title: str
    note: str
    mark: str = ""


def steps(stations: Iterable[Step]) -> str:
    """Return the stations of a life, from left to right; from top to bottom on a phone."""
    items = "".join(
        f'<li class="{escape(step.mark)}"><b>{escape(step.title)}</b><span>{escape(step.note)}</span></li>'
        for step in stations
    )
    return f'<ol class="cap-steps">{items}</ol>'


def facts(pairs: Iterable[tuple[str, str]], *, columns: int = 4) -> str:
    """Return names and values; the values are HTML made by this module or escaped by the caller."""
    return (
        f'<dl class="cap-facts c{columns}">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
        + "</dl>"
    )
