"""Base58 of many texts at once means what it means for each."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from indexer.chain.base58 import decode_base58
from indexer.chain.base58_columns import LETTERS_MAX, are_keys, decode_base58_columns
from indexer.errors import DataError

LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LARGEST = str(Pubkey(b"\xff" * 32))
SMALLEST_OF_32_BYTES = str(Pubkey(b"\1" + bytes(31)))
keys = st.binary(min_size=32, max_size=32).map(lambda raw: str(Pubkey(raw)))
texts = st.one_of(
    st.text(LETTERS, max_size=100),
    st.text(LETTERS, min_size=43, max_size=44),
    st.text(LETTERS + "0OIl\n\xe9", max_size=50),
    st.text(max_size=5),
    st.just("1" * 32),
    keys,
    keys.map(lambda key: key[:-1]),
    keys.map(lambda key: key + "2"),
)


def is_key(text: str) -> bool:
    try:
        Pubkey.from_string(text)
    except ValueError:
        return False
    return True


@settings(deadline=None)
@given(st.lists(st.none() | texts, max_size=8), st.integers(0, 2))
def test_keys_are_told_as_one_by_one(some: list[str | None], start: int) -> None:
    """Also of a slice, of texts that are nothing, and of nulls, which are no keys."""
    expected = [text is not None and is_key(text) for text in some]
    assert are_keys(pa.array(some, pa.string()).slice(start)).tolist() == expected[start:]


def test_keys_at_the_ends_of_their_range() -> None:
    """The largest 32 bytes, and what comes behind them; the smallest without a zero in front, and what comes before."""
    beyond, below = LARGEST[:-1] + "H", SMALLEST_OF_32_BYTES[:-1] + "1"
    some = [LARGEST, beyond, SMALLEST_OF_32_BYTES, below, "z" * 44, "J" + "1" * 43, "5" * 43, "6" + "1" * 42, ""]
    assert are_keys(pa.array(some)).tolist() == [is_key(text) for text in some]


@settings(deadline=None)
@given(st.lists(texts, max_size=8), st.integers(0, 2))
def test_texts_are_decoded_as_one_by_one(some: list[str], start: int) -> None:
    """What is not valid is said; only texts mostly of zeros may be said to be so as well."""
    decoded = decode_base58_columns(pa.array(some, pa.string()).slice(start))
    for text, value, is_valid in zip(some[start:], decoded.values.to_pylist(), decoded.valid.tolist(), strict=True):
        try:
            expected = decode_base58(text)
        except DataError:
            assert not is_valid
            continue
        assert value == (expected if is_valid else b"")
        assert is_valid or text.startswith("1" * 3)


def test_a_text_beyond_the_longest_is_left_out() -> None:
    """And what stands beside it is not."""
    decoded = decode_base58_columns(pa.array(["2" * (LETTERS_MAX + 1), "2g"]))
    assert decoded.valid.tolist() == [False, True]
    assert decoded.values.to_pylist() == [b"", b"a"]
