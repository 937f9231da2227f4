"""
`capstan redecode`: stored transactions of a program decoded again, after its IDL was added or corrected.
"""

import asyncio
import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from solders.pubkey import Pubkey

from indexer.commands.options import DatabaseUrl, DoneAsJson, ServerDir
from indexer.console import reported
from indexer.errors import DataError, SettingsError
from indexer.redecode import Redecoded, redecode
from indexer.registry import Registry
from indexer.settings import IndexerSettings
from indexer.store.database import INDEXER_ROLE, Database, open_database, open_pool, session
from indexer.store.migrate import migrate
from indexer.store.raw import iterate_bodies
from indexer.store.registry import SLOT_MAX, count_stored, load_registered

ACCOUNTS = (
    "account state is not decoded again, as accounts are not kept raw: a running indexer fetches it anew when an IDL "
    "is added, and whenever it starts"
)


def redecode_command(
    *,
    program: Annotated[str, typer.Option(metavar="ID", help="The program whose transactions are read, in base58.")],
    from_slot: Annotated[int, typer.Option("--from", min=0, metavar="SLOT", help="The first slot.")] = 0,
    to_slot: Annotated[
        int | None, typer.Option("--to", min=0, metavar="SLOT", help="The last slot; default: the newest.")
    ] = None,
    database_url: DatabaseUrl = None,
    data_dir: ServerDir = None,
    json_output: DoneAsJson = False,
) -> None:
    """Decode stored transactions again with the registered IDLs. Safe to repeat, and beside a running indexer."""
    with reported():
        settings = IndexerSettings.read(database_url=database_url, data_dir=data_dir)
        program_id = read_program_id(program)
        url = settings.database_url.get_secret_value() if settings.database_url else None
        with open_database(url, data_dir=settings.data_dir) as database:
            migrate(database.dsn)
            last = SLOT_MAX if to_slot is None else to_slot
            asyncio.run(_redecode(database, program_id, from_slot, last, as_json=json_output))


def read_program_id(text: str) -> bytes:
    """Return the 32 bytes of a program id in base58; SettingsError where it is none."""
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        raise SettingsError(f"{text!r} is not a program's address: write it in base58") from None


async def _redecode(database: Database, program_id: bytes, from_slot: int, to_slot: int, *, as_json: bool) -> None:
    dsn = database.for_role(INDEXER_ROLE)
    async with open_pool(dsn) as pool:
        async with session(pool) as connection:
            registry = Registry(await load_registered(connection))
            if program_id not in registry:
                raise DataError(f"the program {Pubkey(program_id)} is not indexed in this database: index it first")
            stored = await count_stored(connection, program_id, from_slot, to_slot)
        started_at = time.monotonic()
        with _bar() as bar:
            task = bar.add_task(f"decoding {registry[program_id].name} again", total=stored.transactions, rate="")

            def show(done: Redecoded) -> None:
                rate = done.transactions / max(time.monotonic() - started_at, 0.001)
                # The lake has those that PostgreSQL has let go of.
                total = max(stored.transactions, done.transactions)
                bar.update(task, completed=done.transactions, total=total, rate=f"{rate:,.0f}/s")

            bodies = iterate_bodies(dsn, program_id, from_slot, to_slot)
            done = await redecode(pool, registry, bodies, show)
    _report(done, stored.without_body, time.monotonic() - started_at, as_json=as_json)


def _bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _report(done: Redecoded, without_body: int, seconds: float, *, as_json: bool) -> None:
    rate = done.transactions / max(seconds, 0.001)
    if as_json:
        facts = {
            "transactions": done.transactions,
            "events": done.events,
            "problems": done.problems,
            "left_out": done.left_out,
            "without_body": without_body,
            "seconds": round(seconds, 3),
            "per_second": round(rate, 1),
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    found = f"{done.events:,} events, {done.problems:,} problems"
    lines = [f"decoded {done.transactions:,} transactions again in {seconds:.1f} s ({rate:,.0f}/s): {found}"]
    if done.left_out:
        lines.append(f"{done.left_out:,} were dropped or moved by a fork meanwhile, and left to the indexer")
    if without_body:
        lines.append(
            f"{without_body:,} have no stored body, as an older version of Capstan stored them, and stay as they are"
        )
    sys.stdout.write("\n".join([*lines, ACCOUNTS]) + "\n")
