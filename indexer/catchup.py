"""
How far the first enumeration is, for whoever waits for it: a bar on a terminal, and one line with the rate at the end.
"""

import json
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from indexer.store.jobs import BackfillProgress


class CatchUp:
    """Shows the backfill. Use as a context manager; where stderr is no terminal only the last line is printed."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._started_at = time.monotonic()
        self._ended_at = self._started_at
        self.transactions = 0
        self._of_earlier_programs = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def listed(self, signatures: int) -> None:
        """Show how many signatures are listed so far."""
        self._show(f"listing signatures: {signatures:,}", 0, None)

    def stored(self, done: int, total: int) -> None:
        """Show how many of one program's transactions are stored; its last call is `done` equal to `total`."""
        self.transactions = self._of_earlier_programs + done
        self._ended_at = time.monotonic()
        self._show("backfilling", done, total)
        if done >= total:
            self._of_earlier_programs += total

    def worked(self, transactions: int) -> None:
        """Count the transactions of a job that this process did."""
        self._of_earlier_programs += transactions
        self.transactions = self._of_earlier_programs
        self._ended_at = time.monotonic()

    def backfilled(self, progress: BackfillProgress) -> None:
        """Show how far the open backfills are, whoever works on them."""
        if not progress.backfills:
            return
        # Before the listing is at its end nobody knows how many there will be; then slots are what is known.
        if progress.listed and progress.slots_listed == progress.slots:
            self._show("backfilling", progress.done, progress.listed)
        else:
            self._show(f"backfilling slots ({progress.done:,} transactions)", progress.slots_done, progress.slots)

    def finished(self) -> None:
        """Take the bar away: everything is stored. More to show brings it back."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    @property
    def seconds(self) -> float:
        """From the start to the last transaction stored."""
        return self._ended_at - self._started_at

    def report(self, *, as_json: bool) -> None:
        """Print what was done: one sentence to stderr, or one JSON object to stdout."""
        rate = self.transactions / self.seconds if self.seconds > 0 else 0.0
        if as_json:
            facts = {
                "transactions": self.transactions,
                "seconds": round(self.seconds, 3),
                "per_second": round(rate, 1),
            }
            sys.stdout.write(json.dumps(facts) + "\n")
        else:
            sys.stderr.write(f"backfilled {self.transactions:,} transactions in {self.seconds:.1f} s ({rate:,.0f}/s)\n")

    def _show(self, what: str, done: int, total: int | None) -> None:
        elapsed = time.monotonic() - self._started_at
        rate = f"{self.transactions / elapsed:,.0f}/s" if elapsed > 0 and self.transactions else ""
        if self._task is None:
            self._task = self._bar.add_task(what, rate=rate)
        self._bar.update(self._task, description=what, completed=done, total=total, rate=rate)
