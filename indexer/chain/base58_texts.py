"""
Keys and signatures as base58, all of a column at once: what `str(Pubkey)` gives for each, with array operations.

A number of 32 or 64 bytes is a sum of 16-bit limbs, each times a constant that is written down in base 58**5; so the
digits are one product of matrices and carries. Every product and sum stays below 2**53, where a float is exact.
Reading base58 is the business of `base58.py` and `base58_columns.py`.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

_DIGITS = 5
_BASE = 58**_DIGITS
_LETTERS = np.frombuffer(ALPHABET.encode(), np.uint8)
# What is worked on at once is to stay in the cache.
_ROWS = 4_096


def encode_base58_rows(data: npt.NDArray[np.uint8]) -> Any:
    """
    Return base58 texts, a pyarrow string array.

    Args:
        data: uint8, (n, width), a number a row; width is even and 64 at most.
    """
    count, width = data.shape
    assert width % 2 == 0 and width <= 64, "the sums would not be exact"  # noqa: PT018 - one bound
    if count == 0:
        return pa.array([], pa.string())
    parts = [_encode(data[start : start + _ROWS]) for start in range(0, count, _ROWS)]
    lengths = np.concatenate([lengths for _, lengths in parts])
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    letters = np.concatenate([letters for letters, _ in parts])
    if offsets[-1] >= 2**31:
        raise OverflowError(f"{count:,} texts are more than 2 GiB: encode fewer at once")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32).tobytes()), pa.py_buffer(letters.tobytes())]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def _encode(data: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the letters of all rows after one another, and how many each row has."""
    count, width = data.shape
    weights = _weights(width)
    limbs = np.ascontiguousarray(np.ascontiguousarray(data).view(">u2").T, np.float64)
    # Not `@`: for so little work BLAS would wake threads, at several times the price.
    sums = np.einsum("pl,ln->pn", weights, limbs).astype(np.int64)
    digits = np.empty((len(weights) * _DIGITS, count), np.uint8)
    carry = np.zeros(count, np.int64)
    for place in range(len(weights) - 1, -1, -1):
        value = sums[place] + carry
        carry = value // _BASE
        limb = (value - carry * _BASE).astype(np.uint32)
        for digit in range(place * _DIGITS + _DIGITS - 1, place * _DIGITS - 1, -1):
            rest = limb // np.uint32(58)
            digits[digit] = limb - rest * np.uint32(58)
            limb = rest
    rows = np.ascontiguousarray(digits.T)
    # A leading zero byte is a leading "1", one for one; the number behind them has no leading zeros.
    skipped = _leading_zeros(rows) - _leading_zeros(data)
    is_kept = np.arange(rows.shape[1]) >= skipped[:, None]
    return np.take(_LETTERS, rows[is_kept]), rows.shape[1] - skipped


def _leading_zeros(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    is_other = rows != 0
    count: npt.NDArray[np.int64] = np.where(is_other.any(axis=1), is_other.argmax(axis=1), rows.shape[1])
    return count


@lru_cache
def _weights(width: int) -> npt.NDArray[np.float64]:
    """Return what each 16-bit limb is worth in each place of base 58**5, most significant first: (places, limbs)."""
    places = 0
    while _BASE**places < 256**width:
        places += 1
    table = np.zeros((places, width // 2))
    for limb in range(width // 2):
        number = 256 ** (width - 2 - 2 * limb)
        for place in range(places - 1, -1, -1):
            number, table[place, limb] = divmod(number, _BASE)
    return table
