"""
The past: a plan played into the ledger as fast as the VM goes.

The chain's clock is set for every act. Slots exist only where transactions do; the numbers in between are skipped, as
on a cluster whose leaders slept. Acts closer together than a slot's length share a slot.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from localnet.accounts import AccountState
from localnet.chain import Chain
from localnet.traffic.act import Act, Life, Outcome
from localnet.traffic.price_board import PriceBoard
from localnet.traffic.schedule import Company, Plan, Queue, plan_history
from localnet.traffic.sight import ChainSight
from localnet.vm import SYSTEM_PROGRAM

Told = Callable[[int], None]


def unheard(_: int) -> None:
    """Let a number pass that nobody wants to hear."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """What a history came to: transactions, failed ones among them, and the seconds that it took to make."""

    transactions: int
    failed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Transactions a second; 0 where there were none."""
        return self.transactions / self.seconds if self.transactions and self.seconds else 0.0


def fill_purses(chain: Chain, companies: Sequence[Company]) -> None:
    """Give the users of every cast, at genesis, the lamports and accounts that they begin with."""
    for company in companies:
        for address, state in company.cast.furniture():
            chain.set_account(address, state)
        for wallet, lamports in company.cast.purses():
            chain.set_account(wallet, AccountState(lamports, b"", SYSTEM_PROGRAM))


def seed_history(
    chain: Chain,
    companies: Sequence[Company],
    *,
    seed: int,
    end: float,
    transactions: int,
    slot_ms: int,
    prices: PriceBoard | None = None,
    planned: Told = unheard,
    played: Told = unheard,
) -> tuple[Plan, Seeded]:
    """
    Fill the purses, plan a history from the chain's present to `end` (unix seconds), and play it.

    Args:
        transactions: at least so many, or nearly so where lives react to the chain; 0 for none at all.
        prices: who writes them; None where no cast asks for any.
        planned: hears the number of acts planned so far.
        played: hears the number of acts played so far.
    """
    started = time.perf_counter()
    begin = float(chain.unix_time)
    fill_purses(chain, companies)
    if not transactions:
        return Plan(acts=(), later=(), lives=0), Seeded(0, 0, 0.0)
    plan = plan_history(companies, seed=seed, begin=begin, end=end, transactions=transactions, told=planned)
    seeded = play_history(
        chain, plan.acts, begin=begin, end=end, slot_ms=slot_ms, queue=plan.queue, prices=prices, told=played
    )
    return plan, replace(seeded, seconds=time.perf_counter() - started)


def play_history(
    chain: Chain,
    acts: Sequence[Act],
    *,
    begin: float,
    end: float,
    slot_ms: int,
    queue: Queue | None = None,
    prices: PriceBoard | None = None,
    told: Told = unheard,
) -> Seeded:
    """
    Run acts, sorted by time, on the chain, and leave it at `end`.

    Args:
        chain: filled with purses and programs; its open slot is that of `begin`.
        acts: none before `begin`, none after `end`.
        begin: unix seconds of the chain's open slot.
        end: unix seconds at which the history ends.
        slot_ms: a slot's length.
        queue: lives that react to the chain; those that are not over at `end` stay in it.
        prices: who writes them; needed where an act has feeds.
        told: hears how many acts have run, a few times a second.
    """
    started = time.perf_counter()
    stage = _Past(chain, begin=begin, slot_ms=slot_ms, prices=prices)
    for number, (act, life) in enumerate(_in_order(acts, Queue() if queue is None else queue, end)):
        outcome = stage.run(act)
        if life is not None and queue is not None:
            queue.tell(life, outcome)
        if number % 256 == 0:
            told(stage.landed)
    last = stage.slot_at(end)
    if last > chain.slot:
        chain.open_slot(last, int(end))
    told(stage.landed)
    return Seeded(transactions=stage.landed, failed=stage.failed, seconds=time.perf_counter() - started)


def _in_order(acts: Sequence[Act], queue: Queue, end: float) -> Iterator[tuple[Act, Life | None]]:
    """Yield the planned acts and those of the queue by time; at the same moment, the planned one first."""
    for act in acts:
        while queue.next_at() < act.at and (due := queue.due(act.at)) is not None:
            yield due
        yield act, None
    while (due := queue.due(end)) is not None:
        yield due


class _Past:
    """Where acts of a history run: each in the slot of its moment, which is opened when somebody does act."""

    def __init__(self, chain: Chain, *, begin: float, slot_ms: int, prices: PriceBoard | None) -> None:
        self._chain = chain
        self._prices = prices
        self._sight = ChainSight(chain, prices)
        self._begin = begin
        self._base = chain.slot
        self._slot_ms = slot_ms
        self.landed = self.failed = 0

    def slot_at(self, at: float) -> int:
        """Return the slot of a moment, unix seconds."""
        return self._base + int((at - self._begin) * 1000 / self._slot_ms)

    def run(self, act: Act) -> Outcome:
        """Let the act happen, if it does, and say what came of it."""
        chain, slot = self._chain, self.slot_at(act.at)
        self._sight.unix_time = int(act.at) if slot > chain.slot else chain.unix_time
        chosen = act.chosen(self._sight)
        if chosen is None:
            return Outcome(landed=False, unix_time=self._sight.unix_time)
        if slot > chain.slot:
            chain.open_slot(slot, int(act.at))
        if chosen.feeds and self._prices is not None:
            self._prices.write(chosen.feeds)
        executed = chain.execute(chosen.signed(chain.latest_blockhash()), verified=True)
        self.landed += executed.landed
        self.failed += executed.landed and executed.err is not None
        return Outcome(landed=executed.err is None, unix_time=chain.unix_time)
