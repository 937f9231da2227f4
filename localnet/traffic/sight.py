"""What users see of a chain before they act, without opening a slot for it."""

from solders.pubkey import Pubkey

from localnet.chain import Chain
from localnet.prices import Feed
from localnet.traffic.price_board import PriceBoard


class ChainSight:
    """
    Accounts in the open slot, and prices at `unix_time`, which whoever lets people look sets to the moment of the act.
    """

    def __init__(self, chain: Chain, prices: PriceBoard | None) -> None:
        self._chain = chain
        self._prices = prices
        self.unix_time = chain.unix_time

    def data(self, address: Pubkey) -> bytes:
        """Return an account's data; empty where there is no account."""
        state = self._chain.account_at(address)
        return b"" if state is None else state.data

    def quote(self, feed: Feed) -> tuple[int, int]:
        """Return price and confidence, 1e-6 USDT."""
        assert self._prices is not None, "a cast that asks for prices is played with them"
        return self._prices.quote(feed, self.unix_time)
