"""A random life of two vaults, every step of it foreseen by books that a child could keep."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from localnet.clients import collateral_vault as client
from tests.fixtures.collateral_world import (
    ALICE,
    ALICE_TOKENS,
    ALICE_VAULT_TOKENS,
    BOB,
    BOB_TOKENS,
    BOB_VAULT_TOKENS,
    ENGINE,
    MINT,
    START,
    WALLET_TOKENS,
    CollateralWorld,
)

DELAY_S = 3_600
TOKEN_ACCOUNTS = (ALICE_TOKENS, BOB_TOKENS, ALICE_VAULT_TOKENS, BOB_VAULT_TOKENS)

Plan = tuple[Instruction, Callable[[], object] | None]
"""What is sent, and what it does to the books; None where the program must refuse it."""


@dataclass
class Book:
    """One vault: what is free, what engines hold, and the requests as id: (amount, due)."""

    owner: Pubkey
    available: int = 0
    engines: int = 0
    requests: dict[int, tuple[int, int]] = field(default_factory=dict)
    next_request: int = 0

    @property
    def locked(self) -> int:
        return self.engines + sum(amount for amount, _ in self.requests.values())

    def give(self, *, available: int = 0, engines: int = 0) -> None:
        self.available += available
        self.engines += engines

    def request(self, amount: int, due: int) -> None:
        self.available -= amount
        self.requests[self.next_request] = (amount, due)
        self.next_request += 1

    def cancel(self, request_id: int) -> None:
        self.available += self.requests.pop(request_id)[0]


def plan_deposit(rng: random.Random, book: Book) -> Plan:
    amount = rng.choice([0, *rng.sample(range(1, 10_000), 9)])
    effect = (lambda: book.give(available=amount)) if amount else None
    return client.deposit(book.owner, book.owner, mint=MINT, amount=amount), effect


def plan_withdraw(rng: random.Random, book: Book, delay_s: int) -> Plan:
    amount = some(rng, book.available)
    fine = delay_s == 0 and 0 < amount <= book.available
    return client.withdraw(book.owner, mint=MINT, amount=amount), (
        (lambda: book.give(available=-amount)) if fine else None
    )


def plan_request(rng: random.Random, book: Book, due: int) -> Plan:
    amount = some(rng, book.available)
    effect = (lambda: book.request(amount, due)) if 0 < amount <= book.available else None
    return client.request_withdraw(book.owner, amount=amount, request_id=book.next_request), effect


def plan_end(rng: random.Random, book: Book, now: int) -> Plan:
    """Cancel or execute a request that is there, or was, or never will be."""
    request_id = rng.choice([*book.requests, *book.requests, 0, 99])
    known = request_id in book.requests
    if rng.randrange(3) == 0:
        return client.cancel_withdraw(book.owner, request_id=request_id), (
            (lambda: book.cancel(request_id)) if known else None
        )
    due = known and now >= book.requests[request_id][1]
    return client.execute_withdraw(book.owner, mint=MINT, request_id=request_id), (
        (lambda: book.requests.pop(request_id)) if due else None
    )


def plan_lock(rng: random.Random, book: Book) -> Plan:
    amount = some(rng, book.available)
    effect = (lambda: book.give(available=-amount, engines=amount)) if 0 < amount <= book.available else None
    return client.lock_collateral(ENGINE, book.owner, amount=amount), effect


def plan_unlock(rng: random.Random, book: Book) -> Plan:
    """An engine gives back no more than it took: requests share the locked balance, and only it knows its part."""
    amount = min(some(rng, book.engines), book.engines)
    effect = (lambda: book.give(available=amount, engines=-amount)) if amount else None
    return client.unlock_collateral(ENGINE, book.owner, amount=amount), effect


def plan_transfer(rng: random.Random, book: Book, other: Book) -> Plan:
    amount = min(some(rng, book.engines), book.engines)

    def effect() -> None:
        book.give(engines=-amount)
        other.give(available=amount)

    instruction = client.transfer_collateral(ENGINE, book.owner, other.owner, mint=MINT, amount=amount)
    return instruction, effect if amount else None


def some(rng: random.Random, balance: int) -> int:
    """Return an amount around a balance: mostly a part of it, at times nothing, all, or one too many."""
    return rng.choice([0, balance, balance + 1, *(rng.randint(0, balance) for _ in range(7))])


@pytest.mark.parametrize("seed", range(4))
def test_a_random_life_keeps_the_books(seed: int) -> None:
    """
    Each of 300 steps succeeds or fails as foreseen, and after each the balances are the books' to the unit: locked is
    what engines and requests hold, total is locked + available and lies in the token account, and no token is lost.
    """
    rng = random.Random(seed)
    delay_s = 0 if seed % 2 == 0 else DELAY_S
    world = CollateralWorld.opened(delay_s=delay_s)
    books = [Book(ALICE), Book(BOB)]
    now, succeeded, refused = START, 0, 0
    for _ in range(300):
        book, other = rng.sample(books, 2)
        plans: list[Callable[[], Plan]] = [
            partial(plan_deposit, rng, book),
            partial(plan_withdraw, rng, book, delay_s),
            partial(plan_request, rng, book, now + delay_s),
            partial(plan_end, rng, book, now),
            partial(plan_lock, rng, book),
            partial(plan_unlock, rng, book),
            partial(plan_transfer, rng, book, other),
        ]
        instruction, effect = rng.choice(plans)()
        outcome = world.send(instruction)
        assert (outcome.code is None) == (effect is not None), outcome.logs
        if effect:
            effect()
        succeeded, refused = succeeded + (effect is not None), refused + (effect is None)
        for written in books:
            vault = client.find_vault(written.owner)
            total = written.locked + written.available
            assert world.balances(vault) == (total, written.locked, written.available)
            assert world.state(vault)["next_request"] == written.next_request
        world.consistent()
        assert sum(map(world.tokens, TOKEN_ACCOUNTS)) == 2 * WALLET_TOKENS
        now += rng.choice([0, 1, DELAY_S // 3])
        world.at(now)
    assert succeeded > 100
    assert refused > 30
