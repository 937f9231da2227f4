"""
Who writes prices: the accounts of the oracle, from the path, or as somebody has set them.

Live, every feed is written in every slot. In a history a feed is written in the slots in which a transaction uses it,
and in no other: nobody can tell the difference afterwards, for a reader sees the newest state of an account and never
its past, and three writes in each slot are dear where most slots are other programs'.
"""

from collections.abc import Sequence
from dataclasses import replace

from solders.pubkey import Pubkey

from localnet.accounts import AccountState, rent_exempt_minimum
from localnet.chain import Chain
from localnet.oracle import PRICE_UPDATE_BYTES, RECEIVER_PROGRAM_ID, PriceUpdate, find_price_account
from localnet.prices import EXPONENT, FEEDS, Feed, PricePath

PRICE_ACCOUNTS: dict[str, Pubkey] = {feed.symbol: find_price_account(feed.feed_id) for feed in FEEDS}
"""Where each feed's price lies, by symbol."""


class PriceBoard:
    """The price accounts of one chain, whose seed decides the path."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._path = PricePath(chain.seed)
        # By feed id: a price that was set, and how far its publish time lay behind the chain's clock.
        self._held: dict[bytes, tuple[PriceUpdate, int]] = {}
        self._written: dict[bytes, int] = {}

    def at(self, feed: Feed, unix_time: int) -> PriceUpdate:
        """Return what is, or would be, published at `unix_time` in the open slot."""
        held = self._held.get(feed.feed_id)
        if held is None:
            return self._path.update(feed, unix_time, slot=self._chain.slot)
        update, behind_s = held
        published = unix_time - behind_s
        return replace(update, publish_time=published, prev_publish_time=published - 1, posted_slot=self._chain.slot)

    def quote(self, feed: Feed, unix_time: int) -> tuple[int, int]:
        """Return price and confidence of `at`, in 1e-6 USDT: the price rounded down, the confidence up."""
        held = self._held.get(feed.feed_id)
        if held is None:
            price, conf, exponent = *self._path.quote(feed, unix_time), EXPONENT
        else:
            price, conf, exponent = held[0].price, held[0].conf, held[0].exponent
        if exponent >= -6:
            return price * 10 ** (exponent + 6), conf * 10 ** (exponent + 6)
        return price // 10 ** -(exponent + 6), -(-conf // 10 ** -(exponent + 6))

    def write(self, feeds: Sequence[Feed] = FEEDS) -> None:
        """Write feeds into the open slot, unless that has been done."""
        for feed in feeds:
            if self._written.get(feed.feed_id) == self._chain.slot:
                continue
            data = bytes(self.at(feed, self._chain.unix_time))
            state = AccountState(rent_exempt_minimum(PRICE_UPDATE_BYTES), data, bytes(RECEIVER_PROGRAM_ID))
            self._chain.set_account(PRICE_ACCOUNTS[feed.symbol], state)
            self._written[feed.feed_id] = self._chain.slot

    def hold(self, update: PriceUpdate) -> None:
        """Let a feed stay at a price that somebody has set; what was late when it was set stays as late."""
        self._held[update.feed_id] = (update, self._chain.unix_time - update.publish_time)
