"""
Keys at the reader's edge: base58 out of result columns, and base58 prefixes into ranges of bytes.

Inside, a key is 32 bytes and a signature 64; only what leaves a query is base58. A
person types the beginning of an address; the rows that match are ranges of the bytes, so no row has to be encoded.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.base58_texts import ALPHABET, encode_base58_rows

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
    Return keys or signatures as text: DuckDB's `base58`.

    Args:
        keys: a pyarrow Array or ChunkedArray of binary. Not in the signature, as DuckDB evaluates that.
    """
    found: Any = keys
    if isinstance(keys, pa.ChunkedArray):
        found = keys.combine_chunks()
    lengths = pc.unique(pc.binary_length(found)).drop_null().to_pylist()
    if len(lengths) != 1 or lengths[0] not in (KEY_BYTES, SIGNATURE_BYTES):
        encoded = found.dictionary_encode()
        texts: Any = pa.array([encode_bytes(data) for data in encoded.dictionary.to_pylist()], pa.string())
        return texts.take(encoded.indices)
    width = lengths[0]
    if found.null_count:
        filled = pc.fill_null(found, bytes(width)).cast(pa.binary(width))
        return pc.if_else(found.is_valid(), encode_array(filled), None)
    fixed = found.cast(pa.binary(width))
    buffer: Any = fixed.buffers()[1]
    data = np.frombuffer(buffer, np.uint8, len(fixed) * width, fixed.offset * width)
    return encode_base58_rows(data.reshape(-1, width))


def base58_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with its binary columns as text and its whole decimals as integers."""
    changed = []
    for column in frame.get_columns():
        if column.dtype == pl.Binary:
            texts = encode_array(column.to_arrow())
            changed.append(pl.Series(column.name, texts, dtype=pl.String))
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
