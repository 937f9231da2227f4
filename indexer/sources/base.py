"""
What every source of whole transactions has in common, whatever it reads: a node, files, or later a stream.

A source gives bodies as getTransaction answers them, in batches, and with each batch a place to begin again from. It
decides nothing about what bodies mean, and proves nothing: what a source covers is said by whoever asked for it. The
node's own source is wider (it lists, and proves by listing: see frontier.py); its bodies have the same form.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """
    Where a source is.

    Args:
        offset: bytes of lines that were read, after decompression.
        lines: how many lines those were.
    """

    offset: int = 0
    lines: int = 0


class BodyBatch(NamedTuple):
    """
    Bodies that come together.

    Args:
        bodies: one body a line.
        first_line: the number of the first of them, from 0.
        next: where the source goes on behind them.
    """

    bodies: bytes | memoryview
    first_line: int
    next: Place


class Source(Protocol):
    """A source of finalized transactions."""

    @property
    def name(self) -> str:
        """What an operator calls it."""

    @property
    def identity(self) -> str | None:
        """What tells it from every other content; None where it can be read only once."""

    def batches(self, place: Place) -> Iterator[BodyBatch]:
        """Give everything from `place` on. Raises SettingsError where it cannot be read."""
