"""
Pyth's `PriceUpdateV2` accounts as bytes: where a price lies, and how one is written.

A validator gets these accounts from Pyth's receiver program; a test chain has no publishers, so whoever runs one writes
them. What is written here is the account's data alone: the price path, the slot and the writing are the chain's.
"""

import struct
from dataclasses import dataclass

from solders.pubkey import Pubkey

RECEIVER_PROGRAM_ID = Pubkey.from_string("rec5EKMGg6MxZYaMdyBfgwp4d5rB9T1VQH5pJv5LtFJ")
PUSH_PROGRAM_ID = Pubkey.from_string("pythWSnswVUd12oZpeFP8e9CVaEqJg25g1Vtc2biRsT")
DISCRIMINATOR = bytes.fromhex("22f123639d7ef4cd")
PRICE_UPDATE_BYTES = 134
FULL = b"\x01"
FIELDS = struct.Struct("<32sqQiqqqQQ")
"""From feed_id to posted_slot."""


@dataclass(frozen=True, kw_only=True)
class PriceUpdate:
    """
    One published price: `price` * 10**`exponent` of the quote currency, give or take `conf` of the same unit.

    Args:
        feed_id: 32 bytes.
        publish_time: unix seconds, as `prev_publish_time`, the update's before this one.
        ema_price, ema_conf: moving averages, of the unit of `price`.
        posted_slot: when the account was written.
        write_authority: who may write it, 32 bytes.
        signatures: of the publishers' guardians, where only so many of them were verified; None: all that it takes.
    """

    feed_id: bytes
    price: int
    conf: int
    exponent: int
    publish_time: int
    prev_publish_time: int
    ema_price: int
    ema_conf: int
    posted_slot: int
    write_authority: bytes = bytes(32)
    signatures: int | None = None

    def __bytes__(self) -> bytes:
        """
        Return the account's data, PRICE_UPDATE_BYTES long.

        Partial verification takes a byte more than full, which moves every field after it.

        Raises:
            struct.error: a number does not fit its field.
        """
        verification = FULL if self.signatures is None else b"\x00" + struct.pack("<B", self.signatures)
        fields = FIELDS.pack(
            self.feed_id, self.price, self.conf, self.exponent, self.publish_time, self.prev_publish_time,
            self.ema_price, self.ema_conf, self.posted_slot,
        )  # fmt: skip
        return (DISCRIMINATOR + self.write_authority + verification + fields).ljust(PRICE_UPDATE_BYTES, b"\0")


def read_price_update(data: bytes) -> PriceUpdate | None:
    """Return what the account's data says, or None where it is not such an account's."""
    if len(data) != PRICE_UPDATE_BYTES or data[:8] != DISCRIMINATOR or data[40] > 1:
        return None
    signatures, start = (None, 41) if data[40] == 1 else (data[41], 42)
    feed_id, price, conf, exponent, published, previous, ema_price, ema_conf, slot = FIELDS.unpack_from(data, start)
    return PriceUpdate(
        feed_id=feed_id, price=price, conf=conf, exponent=exponent, publish_time=published, prev_publish_time=previous,
        ema_price=ema_price, ema_conf=ema_conf, posted_slot=slot, write_authority=data[8:40], signatures=signatures,
    )  # fmt: skip


def find_price_account(feed_id: bytes, *, shard: int = 0) -> Pubkey:
    """Return the address at which Pyth's push oracle keeps a feed: an address that outlives every single update."""
    return Pubkey.find_program_address([struct.pack("<H", shard), feed_id], PUSH_PROGRAM_ID)[0]
