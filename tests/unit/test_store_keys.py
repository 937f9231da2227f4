"""Base58 at the reader's edge."""

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.base58_texts import ALPHABET
from indexer.store.keys import base58_columns, decode_key, key_ranges

KEYS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 32).flatmap(lambda n: st.binary(min_size=32 - n, max_size=32 - n).map(lambda b: bytes(n) + b)),
)


def _matches(key: bytes, prefix: str) -> bool:
    return any(first <= key <= last for first, last in key_ranges(prefix))


@given(KEYS, st.integers(1, 44))
def test_a_key_is_found_by_every_beginning_of_its_text(key: bytes, length: int) -> None:
    """Whatever part of an address a person types, the address is among the matches."""
    assert _matches(key, str(Pubkey(key))[:length])


@given(KEYS, st.text(ALPHABET, min_size=1, max_size=6))
def test_a_key_is_found_only_by_beginnings_of_its_text(key: bytes, prefix: str) -> None:
    """The ranges hold nothing else: bytes in a range are text with that prefix."""
    assert _matches(key, prefix) == str(Pubkey(key)).startswith(prefix)


@given(KEYS, st.integers(1, 8), st.sampled_from(ALPHABET))
def test_one_other_letter_does_not_match(key: bytes, length: int, letter: str) -> None:
    """Close misses are misses, also around leading zeros."""
    prefix = str(Pubkey(key))[: length - 1] + letter
    assert _matches(key, prefix) == str(Pubkey(key)).startswith(prefix)


@pytest.mark.parametrize("prefix", ["0", "O", "l", "I", "vault!", "1" * 33, "z" * 45])
def test_what_no_address_begins_with_matches_nothing(prefix: str) -> None:
    """Letters that base58 lacks, and texts no key is long enough for, give no range."""
    assert key_ranges(prefix) == []


def test_columns_leave_as_text_and_whole_numbers() -> None:
    """Keys and signatures become base58, other bytes hex, sums integers; everything else stays."""
    key, signature = bytes(range(32)), bytes(range(64))
    frame = base58_columns(
        pl.DataFrame(
            {
                "key": [key, None, key],
                "signature": [signature] * 3,
                "data": [b"\x00\xff", b"", None],
                "sum": pl.Series([Decimal(2**64), None, Decimal(1)], dtype=pl.Decimal(38, 0)),
                "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 3,
            }
        )
    )
    assert frame["key"].to_list() == [str(Pubkey(key)), None, str(Pubkey(key))]
    assert frame["signature"].to_list() == [str(Signature(signature))] * 3
    assert frame["data"].to_list() == ["00ff", "", None]
    assert frame["sum"].to_list() == [2**64, None, 1]
    assert frame["at"].null_count() == 0


def test_an_empty_result_keeps_its_columns_types() -> None:
    """A page without rows shows the same columns as one with rows."""
    frame = base58_columns(pl.DataFrame({"key": pl.Series([], dtype=pl.Binary)}))
    assert frame.schema == {"key": pl.String}


def test_an_address_that_is_none_is_a_value_error() -> None:
    """The reader turns it into a sentence."""
    with pytest.raises(ValueError, match="Base58"):
        decode_key("not an address")
