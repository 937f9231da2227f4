"""
`Position` accounts as they lie on the chain: allocated at their largest size, so that most have bytes to spare.

A seed and a number always give the same accounts.
"""

import random
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from bench.inputs.made_transactions import START_TIME, SYMBOLS

POSITION_BYTES = 98
_TAG = sha256(b"account:Position").digest()[:8]
_REST = struct.Struct("<?QQQHHqB")


class MadePosition(NamedTuple):
    """An account's bytes, and its values in the IDL's order."""

    data: bytes
    values: tuple[Any, ...]


def make_positions(count: int, *, seed: int = 1) -> Iterator[MadePosition]:
    """Yield `count` accounts; not made with the code that reads them."""
    rng = random.Random(seed)
    for _ in range(count):
        owner, symbol = rng.randbytes(32), SYMBOLS[rng.getrandbits(8) % 3] + "-PERP" * (rng.getrandbits(2) == 0)
        drawn = rng.getrandbits(128)
        rest = (
            drawn & 1 == 1,
            # One size in 256 needs all 64 bits.
            rng.getrandbits(64) if drawn & 0xFF00 == 0 else rng.getrandbits(40),
            drawn >> 16 & 0xFFFF_FFFF,
            drawn >> 48 & 0xFF_FFFF_FFFF,
            drawn >> 88 & 0x3FF,
            500,
            START_TIME + (drawn >> 98 & 0xFF_FFFF),
            drawn >> 122,
        )
        name = symbol.encode()
        data = _TAG + owner + len(name).to_bytes(4, "little") + name + _REST.pack(*rest)
        yield MadePosition(data.ljust(POSITION_BYTES, b"\0"), (owner, symbol, *rest))
