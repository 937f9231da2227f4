"""
Processes that are kept running until we are told to stop.

A child that dies is started again, with a growing pause; on stop every child and whatever it started is ended, politely
first. It supervises a demo on one machine and nothing else: a deployment has its own supervisor (see the Procfile).
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from indexer.console import PARENT_VARIABLE

PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 5.0
# A child that ran this long before it died starts again without a pause.
SETTLED_S = 10.0
STOP_S_MAX = 8.0
TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")


@dataclass
class Child:
    """
    One process: how it is started, and what became of it.

    `log_path` takes stdout and stderr together; of a child that `shows_progress`, stderr goes to the terminal instead,
    where there is one. A child that is not `keep_running` stays down once it is down.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    keep_running: bool = True
    shows_progress: bool = False
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    next_start_at: float = 0.0
    pause_s: float = PAUSE_S_MIN
    exit_code: int | None = None
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The running process's id, or None."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self, now: float) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        if self.log is None:
            self.log = self.log_path.open("ab", buffering=0)
        self.process = subprocess.Popen(  # noqa: S603 -- our own command line, no shell
            list(self.command),
            env={**os.environ, **self.environment, PARENT_VARIABLE: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=None if self.shows_progress and sys.stderr.isatty() else self.log,
            start_new_session=True,
        )
        self.started_at = now

    def close(self) -> None:
        """Let go of the log; the process has ended."""
        if self.log is not None:
            self.log.close()
            self.log = None

    def last_words(self) -> str:
        """Return the last line of the log that says something to a person, without its timestamp."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 4_096))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        said = (TIMESTAMP.sub("", line).strip() for line in reversed(lines) if not line.startswith("{"))
        return next((words for words in said if words), "")


class Supervisor:
    """Starts children, starts them again, stops them all. Not thread-safe: one loop calls `tick`."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.children: list[Child] = []

    def add(self, child: Child) -> None:
        """Start `child` and keep it running."""
        self.children.append(child)
        child.start(self._clock())

    def tick(self) -> list[Child]:
        """Start what died and has waited long enough; return the children that died since the last tick."""
        now = self._clock()
        died: list[Child] = []
        for child in self.children:
            process = child.process
            if process is not None and process.poll() is not None:
                child.exit_code = process.returncode
                child.process = None
                child.pause_s = PAUSE_S_MIN if now - child.started_at > SETTLED_S else child.pause_s
                child.next_start_at = now + child.pause_s
                child.pause_s = min(child.pause_s * 2, PAUSE_S_MAX)
                died.append(child)
                # What it started must not outlive it: the next one may need the same port.
                _signal_group(process.pid, signal.SIGKILL)
            elif process is None and child.keep_running and now >= child.next_start_at:
                child.restarts += 1
                child.start(now)
        return died

    def stop(self, child: Child, *, timeout_s: float = STOP_S_MAX) -> None:
        """End one child for good: SIGTERM, then SIGKILL for its whole group after `timeout_s`."""
        if child in self.children:
            self.children.remove(child)
        if child.process is not None:
            _signal(child.process, signal.SIGTERM)
            _wait_and_kill(child.process, timeout_s)
        child.close()

    def stop_all(self) -> None:
        """End every child, all told at once, the last started waited for first."""
        for child in self.children:
            if child.process is not None:
                _signal(child.process, signal.SIGTERM)
        deadline = self._clock() + STOP_S_MAX
        for child in reversed(self.children.copy()):
            self.stop(child, timeout_s=max(0.1, deadline - self._clock()))


def _wait_and_kill(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _signal_group(process.pid, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal what is left of a dead child's session; nothing left is the normal case."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
