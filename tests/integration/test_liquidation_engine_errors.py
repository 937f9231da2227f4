"""The errors of the engine's own, each provoked; the oracle's checks in their order; refusals that come through."""

import json
import struct
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from solders.instruction import Instruction

from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from localnet.oracle import RECEIVER_PROGRAM_ID
from tests.fixtures.market_world import (
    ALICE,
    AUTHORITY,
    BOB,
    CODES,
    FUND,
    KEEPER,
    MAX_AGE_S,
    MINT,
    PRICE,
    START,
    SYMBOL,
    WALLET_TOKENS,
    MarketWorld,
)

MESSAGES = {
    entry["name"]: entry["msg"]
    for entry in json.loads((files("indexer.idls") / "liquidation_engine.json").read_text())["errors"]
}
ALICE_KEY, BOB_KEY, KEEPER_KEY = ALICE.pubkey(), BOB.pubkey(), KEEPER.pubkey()
POSITION = client.find_position(ALICE_KEY, SYMBOL)
DEPOSIT = 10**12


@pytest.fixture
def world() -> MarketWorld:
    return MarketWorld.opened()


Situation = Callable[[MarketWorld], Instruction]


def opened(world: MarketWorld, **changes: Any) -> None:
    world.done(world.open(**changes))


def priced(step: Situation, price: int = 100_000_000, conf: int = 0, exponent: int = -6, **changes: Any) -> Situation:
    """Return the step, with the oracle saying this when it comes."""

    def situation(world: MarketWorld) -> Instruction:
        instruction = step(world)
        world.set_price(price, conf, exponent, **changes)
        return instruction

    return situation


def halted(world: MarketWorld) -> Instruction:
    world.done(client.set_market_halted(AUTHORITY.pubkey(), symbol=SYMBOL, halted=True))
    return world.open(owner=BOB)


def beyond_the_tiers(world: MarketWorld) -> Instruction:
    """Return an opening at a leverage that only a market from outside the program's rules allows."""
    market = client.find_market(SYMBOL)
    data = bytearray(world.data(market))
    struct.pack_into("<H", data, 57, 5_000)
    world.plant(market, bytes(data))
    return world.open(owner=BOB, size=1_001_000, collateral=100_000, leverage=1_001)


def with_books(contributions: int, covered: int) -> Situation:
    """Return a liquidation with bad debt, for a fund that has been paid and has covered so much."""

    def situation(world: MarketWorld) -> Instruction:
        fund = bytearray(world.data(FUND))
        struct.pack_into("<QQ", fund, 48, contributions, covered)
        world.plant(FUND, bytes(fund))
        world.set_price(80_000_000)
        return world.liquidate()

    return situation


def indebted(world: MarketWorld) -> Instruction:
    """Return the close of a position that has lost more than its collateral."""
    world.set_price(89_999_999)
    return world.close()


def too_profitable(world: MarketWorld) -> Instruction:
    """Return the close of a position whose profit is a unit more than the fund's vault has available."""
    world.plant_vault(FUND, locked=5, available=4_999_999)
    world.set_price(105_000_000)
    return world.close()


def foreign_price(world: MarketWorld) -> Instruction:
    world.plant(PRICE, world.data(PRICE), owner=vaults.PROGRAM_ID)
    return world.close()


def small(world: MarketWorld) -> Instruction:
    return world.open(owner=BOB, size=9_999, collateral=10_000_000)


def open_bob(world: MarketWorld) -> Instruction:
    return world.open(owner=BOB)


def close(world: MarketWorld) -> Instruction:
    return world.close()


SITUATIONS: list[tuple[str, str | None, Situation]] = [
    ("NotLiquidatable", None, lambda w: w.liquidate(1)),
    ("NotLiquidatable", None, lambda w: w.liquidate()),
    ("InvalidLiquidationAmount", None, lambda w: w.liquidate(0)),
    ("StalePrice", "price_update", priced(close, publish_time=START - MAX_AGE_S - 1)),
    ("StalePrice", "price_update", priced(close, publish_time=START + 11)),
    ("StalePrice", "price_update", priced(close, publish_time=-(2**63))),
    ("StalePrice", "price_update", priced(close, publish_time=2**63 - 1)),
    ("LowConfidence", "price_update", priced(close, conf=2_000_001)),
    ("LowConfidence", "price_update", priced(close, conf=2**64 - 1)),
    ("LowConfidence", "price_update", priced(open_bob, conf=1_250_001)),
    ("WrongFeed", "price_update", priced(close, feed_id=bytes(32))),
    ("MarketHalted", "market", halted),
    ("InvalidLeverage", None, lambda w: w.open(owner=BOB, leverage=0)),
    ("InvalidLeverage", None, lambda w: w.open(owner=BOB, leverage=1_001)),
    ("InvalidLeverage", None, beyond_the_tiers),
    ("InvalidLeverage", None, lambda w: w.create_market("ETH", max_leverage=0)),
    ("InvalidLeverage", None, lambda w: w.create_market("ETH", max_leverage=1_001)),
    ("InsufficientCollateral", None, lambda w: w.open(owner=BOB, collateral=9_999_999)),
    ("InsufficientCollateral", None, lambda w: w.open(owner=BOB, collateral=0)),
    ("InsufficientCollateral", None, small),
    ("InsufficientCollateral", None, indebted),
    ("MathOverflow", None, lambda w: w.add(2**64 - 1)),
    ("MathOverflow", None, lambda _: client.contribute(BOB_KEY, amount=2**64 - 1, mint=MINT)),
    ("MathOverflow", None, priced(close, price=2**63 - 1, exponent=0)),
    ("MathOverflow", None, priced(lambda w: w.liquidate(1), price=2**63 - 1, conf=2**57, exponent=-5)),
    ("MathOverflow", None, with_books(10**6, 2**64 - 1)),
    ("MathOverflow", None, with_books(1, 2**62)),
    ("SymbolTooLong", None, lambda w: w.create_market("17 bytes are many")),
    ("UseFullLiquidation", None, priced(lambda w: w.liquidate(1), price=90_000_000)),
    ("WrongOracleOwner", "price_update", foreign_price),
    ("UsePartialLiquidation", None, priced(lambda w: w.liquidate(), price=92_000_000)),
    ("FundInsufficient", None, too_profitable),
    ("InvalidPrice", "price_update", priced(close, price=0)),
    ("InvalidPrice", "price_update", priced(close, price=-(2**63))),
    ("InvalidPrice", "price_update", priced(close, exponent=1)),
    ("InvalidPrice", "price_update", priced(close, exponent=-13)),
    ("InvalidPrice", "price_update", priced(close, price=999_999, exponent=-12)),
    ("PartialVerification", "price_update", priced(close, signatures=12)),
    ("SelfLiquidation", "liquidator", lambda w: w.liquidate(1, liquidator=ALICE)),
]


@pytest.mark.parametrize(("error", "account", "situation"), SITUATIONS)
def test_each_error_is_said_and_changes_nothing(
    world: MarketWorld, error: str, account: str | None, situation: Situation
) -> None:
    """The transaction fails with the error's code, Anchor's line names it once, and nothing has changed."""
    opened(world)
    instruction = situation(world)
    keys = {meta.pubkey for meta in instruction.accounts}
    before = {key: world.svm.get_account(key) for key in keys}
    outcome = world.send(instruction)
    where = f"caused by account: {account}" if account else "occurred"
    line = (
        f"Program log: AnchorError {where}. Error Code: {error}. Error Number: {CODES[error]}. "
        f"Error Message: {MESSAGES[error]}."
    )
    assert outcome.code == CODES[error], outcome.logs
    assert [log for log in outcome.logs if "AnchorError" in log] == [line]
    assert {key: world.svm.get_account(key) for key in keys} == before


def test_every_error_has_a_situation() -> None:
    """None of the engine's errors is without a test that provokes it."""
    assert {error for error, _, _ in SITUATIONS} == set(client.ERRORS.values())


def test_a_symbol_of_33_bytes_is_too_long_to_be_a_seed(world: MarketWorld) -> None:
    """Past the length of a seed the symbol is refused as too long all the same, and so it is where one opens."""
    market = world.create_market("ETH")
    for symbol in ("x" * 33, "x" * 200):
        data = bytes(market.data[:8]) + client.text(symbol) + bytes(market.data[15:])
        assert world.send(Instruction(client.PROGRAM_ID, data, market.accounts)).code == CODES["SymbolTooLong"]
        data = bytes(world.open().data[:8]) + client.text(symbol) + bytes(world.open().data[15:])
        assert world.send(Instruction(client.PROGRAM_ID, data, world.open().accounts)).code == CODES["SymbolTooLong"]


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"publish_time": START - MAX_AGE_S}, "close"), ({"publish_time": START + 10}, "close"),
        ({"conf": 2_000_000}, "close"), ({"conf": 1_250_000}, "open"),
        ({"price": 1_000_000, "exponent": -12}, "close short"), ({"price": 100, "exponent": 0}, "open"),
    ],
)  # fmt: skip
def test_the_oracles_limits_themselves_are_within(world: MarketWorld, changes: dict[str, int], step: str) -> None:
    """The last price that is fresh, sure and scaled enough counts."""
    opened(world, is_long=step != "close short")
    world.set_price(**{"price": 100_000_000, "conf": 0, **changes})
    world.done(world.open(owner=BOB) if step == "open" else world.close())


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"owner": vaults.PROGRAM_ID}, "WrongOracleOwner"), ({"data": b"\x00" * 134}, 3002), ({"data": b""}, 3001),
        ({"cut": 133}, 3003), ({"verification": 2}, 3003), ({"signatures": 3}, "PartialVerification"),
        ({"feed_id": bytes(32)}, "WrongFeed"), ({"price": -1}, "InvalidPrice"), ({"exponent": 5}, "InvalidPrice"),
        ({"publish_time": 0}, "StalePrice"), ({"conf": 10**9}, "LowConfidence"),
    ],
)  # fmt: skip
def test_the_oracle_is_checked_in_its_order(world: MarketWorld, first: dict[str, Any], then: str | int) -> None:
    """Everything behind the first mistake is wrong, too; the first is the one that is named."""
    opened(world)
    order = [
        "owner",
        "data",
        "cut",
        "verification",
        "signatures",
        "feed_id",
        "price",
        "exponent",
        "publish_time",
        "conf",
    ]
    wrong = {"feed_id": bytes(32), "price": -1, "exponent": 5, "publish_time": 0, "conf": 10**9}
    key = next(iter(first))
    fields = {k: v for k, v in wrong.items() if order.index(k) > order.index(key)}
    if key in (*wrong, "signatures"):
        fields.update(first)
    published: dict[str, Any] = {"price": 100_000_000, **fields}
    world.set_price(**published)
    data = bytearray(first.get("data", world.data(PRICE))[: first.get("cut", 134)])
    if key == "verification":
        data[40] = first[key]
    world.plant(PRICE, bytes(data), owner=first.get("owner", RECEIVER_PROGRAM_ID))
    assert world.send(world.close()).code == (CODES[then] if isinstance(then, str) else then)


def test_what_the_vault_does_not_have_cannot_be_locked(world: MarketWorld) -> None:
    """Collateral beyond what is available is the collateral program's refusal, and no position comes of it."""
    assert world.send(world.open(collateral=DEPOSIT + 1)).code == 6001
    assert world.position() is None
    opened(world)
    assert world.send(world.add(DEPOSIT)).code == 6001
    assert world.send(client.contribute(BOB_KEY, amount=WALLET_TOKENS * 2, mint=MINT)).code == 1


def test_an_unauthorised_engine_moves_nothing() -> None:
    """An engine that the collateral program's settings do not name gets nothing locked."""
    world = MarketWorld()
    authority = AUTHORITY.pubkey()
    world.done(
        vaults.initialize_vault_authority(authority, mint=MINT, authorized_programs=[], withdraw_min_delay_s=0),
        vaults.initialize_vault(ALICE_KEY, ALICE_KEY, mint=MINT),
        vaults.deposit(ALICE_KEY, ALICE_KEY, mint=MINT, amount=10**9),
        client.initialize_insurance_fund(authority, mint=MINT),
        world.create_market(),
    )
    world.set_price(100_000_000)
    outcome = world.send(world.open())
    assert outcome.code == 6004
    assert any("UnauthorizedProgram" in line for line in outcome.logs)


def test_while_the_vaults_pause_liquidations_go_on(world: MarketWorld) -> None:
    """A pause stops locking, so openings and profits; losses are still settled and positions still liquidated."""
    world.done(world.open(), world.open(owner=BOB))
    world.done(vaults.set_paused(AUTHORITY.pubkey(), paused=True))
    world.set_price(92_000_000)
    world.done(world.liquidate(10**18))
    world.done(world.close(owner=BOB))
    assert world.send(world.open(owner=BOB)).code == 6007
    world.set_price(101_000_000)
    assert world.send(world.close()).code == 6007
