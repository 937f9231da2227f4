"""
The edge between a process and whoever started it: errors as sentences, logs as lines, a parent that may go away.

Every command of every process goes through `reported`: one of our errors is one sentence on stderr and its exit code,
never a traceback. Anything else is a bug of ours and keeps its traceback.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import stamina
import stamina.instrumentation
import structlog

from indexer.errors import CapstanError

PARENT_VARIABLE = "CAPSTAN_PARENT_PID"
PARENT_POLL_S = 1.0


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


def set_up_logs(*, as_json: bool) -> None:
    """Send this process's own logs to stderr, as lines for a person or as JSON."""
    # A single retry is no news; what outlasts the retries is told by whoever called.
    stamina.instrumentation.set_on_retry_hooks([])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # The pool repeats as warnings what its borrower reports itself.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


async def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """
    Run `work` until it ends or SIGTERM or Ctrl-C cancels it; both signals are an ordinary end.

    Raises:
        CapstanError: the first one, where parallel parts of `work` failed with nothing else.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return
    except BaseExceptionGroup as group:
        ours, others = group.split(CapstanError)
        if ours is None or others is not None:
            raise
        raise _first(ours) from None


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
            time.sleep(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
