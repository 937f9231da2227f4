"""The demo's supervisor: what dies comes back, what is stopped stays gone, with everything it started."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from capstan.supervisor import Child, Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"


def child(tmp_path: Path, code: str) -> Child:
    return Child("part", [sys.executable, "-c", code], {}, tmp_path / "part.log")


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator] # any callable
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    """kill -9 costs a restart and nothing else."""
    supervisor = Supervisor()
    part = child(tmp_path, SLEEPER)
    supervisor.add(part)
    first = part.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: supervisor.tick() == [part])
    wait_for(lambda: supervisor.tick() == [] and part.pid not in (None, first))
    assert (part.restarts, part.exit_code) == (1, -signal.SIGKILL)
    supervisor.stop_all()


def test_a_child_that_cannot_start_is_tried_less_and_less_often(tmp_path: Path) -> None:
    """A broken setting must not become a busy loop."""
    now = [0.0]
    supervisor = Supervisor(clock=lambda: now[0])
    part = child(tmp_path, "raise SystemExit('no such setting')")
    supervisor.add(part)
    pauses = []
    for _ in range(6):
        wait_for(lambda: bool(supervisor.tick()))
        pauses.append(part.next_start_at - now[0])
        now[0] = part.next_start_at
        supervisor.tick()
    assert pauses == [pytest.approx(p) for p in (0.2, 0.4, 0.8, 1.6, 3.2, 5.0)]
    assert part.last_words() == "no such setting"
    supervisor.stop_all()


def test_stop_leaves_nothing_running(tmp_path: Path) -> None:
    """A child that ignores SIGTERM, and its own child, are gone after stop."""
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"kid = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
        "print('kid', kid.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    supervisor = Supervisor()
    part = child(tmp_path, code)
    supervisor.add(part)
    wait_for(lambda: "kid" in part.log_path.read_text())
    kid = int(part.log_path.read_text().split("kid")[1].split()[0])
    pid = part.pid
    assert pid is not None
    supervisor.stop(part, timeout_s=0.3)
    wait_for(lambda: not alive(pid) and not alive(kid))
    assert supervisor.tick() == []
