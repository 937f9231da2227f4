"""The reference of the margin arithmetic: worked examples, and what the specification promises of liquidations."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.fixtures import margin_reference as reference
from tests.fixtures.margin_reference import Exposure, Refused

LONG = Exposure(is_long=True, size=20_000_000, collateral=100_000_000, entry_price=100_000_000, maintenance_bps=250)
"""20 units at 100 USDT on 100 USDT: leverage 20."""


def test_profit_rounds_down_on_both_sides() -> None:
    """A third of a unit gained is nothing, a third lost is one."""
    up = Exposure(is_long=True, size=333_333, collateral=0, entry_price=10, maintenance_bps=250)
    assert reference.profit(up, up.size, 11) == 0
    assert reference.profit(up, up.size, 9) == -1


@pytest.mark.parametrize(
    ("leverage", "margin"),
    [(1, 250), (20, 250), (21, 100), (50, 100), (51, 50), (100, 50), (101, 10), (500, 10), (501, 5), (1_000, 5)],
)
def test_tiers_go_by_the_leverage_in_fact(leverage: int, margin: int) -> None:
    """Up to exactly so many times the collateral; a unit more of notional is the next tier."""
    assert reference.maintenance_bps(leverage * 10**6, 10**6) == margin
    if leverage == 1_000:
        with pytest.raises(Refused, match="InvalidLeverage"):
            reference.maintenance_bps(leverage * 10**6 + 1, 10**6)
    elif leverage in (20, 50, 100, 500):
        assert reference.maintenance_bps(leverage * 10**6 + 1, 10**6) < margin


@pytest.mark.parametrize(
    ("price", "conf", "exponent", "scaled"),
    [
        (12_345_678, 9, -8, (123_456, 1)), (12_345_678, 0, -8, (123_456, 0)), (5, 1, 0, (5_000_000, 1_000_000)),
        (7, 7, -6, (7, 7)), (10**6, 1, -12, (1, 1)),
    ],
)  # fmt: skip
def test_prices_round_down_and_confidence_up(price: int, conf: int, exponent: int, scaled: tuple[int, int]) -> None:
    """To a millionth of a USDT."""
    assert reference.scaled(price, conf, exponent) == scaled


def test_a_partial_liquidation_worked_by_hand() -> None:
    """
    At 97: N = 1940, E = 100 - 60 = 40, margin 206 bps of the 250 it needs; target 300.

    x = (300 * 1940 - 10000 * 40) / 250 = 728; N' = 1212, so 12.494845 units stay; fee 50 bps of 728.
    """
    price = 97_000_000
    assert reference.is_liquidatable(LONG, price, 0)
    assert reference.target_size(LONG, price) == 12_494_845
    done = reference.liquidated(LONG, price=price, conf=0, size=2**64 - 1)
    assert (done.closed, done.margin_before, done.margin_after) == (7_505_155, 206, 300)
    assert done.reward == 728_000_035 * 50 // 10_000 // 2
    assert done.after is not None
    assert done.after.collateral + done.reward + done.to_fund == LONG.collateral


def test_a_position_without_notional_has_a_margin_all_the_same() -> None:
    """As far as an i64 goes, and 0 where there is no equity either."""
    for collateral, margin in ((5, 2**63 - 1), (0, 0)):
        assert reference.margin_bps(Exposure(True, 1, collateral, 1, 250), 1) == margin
    assert reference.margin_bps(Exposure(True, 10, 0, 10**6, 250), 1) == -(2**63)


exposures = st.builds(
    Exposure,
    is_long=st.booleans(),
    size=st.integers(1, 10**13),
    collateral=st.integers(1, 10**13),
    entry_price=st.just(100_000_000),
    maintenance_bps=st.sampled_from([250, 100, 50, 10, 5]),
)


@settings(max_examples=1_500, deadline=None, derandomize=True)
@given(base=exposures, against=st.integers(1, 40_000_000), per_mille=st.integers(-200, 1_000), part=st.integers(1, 100))
def test_a_liquidation_keeps_its_promises(base: Exposure, against: int, per_mille: int, part: int) -> None:
    """
    A partial one ends at its target or above, leaves a position of at least the smallest notional and takes no more
    than there is; a smaller one worsens nothing; a full one splits the collateral without remainder.
    """
    price = base.entry_price + (-against if base.is_long else against)
    needed = base.maintenance_bps * reference.notional(base.size, price) // 10_000
    collateral = needed * per_mille // 1_000 - reference.profit(base, base.size, price)
    assume(0 < collateral < 2**63)
    position = Exposure(base.is_long, base.size, collateral, base.entry_price, base.maintenance_bps)
    assume(reference.is_liquidatable(position, price, 0))
    left = reference.target_size(position, price)
    done = reference.liquidated(position, price=price, conf=0, size=None if left is None else 2**64 - 1)
    kept = done.after.collateral if done.after else 0
    assert done.reward + done.to_fund + done.unlocked + kept == collateral
    assert min(done.reward, done.to_fund, done.unlocked, kept) >= 0
    if done.after is None:
        assert done.bad_debt == max(-reference.equity(position, price), 0)
        assert done.unlocked <= max(reference.equity(position, price), 0)
        return
    assert done.margin_after >= position.maintenance_bps * 6 // 5
    assert reference.notional(done.after.size, price) >= reference.NOTIONAL_MIN
    assert 0 < done.closed < position.size
    less = reference.liquidated(position, price=price, conf=0, size=max(1, done.closed * part // 100))
    assert less.after is not None
    assert done.margin_before - 1 <= less.margin_after <= done.margin_after + 1
    assert less.closed <= done.closed


def test_no_opening_is_liquidatable_at_once() -> None:
    """At every leverage there is, a position opened at its limit is above its maintenance margin at that price."""
    for leverage in range(1, 1_001):
        opened = reference.opened(
            is_long=True, size=leverage * 1_000_000, collateral=1_000_000, leverage=leverage, max_leverage=1_000,
            price=1_000_000, conf=0, exponent=-6,
        )  # fmt: skip
        assert not reference.is_liquidatable(opened, 1_000_000, 0)
