"""
The `capstan` command. Each process brings its own command; this mounts them side by side.

A command's module is imported when the command is asked for, because together they take a second: whoever decodes one
line waits for no dashboard.
"""

import importlib
import importlib.metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from indexer.console import reported, stop_with_parent

# In the order of `capstan --help`: name -> where its function, or its Typer app, is.
COMMANDS = {
    "demo": "capstan.demo:demo",
    "index": "indexer.__main__:index",
    "backfill": "indexer.commands.backfill:backfill",
    "verify": "indexer.commands.verify:verify",
    "repair": "indexer.commands.verify:repair",
    "status": "indexer.commands.status:status",
    "engine": "engine.__main__:engine",
    "dashboard": "dashboard.__main__:dashboard",
    "localnet": "localnet.__main__:localnet",
    "decode": "indexer.commands.decode:decode",
    "decode-tx": "indexer.commands.decode_tx:decode_tx",
    "idl": "indexer.commands.idl:idl",
    "redecode": "indexer.commands.redecode:redecode_command",
    "sql": "indexer.commands.query:sql",
    "export": "indexer.commands.query:export",
}


class Commands(TyperGroup):
    """The commands of the table above, each loaded when it is needed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        """Return a command, None where there is none of that name."""
        place = COMMANDS.get(cmd_name)
        return None if place is None else load_command(cmd_name, place)


def load_command(name: str, place: str) -> Any:
    """Import `module:attribute`, a command's function or a Typer app with commands of its own, and return it named."""
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    mounted = found
    if not isinstance(found, typer.Typer):
        mounted = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        mounted.command(name)(found)
    command = get_command(mounted)
    command.name = name
    return command


app = typer.Typer(
    name="capstan",
    cls=Commands,
    help="Index Anchor programs on Solana into Postgres and DuckDB, act on what they show, and chart it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"capstan {importlib.metadata.version('capstan')}")
        raise typer.Exit


@app.callback()
def capstan(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Index Anchor programs on Solana into Postgres and DuckDB, act on what they show, and chart it."""


def main() -> None:
    """Run the command line; errors of ours are one sentence and an exit code."""
    stop_with_parent()
    with reported():
        app()


if __name__ == "__main__":
    main()
