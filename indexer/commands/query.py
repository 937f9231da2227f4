"""
`capstan sql` and `capstan export`: lake and hot tail together, out of the house.

Everything is asked in one snapshot, under a role that can only read. Keys and signatures leave in base58. What the
views hold is in sql/analytics/; how a row is seen exactly once, in indexer/store/reader.py.
"""

import csv
import datetime as dt
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import polars as pl
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from indexer.console import reported
from indexer.errors import DataError, SettingsError
from indexer.settings import IndexerSettings
from indexer.store.database import DASHBOARD_ROLE, open_database
from indexer.store.duck import quote_name
from indexer.store.reader import Reader

# A terminal shows so many rows; --json and --csv show all.
TABLE_ROWS_MAX = 200
# JSON numbers are doubles to many who read them; these types leave as decimal strings.
WIDE_TYPES = (pl.UInt64, pl.Int128, pl.Decimal)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
# Where a row stands in the chain, by the name the view gives it.
SLOT_COLUMNS = ("slot", "created_slot")
TIME_COLUMNS = ("block_time", "created_at", "day")

DatabaseUrl = Annotated[
    str | None, typer.Option(help="PostgreSQL 15 or newer [DATABASE_URL, default: the embedded one in the data folder]")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the embedded server and the lake are [CAPSTAN_DATA_DIR, default .data]")
]
Lake = Annotated[Path | None, typer.Option(help="Folder of the lake's files [CAPSTAN_LAKE, default DATA_DIR/lake]")]


class Format(StrEnum):
    """How `capstan export` writes."""

    PARQUET = "parquet"
    CSV = "csv"


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT in DuckDB's SQL. 'SHOW TABLES' lists what there is.")],
    *,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    lake: Lake = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row and line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
) -> None:
    """Ask the lake and the hot tail together, for example: capstan sql "SELECT * FROM sessions LIMIT 5"."""
    with reported():
        if as_json and as_csv:
            raise SettingsError("--json and --csv exclude each other: give one")
        with _reader(database_url, data_dir, lake) as reader:
            frames = reader.stream(query)
            if as_json:
                _write_json(frames, sys.stdout)
            elif as_csv:
                _write_csv(frames, sys.stdout)
            else:
                _print_table(frames)


def export(
    *,
    table: Annotated[str, typer.Option(help="A view (sessions, liquidations, events, ...) or PROGRAM.TABLE.")],
    file_format: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.PARQUET,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default TABLE.FORMAT here. '-' is stdout (csv).")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="The first slot, or day as YYYY-MM-DD (UTC), that is exported.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="The last slot or day, inclusive.")] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    lake: Lake = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON.")] = False,
) -> None:
    """Write a table or view of lake and hot tail together to a file."""
    with reported():
        target = output if output is not None else Path(f"{table}.{file_format}")
        to_stdout = str(target) == "-"
        if to_stdout and file_format is Format.PARQUET:
            raise SettingsError("parquet is written to a file, not to stdout: name it with --output")
        with _reader(database_url, data_dir, lake) as reader:
            text, params = _bounded(table, reader.columns(table), first, last)
            frames = reader.stream(text, params)
            if to_stdout:
                _write_csv(frames, sys.stdout)
                return
            rows = _write_file(frames, target, file_format)
        if as_json:
            sys.stdout.write(json.dumps({"table": table, "file": str(target), "rows": rows}) + "\n")
        else:
            sys.stderr.write(f"wrote {rows:,} rows of {table} to {target}\n")


@contextmanager
def _reader(database_url: str | None, data_dir: Path | None, lake: Path | None) -> Iterator[Reader]:
    settings = IndexerSettings.read(database_url=database_url, data_dir=data_dir, lake=lake)
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with (
        open_database(url, data_dir=settings.data_dir) as database,
        Reader.open(database.for_role(DASHBOARD_ROLE), settings.lake) as reader,
    ):
        yield reader


def _bounded(table: str, columns: dict[str, str], first: str | None, last: str | None) -> tuple[str, list[Any]]:
    """Return the SELECT over a range of slots or days, both ends included."""
    conditions, params = [], []
    for option, text, sign in (("--from", first, ">="), ("--to", last, "<=")):
        if text is None:
            continue
        is_day = DATE.fullmatch(text) is not None
        names, types = (TIME_COLUMNS, ("TIMESTAMP", "DATE")) if is_day else (SLOT_COLUMNS, ("BIGINT",))
        column = next((c for c in names if columns.get(c, "").startswith(types)), None)
        if column is None:
            what = "day" if is_day else "slot"
            raise DataError(f"{table} has no column for {option} {text}, a {what}; it has: {', '.join(columns)}")
        conditions.append(f"{quote_name(column)}{'::DATE' if is_day else ''} {sign} ?")
        params.append(_day(text, option) if is_day else _slot(text, option))
    name = ".".join(quote_name(part) for part in table.split(".", 1))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = next((c for c in SLOT_COLUMNS if c in columns), None)
    return f"SELECT * FROM {name}{where}" + (f" ORDER BY {quote_name(order)}" if order else ""), params  # noqa: S608 - quoted names


def _slot(text: str, option: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise SettingsError(f"{option} {text!r} is neither a slot nor a day: write 123456 or 2026-01-31")
    return int(text)


def _day(text: str, option: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{option} {text} is not a day of the calendar") from None


def _write_json(frames: Iterable[pl.DataFrame], out: IO[str]) -> None:
    for frame in frames:
        plain = _plain(frame)
        for row in plain.iter_rows(named=True):
            out.write(json.dumps(row, ensure_ascii=False, default=_json_default, separators=(",", ":")) + "\n")
    out.flush()


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Wide integers as decimal strings, times as ISO 8601 with a Z."""
    changed = []
    for column in frame.get_columns():
        if isinstance(column.dtype, WIDE_TYPES):
            changed.append(column.cast(pl.String))
        elif isinstance(column.dtype, pl.Datetime):
            changed.append(column.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"))
    return frame.with_columns(changed) if changed else frame


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _write_csv(frames: Iterable[pl.DataFrame], out: IO[str]) -> int:
    rows = 0
    for number, frame in enumerate(frames):
        plain = _plain(_flat(frame))
        if number == 0:
            csv.writer(out, lineterminator="\n").writerow(plain.columns)
        out.write(plain.write_csv(include_header=False))
        rows += plain.height
    out.flush()
    return rows


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """CSV has no nested values: they become JSON text."""
    nested = [column for column in frame.get_columns() if column.dtype.is_nested()]
    texts = [
        pl.Series(column.name, [None if v is None else json.dumps(v, default=_json_default) for v in column.to_list()])
        for column in nested
    ]
    return frame.with_columns(texts) if texts else frame


def _write_file(frames: Iterable[pl.DataFrame], target: Path, file_format: Format) -> int:
    """Write next to the target and move it there at the end, so that nobody finds half a file."""
    partial = target.with_name(target.name + ".partial")
    write = _write_parquet if file_format is Format.PARQUET else _write_csv_file
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("export", total=None)
        try:
            rows = write(frames, partial, lambda count: progress.advance(task, count))
            partial.replace(target)
        except OSError as error:
            raise SettingsError(f"{target} cannot be written ({error.strerror}): choose another --output") from None
        finally:
            partial.unlink(missing_ok=True)
    return rows


def _counted(frames: Iterable[pl.DataFrame], advance: Callable[[int], None]) -> Iterator[pl.DataFrame]:
    for frame in frames:
        advance(frame.height)
        yield frame


def _write_csv_file(frames: Iterable[pl.DataFrame], path: Path, advance: Callable[[int], None]) -> int:
    with path.open("w", encoding="utf-8", newline="") as out:
        return _write_csv(_counted(frames, advance), out)


def _write_parquet(frames: Iterable[pl.DataFrame], path: Path, advance: Callable[[int], None]) -> int:
    rows = 0
    writer: pq.ParquetWriter | None = None
    try:
        for frame in _counted(frames, advance):
            table = frame.with_columns(pl.col(pl.Int128).cast(pl.Decimal(38, 0))).to_arrow()
            if writer is None:
                schema = table.schema
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(table.cast(schema))
            rows += frame.height
    finally:
        if writer is not None:
            writer.close()
    return rows


def _print_table(frames: Iterable[pl.DataFrame]) -> None:
    table: Table | None = None
    shown = total = 0
    for frame in frames:
        plain = _plain(frame)
        if table is None:
            table = Table(*plain.columns)
        for row in plain.head(TABLE_ROWS_MAX - shown).iter_rows():
            table.add_row(*("" if value is None else str(value) for value in row))
            shown += 1
        total += plain.height
    assert table is not None, "a stream gives one frame at least"
    Console().print(table)
    if total > shown:
        sys.stderr.write(f"{shown} of {total:,} rows; --json or --csv writes all\n")
