"""
The `capstan` command. Each process brings its own command; this mounts them side by side.
"""

import importlib.metadata
from typing import Annotated

import typer

from capstan.demo import demo
from dashboard.__main__ import dashboard
from engine.__main__ import engine
from indexer.__main__ import index
from indexer.commands.query import export, sql
from indexer.console import reported, stop_with_parent
from localnet.__main__ import localnet

app = typer.Typer(
    name="capstan",
    help="Index Anchor programs on Solana into Postgres and DuckDB, act on what they show, and chart it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(demo)
app.command()(index)
app.command()(engine)
app.command()(dashboard)
app.command()(localnet)
app.command()(sql)
app.command()(export)


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
