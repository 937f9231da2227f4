"""
What a liquidator works out before acting: whether a position can be liquidated, and in which way.

The program decides; this only keeps people from trying at random. Integers and rounding are the program's.
"""

from typing import Literal, NamedTuple

from localnet.clients import liquidation_engine as client

UNIT = 1_000_000
BPS = 10_000
NOTIONAL_MIN = 1_000_000
TIERS = ((20, 250), (50, 100), (100, 50), (500, 10), (1_000, 5))
"""Up to this leverage, in fact: this maintenance margin, bps."""

Verdict = Literal["partial", "full"]


class Exposure(NamedTuple):
    """A position's numbers: size 1e-6 of the asset, money and prices 1e-6 USDT."""

    is_long: bool
    size: int
    collateral: int
    entry_price: int
    maintenance_bps: int

    def equity(self, price: int) -> int:
        """Return collateral and profit at that price."""
        distance = price - self.entry_price if self.is_long else self.entry_price - price
        return self.collateral + self.size * distance // UNIT


def read_exposure(data: bytes) -> Exposure | None:
    """Return what a position's account says, or None where it is none."""
    parsed = client.parse_account(data)
    if parsed is None or parsed[0] != "Position":
        return None
    names = ("size", "collateral", "entry_price", "maintenance_margin_bps")
    numbers = [int(parsed[1][name]) for name in names]
    return Exposure(bool(parsed[1]["is_long"]), *numbers)


def maintenance_bps(leverage: int) -> int:
    """Return the maintenance margin of a position opened at that leverage, at most 1,000."""
    return next(margin for most, margin in TIERS if leverage <= most)


def judge(position: Exposure, *, price: int, conf: int) -> Verdict | None:
    """Say how the position can be liquidated at that price; None: not at all."""
    favourable = price + conf if position.is_long else max(price - conf, 0)
    margin = position.maintenance_bps
    if position.equity(favourable) * BPS >= margin * (position.size * favourable // UNIT):
        return None
    worth, equity = position.size * price // UNIT, position.equity(price)
    if equity <= 0:
        return "full"
    excess = -(-(margin * 6 // 5 * worth - BPS * equity) // margin)
    if excess >= worth:
        return "full"
    left = ((worth - excess + 1) * UNIT - 1) // price
    return "partial" if left * price // UNIT >= NOTIONAL_MIN else "full"
