"""
One order for everybody: the lives of all casts, merged by time.

`plan_history` needs no chain: it lets each life happen as the life expects and sorts the acts. `Queue` is for a present
in which acts may come late or fail, so that a life is told only as far as its last outcome.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from localnet.traffic.act import Act, Cast, Life, Outcome, Span, imagine
from localnet.traffic.rhythm import Rhythm, chance


@dataclass(frozen=True, slots=True)
class Company:
    """A cast and how many of all lives are its, as a weight above 0."""

    cast: Cast
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Every act of a history in order of time, and those of the same lives that come after its end."""

    acts: tuple[Act, ...]
    later: tuple[Act, ...]
    lives: int


def draw_cast(companies: Sequence[Company], rng: Random) -> Cast:
    """Return whose life comes next."""
    return rng.choices([company.cast for company in companies], [company.weight for company in companies])[0]


def plan_history(
    companies: Sequence[Company],
    *,
    seed: int,
    begin: float,
    end: float,
    transactions: int,
    told: Callable[[int], None] = lambda _: None,
) -> Plan:
    """
    Plan whole lives until their acts between `begin` and `end` (unix seconds) are at least `transactions`.

    The surplus is less than one life. `told` hears the number of acts so far after each life. The same arguments give
    the same plan.
    """
    span = Span(begin=begin, end=end)
    rhythm = Rhythm(seed=seed, begin=begin, end=end)
    keyed: list[tuple[float, int, int, Act]] = []
    later: list[tuple[float, int, int, Act]] = []
    life = 0
    while len(keyed) < transactions:
        rng = chance(seed, "life", life)
        cast = draw_cast(companies, rng)
        for step, act in enumerate(imagine(cast.life(life, at=rhythm.draw(rng), span=span))):
            (keyed if act.at <= end else later).append((act.at, life, step, act))
        life += 1
        told(len(keyed))
    keyed.sort(key=lambda entry: entry[:3])
    later.sort(key=lambda entry: entry[:3])
    return Plan(acts=tuple(entry[3] for entry in keyed), later=tuple(entry[3] for entry in later), lives=life)


def mean_acts(companies: Sequence[Company], *, seed: int, span: Span, sample: int = 200) -> float:
    """Return how many acts a life has on average in such a span, from a sample of planned lives; at least 1."""
    acts = 0
    for number in range(sample):
        rng = chance(seed, "sample", number)
        acts += len(imagine(draw_cast(companies, rng).life(number, at=span.begin, span=span)))
    return max(1.0, acts / sample)


class Queue:
    """
    Lives that wait for their next act, soonest first.

    An act taken out with `due` must be given back its outcome with `tell`, or its life never goes on.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Act, Life]] = []
        self._entered = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, life: Life) -> None:
        """Let a life begin: its first act waits from now on."""
        try:
            act = next(life)
        except StopIteration:
            return
        self._push(act, life)

    def due(self, now: float) -> tuple[Act, Life] | None:
        """Return the first act whose time (unix seconds) has come, with its life; None where none has."""
        if not self._waiting or self._waiting[0][0] > now:
            return None
        _, _, act, life = heapq.heappop(self._waiting)
        return act, life

    def tell(self, life: Life, outcome: Outcome) -> None:
        """Tell a life what came of its act; its next act waits from now on."""
        try:
            act = life.send(outcome)
        except StopIteration:
            return
        self._push(act, life)

    def _push(self, act: Act, life: Life) -> None:
        self._entered += 1  # a tie in time is decided by who came first, never by comparing acts
        heapq.heappush(self._waiting, (act.at, self._entered, act, life))
