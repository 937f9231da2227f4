"""The price path: the same for a seed whoever asks and when, with all tempers in it, and what the oracle says of it."""

from collections import Counter
from itertools import pairwise

import pytest

from localnet.chain import Chain
from localnet.oracle import RECEIVER_PROGRAM_ID, PriceUpdate, read_price_update
from localnet.prices import EXPONENT, FEEDS, WINDOW_S, Feed, PricePath, find_feed
from localnet.traffic.price_board import PRICE_ACCOUNTS, PriceBoard

BEGIN = 1_750_032_000
DAY_S = 86_400


def test_a_price_follows_from_seed_feed_and_time() -> None:
    """Asked in another order, by somebody else, it is the same; for another seed it is another."""
    moments = [BEGIN + 977 * n for n in range(200)]
    first = [PricePath(3).update(FEEDS[0], at, slot=1) for at in moments]
    path = PricePath(3)
    assert [path.update(FEEDS[0], at, slot=1) for at in reversed(moments)] == first[::-1]
    assert all(path.quote(FEEDS[0], at) == (one.price, one.conf) for at, one in zip(moments, first, strict=True))
    assert all(PricePath(4).quote(FEEDS[0], at)[0] != one.price for at, one in zip(moments, first, strict=True))


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.symbol)
def test_a_month_has_calm_trends_and_crashes(feed: Feed) -> None:
    """A crash moves a price by several per cent within minutes, a calm window hardly; nothing jumps within a second."""
    path = PricePath(5)
    windows = range(BEGIN, BEGIN + 30 * DAY_S, WINDOW_S)
    tempers = Counter(path.temper(feed, at) for at in windows)
    assert set(tempers) == {"calm", "trend", "crash"}
    assert tempers["crash"] >= 5
    moves: dict[str, list[float]] = {"calm": [], "trend": [], "crash": []}
    for begin in windows:
        prices = [path.price(feed, begin + step) for step in range(0, WINDOW_S, 120)]
        moves[path.temper(feed, begin)].append(
            max(abs(after / before - 1) for before, after in zip(prices, prices[2:], strict=False))
        )
    assert min(moves["crash"]) > 0.02
    assert max(moves["calm"]) < 0.02
    seconds = [path.price(feed, BEGIN + step) for step in range(3 * WINDOW_S)]
    assert max(abs(after / before - 1) for before, after in pairwise(seconds)) < 0.02


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.symbol)
def test_prices_stay_where_such_assets_are(feed: Feed) -> None:
    """After ten years a price is still within a factor of two, and never has a window's end a step in it."""
    path = PricePath(6)
    far = [path.price(feed, BEGIN + day * DAY_S) for day in range(0, 3_650, 10)]
    assert feed.about / 2 < min(far) <= max(far) < feed.about * 2
    edges = [(n + BEGIN // WINDOW_S) * WINDOW_S for n in range(1, 300)]
    assert all(abs(path.price(feed, at) / path.price(feed, at - 0.01) - 1) < 0.001 for at in edges)


def test_an_update_is_one_that_a_market_accepts() -> None:
    """Full verification, confidence of a few bps, an average near the price, published now."""
    for at in range(BEGIN, BEGIN + DAY_S, 3_607):
        update = PricePath(1).update(FEEDS[1], at, slot=9)
        assert read_price_update(bytes(update)) == update
        assert (update.publish_time, update.prev_publish_time, update.posted_slot) == (at, at - 1, 9)
        assert update.exponent == EXPONENT
        assert 0 < update.conf * 10_000 / update.price < 60
        assert abs(update.ema_price / update.price - 1) < 0.3


def written(chain: Chain, feed: Feed) -> PriceUpdate:
    """Return what a feed's account says."""
    state = chain.account_at(PRICE_ACCOUNTS[feed.symbol])
    assert state is not None
    assert state.owner == bytes(RECEIVER_PROGRAM_ID)
    update = read_price_update(state.data)
    assert update is not None
    return update


def test_a_board_writes_every_feed_with_the_chains_clock() -> None:
    """Slot by slot, each account has the slot's number and time, and the price that the path has then."""
    chain = Chain(seed=2, start_time=BEGIN)
    board = PriceBoard(chain)
    for number in range(1, 4):
        chain.open_slot(chain.slot + 1, BEGIN + number)
        board.write()
        for feed in FEEDS:
            assert written(chain, feed) == PricePath(2).update(feed, BEGIN + number, slot=chain.slot)


def test_a_price_that_is_set_holds_and_is_as_old_as_it_was() -> None:
    """Later slots repeat it, whether it was fresh or late; the other feeds go on."""
    chain = Chain(seed=2, start_time=BEGIN)
    board = PriceBoard(chain)
    board.write()
    last = written(chain, FEEDS[0])
    crashed = PriceUpdate(
        feed_id=last.feed_id, price=5 * 10**9, conf=7, exponent=-8, publish_time=BEGIN - 30, prev_publish_time=BEGIN,
        ema_price=1, ema_conf=1, posted_slot=chain.slot,
    )  # fmt: skip
    board.hold(crashed)
    chain.open_slot(chain.slot + 10, BEGIN + 4)
    board.write()
    now = written(chain, FEEDS[0])
    assert (now.price, now.conf, now.publish_time, now.posted_slot) == (5 * 10**9, 7, BEGIN - 26, chain.slot)
    assert board.quote(FEEDS[0], BEGIN + 4) == (50_000_000, 1)
    assert written(chain, FEEDS[1]).publish_time == BEGIN + 4


def test_feeds_are_known_by_their_id() -> None:
    """Of ours, and of nobody else's."""
    assert [find_feed(feed.feed_id) for feed in FEEDS] == list(FEEDS)
    assert find_feed(bytes(32)) is None
