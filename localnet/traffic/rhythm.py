"""
When people come, and how much they bring.

Charts of a real service breathe: more people each week, fewer at night and on Sundays, some days louder than others for
no reason. Times are drawn from such a density by rejection. Amounts are lognormal, as money is, and always integers.
"""

import math
from datetime import UTC, datetime
from random import Random

DAY_S = 86_400
WEEKDAY_SHARE = (1.0, 1.04, 1.08, 1.05, 0.98, 0.78, 0.70)  # Monday first
DENSITY_MAX = 2.5


def chance(*parts: object) -> Random:
    """Return the source of chance of these parts (a seed, a purpose, a number): equal parts, equal draws."""
    return Random("/".join(str(part) for part in parts))  # noqa: S311  # must be repeatable, guards no secret


class Rhythm:
    """
    How busy each moment between `begin` and `end` is (unix seconds), for one seed.

    The share of a moment is growth * time of day * weekday * the day's mood, and at most DENSITY_MAX.
    """

    def __init__(self, *, seed: int, begin: float, end: float) -> None:
        mood = chance(seed, "mood")
        days = int((end - begin) // DAY_S) + 2
        self._begin = begin
        self._end = end
        self._moods = [min(1.45, max(0.65, mood.lognormvariate(0.0, 0.16))) for _ in range(days)]

    def density(self, at: float) -> float:
        """Return how busy `at` (unix seconds) is, above 0: over a day about 0.4 at first, 1 at the end."""
        grown = (at - self._begin) / max(1.0, self._end - self._begin)
        growth = 0.4 + 0.6 * grown
        moment = datetime.fromtimestamp(at, UTC)
        hour = moment.hour + moment.minute / 60
        daylight = 1.0 + 0.55 * math.sin((hour - 9.0) * math.tau / 24)  # busiest at 15:00 UTC, quietest at 3:00
        mood = self._moods[int((at - self._begin) // DAY_S)]
        return growth * daylight * WEEKDAY_SHARE[moment.weekday()] * mood

    def draw(self, rng: Random) -> float:
        """Return a moment between `begin` and `end`, unix seconds, drawn by how busy the moments are."""
        while True:
            at = rng.uniform(self._begin, self._end)
            if rng.random() * DENSITY_MAX <= self.density(at):
                return at


def draw_amount(rng: Random, *, median: int, spread: float, least: int, most: int) -> int:
    """
    Return a lognormal amount in base units, between `least` and `most`.

    Args:
        rng: the life's own source of chance.
        median: half of all amounts are below it.
        spread: sigma of the logarithm; 1.0 puts two thirds between 0.37 and 2.7 times the median.
        least: smaller draws become this.
        most: larger draws become this.
    """
    return max(least, min(most, int(rng.lognormvariate(math.log(median), spread))))
