"""Programs: what does any indexed program emit and hold? Made from the registry alone, whatever the IDL."""

import datetime as dt
from collections.abc import Mapping, Sequence
from html import escape

import polars as pl
import streamlit as st

from dashboard import charts, look, source
from dashboard.amounts import short_address
from indexer.store.browse import ProgramRow, Table

PAGE_ROWS = 25
SERIES_MAX = 4
TEXT_CHARS_MAX = 120
# What a row is about comes first, where it comes from last.
FIRST_COLUMNS = ("block_time", "slot", "address")
LAST_COLUMNS = ("lamports", "closed_slot", "updated_at", "kind", "ordinal", "signature")
ADDRESS_COLUMNS = ("signature", "address")


def page() -> None:
    """Show the program that was chosen."""
    programs = source.programs()
    if not programs:
        look.html(look.head("Programs", "Every program that is indexed, by its IDL alone"))
        look.html(look.nothing_indexed())
        return
    program = choose_program(programs)
    look.html(look.head(program.name, f"Program {program.program_id}", frontier_pill(program)))
    tables, counts = source.tables(program.schema_name), source.row_counts(program.schema_name)
    if not tables:
        look.html(look.empty("No events and no accounts", "The program's IDL names none."))
        return
    look.html(look.kpi_row(kpis(tables, counts, source.problem_counts(program.schema_name))))
    show_activity(program)
    left, right = st.columns(2)
    with left, look.card("Events", "event_types"):
        look.html(type_table([t for t in tables if t.kind == "event"], counts, "Events of the program"))
    with right, look.card("Open accounts", "account_types"):
        look.html(type_table([t for t in tables if t.kind == "account"], counts, "Accounts of the program"))
    show_table(tables, counts)


def choose_program(programs: Sequence[ProgramRow]) -> ProgramRow:
    """Let the reader choose one; the choice is in the page's address."""
    by_name = {p.name: p for p in programs}
    if len(by_name) < len(programs):  # two deployments of one program
        by_name = {f"{p.name} {short_address(p.program_id)}": p for p in programs}
    label = st.selectbox("Program", list(by_name), key="program", bind="query-params", width=330)
    return by_name.get(label or "", programs[0])


def frontier_pill(program: ProgramRow) -> str:
    """Return the sign that says how far the program is proven complete."""
    if program.frontier_slot is None:
        return look.pill(live=False, label="Not proven yet", note="")
    return look.pill(live=True, label="Complete", note=f"to slot {program.frontier_slot:,}")


def kpis(tables: Sequence[Table], counts: Mapping[str, int], problems: Mapping[str, int]) -> list[look.Kpi]:
    """Return the numbers of the top row."""
    events = sum(counts.get(t.type_name, 0) for t in tables if t.kind == "event")
    accounts = sum(counts.get(t.type_name, 0) for t in tables if t.kind == "account")
    unread = sum(problems.values())
    worst = next(iter(problems), "")
    per_day = source.events_per_day(tables[0].schema_name)
    days = sorted({day for found in per_day.values() for day in found})
    newest = sum(found.get(days[-1], 0) for found in per_day.values()) if days else 0
    return [
        look.Kpi(label="Events", value=f"{events:,}", note=f"{sum(t.kind == 'event' for t in tables)} types"),
        look.Kpi(
            label="Open accounts", value=f"{accounts:,}", note=f"{sum(t.kind == 'account' for t in tables)} types"
        ),
        look.Kpi(label="Days with events", value=f"{len(days):,}", note=f"since {days[0]:%-d %b %Y}" if days else ""),
        look.Kpi(
            label="On the newest day", value=f"{newest:,}", note=f"events on {days[-1]:%-d %b %Y}" if days else ""
        ),
        look.Kpi(
            label="Could not be read",
            value=f"{unread:,}",
            note=f"mostly {worst.replace('_', ' ')}" if worst else "everything was read",
            stale=bool(unread),
        ),
    ]


def show_activity(program: ProgramRow) -> None:
    """Draw how many events there were a day, the most frequent ones apart."""
    per_day = source.events_per_day(program.schema_name)
    if not per_day:
        return
    days = whole_days([day for counts in per_day.values() for day in counts])
    ranked = sorted(per_day, key=lambda name: -sum(per_day[name].values()))
    tone = look.palette()
    series = [
        (name, colour, [per_day[name].get(day, 0) for day in days])
        for name, colour in zip(ranked[:SERIES_MAX], tone.series, strict=False)
    ]
    others = ranked[SERIES_MAX:]
    if others:
        series.append(("all others", tone.muted, [sum(per_day[name].get(day, 0) for name in others) for day in days]))
    with look.card("Events per day", "activity"):
        look.chart(charts.daily_counts(days, series, palette=tone), key="activity", alt="Bars: events per day by type")


def whole_days(seen: Sequence[dt.date]) -> list[dt.date]:
    """Return every day from the first to the last of `seen`."""
    first, last = min(seen), max(seen)
    return [first + dt.timedelta(days=at) for at in range((last - first).days + 1)]


def type_table(tables: Sequence[Table], counts: Mapping[str, int], caption: str) -> str:
    """Return the types with their number of rows, the most frequent first."""
    if not tables:
        return look.empty("None", "The IDL names none.")
    columns = [look.Column(title="Type"), look.Column(title="Fields", right=True, wide=True),
               look.Column(title="Rows", right=True)]  # fmt: skip
    ranked = sorted(tables, key=lambda t: (-counts.get(t.type_name, 0), t.type_name))
    rows = [[escape(t.type_name), str(len(t.columns)), f"{counts.get(t.type_name, 0):,}"] for t in ranked]
    return look.table(columns, rows, caption=caption)


def show_table(tables: Sequence[Table], counts: Mapping[str, int]) -> None:
    """Show one type: what its numbers add up to, and its newest rows."""
    by_label = {f"{t.type_name} ({t.kind})": t for t in tables}
    default = max(by_label, key=lambda label: counts.get(by_label[label].type_name, 0))
    with st.container(horizontal=True, vertical_alignment="bottom", key="chosen"):
        label = st.selectbox(
            "Type", list(by_label), index=list(by_label).index(default), key="type", bind="query-params", width=330
        )
        table = by_label.get(label or "", by_label[default])
        column = None
        if table.kind == "event" and table.numbers:
            column = st.selectbox("Added up per day", table.numbers, key=f"sum_{table.table_name}", width=250)
    if column is not None:
        show_totals(table, column)
    show_rows(table)


def show_totals(table: Table, column: str) -> None:
    """Draw what one number of an event adds up to a day, in the unit that the program uses."""
    rows = {day: total for day, total, _ in source.total_per_day(table, column)}
    if not rows:
        return
    days = whole_days(list(rows))
    with look.card(f"{table.type_name}: {column} per day", "totals"):
        figure = charts.daily_totals(days, [rows.get(day, 0) for day in days], name=column, palette=look.palette())
        look.chart(figure, key="totals", alt=f"Bars: {column} of {table.type_name} per day")


def show_rows(table: Table) -> None:
    """Show the newest rows, a page at a time."""
    total = source.row_counts(table.schema_name).get(table.type_name, 0)
    pages = max(-(-total // PAGE_ROWS), 1)
    with look.card(f"{table.type_name}, newest first", "rows"):
        number = st.pagination(pages, key=f"page_{table.table_name}", max_visible_pages=5) if pages > 1 else 1
        frame = source.newest_rows(table, PAGE_ROWS, (number - 1) * PAGE_ROWS)
        if frame.is_empty():
            look.html(look.empty("No rows yet", "They appear here as soon as the indexer has stored the first one."))
            return
        st.dataframe(shown(frame), hide_index=True, height="content", alt=f"Rows of {table.type_name}")


def shown(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows as a person reads them: no number loses a digit, long text is cut, addresses stay whole."""
    wide = (pl.UInt64, pl.Int64, pl.Int128, pl.Decimal)
    columns = []
    for column in frame.get_columns():
        if isinstance(column.dtype, wide):
            columns.append(column.cast(pl.String))
        elif isinstance(column.dtype, pl.Datetime):
            columns.append(column.dt.strftime("%Y-%m-%d %H:%M:%S"))
        elif column.dtype == pl.String and column.name not in ADDRESS_COLUMNS:
            columns.append(column.str.slice(0, TEXT_CHARS_MAX))
        else:
            columns.append(column)
    by_name = {column.name: column for column in columns}
    middle = [name for name in by_name if name not in FIRST_COLUMNS + LAST_COLUMNS]
    return pl.DataFrame([by_name[name] for name in (*FIRST_COLUMNS, *middle, *LAST_COLUMNS) if name in by_name])


with look.explained():
    page()
