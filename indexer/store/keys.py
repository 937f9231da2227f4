"""
Keys at the reader's edge: base58 out of result columns, and base58 prefixes into ranges of bytes.

Inside, a key is 32 bytes and a signature 64; only what leaves a query is base58, each distinct key encoded once. A
person types the beginning of an address; the rows that match are ranges of the bytes, so no row has to be encoded.
"""

from typing import Any

import polars as pl
import pyarrow as pa
from solders.pubkey import Pubkey
from solders.signature import Signature

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
TEXT_LENGTH_MAX = 44  # of 32 bytes in base58


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a base58 address. ValueError where it is none."""
    return bytes(Pubkey.from_string(text))


def encode_bytes(data: bytes) -> str:
    """Return base58 for what is as long as a key or a signature, hex for everything else."""
    if len(data) == KEY_BYTES:
        return str(Pubkey.from_bytes(data))
    if len(data) == SIGNATURE_BYTES:
        return str(Signature.from_bytes(data))
    return data.hex()


def encode_array(keys: Any) -> Any:
    """
    Return keys or signatures as text, each distinct one encoded once: DuckDB's `base58`.

    Args:
        keys: a pyarrow Array or ChunkedArray of binary. Not in the signature, as DuckDB evaluates that.
    """
    found = (keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys).dictionary_encode()
    distinct: Any = found.dictionary.to_pylist()
    texts = pa.array([encode_bytes(data) for data in distinct], pa.string())
    return texts.take(found.indices)


def base58_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with its binary columns as text and its whole decimals as integers."""
    changed = []
    for column in frame.get_columns():
        if column.dtype == pl.Binary:
            distinct = column.drop_nulls().unique()
            texts = pl.Series([encode_bytes(data) for data in distinct], dtype=pl.String)
            changed.append(column.replace_strict(distinct, texts, default=None, return_dtype=pl.String))
        elif isinstance(column.dtype, pl.Decimal) and column.dtype.scale == 0:
            changed.append(column.cast(pl.Int128))
    return frame.with_columns(changed) if changed else frame


def key_ranges(prefix: str) -> list[tuple[bytes, bytes]]:
    """
    Return the ranges (first, last) of 32-byte keys whose base58 text begins with `prefix`; none where no key's does.

    Leading zero bytes are leading "1"s, one for one; the rest of the text is the number in base 58 without leading
    zeros. So a prefix fixes a number of zero bytes, and for each length of the text a range of the number.
    """
    digits = prefix.lstrip("1")
    zeros = len(prefix) - len(digits)
    if any(letter not in ALPHABET for letter in digits) or zeros > KEY_BYTES or len(prefix) > TEXT_LENGTH_MAX:
        return []
    # With so many zero bytes the number stays below this.
    bound = 256 ** (KEY_BYTES - zeros)
    if not digits:
        return [_range(0, bound - 1)]
    least = bound // 256  # a smaller number would have one zero byte, and one "1", more
    number = 0
    for letter in digits:
        number = number * 58 + ALPHABET.index(letter)
    ranges = []
    for more in range(TEXT_LENGTH_MAX - len(digits) + 1):
        first, last = max(number * 58**more, least), min((number + 1) * 58**more, bound) - 1
        if first <= last:
            ranges.append(_range(first, last))
    return ranges


def _range(first: int, last: int) -> tuple[bytes, bytes]:
    return first.to_bytes(KEY_BYTES, "big"), last.to_bytes(KEY_BYTES, "big")
