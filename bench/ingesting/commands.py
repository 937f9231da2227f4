"""
Commands as a user runs them, each a process of its own, with what it took: time, memory, and what it said.

Peak memory is the kernel's count of the process itself; the embedded PostgreSQL is another one and not in it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
COMMAND_S_MAX = 1_800
READY_S_MAX = 300

Told = dict[str, Any]


class Ran(NamedTuple):
    """
    A command that ended well.

    Args:
        told: the JSON object that it printed.
        seconds: from start to end of the whole process, start of the interpreter and of PostgreSQL included.
        cpu_s: on a core, without PostgreSQL.
        peak_mb: the most memory that the process held, in 10^6 bytes.
    """

    told: Told
    seconds: float
    cpu_s: float
    peak_mb: float


class CommandError(Exception):
    """A command did not end well, or did not do what it had to."""


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Ran:
    """
    Run `python -m ARGUMENTS` to its end.

    Raises:
        CommandError: it failed, or took half an hour.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=_environment(environment or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        timer = threading.Timer(COMMAND_S_MAX, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            with process.stdout as stdout:
                printed = stdout.read()
            usage = _wait(process)
        finally:
            timer.cancel()
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            errors.seek(0)
            last = errors.read().strip().splitlines()[-3:]
            raise CommandError(f"`{' '.join(arguments)}` ended with {process.returncode}: {' / '.join(last)}")
    return Ran(json.loads(printed), seconds, usage.ru_utime + usage.ru_stime, _peak_mb(usage))


def _wait(process: subprocess.Popen[str]) -> Any:
    """Wait as Popen does, and keep what the kernel says of the process."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _peak_mb(usage: Any) -> float:
    return float(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024) / 1e6


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """The caller's own, without what would lead a command to another database or chain; this tree's code first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CAPSTAN_") and key != "DATABASE_URL"}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@contextlib.contextmanager
def localnet(*arguments: str) -> Iterator[Told]:
    """Run a chain of its own, and give what it says when it is ready."""
    command = [sys.executable, "-m", "localnet", "--json", "--control", "--rpc-port", "0", "--ws-port", "0"]
    process = subprocess.Popen(
        [*command, *arguments], env=_environment({}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise CommandError(f"localnet did not start with {' '.join(arguments)}")
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


class Following:
    """A command that runs until it is told to stop; `peak_mb` and `cpu_s` are known after that."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.peak_mb = 0.0
        self.cpu_s = 0.0

    def check(self) -> None:
        """Raise CommandError where it has ended."""
        if self._process.poll() is not None:
            raise CommandError(f"the indexer ended with {self._process.returncode} while it was to follow")

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            usage = _wait(self._process)
            self.peak_mb, self.cpu_s = _peak_mb(usage), usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def following(*arguments: str, environment: Mapping[str, str]) -> Iterator[Following]:
    """Run `python -m ARGUMENTS` meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=_environment(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    running = Following(process)
    try:
        yield running
    finally:
        running.stop()
