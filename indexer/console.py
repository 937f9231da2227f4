"""
The edge where exceptions become sentences.

Every command of every process goes through `reported`: one of our errors is one sentence on stderr and its exit code,
never a traceback. Anything else is a bug of ours and keeps its traceback.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.errors import CapstanError

PARENT_VARIABLE = "CAPSTAN_PARENT_PID"


@contextmanager
def reported() -> Iterator[None]:
    """Turn a CapstanError into its sentence and exit code, and Ctrl-C into a quiet exit 130."""
    try:
        yield
    except CapstanError as error:
        sys.stderr.write(f"capstan: {' '.join(str(error).split())}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def stop_with_parent() -> None:
    """
    Ask this process to stop when the supervisor that started it is gone, however it went.

    A supervisor names itself in CAPSTAN_PARENT_PID; without that nothing happens.
    """
    named = os.environ.get(PARENT_VARIABLE, "")
    if not named.isdigit():
        return
    parent = int(named)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
