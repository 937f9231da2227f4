"""
The parts of a demo as command lines: what is started, with which settings.

Every part is the same command that a deployment runs; the demo only chooses its settings. Urls and secrets travel in
the environment, where no process list shows them.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solders.keypair import Keypair

from capstan.supervisor import Child

# What the faucet gives the engine whenever it runs low: enough for a hundred thousand fees.
ENGINE_FUNDS_LAMPORTS = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """What the person or script asked for. `seconds` None runs until stopped; times are seconds, rates per second."""

    seed: int
    history_days: int
    transactions: int
    rate: float
    seconds: float | None
    rpc_port: int
    ws_port: int
    dashboard_port: int


@dataclass(frozen=True)
class Urls:
    """Where the chain is."""

    rpc: str
    ws: str


def make_keypair(folder: Path) -> tuple[Path, str]:
    """Write a new keypair for the engine, readable by its owner alone; return its path and its address."""
    keypair = Keypair()
    path = folder / "engine-keypair.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(keypair.to_json())
    return path, str(keypair.pubkey())


def localnet_part(plan: Plan, folder: Path, *, shows_progress: bool) -> Child:
    """
    The chain with its traffic; prints one JSON line with its urls when it is ready.

    It is not started again when it dies: what it held in memory is gone, and a new one would be another chain.
    """
    arguments = [
        *("localnet", "--json", "--control"),
        *("--seed", str(plan.seed), "--history", str(plan.history_days), "--transactions", str(plan.transactions)),
        *("--rate", str(plan.rate), "--rpc-port", str(plan.rpc_port), "--ws-port", str(plan.ws_port)),
    ]
    child = _child("localnet", arguments, {}, folder)
    child.keep_running = False
    child.shows_progress = shows_progress
    return child


def indexer_part(urls: Urls, database_url: str, folder: Path, *arguments: str) -> Child:
    """The indexer on that chain and that database."""
    return _child("index", ["index", *arguments], _settings(urls, database_url, folder), folder)


def engine_part(urls: Urls, database_url: str, keypair: Path, folder: Path, *arguments: str) -> Child:
    """The engine, paid from the chain's faucet."""
    settings = {**_settings(urls, database_url, folder), "CAPSTAN_ENGINE_KEYPAIR": str(keypair)}
    funded = ["engine", "--fund-from-faucet", str(ENGINE_FUNDS_LAMPORTS), *arguments]
    return _child("engine", funded, settings, folder)


def dashboard_part(plan: Plan, urls: Urls, database_url: str, folder: Path) -> Child:
    """The dashboard."""
    arguments = ["dashboard", "--port", str(plan.dashboard_port)]
    return _child("dashboard", arguments, _settings(urls, database_url, folder), folder)


def _settings(urls: Urls, database_url: str, folder: Path) -> dict[str, str]:
    return {
        "CAPSTAN_RPC_URL": urls.rpc,
        "CAPSTAN_WS_URL": urls.ws,
        "DATABASE_URL": database_url,
        "CAPSTAN_DATA_DIR": str(folder),
        "CAPSTAN_LAKE": str(folder / "lake"),
    }


def _child(name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Child:
    command = [sys.executable, "-m", "capstan", *arguments]
    return Child(name, command, environment, folder / f"{name}.log")
