"""
What localnet can carry: a history, many reads, many listeners.

    python bench/localnet.py [--quick] [--json FILE]

Each figure is the minimum, median and maximum of several runs in a row on this machine, each on a chain of its own in a
process of its own. The client is in this process, so on few cores client and server share them.
"""

import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

BATCH = 100
SUBSCRIBERS = 200
RATE_TPS = 100
DRAIN_S = 3.0
READY_S_MAX = 180
Told = dict[str, Any]


class Scale(NamedTuple):
    """How much is measured: transactions of the history, batches read, seconds of listening, runs of each."""

    transactions: int
    batches: int
    listen_s: float
    runs: int


FULL, QUICK = Scale(20_000, 400, 20.0, 3), Scale(4_000, 60, 5.0, 1)
TARGETS = {
    "history, transactions/s": 2_500,
    f"getTransaction in batches of {BATCH}, transactions/s": 2_000,
    f"logs to {SUBSCRIBERS} subscribers, transactions/s": RATE_TPS,
}


@contextlib.contextmanager
def localnet(*arguments: str) -> Iterator[Told]:
    """Run a chain of its own, and give what it says when it is ready."""
    command = [sys.executable, "-m", "localnet", "--json", "--control", "--rpc-port", "0", "--ws-port", "0", *arguments]
    root = Path(__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


async def call(http: httpx.AsyncClient, method: str, *params: Any) -> Any:
    """Return a result."""
    answer = (await http.post("/", json=_request(0, method, *params))).raise_for_status().json()
    assert "error" not in answer, answer
    return answer["result"]


def _request(number: int, method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}


async def read_per_second(told: Told, batches: int) -> float:
    """Read transactions in batches, one batch at a time, and return how many came a second; a null is a failure."""
    config = {"commitment": "confirmed", "encoding": "json", "maxSupportedTransactionVersion": 1}
    async with httpx.AsyncClient(base_url=told["rpc_url"], timeout=60) as http:
        rows = await call(http, "localnet_transactions", {"commitment": "confirmed", "limit": 10_000})
        signatures = [row["signature"] for row in rows]
        bodies = []
        for number in range(batches):
            page = [signatures[(number * BATCH + i) % len(signatures)] for i in range(BATCH)]
            bodies.append(json.dumps([_request(i, "getTransaction", one, config) for i, one in enumerate(page)]))
        started = time.perf_counter()
        answers = [await http.post("/", content=body, headers={"content-type": "application/json"}) for body in bodies]
        seconds = time.perf_counter() - started
    for answer in answers:
        assert all(one["result"]["meta"] is not None for one in answer.json()), "a transaction is missing"
    return batches * BATCH / seconds


class Heard(NamedTuple):
    """What listening came to."""

    transactions: int
    per_second: float
    notifications: int
    lost: int


async def listen(told: Told, seconds: float) -> Heard:
    """Let many clients hear the logs of all, and compare what each heard with what the chain holds."""
    heard: list[list[str]] = [[] for _ in range(SUBSCRIBERS)]

    async def read(socket: ClientConnection, into: list[str]) -> None:
        # Signatures are cut out of the text: parsing every message of every client is not what is measured.
        async for message in socket:
            assert isinstance(message, str)
            begin = message.find('"signature":"') + 13
            into.append(message[begin : message.index('"', begin)])

    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=told["rpc_url"], timeout=60))
        sockets = []
        for _ in range(SUBSCRIBERS):
            socket = await stack.enter_async_context(connect(told["ws_url"], compression=None, max_queue=None))
            await socket.send(json.dumps(_request(1, "logsSubscribe", "all", {"commitment": "processed"})))
            await socket.recv()
            sockets.append(socket)
        first = await call(http, "getSlot", {"commitment": "processed"}) + 2
        readers = [asyncio.create_task(read(*pair)) for pair in zip(sockets, heard, strict=True)]
        await asyncio.sleep(seconds)
        last = await call(http, "localnet_stopTraffic")
        await asyncio.sleep(DRAIN_S)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        wanted, duration_s = await _sent(http, first, last)
    lost = sum(len(wanted - set(one)) for one in heard)
    return Heard(len(wanted), len(wanted) / duration_s, sum(map(len, heard)), lost)


async def _sent(http: httpx.AsyncClient, first: int, last: int) -> tuple[set[str], float]:
    """Return the signatures of a range of slots, and how long those slots took, in seconds."""
    rows: list[Told] = []
    while page := await call(
        http, "localnet_transactions", {"commitment": "processed", "after_index": rows[-1]["index"] if rows else -1}
    ):
        rows += page
    times = await call(http, "localnet_slotTimes", {"first_slot": first, "last_slot": last})
    wall = sorted(map(int, times.values()))
    return {row["signature"] for row in rows if first <= row["slot"] <= last}, (wall[-1] - wall[0]) / 1e9


def one_run(scale: Scale, seed: int) -> dict[str, float]:
    """Measure everything once."""
    quiet = ("--rate", "0", "--transactions", str(scale.transactions))
    with localnet("--seed", str(seed), *quiet) as told:
        seeded = float(told["seeded"]["per_second"])
        time.sleep(1)
        reads = asyncio.run(read_per_second(told, scale.batches))
    # The rate is an average that users keep, so a little more is asked for than must be reached.
    loud = ("--rate", str(RATE_TPS * 1.15), "--transactions", "2000", "--history", "3")
    with localnet("--seed", str(seed), *loud) as told:
        time.sleep(DRAIN_S)
        heard = asyncio.run(listen(told, scale.listen_s))
    figures = dict(zip(TARGETS, (seeded, reads, heard.per_second), strict=True))
    return {**figures, "notifications heard": heard.notifications, "notifications lost": heard.lost}


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    packages = ("solders", "msgspec", "uvicorn", "websockets", "httpx")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything; within a minute.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure localnet."""
    scale = QUICK if quick else FULL
    console = Console()
    runs = [
        one_run(scale, seed)
        for seed in track(range(1, scale.runs + 1), description="measuring", console=Console(stderr=True))
    ]
    table = Table(title=f"localnet, {scale.runs} run{'s' if scale.runs > 1 else ''}")
    for column in ("", "min", "median", "max", "wanted"):
        table.add_column(column, justify="left" if not column else "right")
    figures = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        figures[name] = {"min": min(values), "median": statistics.median(values), "max": max(values)}
        target = "0" if name.endswith("lost") else f"{TARGETS[name]:,}" if name in TARGETS else ""
        table.add_row(name, *(f"{value:,.0f}" for value in figures[name].values()), target)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()), highlight=False)
    if json_file is not None:
        told = {"quick": quick, "runs": scale.runs, "figures": figures, "on": machine()}
        json_file.write_text(json.dumps(told, indent=2) + "\n")
    if any(run["notifications lost"] for run in runs):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
