"""
`capstan status`: how far the indexer is and what stands in its way, from the database alone.
"""

import json
import sys
from typing import Annotated, Any

import typer
from solders.pubkey import Pubkey

from indexer.commands.options import DatabaseUrl, DataDir
from indexer.console import reported
from indexer.settings import IndexerSettings
from indexer.store.database import open_database
from indexer.store.status import Part, ProgramStatus, Status, read_status

UNKNOWN = "unknown_discriminator"


def status(
    *,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print frontier, lag, gaps, backfills, what could not be read, and the last errors. Needs no node."""
    with reported():
        settings = IndexerSettings.read(database_url=database_url, data_dir=data_dir)
        url = settings.database_url.get_secret_value() if settings.database_url else None
        with open_database(url, data_dir=settings.data_dir) as database:
            found = read_status(database.dsn)
        if as_json:
            sys.stdout.write(json.dumps(as_object(found)) + "\n")
        else:
            sys.stdout.write("\n".join(lines_of(found)) + "\n")


def as_object(found: Status) -> dict[str, Any]:
    """Return the status as JSON has it: keys in base58, seconds as numbers."""
    return {
        "programs": [
            {
                "program": row.name,
                "program_id": str(Pubkey(row.program_id)),
                "history_start": row.history_start,
                "frontier": row.frontier,
                "lag_slots": _lag(row),
                "lag_s": None if row.lag is None else round(row.lag.seconds, 1),
                "lag_s_estimated": None if row.lag is None else row.lag.estimated,
                "proven_ago_s": _rounded(row.proven_ago_s),
            }
            for row in found.programs
        ],
        "gaps": [row._asdict() for row in found.gaps],
        "backfills": [row._asdict() for row in found.backfills],
        "incomplete_transactions": found.incomplete,
        "unknown_discriminators": sum(row.total for row in found.problems if row.kind == UNKNOWN),
        "undecodable": sum(row.total for row in found.problems if row.kind != UNKNOWN),
        "problems": [row._asdict() for row in found.problems],
        "parts": [
            {
                **row._asdict(),
                "beat_ago_s": _rounded(row.beat_ago_s),
                "last_error_ago_s": _rounded(row.last_error_ago_s),
            }
            for row in found.parts
        ],
    }


def lines_of(found: Status) -> list[str]:
    """Return the status as lines for a person."""
    lines = [_program_line(row) for row in found.programs] or ["no program has been indexed yet"]
    lines += [f"gap: {row.program} lacks slots {row.from_slot:,} to {row.to_slot:,}" for row in found.gaps]
    for row in found.backfills:
        listed = "nothing" if row.listed_from is None else f"{row.listed_from:,} on"
        lines.append(
            f"backfill {row.backfill_id}: {', '.join(row.programs)} by {row.means}, slots {row.from_slot:,} to "
            f"{row.to_slot:,}, listed: {listed}; jobs: {row.jobs_done:,} done, {row.jobs_open:,} open, "
            f"{row.jobs_held:,} held" + (f"; last error: {row.last_error}" if row.last_error else "")
        )
    lines.append(f"transactions that are not complete (logs cut or absent, or a newer version): {found.incomplete:,}")
    lines += [
        f"not readable: {row.total:,} {row.kind} of {row.program}, last in slot {row.newest_slot:,}"
        for row in found.problems
    ]
    return lines + [_part_line(part) for part in found.parts]


def _program_line(row: ProgramStatus) -> str:
    if row.frontier is None:
        return f"{row.name}: nothing is proven yet"
    behind = "the tip is not known"
    if row.lag is not None:
        about = "about " if row.lag.estimated else ""
        behind = f"{_lag(row):,} slots ({about}{row.lag.seconds:,.0f} s) behind the tip"
    return f"{row.name}: everything is stored up to slot {row.frontier:,}, {behind}"


def _part_line(part: Part) -> str:
    error = "no error"
    if part.last_error is not None and part.last_error_ago_s is not None:
        error = f"last error {part.last_error_ago_s:,.0f} s ago: {part.last_error}"
    return f"{part.name}: last seen {part.beat_ago_s:,.0f} s ago, {error}"


def _lag(row: ProgramStatus) -> int | None:
    return None if row.lag_slots is None else max(row.lag_slots, 0)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
