"""
`capstan idl add`: the IDL of an upgraded program, valid from a slot on.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from solders.pubkey import Pubkey

from indexer.chain.idl_diff import Change, diff_idls
from indexer.chain.program import Program
from indexer.commands.options import DatabaseUrl, DoneAsJson, ServerDir
from indexer.commands.redecode import read_program_id
from indexer.console import reported
from indexer.idls import read_idl
from indexer.settings import IndexerSettings
from indexer.store.database import Database, connect, open_database
from indexer.store.migrate import migrate
from indexer.store.registry import Added, Version, add_version, load_registered, select_tip

# Changes of a large upgrade that are listed; `capstan idl diff` shows all.
CHANGES_SHOWN_MAX = 40


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The program's new IDL, either format.")],
    *,
    program: Annotated[
        str | None, typer.Option(metavar="ID", help="The program, in base58 [default: the address in the IDL]")
    ] = None,
    from_slot: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SLOT",
            help="The first slot in which the upgraded program ran [default: the first one after the newest known]",
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    data_dir: ServerDir = None,
    json_output: DoneAsJson = False,
) -> None:
    """
    Register an IDL as valid from a slot on, and widen the tables for it. What is stored stays as it is.

    The IDL of another slot stays registered, and decodes the transactions of its slots. Given the same slot again, the
    IDL there is replaced. A running indexer takes it up within seconds.
    """
    with reported():
        settings = IndexerSettings.read(database_url=database_url, data_dir=data_dir)
        compiled = Program.from_idl(read_idl(file), None if program is None else read_program_id(program))
        url = settings.database_url.get_secret_value() if settings.database_url else None
        with open_database(url, data_dir=settings.data_dir) as database:
            migrate(database.dsn)
            outcome = asyncio.run(_add(database, compiled, from_slot))
        sys.stdout.write(_as_json(outcome) if json_output else _as_text(outcome))


class Outcome(NamedTuple):
    """
    What `capstan idl add` tells.

    Args:
        chosen: whether the slot was chosen here, and not by the operator.
        changes: against the IDL that was valid before at that slot; None where there was none.
    """

    program: Program
    added: Added
    chosen: bool
    changes: list[Change] | None


async def _add(database: Database, program: Program, from_slot: int | None) -> Outcome:
    async with await connect(database.dsn) as connection:
        registered = await load_registered(connection, [program.program_id])
        versions = registered.versions.get(program.program_id, ())
        slot = from_slot
        if slot is None:
            tip = await select_tip(connection, program.program_id)
            # Of a program that is new here, one IDL is for all of its history.
            slot = tip + 1 if versions and tip is not None else 0
        before = _valid_before(versions, slot)
        added = await add_version(connection, program, slot)
    changes = None if before is None else diff_idls(before.idl, program.idl)
    return Outcome(program, added, from_slot is None, changes)


def _valid_before(versions: tuple[Version, ...], slot: int) -> Program | None:
    older = [version.program for version in versions if version.from_slot <= slot]
    return older[-1] if older else None


def _as_json(outcome: Outcome) -> str:
    added = outcome.added
    facts: dict[str, Any] = {
        "program": outcome.program.name,
        "program_id": str(Pubkey(outcome.program.program_id)),
        "from_slot": added.from_slot,
        "to_slot": added.to_slot,
        "replaced": added.replaced,
        "known": added.known,
        "changes": [change._asdict() for change in outcome.changes or ()],
        "tables": list(added.changes),
        "stored_with_another": added.stored,
    }
    return json.dumps(facts) + "\n"


def _as_text(outcome: Outcome) -> str:
    program, added = outcome.program, outcome.added
    until = "on" if added.to_slot is None else f"to {added.to_slot}"
    if added.known:
        return (
            f"this IDL of {program.name} is registered from slot {added.from_slot} {until} already: nothing changed\n"
        )
    what = "replaced the IDL" if added.replaced else "registered the IDL"
    lines = [f"{what} of {program.name}, valid from slot {added.from_slot} {until}"]
    if outcome.chosen and added.from_slot:
        lines.append(
            f"  slot {added.from_slot} is the first one after the newest known here; where the upgraded program ran "
            "before it, add the IDL again with --from-slot"
        )
    changes = outcome.changes or []
    for change in changes[:CHANGES_SHOWN_MAX]:
        unread = "" if change.readable else " (older data is not readable with this IDL)"
        lines.append(f"  {change.path} {change.detail}{unread}")
    if len(changes) > CHANGES_SHOWN_MAX:
        lines.append(f"  and {len(changes) - CHANGES_SHOWN_MAX} more changes, which `capstan idl diff` shows")
    lines += [f"  {change}" for change in added.changes]
    if added.stored:
        lines.append(
            f"{added.stored:,} stored transactions of these slots were decoded with another IDL: run `capstan redecode "
            f"--program {Pubkey(program.program_id)} --from {added.from_slot}`"
        )
    lines.append("a running indexer decodes with it from its next heartbeat on")
    return "\n".join(lines) + "\n"
