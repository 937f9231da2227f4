"""
Values in, Plotly figures out.

Amounts are drawn from integer lamports; every number a person reads on a chart is text from `amounts`. The colours come
in as a `Palette`, because only the page knows whether the reader looks at it in light or dark.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboard.amounts import sol_text, sol_ticks, utc_text

STATES = ("active", "expired", "revoked", "cleaned")
STATE_LABELS = {
    "active": "Active",
    "expired": "Awaiting cleanup",
    "revoked": "Revoked",
    "cleaned": "Cleaned",
}
# A session lasts minutes or weeks: the clock where days do not matter, days where the clock does not.
TIME_TICKS = [
    {"dtickrange": [None, 60_000], "value": "%H:%M:%S"},
    {"dtickrange": [60_000, 43_200_000], "value": "%H:%M\n%-d %b"},
    {"dtickrange": [43_200_000, None], "value": "%-d %b"},
]
# What Plotly shows of itself: nothing. The page is for reading.
PLOTLY_CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False}


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours charts are drawn in, one per meaning."""

    deposit: str
    fee: str
    cleanup: str
    danger: str
    muted: str
    grid: str
    text: str
    active: str
    expired: str
    revoked: str
    cleaned: str

    @property
    def series(self) -> tuple[str, ...]:
        """Colours for things that have no meaning of their own, in the order they are given out."""
        return (self.deposit, self.fee, self.cleanup, self.revoked)

    def state(self, state: str) -> str:
        """Return the colour of a session state; an unknown one is muted, never an error."""
        return str(getattr(self, state)) if state in STATES else self.muted


LIGHT = Palette(
    deposit="#0A7C85", fee="#C98A10", cleanup="#6C58B8", danger="#BE2F3D", muted="#66788A", grid="#E6EBEE",
    text="#13212B", active="#0A7C85", expired="#C98A10", revoked="#BE5B68", cleaned="#8A9AA6",
)  # fmt: skip
DARK = Palette(
    deposit="#3CC3BD", fee="#EBB34E", cleanup="#A48FEA", danger="#F0717C", muted="#8B9CAB", grid="#1F2C36",
    text="#E4EBF0", active="#3CC3BD", expired="#EBB34E", revoked="#E08791", cleaned="#64788A",
)  # fmt: skip


def styled(figure: go.Figure, *, height: int, palette: Palette) -> go.Figure:
    """Give a figure the house look. `height` in pixels."""
    figure.update_layout(
        height=height,
        margin={"l": 4, "r": 4, "t": 6, "b": 4},
        hovermode="x unified",
        bargap=0.28,
        uirevision="keep",  # a live update must not undo the reader's zoom
        dragmode=False,  # a finger on a chart scrolls the page
        legend={
            "orientation": "h",
            "yanchor": "top",
            "y": -0.16,
            "x": 0,
            "title": None,
            "traceorder": "normal",
            "itemwidth": 30,
        },
        barcornerradius=3,
    )
    figure.update_xaxes(showgrid=False, automargin=True, fixedrange=True)
    figure.update_yaxes(gridcolor=palette.grid, zeroline=False, automargin=True, fixedrange=True)
    return figure


def daily_amounts(
    days: Sequence[dt.date], values: Sequence[int], *, name: str, colour: str, palette: Palette, height: int = 230
) -> go.Figure:
    """Draw lamports per day as bars, with an axis in SOL. `days` and `values` are equally long."""
    figure = go.Figure()
    figure.add_bar(
        x=list(days),
        y=list(values),
        customdata=[sol_text(value) for value in values],
        name=name,
        marker_color=colour,
        hovertemplate="%{customdata} SOL",
    )
    ticks, labels = sol_ticks(max(values, default=0))
    figure.update_yaxes(tickvals=ticks, ticktext=labels, rangemode="tozero")
    return day_axis(styled(figure, height=height, palette=palette))


def daily_counts(
    days: Sequence[dt.date], series: Sequence[tuple[str, str, Sequence[int]]], *, palette: Palette, height: int = 230
) -> go.Figure:
    """Draw counts per day, stacked: `(name, colour, counts)` from the bottom up."""
    figure = go.Figure()
    for name, colour, counts in series:
        figure.add_bar(
            x=list(days), y=list(counts), name=name, marker_color=colour, hovertemplate="%{y:,}", showlegend=True
        )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(rangemode="tozero", tickformat=",d", nticks=5)
    return day_axis(styled(figure, height=height, palette=palette))


def daily_totals(
    days: Sequence[dt.date], totals: Sequence[int | float], *, name: str, palette: Palette, height: int = 230
) -> go.Figure:
    """Draw what a number of any unit adds up to a day. Bars are drawn from floats, labels keep every digit."""
    figure = go.Figure()
    figure.add_bar(
        x=list(days),
        y=[float(total) for total in totals],
        customdata=[f"{total:,}" for total in totals],
        name=name,
        marker_color=palette.deposit,
        hovertemplate="%{customdata}",
    )
    figure.update_yaxes(tickformat="~s", nticks=5)
    return day_axis(styled(figure, height=height, palette=palette))


def day_axis(figure: go.Figure) -> go.Figure:
    """Label days as `4 Mar`, never with a time of day."""
    figure.update_xaxes(type="date", tickformat="%-d %b", hoverformat="%A, %-d %B %Y", nticks=8)
    return figure


def states_chart(counts: dict[str, int], *, palette: Palette, height: int = 220) -> go.Figure:
    """Draw how many sessions are in each state, each bar with its own number."""
    states = [state for state in reversed(STATES) if state in counts]
    figure = go.Figure()
    figure.add_bar(
        x=[counts[state] for state in states],
        y=[STATE_LABELS[state] for state in states],
        orientation="h",
        text=[f"{counts[state]:,}" for state in states],
        textposition="outside",
        cliponaxis=False,
        marker_color=[palette.state(state) for state in states],
        hoverinfo="skip",
        name="Sessions",
    )
    styled(figure, height=height, palette=palette)
    # Room for the number beside the longest bar.
    figure.update_xaxes(visible=False, range=[0, max([*counts.values(), 1]) * 1.22])
    figure.update_yaxes(showgrid=False, ticks="", ticklabelstandoff=8)
    figure.update_layout(bargap=0.42, showlegend=False, margin={"l": 4, "r": 4, "t": 0, "b": 0})
    return figure


@dataclass(frozen=True, kw_only=True)
class Moment:
    """
    One thing that happened in a session.

    Attributes:
        lane: which row of dots under the chart it is drawn in: what follows closely should not hide what it follows.
        deposited: the running total after it, lamports; `spent` likewise.
    """

    when: dt.datetime
    label: str
    detail: str
    colour: str
    lane: int
    deposited: int
    spent: int


def story_chart(
    moments: Sequence[Moment],
    *,
    start: dt.datetime,
    expiry: dt.datetime,
    max_deposit: int,
    palette: Palette,
    height: int = 320,
) -> go.Figure:
    """
    Draw a session over time: what was deposited and spent so far, every event on it, and the moment it expires.

    Args:
        moments: in the order they happened, at least one.
        start: session_start.
        expiry: session_expiry.
        max_deposit: lamports; drawn as the ceiling where it is near enough to be read.
    """
    end = max(expiry, moments[-1].when)
    margin = max((end - start) * 0.03, dt.timedelta(seconds=1))
    top = max([moment.deposited for moment in moments] + [1])
    figure = go.Figure()
    times = [start, *(moment.when for moment in moments), end]
    for name, colour, totals in (
        ("Deposited", palette.deposit, [moment.deposited for moment in moments]),
        ("Spent on fees", palette.fee, [moment.spent for moment in moments]),
    ):
        values = [0, *totals, totals[-1]]
        figure.add_scatter(
            x=times,
            y=values,
            customdata=[sol_text(value) for value in values],
            name=name,
            mode="lines",
            line={"shape": "hv", "width": 2, "color": colour},
            fill="tozeroy",
            fillcolor=translucent(colour, 0.14),
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[moment.when for moment in moments],
        y=[-(0.11 + 0.11 * moment.lane) * top for moment in moments],
        mode="markers",
        name="Events",
        showlegend=False,
        marker={
            "size": 11,
            "color": [moment.colour for moment in moments],
            "line": {"width": 1.5, "color": palette.grid},
        },
        customdata=[[moment.label, moment.detail, utc_text(moment.when)] for moment in moments],
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]} UTC<extra></extra>",
    )
    if max_deposit <= 2 * top:
        figure.add_hline(
            y=max_deposit, line_dash="dot", line_width=1, line_color=palette.muted,
            annotation_text="largest deposit allowed", annotation_position="top left",
            annotation_font_color=palette.muted,
        )  # fmt: skip
        top = max(top, max_deposit)
    figure.add_vline(x=expiry, line_dash="dash", line_width=1.5, line_color=palette.expired)
    figure.add_annotation(
        x=expiry, y=1, yref="paper", yanchor="top", xanchor="right", showarrow=False, xshift=-6,
        text="expires", font_color=palette.expired,
    )  # fmt: skip
    styled(figure, height=height, palette=palette)
    ticks, labels = sol_ticks(top)
    figure.update_yaxes(tickvals=ticks, ticktext=labels, range=[-0.32 * top, top * 1.14], title=None)
    figure.update_xaxes(range=[start - margin, end + margin], nticks=7, tickformatstops=TIME_TICKS)
    figure.update_layout(hovermode="closest")
    return figure


def translucent(colour: str, opacity: float) -> str:
    """Return `#rrggbb` as an rgba() of that opacity."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
