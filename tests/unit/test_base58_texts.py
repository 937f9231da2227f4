"""Columns of keys and signatures as base58."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.base58_texts import encode_base58_rows

# More rows than are encoded at once.
MANY = 9_000


def rows(width: int) -> st.SearchStrategy[list[bytes]]:
    """Return lists of numbers, of which many begin with zeros, or are the highest there are."""
    zeros = st.integers(0, width).flatmap(lambda n: st.binary(min_size=width - n, max_size=width - n))
    padded = zeros.map(lambda data: bytes(width - len(data)) + data)
    return st.lists(padded | st.just(b"\xff" * width), max_size=8)


def encoded(data: list[bytes], width: int) -> list[str]:
    array = np.frombuffer(b"".join(data), np.uint8).reshape(-1, width)
    texts: list[str] = encode_base58_rows(array).to_pylist()
    return texts


@given(rows(32))
def test_keys_are_what_solders_writes(data: list[bytes]) -> None:
    """Leading zeros and the ends of the range, too."""
    assert encoded(data, 32) == [str(Pubkey(one)) for one in data]


@given(rows(64))
def test_signatures_are_what_solders_writes(data: list[bytes]) -> None:
    """Twice as long, and the sums are still exact."""
    assert encoded(data, 64) == [str(Signature(one)) for one in data]


@pytest.mark.parametrize("width", [32, 64])
def test_many_rows_stay_in_their_order(width: int) -> None:
    """What is encoded piece by piece is put together again; rows that are a view of others, too."""
    data = np.random.default_rng(width).integers(0, 256, (MANY, width * 2), np.uint8)[:, ::2]
    kind = Pubkey if width == 32 else Signature
    assert encode_base58_rows(data).to_pylist() == [str(kind.from_bytes(row.tobytes())) for row in data]
