"""
Many base58 texts decoded at once, as instruction data and signatures come in bodies.

Five letters make a limb, a number below 58**5; the bytes of a text are its limbs times the powers of 58**5, written in
words of two bytes. Both fit floats exactly, so that one matrix product does for all texts what long division would do
for each.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from indexer.chain.base64_columns import Arrow, array_of_parts

_ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_STRANGER = 255
_DIGITS = np.full(256, _STRANGER, np.uint8)
_DIGITS[list(_ALPHABET)] = np.arange(58)
_LIMB = 5
# 30 bits of a limb, 16 of a word, and 7 for the sum of as many products: what a float holds exactly.
_LIMBS_MAX = 128
LETTERS_MAX = _LIMB * _LIMBS_MAX
# Texts at once: what belongs to them stays near the processor.
_BLOCK = 4096
_PRODUCT_MAX = 200_000


class Decoded(NamedTuple):
    """
    Args:
        values: binary, (n_texts,); b"" where they are not valid.
        valid: bool, (n_texts,); False also of a text that is longer than LETTERS_MAX, or that is mostly zero bytes:
            those are left to `decode_base58`.
    """

    values: Arrow
    valid: npt.NDArray[np.bool_]


def decode_base58_columns(texts: Sequence[str]) -> Decoded:
    """
    Return the bytes that each text stands for.

    Source: the value of a text is a number in base 58; each leading "1" is a zero byte more.
    """
    if not texts:
        return Decoded(pa.array([], pa.binary()), np.zeros(0, np.bool_))
    given = np.fromiter(map(len, texts), np.int64, len(texts))
    lengths = np.where(given > LETTERS_MAX, 0, given)
    width = max(-(-int(lengths.max()) // _LIMB) * _LIMB, _LIMB)
    # Numbers are right-aligned; "1" in front is a digit of 0. A letter that is not ASCII stays one, and a strange one.
    letters = "".join([text[-width:].rjust(width, "1") for text in texts]).encode("ascii", "replace")
    digits = _DIGITS[np.frombuffer(letters, np.uint8)].reshape(len(texts), width)
    valid = (digits.max(axis=1) != _STRANGER) & (lengths == given)
    digits[~valid] = 0
    raw = np.concatenate([_to_bytes(digits[at : at + _BLOCK]) for at in range(0, len(digits), _BLOCK)])
    ones = np.minimum(_leading_zeros(digits) - (width - lengths), lengths)
    sizes = raw.shape[1] - _leading_zeros(raw) + ones
    valid &= sizes <= raw.shape[1]
    sizes[~valid] = 0
    starts = np.arange(1, len(texts) + 1) * raw.shape[1] - sizes
    return Decoded(array_of_parts(raw.reshape(-1), starts, sizes), valid)


def _leading_zeros(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    is_set = rows != 0
    zeros: npt.NDArray[np.int64] = np.where(is_set.any(axis=1), is_set.argmax(axis=1), rows.shape[1])
    return zeros


def _to_bytes(digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the numbers, big-endian, (n, n_bytes)."""
    count, width = digits.shape
    columns = np.ascontiguousarray(digits.T)
    limbs = columns[0::_LIMB].astype(np.int64)
    for place in range(1, _LIMB):
        limbs = limbs * 58 + columns[place::_LIMB]
    powers, factors = _powers(width // _LIMB), limbs.astype(np.float64)
    # Products this small stay in one thread, which is faster than waking others for them.
    step = max(_PRODUCT_MAX // powers.size, 1)
    parts = [powers @ factors[:, at : at + step] for at in range(0, count, step)]
    sums = np.concatenate(parts, axis=1).astype(np.int64)
    # Word by word from the lowest: what does not fit is carried.
    words = np.empty((len(sums), count), ">u2")
    carry = np.zeros(count, np.int64)
    for place in range(len(sums)):
        carry += sums[place]
        words[-1 - place] = carry & 0xFFFF
        carry >>= 16
    return np.ascontiguousarray(words.T).view(np.uint8).reshape(count, -1)


@lru_cache(maxsize=_LIMBS_MAX)
def _powers(limbs: int) -> npt.NDArray[np.float64]:
    """Return 58**5 to the place of each limb, highest first, as columns of two-byte words, lowest first."""
    words = -(-limbs * 30 // 16) + 1
    powers = [58 ** (_LIMB * place) for place in range(limbs - 1, -1, -1)]
    return np.array([[float(power >> (16 * word) & 0xFFFF) for power in powers] for word in range(words)])
