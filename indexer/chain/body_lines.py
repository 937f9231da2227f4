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
    data = np.frombuffer(view, np.uint8)
    # Piece by piece, so that what is compared stays near the processor.
    pieces = [_places(data[at : at + _SEARCH]) + at for at in range(0, len(data), _SEARCH)]
    ends = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    return ends if len(data) == 0 or data[-1] == ord("\n") else np.append(ends, len(data))


def _places(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return where a line ends. Line ends are rare: eight bytes at once are asked whether they have any."""
    is_end = data == ord("\n")
    whole = len(data) // 8 * 8
    words = np.flatnonzero(is_end[:whole].view(np.uint64)) * 8
    if len(words) == 0:
        return whole + np.flatnonzero(is_end[whole:])
    near = np.append((words[:, None] + np.arange(8)).reshape(-1), np.arange(whole, len(data)))
    places: npt.NDArray[np.int64] = near[is_end[near]]
    return places


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
