"""
`capstan verify` and `capstan repair`: what is stored, held against the chain.
"""

import asyncio
import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.backfill import checked_range
from indexer.commands.connection import opened
from indexer.commands.options import (
    By,
    DatabaseUrl,
    DataDir,
    FirstSlot,
    FoundAsJson,
    Idls,
    LastProvenSlot,
    LastSlot,
    Means,
    OneProgram,
    RpcRate,
    RpcUrls,
    joined_urls,
)
from indexer.console import reported, set_up_logs
from indexer.errors import SettingsError
from indexer.idls import named_programs
from indexer.intake import Programs
from indexer.settings import IndexerSettings
from indexer.sources import node
from indexer.store.coverage import Range, select_start
from indexer.store.database import INDEXER_ROLE, Database, open_database, session
from indexer.store.holds import select_frontier
from indexer.verify import Difference, Report, Verifier

# A terminal shows so many differences; --json shows all.
SHOWN_MAX = 200


def verify(
    *,
    first: FirstSlot = None,
    last: LastProvenSlot = None,
    program: OneProgram = None,
    by: By = Means.SIGNATURES,
    rpc: RpcUrls = None,
    rpc_rate: RpcRate = None,
    idl: Idls = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    as_json: FoundAsJson = False,
) -> None:
    """Ask the chain again and print every transaction that is stored otherwise. Exit code 1 where there is one."""
    with reported():
        settings = _settings(rpc, rpc_rate, database_url, data_dir)
        programs = _chosen(named_programs(idl or []), program)
        report = _run(settings, programs, Range(*_bounds(first, last)), by, repair=False, as_json=as_json)
    raise SystemExit(0 if report.is_clean else 1)


def repair(
    *,
    first: FirstSlot = None,
    last: LastSlot = None,
    program: OneProgram = None,
    by: By = Means.SIGNATURES,
    rpc: RpcUrls = None,
    rpc_rate: RpcRate = None,
    idl: Idls = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    as_json: FoundAsJson = False,
) -> None:
    """Store what verify finds missing or different, and take out what the chain does not have."""
    with reported():
        settings = _settings(rpc, rpc_rate, database_url, data_dir)
        programs = _chosen(named_programs(idl or []), program)
        _run(settings, programs, Range(*_bounds(first, last)), by, repair=True, as_json=as_json)


def _settings(
    rpc: list[str] | None, rpc_rate: float | None, database_url: str | None, data_dir: Any
) -> IndexerSettings:
    return IndexerSettings.read(
        rpc_url=joined_urls(rpc), rpc_rate=rpc_rate, database_url=database_url, data_dir=data_dir
    )


def _bounds(first: int | None, last: int | None) -> tuple[int, int]:
    """Slots that were not named are -1 until the database and the node have been asked."""
    for flag, slot in (("--from", first), ("--to", last)):
        if slot is not None and slot < 0:
            raise SettingsError(f"{flag} {slot} is no slot: the first one is 0")
    return -1 if first is None else first, -1 if last is None else last


def _chosen(programs: Programs, wanted: str | None) -> Programs:
    if wanted is None:
        return programs
    chosen = {key: p for key, p in programs.items() if wanted in (p.name, str(Pubkey(key)))}
    if not chosen:
        known = ", ".join(program.name for program in programs.values())
        raise SettingsError(f"--program {wanted} is none of {known}: name one of them, or its id")
    return chosen


def _run(
    settings: IndexerSettings, programs: Programs, asked: Range, by: Means, *, repair: bool, as_json: bool
) -> Report:
    set_up_logs(as_json=as_json)
    url = settings.database_url.get_secret_value() if settings.database_url else None
    with open_database(url, data_dir=settings.data_dir) as database:
        report = asyncio.run(_verify(settings, programs, database, asked, by, repair=repair))
    if as_json:
        sys.stdout.write(json.dumps(_as_json(report, repair=repair)) + "\n")
    else:
        _print(report, repair=repair)
    return report


async def _verify(
    settings: IndexerSettings, programs: Programs, database: Database, asked: Range, by: Means, *, repair: bool
) -> Report:
    async with opened(settings, programs, database) as (rpc, pool, registry):
        finalized = await node.fetch_slot(rpc, "finalized")
        async with session(pool) as connection:
            starts = [await select_start(connection, key) for key in programs]
            frontiers = [await select_frontier(connection, key) for key in programs]
        first = min(starts) if asked.from_slot < 0 else asked.from_slot
        # What nobody has proven yet is expected to be missing; so without --to it is left out, but for a repair.
        proven = min((slot for slot in frontiers if slot is not None), default=finalized)
        last = (finalized if repair else min(proven, finalized)) if asked.to_slot < 0 else asked.to_slot
        span = checked_range(first, last, finalized)
        means = "blocks" if by is Means.BLOCKS else "signatures"
        verifier = Verifier(rpc, pool, registry, registry.tables, database.for_role(INDEXER_ROLE))
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[seen]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            total = (span.to_slot - span.from_slot + 1) * len(programs)
            task = bar.add_task("repairing" if repair else "verifying", total=total, seen="")
            seen = 0

            def on_piece(slots: int, transactions: int) -> None:
                nonlocal seen
                seen += transactions
                bar.update(task, advance=slots, seen=f"{seen:,} transactions")

            return await verifier.verify(
                span, "blocks" if means == "blocks" else "signatures", repair=repair, on_piece=on_piece
            )


def _as_json(report: Report, *, repair: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "clean": report.is_clean,
        "transactions": report.checked,
        "differences": [_difference(difference) for difference in report.differences],
        "incomplete": [str(Signature(signature)) for signature in report.incomplete],
        "unread": [str(Signature(signature)) for signature in report.unread],
        "lake": [
            {"table": c.table, "rows": c.rows, "doubled": c.doubled, "lacking": c.lacking, "surplus": c.surplus}
            for c in report.lake
        ],
    }
    if repair:
        facts |= {"fetched": report.fetched, "removed": report.removed, "rewritten_in_lake": report.rewritten}
    return facts


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "kind": difference.kind,
        "place": difference.place,
        "program": str(Pubkey(difference.program_id)),
        "signature": str(Signature(difference.signature)),
        "slot": difference.slot,
        "detail": difference.detail,
    }


def _print(report: Report, *, repair: bool) -> None:
    for difference in report.differences[:SHOWN_MAX]:
        sys.stdout.write(difference.sentence() + "\n")
    if len(report.differences) > SHOWN_MAX:
        sys.stdout.write(f"... and {len(report.differences) - SHOWN_MAX:,} more; --json prints all\n")
    for count in report.lake:
        if not count.is_clean:
            sys.stdout.write(
                f"lake table {count.table}: {count.lacking:,} rows lacking, {count.surplus:,} too many, "
                f"{count.doubled:,} doubled\n"
            )
    sys.stdout.write(f"checked {report.checked:,} transactions: {len(report.differences):,} differences")
    sys.stdout.write(
        f", {len(report.incomplete):,} with cut or absent logs, {len(report.unread):,} of a newer version\n"
    )
    if repair:
        sys.stdout.write(
            f"repaired: {report.fetched:,} fetched, {report.removed:,} removed, "
            f"{report.rewritten:,} to be written into the lake again\n"
        )
