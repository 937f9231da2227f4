"""
Many base64 texts decoded by one call.

Texts whose lengths are multiples of four can be decoded as one: only padding stands between them, and it is replaced by
letters whose bytes are dropped again. Any other text is read by `logs.payloads_of`, as a single line is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pybase64

from indexer.chain.logs import payloads_of

# An Arrow array, of the type that the docstring beside it says: pyarrow's stubs know too few of the ways to make one.
Arrow: TypeAlias = Any
Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]

# What a line says before its text; a line with anything else there is read by itself.
PREFIX = b"Program data: "

_PAD = ord("=")
_IS_LETTER = np.zeros(256, np.bool_)
_IS_LETTER[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")] = True


class Decoded(NamedTuple):
    """
    Args:
        first: binary, (n_lines,): the first field, b"" where there is none or it could not be read.
        fields: int64, (n_lines,): number of fields; -1 where one of them is not base64.
    """

    first: Arrow
    fields: Ints


def decode_fields(data: Bytes, starts: Ints, ends: Ints) -> Decoded:
    """
    Decode data lines, all of which begin with "Program data:".

    Args:
        data: uint8, UTF-8.
        starts, ends: int64, (n_lines,): where in `data` each line lies.
    """
    begins = starts + len(PREFIX)
    sizes = ends - begins
    is_regular = _is_regular(data, begins, sizes)
    texts = _texts(data, begins[is_regular], sizes[is_regular])
    raw = _decode(texts.letters)
    if raw is None:
        is_regular[np.flatnonzero(is_regular)[~_has_only_letters(texts)]] = False
        texts = _texts(data, begins[is_regular], sizes[is_regular])
        raw = _decode(texts.letters)
        assert raw is not None, "only letters are left, in groups of four"
    first = _without_padding(raw, texts)
    others = np.flatnonzero(~is_regular)
    if len(others) == 0:
        return Decoded(first, np.ones(len(starts), np.int64))
    lines = [data[starts[at] : ends[at]].tobytes().decode() for at in others.tolist()]
    return _with_others(first, lines, others, is_regular)


class _Texts(NamedTuple):
    """
    Args:
        offsets: int64, (n + 1,): where the texts are in `letters`.
        letters: uint8, (n_letters,): the texts without their prefix, padding replaced by "A".
        pads: int64, (n,): how many letters of each are padding.
    """

    offsets: Ints
    letters: Bytes
    pads: Ints


def _is_regular(data: Bytes, begins: Ints, sizes: Ints) -> npt.NDArray[np.bool_]:
    """Return which lines have, as far as their length and their prefix tell, one field."""
    is_regular: npt.NDArray[np.bool_] = (sizes > 0) & (sizes & 3 == 0)
    is_regular[is_regular] = data[begins[is_regular] - 1] == PREFIX[-1]
    return is_regular


def _texts(data: Bytes, begins: Ints, sizes: Ints) -> _Texts:
    """Each text has at least four letters, and a multiple of four."""
    offsets, letters = bytes_of(array_of_parts(data, begins, sizes))
    letters = letters[: offsets[-1]].copy()
    last = offsets[1:] - 1
    pads = (letters[last] == _PAD).astype(np.int64)
    pads += (pads == 1) & (letters[last - 1] == _PAD)
    letters[last[pads > 0]] = ord("A")
    letters[last[pads > 1] - 1] = ord("A")
    return _Texts(offsets, letters, pads)


def bytes_of(array: Arrow) -> tuple[Ints, Bytes]:
    """Return int64 offsets, (n + 1,), and the bytes that they refer to."""
    _, offset_buffer, data_buffer = array.buffers()
    if len(array) == 0 or offset_buffer is None or data_buffer is None:
        return np.zeros(len(array) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    return offsets.astype(np.int64), np.frombuffer(data_buffer, np.uint8)


def _decode(letters: Bytes) -> bytes | None:
    try:
        return pybase64.b64decode(_buffer(letters), validate=True)
    except ValueError:
        return None


def _buffer(data: Any) -> pa.Buffer:
    """Return what an array, or bytes, has, without a copy."""
    return pa.py_buffer(data)


def _has_only_letters(texts: _Texts) -> npt.NDArray[np.bool_]:
    strangers = np.flatnonzero(~_IS_LETTER[texts.letters])
    fine = np.ones(len(texts.pads), np.bool_)
    fine[np.searchsorted(texts.offsets, strangers, side="right") - 1] = False
    return fine


def _without_padding(raw: bytes, texts: _Texts) -> Arrow:
    starts = texts.offsets // 4 * 3
    if not texts.pads.any():
        buffers = [None, _buffer(starts.astype(np.int32)), _buffer(raw)]
        return pa.Array.from_buffers(pa.binary(), len(texts.pads), buffers)
    return array_of_parts(np.frombuffer(raw, np.uint8), starts[:-1], np.diff(starts) - texts.pads)


def array_of_parts(data: Bytes, starts: Ints, sizes: Ints) -> Arrow:
    """
    Return `sizes` bytes of `data` from each of `starts`.

    Args:
        data: uint8, (n_bytes,), less than 2 GiB.
        starts, sizes: int64, (n_values,): ascending, and no part reaches into the next.
    """
    # The parts, and the gaps between them, are the values of one array, of which Arrow copies every second.
    bounds = np.zeros(2 * len(starts) + 1, np.int32)
    bounds[0:-1:2] = starts
    bounds[1::2] = starts + sizes
    bounds[-1] = bounds[-2:].max()
    both: Arrow = pa.Array.from_buffers(pa.binary(), 2 * len(starts), [None, _buffer(bounds), _buffer(data)])
    return both.take(pa.array(np.arange(0, 2 * len(starts), 2), pa.int64()))


def _with_others(first: Arrow, lines: Sequence[str], others: Ints, is_regular: npt.NDArray[np.bool_]) -> Decoded:
    """Put the lines that are not regular, read one by one, between the others."""
    fields = np.ones(len(is_regular), np.int64)
    read = [payloads_of(line) for line in lines]
    fields[others] = [-1 if payloads is None else len(payloads) for payloads in read]
    more = pa.array([payloads[0] if payloads else b"" for payloads in read], pa.binary())
    places = np.empty(len(is_regular), np.int64)
    places[np.flatnonzero(is_regular)] = np.arange(len(first))
    places[others] = np.arange(len(first), len(is_regular))
    return Decoded(pa.concat_arrays([first, more]).take(places), fields)
