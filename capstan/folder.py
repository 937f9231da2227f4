"""
Where a demo keeps its chain's data: a folder that is new at every start.

Each demo is a new chain, so nothing of an earlier one may be left in the database. A folder that a demo made is
emptied; any other folder that holds something is refused, because it is not ours to empty.
"""

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from indexer.errors import SettingsError

MARKER = ".capstan-demo"
SERVER_STOP_S_MAX = 10.0


@contextmanager
def demo_folder(wanted: Path | None) -> Iterator[Path]:
    """
    Give an empty folder: `wanted`, which stays, or a temporary one, which goes when the demo ends.

    Raises:
        SettingsError: `wanted` cannot be written, is in use, or holds what no demo made.
    """
    if wanted is None:
        temporary = Path(tempfile.mkdtemp(prefix="capstan-demo-"))
        try:
            if os.geteuid() == 0:
                # As root the embedded PostgreSQL runs as another user, who has to pass through here.
                temporary.chmod(0o755)
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return
    folder = wanted.expanduser().absolute()
    marker = _claimed(folder)
    try:
        yield folder
    finally:
        marker.close()  # and with it the lock


def _claimed(folder: Path) -> IO[str]:
    """Make `folder`, lock it, empty it; return the open marker that holds the lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / MARKER).exists():
            raise SettingsError(f"{folder} is not empty and no demo made it: choose a new folder for --data-dir")
        with ExitStack() as on_failure:
            marker = on_failure.enter_context((folder / MARKER).open("w"))
            _lock(folder, marker.fileno())
            _empty(folder)
            on_failure.pop_all()
    except OSError as error:
        raise SettingsError(
            f"{error.filename or folder} cannot be written ({error.strerror}): choose another folder for --data-dir"
        ) from error
    return marker


def _lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(f"another demo is running in {folder}: stop it, or choose another --data-dir") from None


def _empty(folder: Path) -> None:
    _stop_forgotten_server(folder / "postgres")
    for entry in folder.iterdir():
        if entry.name == MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _stop_forgotten_server(data: Path) -> None:
    """A demo that was killed left its PostgreSQL running; it must not lose its files under its feet."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        if b"postgres" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        os.kill(pid, signal.SIGINT)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + SERVER_STOP_S_MAX
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
