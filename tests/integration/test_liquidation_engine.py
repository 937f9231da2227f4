"""The life of positions, executed by the real programs: every instruction, every event."""

import json
from importlib.resources import files
from typing import Any

import pytest
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from tests.fixtures.market_world import (
    ALICE,
    AUTHORITY,
    BOB,
    CODES,
    FEED_ID,
    FUND,
    KEEPER,
    MINT,
    PRICE,
    START,
    SYMBOL,
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


# -- lives ------------------------------------------------------------------------------------------------------------


def test_the_fund_is_made_with_its_own_vault() -> None:
    """Whoever makes the fund is its authority; its vault belongs to the fund's address, and both are empty."""
    world = MarketWorld()
    authority = AUTHORITY.pubkey()
    world.done(
        vaults.initialize_vault_authority(
            authority, mint=MINT, authorized_programs=[client.PROGRAM_ID], withdraw_min_delay_s=0
        )
    )
    outcome = world.done(client.initialize_insurance_fund(authority, mint=MINT))
    state = world.state(FUND)
    assert state == {
        "authority": bytes(authority), "balance": 0, "total_contributions": 0, "total_bad_debt_covered": 0,
        "utilization_ratio": 0, "bump": state["bump"],
    }  # fmt: skip
    vault = vaults.parse_account(world.data(vaults.find_vault(FUND)))
    assert vault is not None
    assert vault[1]["owner"] == bytes(FUND)
    assert [name for name, _ in outcome.moves] == ["VaultInitialized"]
    assert outcome.events == []
    assert world.send(client.initialize_insurance_fund(KEEPER_KEY, mint=MINT)).code == 0, "there is one fund"
    assert world.state(FUND) == state


def test_contributions_add_up(world: MarketWorld) -> None:
    """Anybody pays in: the balance is what the vault holds, gifts past the engine included, contributions are not."""
    before = world.state(FUND)
    outcome = world.done(client.contribute(BOB_KEY, amount=77, mint=MINT))
    paid = {"contributor": bytes(BOB_KEY), "amount": 77, "balance": before["balance"] + 77, "timestamp": START}
    assert outcome.events == [("InsuranceContribution", paid)]
    assert [name for name, _ in outcome.moves] == ["DepositEvent"]
    world.done(vaults.deposit(BOB_KEY, FUND, mint=MINT, amount=5))
    outcome = world.done(client.contribute(BOB_KEY, amount=0, mint=MINT))
    assert outcome.moves == [], "nothing moves where nothing is paid"
    assert outcome.events[0][1]["balance"] == before["balance"] + 82
    after = world.state(FUND)
    assert (after["balance"], after["total_contributions"]) == (
        before["balance"] + 82, before["total_contributions"] + 77,
    )  # fmt: skip
    assert world.tokens(FUND) == after["balance"]


@pytest.mark.parametrize("symbol", ["", "E", "BTC-USD", "sixteen bytes ok", "Ωμέγα ✓"])
def test_create_market_keeps_its_limits(world: MarketWorld, symbol: str) -> None:
    """A market is what its authority said, under a symbol of up to 16 bytes, and open."""
    outcome = world.done(world.create_market(symbol, max_price_age_s=5, max_conf_bps=6, max_leverage=1_000))
    state = world.state(client.find_market(symbol))
    assert state == {
        "symbol": symbol, "feed_id": FEED_ID, "max_price_age": 5, "max_conf_bps": 6, "max_leverage": 1_000,
        "halted": False, "bump": state["bump"],
    }  # fmt: skip
    assert outcome.events == [("MarketCreated", {"symbol": symbol, "feed_id": FEED_ID, "timestamp": START})]
    assert world.send(world.create_market(symbol)).code == 0, "a market is made once"


def test_open_position_locks_its_collateral(world: MarketWorld) -> None:
    """A position is the owner's word, the oracle's price and the margin of its leverage in fact; its rent is exact."""
    world.set_price(10_050, conf=1, exponent=-2)
    outcome = world.done(world.open(is_long=False, size=2_000_000, collateral=3_000_000, leverage=100))
    state = world.position()
    assert state is not None
    assert state == {
        "owner": bytes(ALICE_KEY), "symbol": SYMBOL, "is_long": False, "size": 2_000_000, "collateral": 3_000_000,
        "entry_price": 100_500_000, "leverage": 100, "maintenance_margin_bps": 50, "opened_at": START,
        "bump": state["bump"],
    }  # fmt: skip
    opened = {
        "owner": bytes(ALICE_KEY), "position": bytes(POSITION), "symbol": SYMBOL, "is_long": False,
        "size": 2_000_000, "collateral": 3_000_000, "entry_price": 100_500_000, "leverage": 100, "timestamp": START,
    }  # fmt: skip
    assert outcome.events == [("PositionOpened", opened)]
    assert [name for name, _ in outcome.moves] == ["LockEvent"]
    assert world.balances(ALICE_KEY) == (DEPOSIT, 3_000_000, DEPOSIT - 3_000_000)
    assert world.svm.get_balance(POSITION) == world.svm.minimum_balance_for_rent_exemption(98)


def test_a_position_is_opened_once(world: MarketWorld) -> None:
    """A second one in the same symbol must wait until the first is gone; another owner's is another."""
    world.done(world.open())
    before = world.position()
    assert world.send(world.open()).code == 0
    assert world.position() == before
    world.done(world.open(owner=BOB))
    assert world.balances(ALICE_KEY)[1] == 10_000_000


@pytest.mark.parametrize("gift", [1, 1_000_000, 50_000_000])
def test_lamports_sent_ahead_do_not_block_an_address(world: MarketWorld, gift: int) -> None:
    """Anybody may send lamports to where a position, or a market, will be; it is made all the same."""
    market = client.find_market("ETH")
    world.svm.airdrop(POSITION, gift)
    world.svm.airdrop(market, gift)
    world.done(world.open())
    world.done(world.create_market("ETH"))
    assert world.svm.get_balance(POSITION) == max(gift, world.svm.minimum_balance_for_rent_exemption(98))
    assert world.svm.get_balance(market) == max(gift, world.svm.minimum_balance_for_rent_exemption(74))


def test_add_collateral_changes_nothing_else(world: MarketWorld) -> None:
    """More is locked, the margin stays as it was at opening; nothing added moves nothing."""
    world.done(world.open(collateral=1_000_000, leverage=100))
    before = world.position()
    assert before is not None
    world.at(START + 9)
    outcome = world.done(world.add(9_000_000))
    assert world.position() == {**before, "collateral": 10_000_000}
    added = {"owner": bytes(ALICE_KEY), "position": bytes(POSITION), "amount": 9_000_000, "collateral": 10_000_000,
             "timestamp": START + 9}  # fmt: skip
    assert outcome.events == [("CollateralAdded", added)]
    assert world.balances(ALICE_KEY)[1] == 10_000_000
    assert world.done(world.add(0)).moves == []


@pytest.mark.parametrize("is_long", [True, False])
@pytest.mark.parametrize("price", [100_000_000, 104_000_000, 96_000_000, 100_000_001, 99_999_999, 109_999_999])
def test_close_position_settles_against_the_fund(world: MarketWorld, *, is_long: bool, price: int) -> None:
    """Profit comes from the fund, loss goes to it, the collateral is free again, the rent is back, the account gone."""
    world.done(world.open(is_long=is_long, size=990_000))
    rent, lamports = world.svm.get_balance(POSITION), world.svm.get_balance(ALICE_KEY)
    world.set_price(price)
    distance = price - 100_000_000
    pnl = 990_000 * (distance if is_long else -distance) // 1_000_000
    outcome = world.done(world.close())
    closed = {"owner": bytes(ALICE_KEY), "position": bytes(POSITION), "symbol": SYMBOL, "size": 990_000,
              "exit_price": price, "pnl": pnl, "timestamp": START}  # fmt: skip
    assert outcome.events == [("PositionClosed", closed)]
    transfers = [] if pnl == 0 else ["TransferEvent"] if pnl < 0 else ["LockEvent", "TransferEvent"]
    unlocks = ["UnlockEvent"] if 10_000_000 + min(pnl, 0) else []
    assert [name for name, _ in outcome.moves] == transfers + unlocks
    assert world.balances(ALICE_KEY) == (DEPOSIT + pnl, 0, DEPOSIT + pnl)
    assert world.balances(FUND) == (DEPOSIT - pnl, 0, DEPOSIT - pnl)
    assert world.state(FUND)["balance"] == DEPOSIT - pnl
    assert world.position() is None
    assert rent is not None
    assert lamports is not None
    assert world.svm.get_balance(ALICE_KEY) == lamports + rent


def test_a_closed_position_lives_again(world: MarketWorld) -> None:
    """The address is free in the very transaction that closed it, and nothing of the old position is left in it."""
    world.done(world.open(collateral=90_000_000))
    outcome = world.done(world.close(), world.open(is_long=False, collateral=50_000_000))
    assert [name for name, _ in outcome.events] == ["PositionClosed", "PositionOpened"]
    state = world.position()
    assert state is not None
    assert (state["is_long"], state["collateral"]) == (False, 50_000_000)
    assert world.balances(ALICE_KEY)[1] == 50_000_000


@pytest.mark.parametrize("is_long", [True, False])
def test_a_partial_liquidation_restores_the_target(world: MarketWorld, *, is_long: bool) -> None:
    """At 20x, 3 % against the position: half of it or so is closed, and 1.2 times the maintenance margin is left."""
    world.done(world.open(is_long=is_long, size=20_000_000, collateral=100_000_000, leverage=20))
    world.set_price(97_000_000 if is_long else 103_000_000)
    world.at(START + 30)
    fund, keeper = world.balances(FUND)[0], world.balances(KEEPER_KEY)[0]
    outcome = world.done(world.liquidate(2**64 - 1))
    assert [name for name, _ in outcome.moves] == ["TransferEvent", "TransferEvent"]
    ((name, event),) = outcome.events
    assert name == "LiquidationEvent"
    state = world.position()
    assert state is not None
    assert state["size"] == 20_000_000 - event["liquidated_size"]
    assert (event["margin_before"], event["margin_after"], event["is_full"]) == (206 if is_long else 194, 300, False)
    assert event["bad_debt"] == 0
    reward = event["liquidator_reward"]
    assert world.balances(KEEPER_KEY)[0] == keeper + reward
    taken = 100_000_000 - state["collateral"]
    assert world.balances(FUND)[0] == fund + taken - reward == world.state(FUND)["balance"]
    assert world.balances(ALICE_KEY) == (DEPOSIT - taken, state["collateral"], DEPOSIT - 100_000_000)
    assert world.send(world.liquidate(1)).code == CODES["NotLiquidatable"]


def test_a_liquidator_may_close_less(world: MarketWorld) -> None:
    """A smaller size closes just that, and the position stays liquidatable until the rest has followed."""
    world.done(world.open(size=20_000_000, collateral=100_000_000, leverage=20))
    world.set_price(97_000_000)
    sizes = [world.done(world.liquidate(size)).events[0][1]["liquidated_size"] for size in (1, 1_000, 10**18)]
    assert sizes[:2] == [1, 1_000]
    assert world.send(world.liquidate(10**18)).code == CODES["NotLiquidatable"]


def test_a_full_liquidation_without_equity_is_bad_debt(world: MarketWorld) -> None:
    """What the position owes beyond its collateral moves no tokens: it is booked against the fund's balance."""
    world.done(world.open())
    rent, lamports = world.svm.get_balance(POSITION), world.svm.get_balance(ALICE_KEY)
    world.set_price(85_000_000)
    outcome = world.done(world.liquidate())
    balance = DEPOSIT + 10_000_000
    assert outcome.events == [
        ("LiquidationEvent", {
            "position_owner": bytes(ALICE_KEY), "liquidator": bytes(KEEPER_KEY), "symbol": SYMBOL,
            "liquidated_size": 1_000_000, "liquidation_price": 85_000_000, "margin_before": -589, "margin_after": 0,
            "liquidator_reward": 0, "bad_debt": 5_000_000, "timestamp": START, "is_full": True,
        }),
        ("BadDebtCovered", {
            "position_owner": bytes(ALICE_KEY), "bad_debt": 5_000_000, "covered": 5_000_000, "balance": balance,
            "timestamp": START,
        }),
    ]  # fmt: skip
    assert [name for name, _ in outcome.moves] == ["TransferEvent"]
    fund = world.state(FUND)
    assert (fund["balance"], fund["total_bad_debt_covered"]) == (balance, 5_000_000)
    assert fund["utilization_ratio"] == 5_000_000 * 10_000 // DEPOSIT
    assert world.balances(ALICE_KEY) == (DEPOSIT - 10_000_000, 0, DEPOSIT - 10_000_000)
    assert world.position() is None
    assert rent is not None
    assert lamports is not None
    assert world.svm.get_balance(ALICE_KEY) == lamports + rent


def test_a_fund_covers_what_it_has() -> None:
    """A fund with less than the bad debt covers its balance; without contributions the utilization is 0."""
    poor = MarketWorld.opened(fund=0)
    poor.done(poor.open())
    poor.set_price(70_000_000)
    outcome = poor.done(poor.liquidate())
    covered = {"position_owner": bytes(ALICE_KEY), "bad_debt": 20_000_000, "covered": 10_000_000,
               "balance": 10_000_000, "timestamp": START}  # fmt: skip
    assert outcome.events[1] == ("BadDebtCovered", covered)
    fund = poor.state(FUND)
    assert (fund["total_bad_debt_covered"], fund["utilization_ratio"]) == (10_000_000, 0)
    poor.done(client.contribute(BOB_KEY, amount=40_000_000, mint=MINT))
    assert poor.state(FUND)["utilization_ratio"] == 2_500


def test_a_full_liquidation_with_equity_gives_the_rest_back(world: MarketWorld) -> None:
    """A position too small to be restored is closed whole; what is left after loss and fee is the owner's again."""
    world.done(world.open(size=11_000, collateral=110_000))
    world.set_price(92_000_000)
    outcome = world.done(world.liquidate())
    fee = 50 * 1_012_000 // 10_000
    assert outcome.events[0][1]["liquidator_reward"] == fee // 2
    assert [name for name, _ in outcome.moves] == ["TransferEvent", "TransferEvent", "UnlockEvent"]
    left = 110_000 - 88_000 - fee
    assert world.balances(ALICE_KEY) == (DEPOSIT - 88_000 - fee, 0, DEPOSIT - 110_000 + left)


def test_confidence_counts_for_the_position(world: MarketWorld) -> None:
    """What the price alone would liquidate is safe while the oracle is not sure, on either side."""
    for is_long, price in ((True, 92_000_000), (False, 108_000_000)):
        world.set_price(100_000_000)
        world.done(world.open(is_long=is_long))
        world.set_price(price, conf=900_000)
        assert world.send(world.liquidate(1)).code == CODES["NotLiquidatable"]
        world.set_price(price, conf=10)
        world.done(world.liquidate(1), world.liquidate(10**18), world.close())


def test_a_halted_market_still_closes_and_liquidates(world: MarketWorld) -> None:
    """A halt stops openings alone, and can be lifted."""
    world.done(world.open(), world.open(owner=BOB))
    halt = client.set_market_halted(AUTHORITY.pubkey(), symbol=SYMBOL, halted=True)
    assert world.done(halt).events == []
    assert world.state(client.find_market(SYMBOL))["halted"] is True
    world.done(world.add(1), world.close())
    world.set_price(92_000_000)
    world.done(world.liquidate(10**18, owner=BOB))
    assert world.send(world.open()).code == CODES["MarketHalted"]
    world.done(client.set_market_halted(AUTHORITY.pubkey(), symbol=SYMBOL, halted=False), world.open())


def test_three_liquidations_fit_one_transactions_log(world: MarketWorld) -> None:
    """The runtime cuts a log at 10,000 bytes; three liquidations stay below, and leave compute units to spare."""
    world.done(world.open(size=20_000_000, collateral=100_000_000, leverage=20))
    world.set_price(97_000_000)
    outcome = world.done(*[world.liquidate(1_000_000 + n) for n in range(3)])
    assert len(outcome.events) == 3
    assert sum(map(len, outcome.logs)) < 10_000
    assert outcome.compute_units < 3 * 100_000


def test_the_largest_transaction_leaves_room(world: MarketWorld) -> None:
    """A liquidation names 18 accounts, and takes 767 of a transaction's 1,232 bytes at most."""
    instruction = world.liquidate(5)
    assert len(instruction.accounts) == 18
    message = Message.new_with_blockhash([instruction], KEEPER_KEY, world.svm.latest_blockhash())
    assert len(bytes(VersionedTransaction(message, [KEEPER]))) <= 767


def test_the_program_runs_at_any_address() -> None:
    """An operator's deployment has an id of its own; PDAs, owner, authorities and events follow it."""
    program_id = Pubkey(bytes([88] * 32))
    world = MarketWorld(program_id)
    world.cross_read = False
    authority = AUTHORITY.pubkey()
    world.done(
        vaults.initialize_vault_authority(
            authority, mint=MINT, authorized_programs=[program_id], withdraw_min_delay_s=0
        ),
        vaults.initialize_vault(ALICE_KEY, ALICE_KEY, mint=MINT),
        vaults.deposit(ALICE_KEY, ALICE_KEY, mint=MINT, amount=10**9),
    )
    world.set_price(100_000_000)
    market: dict[str, Any] = {"feed_id": FEED_ID, "max_price_age_s": 60, "max_conf_bps": 9, "max_leverage": 9}
    outcome = world.done(
        client.initialize_insurance_fund(authority, mint=MINT, program_id=program_id),
        client.create_market(authority, symbol="X", **market, program_id=program_id),
        client.open_position(
            ALICE_KEY, symbol="X", price_update=PRICE, is_long=True, size=10**6, collateral=10**8, leverage=1,
            program_id=program_id,
        ),
        client.close_position(ALICE_KEY, symbol="X", price_update=PRICE, mint=MINT, program_id=program_id),
    )  # fmt: skip
    assert [name for name, _ in outcome.events] == ["MarketCreated", "PositionOpened", "PositionClosed"]
    account = world.svm.get_account(client.find_market("X", program_id))
    assert account is not None
    assert account.owner == program_id
