"""
The present: what is due when a slot opens, at so many transactions a second on average.

Driven by the chain's own clock, slot by slot, in whatever loop produces the slots. New lives begin at random moments;
those that the history left unfinished go on.
"""

import heapq
from collections.abc import Sequence

from localnet.chain import Chain
from localnet.traffic.act import Act, Life, Outcome, Span
from localnet.traffic.price_board import PriceBoard
from localnet.traffic.rhythm import chance
from localnet.traffic.schedule import Company, Queue, draw_cast, found, mean_acts
from localnet.traffic.sight import ChainSight

HEAD_START_S = 15.0
"""People who would have come in the last seconds come all at once at first: otherwise it is quiet for a minute."""
CATCH_UP_S = 15.0


class LiveTraffic:
    """
    Users who act while the chain runs.

    Args:
        chain: where they act.
        companies: who they are.
        seed: decides what they do; when exactly it happens also depends on the chain's clock.
        rate_tps: transactions a second, on average.
        first_life: number of the first new life; those below belong to the history.
        later: what the history's lives still want to do, sorted by time.
        queue: the history's lives that react to the chain, which go on.
        prices: who writes prices; needed where a cast asks for any.
    """

    def __init__(
        self,
        chain: Chain,
        companies: Sequence[Company],
        *,
        seed: int,
        rate_tps: float,
        first_life: int = 0,
        later: Sequence[Act] = (),
        queue: Queue | None = None,
        prices: PriceBoard | None = None,
    ) -> None:
        self._chain = chain
        self._companies = companies
        self._seed = seed
        self._rng = chance(seed, "live")
        self._next_life = first_life
        self._later = [(act.at, number, act) for number, act in enumerate(later)]
        begin = float(chain.unix_time)
        self._span = Span(begin=begin, end=begin, live=True)
        self._prices = prices
        self._sight = ChainSight(chain, prices)
        self._queue = Queue() if queue is None else queue
        found(companies, self._queue, self._span)
        self._rate_tps = rate_tps
        self._ran_s = 0.0
        self._gap_s = mean_acts(companies, seed=seed, span=self._span) / rate_tps
        self._next_arrival = begin - HEAD_START_S
        self._second = chain.unix_time
        self._second_since_slot = chain.slot
        self.transactions = 0
        self.stopped = False

    @property
    def lives(self) -> int:
        """The number of the first user who has not acted yet."""
        return self._next_life

    def stop(self) -> None:
        """Let nobody act any more."""
        self.stopped = True

    def on_slot(self, slot_ms: int) -> None:
        """Run everything that is due in the slot that has just opened; `slot_ms` is a slot's length."""
        if self.stopped:
            return
        now = self._now(slot_ms)
        self._ran_s += slot_ms / 1000
        # After a jump of the clock nobody makes up for the time that never was.
        self._next_arrival = max(self._next_arrival, now - HEAD_START_S)
        while self._next_arrival <= now:
            self._arrive()
        while self._later and self._later[0][0] <= now:
            self._run(heapq.heappop(self._later)[2])
        while (due := self._queue.due(now)) is not None:
            act, life = due
            self._queue.tell(life, self._run(act))

    def _now(self, slot_ms: int) -> float:
        """Return the chain's clock in unix seconds, with the slots since its last full second as the fraction."""
        if self._chain.unix_time != self._second:
            self._second, self._second_since_slot = self._chain.unix_time, self._chain.slot
        fraction = (self._chain.slot - self._second_since_slot) * slot_ms / 1000
        return self._second + min(fraction, 0.999)

    def _arrive(self) -> None:
        rng = chance(self._seed, "live life", self._next_life)
        cast = draw_cast(self._companies, rng)
        life: Life = cast.life(self._next_life, at=self._next_arrival, span=self._span)
        self._next_life += 1
        self._queue.enter(life)
        self._next_arrival += self._rng.expovariate(self._pace() / self._gap_s)

    def _pace(self) -> float:
        """
        Return how much faster than planned people must come so that the rate holds.

        Lives are shorter than planned where nobody cleans up, because then nobody can return.
        """
        behind = self._ran_s * self._rate_tps - self.transactions
        return min(3.0, max(0.4, 1.0 + behind / (self._rate_tps * CATCH_UP_S)))

    def _run(self, act: Act) -> Outcome:
        chain = self._chain
        self._sight.unix_time = chain.unix_time
        chosen = act.chosen(self._sight)
        if chosen is None:
            return Outcome(landed=False, unix_time=chain.unix_time)
        if chosen.feeds and self._prices is not None:
            self._prices.write(chosen.feeds)
        # As wallets do: a fork that drops the newest blocks need not drop what carries an older hash.
        executed = chain.execute(chosen.signed(chain.blockhash_at("finalized")), verified=True)
        self.transactions += executed.landed
        return Outcome(landed=executed.err is None, unix_time=chain.unix_time)
