"""
From a batch of payloads to the rows of each layout: where the bytes lie, and which discriminator they begin with.

What the bytes behind a discriminator say is read in `fixed.py` and `variable.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from indexer.chain.arrays.arrow import ArrowArray
from indexer.chain.arrays.lanes import Batch, Data, Ints, Numbers
from indexer.errors import DataError

Payloads: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any] | Sequence[bytes]"

# Arrow's offsets have 32 bits.
BATCH_BYTES_MAX = (1 << 31) - 1


def bytes_of(payloads: Payloads) -> tuple[Data, Ints]:
    """
    Return the bytes of all payloads, not copied if they are Arrow's, and the (n + 1) bounds between them.

    Raises:
        DataError: neither binary nor bytes, nulls, 2 GiB or more.
    """
    array: ArrowArray = payloads
    if not isinstance(payloads, pa.Array | pa.ChunkedArray):
        try:
            array = pa.array(payloads, pa.large_binary())
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DataError(f"payloads are bytes, one each: {error}") from None
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        raise DataError(f"{array.null_count} of {len(array)} payloads are null; give only those that exist")
    bounds = _bounds(array)
    first, last = int(bounds[0]), int(bounds[-1])
    if last - first > BATCH_BYTES_MAX:
        raise DataError(f"a batch of {last - first} bytes is larger than {BATCH_BYTES_MAX}; give smaller batches")
    buffer = array.buffers()[-1]
    data = np.frombuffer(buffer, np.uint8) if buffer is not None else np.empty(0, np.uint8)
    return data[first:last], bounds - first


def _bounds(array: ArrowArray) -> Ints:
    """Return where each payload begins in the array's data, and the end of the last, int64."""
    type_ = array.type
    if pa.types.is_fixed_size_binary(type_):
        return np.arange(array.offset, array.offset + len(array) + 1, dtype=np.int64) * type_.byte_width
    if not (pa.types.is_binary(type_) or pa.types.is_large_binary(type_)):
        raise DataError(f"payloads are binary, not {type_}; cast them first")
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array) + 1, np.int64)
    offsets = np.frombuffer(buffer, np.int32 if pa.types.is_binary(type_) else np.int64)
    return offsets[array.offset : array.offset + len(array) + 1].astype(np.int64)


class Finder:
    """Finds which of some discriminators payloads begin with; those of one length are looked for together."""

    def __init__(self, discriminators: Sequence[bytes]) -> None:
        self._by_length: list[tuple[int, Numbers, Ints]] = []
        for length in sorted({len(d) for d in discriminators}):
            numbers: dict[bytes, list[int]] = {}
            for number, discriminator in enumerate(discriminators):
                if len(discriminator) == length:
                    numbers.setdefault(discriminator, []).append(number)
            known = _keys(np.frombuffer(b"".join(numbers), np.uint8), length, np.arange(len(numbers)) * length)
            # What two layouts begin with is neither.
            values = np.array([found[0] if len(found) == 1 else -2 for found in numbers.values()], np.int64)
            order = np.argsort(known)
            self._by_length.append((length, known[order], values[order]))

    def find(self, data: Data, starts: Ints, ends: Ints) -> Ints:
        """Return which of the discriminators each payload begins with, negative where none or more than one."""
        found = np.full(len(starts), -1, np.int64)
        for length, known, values in self._by_length:
            enough = ends - starts >= length
            keys = _keys(data, length, starts if enough.all() else np.where(enough, starts, 0))
            index = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            fits = (known[index] == keys) & enough
            found = np.where(fits, np.where(found == -1, values[index], -2), found)
        return found


def _keys(data: Data, length: int, at: Ints) -> Numbers:
    """Return the `length` bytes at each place as something that compares fast."""
    if length == 0:
        return np.zeros(len(at), np.uint64)
    items = Batch(data, at, at).items(at, "<u8" if length == 8 else f"S{length}")
    # Bytes that end with zeros lose them when numpy compares, all keys of one length alike.
    return items.astype("S8").view("<u8") if length < 8 else items


def by_number(found: Ints) -> Iterator[tuple[int, Ints]]:
    """Yield each number from 0 that occurs, with its rows, ascending."""
    if not len(found):
        return
    if found[0] >= 0 and (found == found[0]).all():
        yield int(found[0]), np.arange(len(found))
        return
    # Of numbers this small, numpy sorts two bytes in linear time.
    order = np.argsort(found.astype(np.int16) if found.max() < 1 << 15 else found, kind="stable")
    in_order = found[order]
    for rows in np.split(order, np.flatnonzero(np.diff(in_order)) + 1):
        number = int(found[rows[0]])
        if number >= 0:
            yield number, rows
