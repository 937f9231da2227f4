"""
Files of bodies cut at their line ends, without copies. What a body says is read in `bodies.py`.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# Bytes in which each line is one body, or the bodies one by one.
Bodies: TypeAlias = bytes | bytearray | memoryview | Sequence[bytes]

_SEARCH = 1 << 17


class BodyLines:
    """
    The bodies one by one, without their line ends; lines of nothing but spaces are bodies as well, and wrong ones.

    A last line without a line end counts, one without any byte does not.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._listed: Sequence[bytes] = () if isinstance(bodies, bytes | bytearray | memoryview) else bodies
        self._view = memoryview(bodies) if isinstance(bodies, bytes | bytearray | memoryview) else memoryview(b"")
        self._ends = _line_ends(self._view)

    def __len__(self) -> int:
        return len(self._listed) or len(self._ends)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield from self._listed
        view, start = self._view, 0
        for end in self._ends.tolist():
            yield view[start:end]
            start = end + 1

    def body(self, line: int) -> bytes:
        """Return one body."""
        if self._listed:
            return self._listed[line]
        start = int(self._ends[line - 1]) + 1 if line else 0
        return bytes(self._view[start : int(self._ends[line])])


def _line_ends(view: memoryview) -> npt.NDArray[np.int64]:
    data = np.frombuffer(view, np.uint8)
    # Piece by piece, so that what is compared stays near the processor.
    pieces = [np.flatnonzero(data[at : at + _SEARCH] == ord("\n")) + at for at in range(0, len(data), _SEARCH)]
    ends = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    return ends if len(data) == 0 or data[-1] == ord("\n") else np.append(ends, len(data))


def body_batches(data: bytes | bytearray | memoryview, size: int = 1 << 23) -> Iterator[memoryview]:
    """
    Cut `data`, one body a line, into batches to be read one after the other, without copying any.

    Args:
        size: bytes of a batch, about; a longer line is a batch of its own. What is read stays near the processor.
    """
    view, start = memoryview(data), 0
    while start < len(view):
        end = min(start + size, len(view))
        while end < len(view) and view[end - 1] != ord("\n"):
            found = bytes(view[end : end + _SEARCH]).find(b"\n")
            end = min(end + _SEARCH, len(view)) if found < 0 else end + found + 1
        yield view[start:end]
        start = end
