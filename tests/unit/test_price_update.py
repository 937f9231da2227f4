"""Pyth's price account as bytes: every field at its offset, and one byte further where verification is partial."""

import struct
from dataclasses import replace

import pytest

from localnet.oracle import PRICE_UPDATE_BYTES, PriceUpdate, find_price_account, read_price_update

UPDATE = PriceUpdate(
    feed_id=bytes(range(32)), price=-5, conf=6, exponent=-8, publish_time=1_700_000_000,
    prev_publish_time=1_699_999_999, ema_price=7, ema_conf=8, posted_slot=9, write_authority=bytes([3] * 32),
)  # fmt: skip


def test_fields_lie_at_pyths_offsets() -> None:
    """As the receiver program writes them, verification full."""
    data = bytes(UPDATE)
    assert len(data) == PRICE_UPDATE_BYTES
    assert data[:8].hex() == "22f123639d7ef4cd"
    assert data[8:41] == bytes([3] * 32) + b"\x01"
    assert data[41:73] == bytes(range(32))
    assert struct.unpack_from("<qQi", data, 73) == (-5, 6, -8)
    assert struct.unpack_from("<qqqQQ", data, 93) == (1_700_000_000, 1_699_999_999, 7, 8, 9)
    assert data[133:] == b"\x00"


def test_partial_verification_moves_every_field() -> None:
    """The number of signatures takes a byte that full verification has not; the length stays."""
    full, partial = bytes(UPDATE), bytes(replace(UPDATE, signatures=5))
    assert partial[40:42] == b"\x00\x05"
    assert partial[42:] == full[41:133]
    assert len(partial) == PRICE_UPDATE_BYTES


@pytest.mark.parametrize("signatures", [None, 0, 19, 255])
def test_what_was_written_is_read(signatures: int | None) -> None:
    """Both ways, both forms."""
    update = replace(UPDATE, signatures=signatures)
    assert read_price_update(bytes(update)) == update


def test_what_is_no_price_update_is_none() -> None:
    """Another length, another discriminator, another verification."""
    data = bytes(UPDATE)
    for wrong in (b"", data[:-1], data + b"\x00", b"\x00" + data[1:], data[:40] + b"\x02" + data[41:]):
        assert read_price_update(wrong) is None


def test_a_number_that_does_not_fit_is_an_error() -> None:
    """Nothing is cut to size in silence."""
    with pytest.raises(struct.error):
        bytes(replace(UPDATE, conf=2**64))


def test_feeds_have_addresses_of_their_own() -> None:
    """The push oracle's account for SOL/USD, as Pyth publishes it."""
    sol_usd = bytes.fromhex("ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d")
    assert str(find_price_account(sol_usd)) == "7UVimffxr9ow1uXYxsr4LHAcV58mLzhmwaeKvJ1pjLiE"
    assert find_price_account(sol_usd, shard=1) != find_price_account(sol_usd)
