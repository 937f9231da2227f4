"""
Many base58 texts decoded at once, as instruction data and signatures come in bodies.

Five letters make a limb, a number below 58**5; the bytes of a text are its limbs times the powers of 58**5, written in
words of two bytes. Both fit floats exactly, so that one matrix product does for all texts what long division would do
for each.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from solders.pubkey import Pubkey

from indexer.chain.base64_columns import Arrow, array_of_parts, bytes_of

_ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_NOT_USED = (b"0", b"O", b"I", b"l")
_STRANGER = 255
# For bytes.translate, which is faster than an array's index.
_DIGITS = bytes(_ALPHABET.find(letter) if letter in _ALPHABET else _STRANGER for letter in range(256))
_LIMB = 5
# 30 bits of a limb, 16 of a word, and 7 for the sum of as many products: what a float holds exactly.
_LIMBS_MAX = 128
LETTERS_MAX = _LIMB * _LIMBS_MAX
# A key of 44 letters is below 2**256, which begins with J; one of 43 that begins behind 5 is not below 2**248.
_KEY_LETTERS = 44
_FIRST_BEYOND, _FIRST_BELOW = ord("J"), ord("5")
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


def decode_base58_columns(texts: Arrow) -> Decoded:
    """
    Return the bytes that each text stands for.

    Source: the value of a text is a number in base 58; each leading "1" is a zero byte more.

    Args:
        texts: string, (n_texts,), without nulls.
    """
    if not len(texts):
        return Decoded(pa.array([], pa.binary()), np.zeros(0, np.bool_))
    given = np.asarray(pc.binary_length(texts)).astype(np.int64)
    is_readable = given <= LETTERS_MAX
    is_ascii = np.asarray(pc.string_is_ascii(texts))
    if not (is_readable.all() and is_ascii.all()):
        is_readable &= is_ascii
        # Something as short as any that is none either.
        texts = pc.if_else(pa.array(is_readable), texts, "0")
    lengths = np.where(is_readable, given, 1)
    width = -(-max(int(lengths.max()), 1) // _LIMB) * _LIMB
    # Numbers are right-aligned; "1" in front is a digit of 0.
    offsets, letters = bytes_of(pc.ascii_lpad(texts, width, "1"))
    digits = _digits_of(letters[offsets[0] : offsets[-1]]).reshape(len(texts), width)
    valid = digits.max(axis=1) != _STRANGER
    if not valid.all():
        digits = np.where(valid[:, None], digits, 0)
    raw = np.concatenate([_to_bytes(digits[at : at + _BLOCK]) for at in range(0, len(digits), _BLOCK)])
    ones = np.minimum(_leading_zeros(digits) - (width - lengths), lengths)
    sizes = raw.shape[1] - _leading_zeros(raw) + ones
    valid &= sizes <= raw.shape[1]
    sizes[~valid] = 0
    starts = np.arange(1, len(texts) + 1) * raw.shape[1] - sizes
    return Decoded(array_of_parts(raw.reshape(-1), starts, sizes), valid)


def are_keys(texts: Arrow) -> npt.NDArray[np.bool_]:
    """
    Return which texts are public keys; nulls are none.

    Args:
        texts: string, (n_texts,).
    """
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    if not len(texts):
        return np.zeros(0, np.bool_)
    offsets, letters = bytes_of(texts)
    if not len(letters):
        return np.zeros(len(texts), np.bool_)
    lengths, first = np.diff(offsets), letters[np.minimum(offsets[:-1], len(letters) - 1)]
    # Nearly every key has 43 or 44 letters, the first of which says that the number has 32 bytes.
    sure: npt.NDArray[np.bool_] = np.where(lengths == _KEY_LETTERS, first < _FIRST_BEYOND, first > _FIRST_BELOW)
    sure &= (lengths == _KEY_LETTERS) | (lengths == _KEY_LETTERS - 1)
    used = letters[offsets[0] : offsets[-1]]
    text = used.tobytes()
    if not text.isalnum() or any(letter in text for letter in _NOT_USED):
        strange = offsets[0] + np.flatnonzero(_digits_of(used) == _STRANGER)
        sure[np.searchsorted(offsets, strange, "right") - 1] = False
    unsure = np.flatnonzero(~sure)
    # Mostly the few programs that everybody calls.
    distinct = texts.take(unsure).dictionary_encode()
    are = np.array([_is_key(text) for text in distinct.dictionary.to_pylist()], np.bool_)
    if len(unsure):
        sure[unsure] = are[np.asarray(distinct.indices)]
    return sure


def _digits_of(letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(letters.tobytes().translate(_DIGITS), np.uint8)


@lru_cache(maxsize=131_072)
def _is_key(text: str) -> bool:
    try:
        Pubkey.from_string(text)
    except ValueError:
        return False
    return True


def _leading_zeros(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    is_set = rows != 0
    zeros: npt.NDArray[np.int64] = np.where(is_set.any(axis=1), is_set.argmax(axis=1), rows.shape[1])
    return zeros


def _to_bytes(digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the numbers, big-endian, (n, n_bytes)."""
    count, width = digits.shape
    columns = np.ascontiguousarray(digits.T)
    limbs = columns[0::_LIMB].astype(np.int32)
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
