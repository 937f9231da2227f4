"""
The program's arithmetic against plain integers: 10,000 random positions, each settled by the real programs.

Positions, prices and balances are written into accounts as no market would make them: sizes and prices of all
magnitudes, equities around every border at which the answer changes. What comes out (error, event, position, balances
of all three vaults, the tokens in them, the fund's books) must be what the reference says, to the last unit.
"""

import random
import struct
from collections import Counter
from typing import Any, NamedTuple

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from localnet.clients import liquidation_engine as client
from tests.fixtures import margin_reference as reference
from tests.fixtures.margin_reference import U64_MAX, Exposure, Refused
from tests.fixtures.market_world import (
    ALICE,
    CODES,
    FUND,
    KEEPER,
    START,
    SYMBOL,
    MarketWorld,
    Outcome,
    exposure_of,
    position_data,
)

POSITIONS = 10_000
CHUNKS = 20
OWNER, LIQUIDATOR = ALICE.pubkey(), KEEPER.pubkey()
POSITION = client.find_position(OWNER, SYMBOL)
FUND_CONTRIBUTIONS, FUND_COVERED = 10**12, 777


class Case(NamedTuple):
    """A position, an oracle's price as published, what is asked, and what the fund has."""

    exposure: Exposure
    price: int
    conf: int
    exponent: int
    action: str
    size: int
    fund: int


@pytest.fixture(scope="module")
def world() -> MarketWorld:
    opened = MarketWorld.opened()
    opened.cross_read = False
    return opened


def magnitude(rng: random.Random, low: int, high: int) -> int:
    """Return a number of any length between the two, all lengths alike."""
    length = rng.randint(low.bit_length(), high.bit_length())
    return min(high, max(low, rng.getrandbits(length) | 1 << max(length - 1, 0)))


def random_case(rng: random.Random) -> Case:
    """
    Return a case near a border.

    The collateral follows from an equity that is drawn around 0, the maintenance margin and the target, in units and in
    parts; where that gives none, or one time in ten anyway, it is drawn alone.
    """
    exponent, wild = rng.randint(-12, 0), rng.random() < 0.1
    shift = exponent + 6
    price = magnitude(rng, 1, 2**63 - 1) if wild else magnitude(rng, max(1, 10 ** (-shift if shift < 0 else 0)), 2**44)
    conf = rng.choice((0, 0, rng.randint(0, price // 20_000), rng.randint(0, price // 50)))
    is_long, margin = rng.random() < 0.5, rng.choice((250, 100, 50, 10, 5))
    size = magnitude(rng, 1, U64_MAX if wild else 2**44)
    action = rng.choice(("liquidate",) * 7 + ("partial", "full", "close"))
    entry = magnitude(rng, 1, U64_MAX) if wild else 1
    collateral = magnitude(rng, 0, 2**62)
    try:
        now, _ = reference.scaled(price, conf, exponent)
    except Refused:
        now = 0
    if now and not wild:
        size = max(size, reference.ceil_div(rng.choice((1, 10**6, 10**9)) * reference.UNIT, now))
        against = rng.uniform(1.0, 1.25) if is_long else rng.uniform(0.8, 1.0)
        factor = rng.uniform(0.8, 1.25) if action == "close" else against
        entry = min(U64_MAX, max(1, int(now * factor) + rng.randint(-2, 2)))
        exposure = Exposure(is_long, size, 0, entry, margin)
        worth = reference.notional(size, now) * margin // 10_000
        equity = rng.choice((0, worth, worth * 6 // 5, *[int(worth * rng.uniform(-0.5, 1))] * 6)) + rng.randint(-3, 3)
        wanted = equity - reference.equity(exposure, now)
        if 0 <= wanted < 2**62:
            collateral = wanted
    exposure = Exposure(is_long, size, collateral, entry, margin)
    if action == "liquidate" and now:  # the instruction that fits, as a liquidator would
        action = "full" if reference.target_size(exposure, now) is None else "partial"
    part = rng.choice((U64_MAX, size, rng.randint(0, size), rng.randint(0, size // 20), 1))
    return Case(exposure, price, conf, exponent, action.replace("liquidate", "full"), part, magnitude(rng, 0, 2**62))


def expect(case: Case) -> reference.Liquidated | int:
    """Return what the reference says: of a liquidation what it does, of a close its pnl."""
    if case.action != "partial" or case.size:
        price, conf = reference.scaled(case.price, case.conf, case.exponent)
        if case.action == "close":
            pnl = reference.closed(case.exposure, price)
            if pnl > case.fund:
                raise Refused("FundInsufficient")
            return pnl
        size = case.size if case.action == "partial" else None
        return reference.liquidated(case.exposure, price=price, conf=conf, size=size)
    raise Refused("InvalidLiquidationAmount")


def settle(world: MarketWorld, case: Case) -> Outcome:
    """Write the case into the accounts and send its instruction."""
    fund = bytearray(world.data(FUND))
    struct.pack_into("<QQQQ", fund, 40, case.fund, FUND_CONTRIBUTIONS, FUND_COVERED, 0)
    world.plant(FUND, bytes(fund))
    world.plant_vault(OWNER, locked=case.exposure.collateral, available=0)
    world.plant_vault(LIQUIDATOR, locked=0, available=0)
    world.plant_vault(FUND, locked=0, available=case.fund)
    world.plant(POSITION, position_data(OWNER, case.exposure))
    world.set_price(case.price, case.conf, case.exponent)
    if case.action == "close":
        return world.send(world.close())
    return world.send(world.liquidate(case.size if case.action == "partial" else None))


def check_balances(world: MarketWorld, expected: dict[Pubkey, tuple[int, int]]) -> None:
    """Assert locked and available balance of each vault, their total, and the tokens that are there."""
    for owner, (locked, available) in expected.items():
        assert world.balances(owner) == (locked + available, locked, available)
        assert world.tokens(owner) == locked + available


def check_liquidated(world: MarketWorld, case: Case, outcome: Outcome, wanted: reference.Liquidated) -> None:
    """Assert event, position, balances and the fund's books."""
    price, _ = reference.scaled(case.price, case.conf, case.exponent)
    after = wanted.after
    liquidated = {
        "position_owner": bytes(OWNER), "liquidator": bytes(LIQUIDATOR), "symbol": SYMBOL,
        "liquidated_size": wanted.closed, "liquidation_price": price, "margin_before": wanted.margin_before,
        "margin_after": wanted.margin_after, "liquidator_reward": wanted.reward, "bad_debt": wanted.bad_debt,
        "timestamp": START, "is_full": after is None,
    }  # fmt: skip
    balance = case.fund + wanted.to_fund
    covered = min(wanted.bad_debt, balance)
    events: list[tuple[str, dict[str, Any]]] = [("LiquidationEvent", liquidated)]
    if wanted.bad_debt:
        debt = {"position_owner": bytes(OWNER), "bad_debt": wanted.bad_debt, "covered": covered, "balance": balance,
                "timestamp": START}  # fmt: skip
        events.append(("BadDebtCovered", debt))
    assert outcome.events == events
    locked = after.collateral if after else 0
    check_balances(world, {OWNER: (locked, wanted.unlocked), LIQUIDATOR: (0, wanted.reward), FUND: (0, balance)})
    position = world.position()
    assert (exposure_of(position) if position else None) == after
    books = world.state(FUND)
    total = FUND_COVERED + covered
    assert books["balance"] == balance
    if wanted.bad_debt:
        assert (books["total_bad_debt_covered"], books["utilization_ratio"]) == (
            total, total * 10_000 // FUND_CONTRIBUTIONS,
        )  # fmt: skip


def check_closed(world: MarketWorld, case: Case, outcome: Outcome, pnl: int) -> None:
    """Assert event, position and balances."""
    ((name, event),) = outcome.events
    assert (name, event["pnl"], event["size"]) == ("PositionClosed", pnl, case.exposure.size)
    assert world.position() is None
    check_balances(world, {OWNER: (0, case.exposure.collateral + pnl), FUND: (0, case.fund - pnl)})


def check(world: MarketWorld, case: Case) -> str:
    """Settle one case, compare, and return what came of it."""
    outcome = settle(world, case)
    wanted: reference.Liquidated | int | Refused
    try:
        wanted = expect(case)
    except Refused as refused:
        wanted = refused
    if isinstance(wanted, Refused):
        assert outcome.code == CODES[str(wanted)], (case, outcome.logs)
        assert world.position() is not None
        return str(wanted)
    assert outcome.code is None, (case, outcome.logs)
    if isinstance(wanted, int):
        check_closed(world, case, outcome, wanted)
        return "profit" if wanted > 0 else "loss"
    check_liquidated(world, case, outcome, wanted)
    if wanted.after is not None:
        return "partial"
    return "bad debt" if wanted.bad_debt else "full"


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_ten_thousand_positions_settle_as_the_reference_says(world: MarketWorld, chunk: int) -> None:
    """Every number that the programs write is the reference's, and so is every refusal; and all kinds occur."""
    rng = random.Random(f"margin {chunk}")
    found = Counter(check(world, random_case(rng)) for _ in range(POSITIONS // CHUNKS))
    often = {"partial", "full", "bad debt", "loss", "NotLiquidatable"}
    assert min(found[kind] for kind in often) >= POSITIONS // CHUNKS // 50, found
    seldom = {"profit", "MathOverflow", "UseFullLiquidation", "UsePartialLiquidation", "FundInsufficient"}
    assert min(found[kind] for kind in seldom) >= 1, found


def random_opening(rng: random.Random) -> dict[str, Any]:
    """Return the arguments and the price of an opening near one of its limits."""
    exponent, leverage = rng.randint(-12, 0), rng.choice((0, 1, 20, 21, 50, 51, 100, 101, 500, 501, 1_000, 1_001))
    price = magnitude(rng, 10 ** max(4, -exponent - 6), 2**40)  # so that a confidence of 1 is within the market's
    now, _ = reference.scaled(price, 0, exponent)
    worth = rng.choice((10**6, magnitude(rng, 1, 10**15)))
    size = min(U64_MAX, reference.ceil_div(worth * reference.UNIT, now) + rng.randint(-1, 1))
    least = reference.ceil_div(reference.notional(max(size, 0), now), max(leverage, 1))
    return {
        "is_long": rng.random() < 0.5, "size": max(size, 0), "leverage": leverage, "price": price,
        "collateral": max(0, rng.choice((least, least + rng.randint(-1, 1), least * rng.randint(1, 3)))),
        "conf": price * rng.choice((0, 0, 1, 2, 10, 20, 100, 150)) // 20_000 + rng.choice((0, 0, 1)),
        "exponent": exponent,
    }  # fmt: skip


@pytest.mark.parametrize("chunk", range(4))
def test_openings_are_what_the_reference_says(world: MarketWorld, chunk: int) -> None:
    """Two thousand openings at their limits: the tier, the entry price, the lock, and every refusal."""
    rng = random.Random(f"opening {chunk}")
    found = Counter[str]()
    for _ in range(500):
        case = random_opening(rng)
        price, conf, exponent = case["price"], case["conf"], case["exponent"]
        world.svm.set_account(POSITION, Account(0, b"", Pubkey.default()))
        world.plant_vault(OWNER, locked=0, available=2**60)
        world.set_price(price, conf, exponent)
        arguments = {name: case[name] for name in ("is_long", "size", "collateral", "leverage")}
        outcome = world.send(world.open(**arguments))
        try:
            wanted = reference.opened(**case, max_leverage=1_000)
        except Refused as refused:
            found[str(refused)] += 1
            expected: int | None = CODES[str(refused)]
        else:
            found[str(wanted.maintenance_bps)] += 1
            expected = None
            position = world.position()
            assert position is not None
            assert exposure_of(position) == wanted
            check_balances(world, {OWNER: (wanted.collateral, 2**60 - wanted.collateral)})
        assert outcome.code == expected, (case, outcome.logs)
    kinds = {"250", "100", "50", "10", "5", "InvalidLeverage", "InsufficientCollateral", "LowConfidence"}
    assert min(found[kind] for kind in kinds) >= 3, found
