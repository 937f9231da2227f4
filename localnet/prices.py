"""
What the assets of the home markets cost at any moment: a seeded path, and what an oracle says of it.

A pure function of seed, feed and time, so that a history can be played in any order of asking and a resumed chain goes
on where it was. The logarithm of a price is a sum of smooth noises of several lengths. Time is cut into windows, each
of a temper: calm, a trend, or a crash (a fall, now and then a rise) within a minute or so that takes the rest of its
window to recover. Prices revert in the long run: a market does not wander off while a chain is left alone.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Literal, NamedTuple

from localnet.oracle import PriceUpdate

EXPONENT = -8
SCALE = 10**-EXPONENT
WINDOW_S = 7_200
EMA_STEPS_S = (60, 600, 2_400)
"""How far back the moving average looks; later ones weigh less."""
CALM_CONF_BPS, CRASH_CONF_BPS = 1.6, 45.0
FOUR = struct.Struct("<4I")
CRASH_SHARE, TREND_SHARE = 0.06, 0.30

Temper = Literal["calm", "trend", "crash"]


@dataclass(frozen=True, slots=True)
class Feed:
    """One priced asset: its symbol, Pyth's id of its feed (32 bytes), about what one costs in USDT, how wild it is."""

    symbol: str
    feed_id: bytes
    about: float
    wildness: float


FEEDS = (
    Feed("SOL", bytes.fromhex("ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d"), 150.0, 1.2),
    Feed("BTC", bytes.fromhex("e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"), 65_000.0, 0.8),
    Feed("ETH", bytes.fromhex("ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"), 3_200.0, 1.0),
)


class Window(NamedTuple):
    """A stretch of WINDOW_S: its temper; of a crash, when it begins (unix seconds), how long it falls, how deep."""

    temper: Temper
    begins: float
    falls_s: float
    depth: float


class PricePath:
    """The prices of all feeds for one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # Neighbouring questions share their draws, and a draw is what a question costs.
        self._draw = lru_cache(maxsize=4_096)(self._drawn)
        self._window = lru_cache(maxsize=1_024)(self._window_drawn)

    def temper(self, feed: Feed, unix_time: float) -> Temper:
        """Return what the market is like at that moment."""
        return self._window(feed.symbol, int(unix_time // WINDOW_S)).temper

    def price(self, feed: Feed, unix_time: float) -> float:
        """Return what one whole unit of the asset costs, in USDT."""
        noise = 0.05 * self._smooth(feed, "season", unix_time, 4 * 86_400)
        noise += self._trend(feed, unix_time)
        noise += 0.0030 * self._smooth(feed, "swing", unix_time, 1_200)
        noise += 0.0010 * self._smooth(feed, "ripple", unix_time, 90)
        noise += 0.0002 * self._smooth(feed, "tick", unix_time, 5)
        return feed.about * math.exp(feed.wildness * noise + self._crash(feed, unix_time))

    def quote(self, feed: Feed, unix_time: int) -> tuple[int, int]:
        """Return price and confidence as published, in 10**EXPONENT USDT; `update` has more, and costs it."""
        price = self.price(feed, unix_time)
        return int(price * SCALE), int(price * self._conf_bps(feed, unix_time) / 10_000 * SCALE)

    def update(self, feed: Feed, unix_time: int, *, slot: int) -> PriceUpdate:
        """Return what the oracle publishes at `unix_time`, in the slot `slot`."""
        price, conf = self.quote(feed, unix_time)
        pasts = [price / SCALE, *(self.price(feed, unix_time - step) for step in EMA_STEPS_S)]
        weights = [1 / (1 + age) for age in range(len(pasts))]
        ema = sum(weight * past for weight, past in zip(weights, pasts, strict=True)) / sum(weights)
        return PriceUpdate(
            feed_id=feed.feed_id,
            price=price,
            conf=conf,
            exponent=EXPONENT,
            publish_time=unix_time,
            prev_publish_time=unix_time - 1,
            ema_price=int(ema * SCALE),
            ema_conf=int(ema * CALM_CONF_BPS / 10_000 * SCALE),
            posted_slot=slot,
        )

    def _trend(self, feed: Feed, unix_time: float) -> float:
        """Return how far trends have carried the price: towards another level in each window that is one."""
        number, part = divmod(unix_time / WINDOW_S, 1)
        whole = int(number)
        here, there = self._level(feed, whole), self._level(feed, whole + 1)
        return here + (there - here) * _eased(part)

    def _level(self, feed: Feed, number: int) -> float:
        strength = 0.025 if self._window(feed.symbol, number).temper == "trend" else 0.003
        return strength * self._draw(feed.symbol, "level", number)

    def _crash(self, feed: Feed, unix_time: float) -> float:
        window = self._window(feed.symbol, int(unix_time // WINDOW_S))
        since = unix_time - window.begins
        if window.temper != "crash" or since <= 0:
            return 0.0
        if since < window.falls_s:
            return window.depth * _eased(since / window.falls_s)
        left = (math.floor(unix_time / WINDOW_S) + 1) * WINDOW_S - unix_time
        whole = left + since - window.falls_s
        return window.depth * _eased(left / whole)

    def _conf_bps(self, feed: Feed, unix_time: float) -> float:
        """Return how unsure publishers are: most while a crash goes on, less and less after it."""
        window = self._window(feed.symbol, int(unix_time // WINDOW_S))
        since = unix_time - window.begins
        calm = CALM_CONF_BPS * (1.0 + 0.15 * self._smooth(feed, "conf", unix_time, 30))
        if window.temper != "crash" or since <= 0:
            return max(0.5, calm)
        return max(0.5, calm) + CRASH_CONF_BPS * math.exp(-since / 240.0)

    def _smooth(self, feed: Feed, name: str, unix_time: float, length_s: float) -> float:
        """Return noise between draws that are `length_s` apart, about -2 to 2."""
        number, part = divmod(unix_time / length_s, 1)
        whole = int(number)
        here, there = self._draw(feed.symbol, name, whole), self._draw(feed.symbol, name, whole + 1)
        return here + (there - here) * _eased(part)

    def _drawn(self, symbol: str, name: str, number: int) -> float:
        """Return about a standard normal draw: a sum of four even ones, which is cheap and never far out."""
        digest = sha256(f"{self.seed}/{symbol}/{name}/{number}".encode()).digest()
        even: float = sum(FOUR.unpack_from(digest)) / 2**32
        return (even - 2.0) * math.sqrt(3.0)

    def _window_drawn(self, symbol: str, number: int) -> Window:
        digest = sha256(f"{self.seed}/{symbol}/window/{number}".encode()).digest()
        rng = Random(digest)  # noqa: S311  # must be repeatable, guards no secret
        kind = rng.random()
        temper: Temper = "crash" if kind < CRASH_SHARE else "trend" if kind < CRASH_SHARE + TREND_SHARE else "calm"
        begins = number * WINDOW_S + rng.uniform(0.1, 0.6) * WINDOW_S
        depth = rng.uniform(0.06, 0.26) * (1 if rng.random() < 0.3 else -1)
        return Window(temper, begins, rng.uniform(40.0, 240.0), depth)


def find_feed(feed_id: bytes, feeds: Sequence[Feed] = FEEDS) -> Feed | None:
    """Return the feed of that id, or None where it is none of ours."""
    return next((feed for feed in feeds if feed.feed_id == feed_id), None)


def _eased(part: float) -> float:
    """Return a way from 0 to 1 that begins and ends slowly."""
    return part * part * (3.0 - 2.0 * part)
