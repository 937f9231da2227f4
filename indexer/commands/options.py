"""
The flags of the commands, each said once: its type, its name where that is another, and its help.

A command names what it takes and gives the default. What a flag means is decided where it is used; how it stands to the
environment, in settings.py. Flags that one command alone has and that need no words of their own stay with it.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Means(StrEnum):
    """How a range is proven, or compared."""

    SIGNATURES = "signatures"
    BLOCKS = "blocks"


# --- the node ---------------------------------------------------------------------------------------------------------

RpcUrls = Annotated[
    list[str] | None,
    typer.Option(
        help="HTTP url of a Solana node; repeat it for nodes that stand in for each other "
        "[CAPSTAN_RPC_URL with commas, default http://127.0.0.1:8899]"
    ),
]
RpcRate = Annotated[
    float | None, typer.Option(help="Calls a second that each node is asked at most [CAPSTAN_RPC_RATE, no limit]")
]
WsUrl = Annotated[
    str | None,
    typer.Option(help="PubSub url of the node [CAPSTAN_WS_URL, default: the first RPC's host, next port]"),
]

# --- programs and slots -----------------------------------------------------------------------------------------------

Idls = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[PROGRAM=]FILE",
        help="An Anchor IDL to index, with the program id where the file has none; repeat for more. "
        "Default: the home programs.",
    ),
]
OneProgram = Annotated[str | None, typer.Option("--program", help="Only this program: its name or id. Default: all.")]
FirstSlot = Annotated[int | None, typer.Option("--from", help="The first slot; default 0.")]
LastSlot = Annotated[int | None, typer.Option("--to", help="The last slot, inclusive; default the newest final one.")]
LastProvenSlot = Annotated[
    int | None, typer.Option("--to", help="The last slot, inclusive; default what is proven so far.")
]
HistoryStart = Annotated[
    int | None,
    typer.Option(
        "--from", help="The slot at which the programs' histories start for you, where no node goes back to 0."
    ),
]
By = Annotated[Means, typer.Option(help="Ask for the programs' signatures, or for every block of the range.")]
Workers = Annotated[int | None, typer.Option(help="Jobs at the same time in this process [CAPSTAN_WORKERS, 3]")]

# --- where things are kept --------------------------------------------------------------------------------------------

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="PostgreSQL 15 or newer [DATABASE_URL, default: an embedded server in the data folder]"),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where embedded server and lake live [CAPSTAN_DATA_DIR, default .data]")
]
ServerDir = Annotated[
    Path | None, typer.Option(help="Where the embedded server lives [CAPSTAN_DATA_DIR, default .data]")
]
LakeFolder = Annotated[
    Path | None, typer.Option(help="Folder of the lake's Parquet files [CAPSTAN_LAKE, default DATA_DIR/lake]")
]
ExportInterval = Annotated[
    float | None, typer.Option(help="Seconds between two exports to the lake [CAPSTAN_EXPORT_INTERVAL_S, 10]")
]
Retention = Annotated[
    str | None,
    typer.Option(
        metavar="AGE|off",
        help="Keep finalized rows this long in PostgreSQL, such as 36h, 7d or 4w, and after that in the lake alone "
        "[CAPSTAN_RETENTION, off]",
    ),
]

# --- files instead of a node ------------------------------------------------------------------------------------------

SourceFiles = Annotated[
    list[str] | None,
    typer.Option(
        metavar="file:PATH",
        help="Read a file of transactions instead of a node: one getTransaction body a line, plain or zstd; "
        "file:- is standard input; repeat for more.",
    ),
]
Covers = Annotated[
    str | None,
    typer.Option(metavar="FROM:TO", help="The files have every finalized transaction of the programs in these slots."),
]
Genesis = Annotated[
    str | None,
    typer.Option(
        metavar="HASH|mainnet-beta|testnet|devnet",
        help="The chain that the files are of; needed while the database knows none.",
    ),
]
LakeOnly = Annotated[
    bool, typer.Option("--lake-only", help="Files go into the lake and not into PostgreSQL; needs --covers.")
]

# --- how a command runs, and what it says -----------------------------------------------------------------------------

CatchUpOnly = Annotated[
    bool, typer.Option("--catch-up", help="Stop once everything finalized is stored and in the lake.")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        help="Serve /metrics (Prometheus), /health and /ready there; 0 picks a port [CAPSTAN_METRICS_PORT, off]"
    ),
]
MetricsHost = Annotated[
    str | None, typer.Option(help="The address to serve them on [CAPSTAN_METRICS_HOST, default 127.0.0.1]")
]
FoundAsJson = Annotated[bool, typer.Option("--json", help="Print what was found as one JSON object.")]
ShownAsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DoneAsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


def joined_urls(urls: Sequence[str] | None) -> str | None:
    """Return repeated flags as the setting has them; None where there was no flag."""
    return ",".join(urls) if urls else None
