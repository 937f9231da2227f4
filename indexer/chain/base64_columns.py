"""
Many base64 texts decoded by one call.

Texts whose lengths are multiples of four can be decoded as one: only padding stands between them, and it is replaced by
letters whose bytes are dropped again. Any other text is read by `logs.payloads_of`, as a single line is.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pybase64

from indexer.chain.logs import payloads_of

# An Arrow array, of the type that the docstring beside it says: pyarrow's stubs know too few of the ways to make one.
Arrow: TypeAlias = Any

# What a line says before its text; a line with anything else there is read by itself.
PREFIX = b"Program data: "

_END = (1 << 31) - 1
# Values up to this size lie in their view.
_INLINE_MAX = 12
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(5)], np.uint32)
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
    fields: npt.NDArray[np.int64]


def decode_fields(lines: Arrow) -> Decoded:
    """
    Decode data lines, all of which begin with "Program data:".

    Args:
        lines: string, (n_lines,), without nulls.
    """
    is_regular = _is_regular(lines)
    texts = _texts(lines if is_regular.all() else lines.filter(pa.array(is_regular)))
    raw = _decode(texts.letters)
    if raw is None:
        is_regular[np.flatnonzero(is_regular)[~_has_only_letters(texts)]] = False
        texts = _texts(lines.filter(pa.array(is_regular)))
        raw = _decode(texts.letters)
        assert raw is not None, "only letters are left, in groups of four"
    first = _without_padding(raw, texts)
    return _with_others(first, lines, is_regular)


class _Texts(NamedTuple):
    """
    Args:
        offsets: int64, (n + 1,): where the texts are in `letters`.
        letters: uint8, (n_letters,): the texts without their prefix, padding replaced by "A".
        pads: int64, (n,): how many letters of each are padding.
    """

    offsets: npt.NDArray[np.int64]
    letters: npt.NDArray[np.uint8]
    pads: npt.NDArray[np.int64]


def _is_regular(lines: Arrow) -> npt.NDArray[np.bool_]:
    """Return which lines have, as far as their length and their prefix tell, one field."""
    offsets, data = bytes_of(lines)
    lengths = np.diff(offsets) - len(PREFIX)
    is_regular: npt.NDArray[np.bool_] = (lengths > 0) & (lengths % 4 == 0)
    space = np.where(is_regular, offsets[:-1] + len(PREFIX) - 1, 0)
    if is_regular.any():
        is_regular &= data[space] == PREFIX[-1]
    return is_regular


def _texts(lines: Arrow) -> _Texts:
    """Each line has a text of at least four letters, and of a multiple of four."""
    # Without an end, Arrow's slice fails on long values (apache/arrow#51222).
    offsets, data = bytes_of(pc.binary_slice(lines.cast(pa.binary()), len(PREFIX), _END))
    letters = data[offsets[0] : offsets[-1]].copy()
    offsets -= offsets[0]
    last = offsets[1:] - 1
    pads = (letters[last] == _PAD).astype(np.int64)
    pads += (pads == 1) & (letters[last - 1] == _PAD)
    letters[last[pads > 0]] = ord("A")
    letters[last[pads > 1] - 1] = ord("A")
    return _Texts(offsets, letters, pads)


def bytes_of(array: Arrow) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return int64 offsets, (n + 1,), and the bytes that they refer to."""
    _, offset_buffer, data_buffer = array.buffers()
    if len(array) == 0 or offset_buffer is None or data_buffer is None:
        return np.zeros(len(array) + 1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    return offsets.astype(np.int64), np.frombuffer(data_buffer, np.uint8)


def _decode(letters: npt.NDArray[np.uint8]) -> bytes | None:
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


def array_of_parts(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> Arrow:
    """
    Return `sizes` bytes of `data` from each of `starts`.

    Args:
        data: uint8, (n_bytes,), less than 2 GiB.
        starts, sizes: int64, (n_values,).
    """
    # Views may leave bytes between them out; making them one array copies only what they show.
    buffers = [None, _buffer(_views(data, starts, sizes)), _buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(starts), buffers).cast(pa.binary())


def _views(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """
    Return Arrow's 16 bytes for each value: its size, then the value itself, or its first bytes, buffer and place.

    Source: Arrow Columnar Format, "Variable-size Binary View Layout".
    """
    padded = np.concatenate([data, np.zeros(_INLINE_MAX, np.uint8)]) if (sizes <= _INLINE_MAX).any() else data
    words = np.ndarray(shape=(len(padded) - 3,), dtype="<u4", buffer=padded, strides=(1,))
    views = np.zeros((len(sizes), 4), "<u4")
    views[:, 0] = sizes
    views[:, 1] = words[starts]
    views[:, 3] = starts
    inline = np.flatnonzero(sizes <= _INLINE_MAX)
    for word in range(3 if len(inline) else 0):
        held = np.clip(sizes[inline] - 4 * word, 0, 4)
        views[inline, 1 + word] = words[starts[inline] + 4 * word] & _FIRST_BYTES[held]
    return views


def _with_others(first: Arrow, lines: Arrow, is_regular: npt.NDArray[np.bool_]) -> Decoded:
    """Put the lines that are not regular, read one by one, between the others."""
    fields = np.ones(len(lines), np.int64)
    others = np.flatnonzero(~is_regular)
    if len(others) == 0:
        return Decoded(first, fields)
    read = [payloads_of(line) for line in lines.take(others).to_pylist()]
    fields[others] = [-1 if payloads is None else len(payloads) for payloads in read]
    more = pa.array([payloads[0] if payloads else b"" for payloads in read], pa.binary())
    places = np.empty(len(lines), np.int64)
    places[np.flatnonzero(is_regular)] = np.arange(len(first))
    places[others] = np.arange(len(first), len(lines))
    return Decoded(pa.concat_arrays([first, more]).take(places), fields)
