"""
The past: a plan played into the ledger as fast as the VM goes.

The chain's clock is set for every act. Slots exist only where transactions do; the numbers in between are skipped, as
on a cluster whose leaders slept. Acts closer together than a slot's length share a slot.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from localnet.accounts import AccountState
from localnet.chain import Chain
from localnet.traffic.act import Act
from localnet.traffic.schedule import Company, Plan, plan_history
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
    """Give the users of every cast, at genesis, the lamports that they begin with."""
    for company in companies:
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
    planned: Told = unheard,
    played: Told = unheard,
) -> tuple[Plan, Seeded]:
    """
    Fill the purses, plan a history from the chain's present to `end` (unix seconds), and play it.

    Args:
        transactions: at least so many; 0 for none at all.
        planned: hears the number of acts planned so far.
        played: hears the number of acts played so far.
    """
    started = time.perf_counter()
    begin = float(chain.unix_time)
    fill_purses(chain, companies)
    plan = plan_history(companies, seed=seed, begin=begin, end=end, transactions=transactions, told=planned)
    seeded = play_history(chain, plan.acts, begin=begin, end=end, slot_ms=slot_ms, told=played)
    return plan, replace(seeded, seconds=time.perf_counter() - started)


def play_history(
    chain: Chain,
    acts: Sequence[Act],
    *,
    begin: float,
    end: float,
    slot_ms: int,
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
        told: hears how many acts have run, a few times a second.
    """
    started = time.perf_counter()
    base = chain.slot
    landed = failed = 0
    for number, act in enumerate(acts):
        slot = base + int((act.at - begin) * 1000 / slot_ms)
        if slot > chain.slot:
            chain.open_slot(slot, int(act.at))
        executed = chain.execute(act.signed(chain.latest_blockhash()), verified=True)
        landed += executed.landed
        failed += executed.landed and executed.err is not None
        if number % 256 == 0:
            told(number)
    last = base + int((end - begin) * 1000 / slot_ms)
    if last > chain.slot:
        chain.open_slot(last, int(end))
    told(len(acts))
    return Seeded(transactions=landed, failed=failed, seconds=time.perf_counter() - started)
