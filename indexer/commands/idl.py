"""
`capstan idl`: look into an IDL, compare two, fetch the one that a program has on chain, or register one.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from solders.pubkey import Pubkey

from indexer.chain.idl import load_idl
from indexer.chain.idl_diff import diff_idls, is_readable
from indexer.commands.idl_add import add
from indexer.commands.idl_tables import diff_json, diff_tables, idl_json, idl_tables, open_console
from indexer.commands.options import ShownAsJson
from indexer.console import reported
from indexer.errors import SettingsError
from indexer.idls import read_idl
from indexer.settings import IndexerSettings
from indexer.sources.idl_account import fetch_idl
from indexer.sources.rpc import Rpc

# Who waits at a prompt wants to know soon that the url is wrong.
FETCH_ATTEMPTS_MAX = 4

idl = typer.Typer(
    help="Look into an IDL, compare two, fetch the one a program has on chain, or register one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@idl.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An Anchor IDL, either format.")],
    *,
    json_output: ShownAsJson = False,
) -> None:
    """Show what an IDL describes: instructions, events, accounts, types, errors, discriminators, conflicts."""
    with reported():
        described = read_idl(file)
        if json_output:
            _print_json(idl_json(described))
        else:
            open_console().print(idl_tables(described))


@idl.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="A", help="The older IDL.")],
    new: Annotated[Path, typer.Argument(metavar="B", help="The newer IDL.")],
    *,
    json_output: ShownAsJson = False,
) -> None:
    """
    Compare two IDLs of one program: what an upgrade changed, and whether data written under A is readable with B.

    Leaves with 0 where all of it is, with 1 where not.
    """
    with reported():
        before, after = read_idl(old), read_idl(new)
        changes = diff_idls(before, after)
        if json_output:
            _print_json(diff_json(before, after, changes))
        else:
            open_console().print(diff_tables(before, after, changes))
    raise typer.Exit(0 if is_readable(changes) else 1)


@idl.command()
def fetch(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="The program's address, in base58.")],
    *,
    rpc: Annotated[
        str | None, typer.Option(help="HTTP url of a Solana node [CAPSTAN_RPC_URL, default http://127.0.0.1:8899]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to stdout.")
    ] = None,
) -> None:
    """Fetch the IDL that a program's authors put on chain with `anchor idl init`, and write it as it is."""
    with reported():
        try:
            program_id = Pubkey.from_string(program)
        except ValueError:
            raise SettingsError(f"{program!r} is not a program's address: write it in base58") from None
        settings = IndexerSettings.read(rpc_url=rpc)
        text = asyncio.run(_fetch(settings.rpc_url.get_secret_value(), program_id))
        found = load_idl(text, source=f"the IDL on chain of {program_id}")
        if output is None:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        else:
            _write(output, text)
            sys.stderr.write(f"{output}: the IDL of {found.name}, {len(text)} bytes\n")
        if found.address != str(program_id):
            named = f"names the address {found.address}" if found.address else "names no address"
            sys.stderr.write(f"this IDL {named}: use it as {program_id}={output or 'FILE'}\n")


async def _fetch(url: str, program_id: Pubkey) -> bytes:
    async with Rpc(url, attempts_max=FETCH_ATTEMPTS_MAX) as rpc:
        return await fetch_idl(rpc, bytes(program_id))


def _write(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}): choose another file") from None


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


idl.command()(add)
