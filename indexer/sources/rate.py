"""
How many calls a second a node is asked: a bucket of tokens that fills with time.

Each endpoint has a bucket of its own. Who takes more than there is goes into debt and waits until it is paid, and who
comes later waits longer; so calls leave in the order they came, and over any second no more than the rate and what had
been saved up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable


class TokenBucket:
    """
    A bucket that holds one second's tokens.

    Args:
        rate: tokens a second, above 0.
        clock: monotonic, in seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        assert rate > 0, "settings refuse a rate of 0"
        self._rate = rate
        self._capacity = max(rate, 1.0)
        self._tokens = self._capacity
        self._clock = clock
        self._sleep = sleep
        self._filled_at = clock()

    async def take(self, cost: int) -> None:
        """Take `cost` tokens, and wait until there were so many."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        self._tokens -= cost
        if self._tokens < 0:
            await self._sleep(-self._tokens / self._rate)
