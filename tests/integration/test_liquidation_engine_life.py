"""
A whole market's life: many users, every instruction of both programs, a price that trends and crashes.

After every step, whatever came of it, no token is made or lost; every vault's books agree with each other and with its
tokens; and what is locked is exactly what open positions and withdrawal requests stand on.
"""

import random
import struct
from collections import Counter
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from tests.fixtures import market_world
from tests.fixtures.margin_reference import Refused, liquidated
from tests.fixtures.market_world import FUND, MINT, MarketWorld, Outcome, exposure_of

USERS = [Keypair.from_seed(bytes([n] * 32)) for n in range(101, 109)]
KEYS = [user.pubkey() for user in USERS]
WALLET = 2_000_000_000
STEPS = 400


class Market(MarketWorld):
    """The world with users of its own, and what must hold of it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[Pubkey, dict[int, int]] = {key: {} for key in KEYS}

    @classmethod
    def of_users(cls) -> "Market":
        """Return a market in which every user has a vault and a wallet with tokens; the fund has some."""
        market = cls.opened(fund=300_000_000, vault=1)
        assert isinstance(market, Market)
        for key in KEYS:
            market.svm.airdrop(key, 10**10)
            tokens = vaults.find_token_account(key, MINT)
            market.plant(tokens, market_world.token_data(key, WALLET), owner=vaults.TOKEN_PROGRAM_ID)
            market.done(
                vaults.initialize_vault(key, key, mint=MINT),
                vaults.deposit(key, key, mint=MINT, amount=WALLET // 2),
            )
        return market

    def wallet(self, key: Pubkey) -> int:
        """Return the tokens in somebody's own account."""
        (amount,) = struct.unpack_from("<Q", self.data(vaults.find_token_account(key, MINT)), 64)
        return int(amount)

    def everywhere(self) -> int:
        """Return all tokens there are: in wallets, in vaults, in the fund."""
        others = [market_world.ALICE.pubkey(), market_world.BOB.pubkey(), market_world.KEEPER.pubkey()]
        owners = [*KEYS, *others]
        return sum(map(self.wallet, owners)) + sum(map(self.tokens, [*owners, FUND]))

    def check(self) -> None:
        """Assert what holds at all times."""
        for user, key in zip(USERS, KEYS, strict=True):
            total, locked, available = self.balances(key)
            position = self.position(user)
            collateral = position["collateral"] if position else 0
            assert locked == collateral + sum(self.requests[key].values())
            assert total == locked + available == self.tokens(key)
        total, locked, available = self.balances(FUND)
        assert (locked, total) == (0, available)
        assert total == self.tokens(FUND)
        books = self.state(FUND)
        covered, paid = books["total_bad_debt_covered"], books["total_contributions"]
        assert books["balance"] == total
        assert books["utilization_ratio"] == covered * 10_000 // paid


def signing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the world's transactions be signed by the users, too."""
    monkeypatch.setattr(market_world, "WALLETS", {**market_world.WALLETS, **dict(zip(KEYS, USERS, strict=True))})


def act(market: Market, rng: random.Random, price: int) -> tuple[str, Outcome]:
    """Let somebody do something; withdrawals are remembered."""
    at = rng.randrange(len(USERS))
    user, key = USERS[at], KEYS[at]
    step = rng.choice(
        ("deposit", "withdraw", "request", "cancel", "execute", "open", "open", "open", "add", "close", "contribute")
    )
    amount = rng.randint(1, 200_000_000)
    requests = market.requests[key]
    if step == "deposit":
        return step, market.send(vaults.deposit(key, key, mint=MINT, amount=amount))
    if step == "withdraw":
        return step, market.send(vaults.withdraw(key, mint=MINT, amount=amount))
    if step == "request":
        next_id = struct.unpack_from("<Q", market.data(vaults.find_vault(key)), 120)[0]
        outcome = market.send(vaults.request_withdraw(key, amount=amount, request_id=next_id))
        if outcome.code is None:
            requests[next_id] = amount
        return step, outcome
    if step in ("cancel", "execute"):
        request = next(iter(requests), 0)
        build: Any = vaults.cancel_withdraw if step == "cancel" else vaults.execute_withdraw
        outcome = market.send(build(key, request_id=request, **({} if step == "cancel" else {"mint": MINT})))
        if outcome.code is None:
            del requests[request]
        return step, outcome
    if step == "open":
        leverage = rng.choice((1, 5, 20, 21, 50, 100, 400, 1_000))
        collateral = rng.randint(1_000, 100_000_000)
        size = collateral * leverage * 10**6 // price * rng.randint(50, 101) // 100
        return step, market.send(
            market.open(owner=user, is_long=rng.random() < 0.5, size=size, collateral=collateral, leverage=leverage)
        )
    if step == "add":
        return step, market.send(market.add(amount // 20, owner=user))
    if step == "close":
        return step, market.send(market.close(owner=user))
    return step, market.send(client.contribute(key, amount=amount // 10, mint=MINT))


def liquidate_some(market: Market, rng: random.Random, price: int, conf: int) -> list[tuple[str, Outcome]]:
    """Liquidate what the reference says is liquidatable, as its neighbour, at the size that helps or at less."""
    done = []
    for at, user in enumerate(USERS):
        position = market.position(user)
        if position is None or rng.random() < 0.3:
            continue
        for size in (None, rng.choice((2**64 - 1, position["size"] // 10 + 1))):
            try:
                liquidated(exposure_of(position), price=price, conf=conf, size=size)
            except Refused:
                continue
            outcome = market.done(market.liquidate(size, owner=user, liquidator=USERS[at - 1]))
            done.append(("full" if size is None else "partial", outcome))
    return done


@pytest.mark.parametrize("seed", range(6))
def test_no_life_loses_a_token(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over every step of a market's life tokens are conserved, books agree, and locked is what collateral there is."""
    signing(monkeypatch)
    rng, market = random.Random(seed), Market.of_users()
    price, total, found = 100_000_000, market.everywhere(), Counter[str]()
    for number in range(STEPS):
        drift = 0.9 if number % 97 == 96 else rng.uniform(0.985, 1.015)  # now and then a crash
        price = max(1_000_000, int(price * drift)) if price < 10**9 else int(price * 0.97)
        conf = rng.randint(0, price // 20_000)
        market.at(market.now + 20)
        market.set_price(price, conf)
        steps = [act(market, rng, price), *liquidate_some(market, rng, price, conf)]
        for step, outcome in steps:
            found[step] += outcome.code is None
            found["bad debt"] += any(name == "BadDebtCovered" for name, _ in outcome.events)
            assert outcome.code is None or isinstance(outcome.code, int)
        assert market.everywhere() == total
        market.check()
    common = {"deposit", "withdraw", "request", "cancel", "execute", "open", "add", "close", "contribute", "full"}
    assert all(found[step] for step in (*common, "partial", "bad debt")), found
