"""
Files of bodies cut at their line ends, without copies; the transactions alone where a node's whole replies were kept.

What a body says is read in `bodies.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from indexer.chain.base64_columns import Arrow, array_of_parts

# Bytes in which each line is one body, or the bodies one by one.
Bodies: TypeAlias = bytes | bytearray | memoryview | Sequence[bytes]

_SEARCH = 1 << 17


# So begins a reply; the transaction is its result.
_REPLY = '{"jsonrpc"'


class _Reply(msgspec.Struct, gc=False):
    result: msgspec.Raw


_decode_reply = msgspec.json.Decoder(_Reply).decode


class BodyLines:
    """
    The bodies one by one, without their line ends; lines of nothing but spaces are bodies as well, and wrong ones.

    A last line without a line end counts, one without any byte does not. Of a whole reply the result is the body; of
    one without any, all of it.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._listed: Sequence[bytes] = () if isinstance(bodies, bytes | bytearray | memoryview) else bodies
        self._view = memoryview(bodies) if isinstance(bodies, bytes | bytearray | memoryview) else memoryview(b"")
        self._ends = _line_ends(self._view)
        if pc.any(pc.starts_with(self.texts(), _REPLY)).as_py():
            self._listed = [_result(line) for line in self]

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

    def texts(self) -> Arrow:
        """Return all bodies, (n_bodies,) of large_string, without a copy; they may end with their line end."""
        if self._listed:
            return _as_text(pa.array(self._listed, pa.large_binary()))
        offsets = np.concatenate([[0], self._ends + 1]).astype(np.int64)
        # The last line may have no end.
        offsets[-1] = min(offsets[-1], len(self._view))
        buffers = [None, pa.py_buffer(offsets.data), pa.py_buffer(self._view)]
        return pa.Array.from_buffers(pa.large_string(), len(self._ends), buffers)

    def column(self, lines: npt.NDArray[np.int64]) -> Arrow:
        """Return these bodies, (n_lines,) of binary."""
        if self._listed:
            return pa.array([self._listed[line] for line in lines.tolist()], pa.binary())
        starts = np.concatenate([[0], self._ends + 1])[lines]
        return array_of_parts(np.frombuffer(self._view, np.uint8), starts, self._ends[lines] - starts)


def _result(line: bytes | memoryview) -> bytes:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(_decode_reply(line).result)
    return bytes(line)


def _as_text(array: Arrow) -> Arrow:
    return pa.Array.from_buffers(pa.large_string(), len(array), array.buffers())


def _line_ends(view: memoryview) -> npt.NDArray[np.int64]:
    ends: list[int] = []
    # Piece by piece: what is copied stays near the processor, and only bytes can be searched.
    for start in range(0, len(view), _SEARCH):
        piece = bytes(view[start : start + _SEARCH])
        at = piece.find(b"\n")
        while at >= 0:
            ends.append(start + at)
            at = piece.find(b"\n", at + 1)
    if len(view) and view[-1] != ord("\n"):
        ends.append(len(view))
    return np.array(ends, np.int64)


def body_batches(data: bytes | bytearray | memoryview, size: int = 1 << 25) -> Iterator[memoryview]:
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
