"""
One order for everybody: the lives of all casts, merged by time.

`plan_history` needs no chain: it lets each life happen as the life expects and sorts the acts. Lives that react to the
chain are only begun by it: they wait in a `Queue`, which tells a life as far as its last outcome, and which the present
has for every life, because there acts may come late or fail.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from localnet.traffic.act import Act, Cast, Life, Outcome, Span, imagine
from localnet.traffic.rhythm import Rhythm, chance


@dataclass(frozen=True, slots=True)
class Company:
    """A cast and how many of all lives are its, as a weight above 0."""

    cast: Cast
    weight: float = 1.0


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

    def next_at(self) -> float:
        """Return when the first act waits to run, unix seconds; infinity where none does."""
        return self._waiting[0][0] if self._waiting else math.inf

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


@dataclass(frozen=True, slots=True)
class Plan:
    """
    A history that has not happened yet.

    Attributes:
        acts: those known beforehand, in order of time.
        later: those of the same lives that come after the end.
        lives: how many begin in it.
        queue: the lives that react to the chain.
    """

    acts: tuple[Act, ...]
    later: tuple[Act, ...]
    lives: int
    queue: Queue = field(default_factory=Queue)


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

    The surplus of what is planned is less than one life; acts that are not likely do not count, and what lives that
    react will do is an estimate. `told` hears the number of acts so far after each life. The same arguments give the
    same plan.
    """
    span = Span(begin=begin, end=end)
    queue = Queue()
    found(companies, queue, span)
    rhythm = Rhythm(seed=seed, begin=begin, end=end)
    keyed: list[tuple[float, int, int, Act]] = []
    later: list[tuple[float, int, int, Act]] = []
    life = expected = 0
    while len(keyed) + expected < transactions:
        rng = chance(seed, "life", life)
        cast, at = draw_cast(companies, rng), rhythm.draw(rng)
        imagined = imagine(cast.life(life, at=at, span=span))
        if cast.reacts:
            expected += sum(act.likely and act.at <= end for act in imagined)
            queue.enter(cast.life(life, at=at, span=span))
        else:
            for step, act in enumerate(imagined):
                (keyed if act.at <= end else later).append((act.at, life, step, act))
        life += 1
        told(len(keyed) + expected)
    keyed.sort(key=lambda entry: entry[:3])
    later.sort(key=lambda entry: entry[:3])
    acts, after = tuple(entry[3] for entry in keyed), tuple(entry[3] for entry in later)
    return Plan(acts=acts, later=after, lives=life, queue=queue)


def found(companies: Sequence[Company], queue: Queue, span: Span) -> None:
    """Let everything that has to be done once wait in the queue."""
    for company in companies:
        founding = company.cast.founding(span)
        if founding is not None:
            queue.enter(founding)


def mean_acts(companies: Sequence[Company], *, seed: int, span: Span, sample: int = 200) -> float:
    """Return how many acts a life has on average in such a span, from a sample of planned lives; at least 1."""
    acts = 0
    for number in range(sample):
        rng = chance(seed, "sample", number)
        acts += sum(act.likely for act in imagine(draw_cast(companies, rng).life(number, at=span.begin, span=span)))
    return max(1.0, acts / sample)
