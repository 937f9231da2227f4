"""
Several nodes that stand in for each other.

A call goes to the first one that is fit: it answered last time, and it is not far behind the others. One that fails is
set aside for a while and the call goes on to the next; one that lags is set aside until it has caught up; one whose
answers lack what must be there is set aside the longest. Nothing here puts two nodes' answers together: whoever needs
several answers about one moment asks `pinned`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import structlog

from indexer.errors import CapstanError, RetryableError, SettingsError
from indexer.sources.node import fetch_genesis_hash, fetch_slot
from indexer.sources.rpc import Caller, Request, Rpc, RpcError

# A node that is so many slots behind the best is set aside: about a minute.
LAG_SLOTS_MAX = 150
# How long one that failed or lags is left alone.
ASIDE_S = 10.0
# How long one is left alone that answered, and not with what must be there: asking it again soon helps least.
DISTRUSTED_S = 60.0
# How often the nodes' slots are compared.
COMPARE_S = 5.0
# With somebody to turn to, each node is tried less often.
ATTEMPTS_MAX = 3

Result = TypeVar("Result")

log = structlog.get_logger("indexer.endpoints")


class Endpoints:
    """
    Nodes of one chain, spoken to like one. Use as an async context manager; `check` before anything else.

    Args:
        urls: at least one, the preferred ones first.
        rate: for each; see `Rpc`.
        attempts_max: for each call, where there is only one node; with several each is tried ATTEMPTS_MAX times.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        rate: float | None = None,
        attempts_max: int = 6,
        lag_slots_max: int = LAG_SLOTS_MAX,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        assert urls, "settings name one at least"
        attempts = attempts_max if len(urls) == 1 else min(attempts_max, ATTEMPTS_MAX)
        self._nodes = [Rpc(url, rate=rate, attempts_max=attempts, transport=transport) for url in urls]
        self._aside_until = [float("-inf")] * len(urls)
        self._distrusted_until = [float("-inf")] * len(urls)
        self._same_chain = [False] * len(urls)
        self._genesis_hash: str | None = None
        self._lag_slots_max = lag_slots_max
        self._clock = clock
        self._compared_at = float("-inf")
        self._comparing: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    @property
    def shown_url(self) -> str:
        """The urls without their secrets."""
        return ", ".join(node.shown_url for node in self._nodes)

    async def __aenter__(self) -> Self:
        for node in self._nodes:
            await self._stack.enter_async_context(node)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._comparing is not None:
            self._comparing.cancel()
            await asyncio.gather(self._comparing, return_exceptions=True)
        await self._stack.aclose()

    async def check(self) -> str:
        """
        Return the genesis hash of the nodes' chain. One that does not answer now is asked before it is ever used.

        Raises:
            SettingsError: two are of different chains.
            RetryableError: none answers.
        """
        asked = [fetch_genesis_hash(node) for node in self._nodes]
        answers: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        for index, answer in enumerate(answers):
            if isinstance(answer, RetryableError):
                self._set_aside(index, str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            elif self._genesis_hash is not None and answer != self._genesis_hash:
                first = self._nodes[self._same_chain.index(True)]
                raise SettingsError(
                    f"{first.shown_url} and {self._nodes[index].shown_url} are of different chains (genesis hashes "
                    f"{self._genesis_hash} and {answer}): name endpoints of one"
                )
            else:
                self._genesis_hash = answer
                self._same_chain[index] = True
        if self._genesis_hash is None:
            raise answers[0]
        if len(self._nodes) > 1:
            await self._compare()
        return self._genesis_hash

    def pinned(self) -> "Pinned":
        """Return one node that is fit; what is asked there is answered there, or not at all."""
        return Pinned(self, self._order()[0])

    def distrust(self, why: str, index: int | None = None) -> RetryableError:
        """Return the error to raise, and remember which node it is about; None where nobody knows."""
        if index is not None:
            self._set_aside(index, why)
            self._distrusted_until[index] = self._clock() + DISTRUSTED_S
        return RetryableError(why)

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """See `Rpc.call`; RetryableError after every node's attempts."""
        return await self._anywhere(lambda node: node.call(method, params))

    async def call_raw(self, method: str, params: Sequence[Any] = ()) -> bytes:
        """See `Rpc.call_raw`."""
        return await self._anywhere(lambda node: node.call_raw(method, params))

    async def batch(self, requests: Sequence[Request], *, answering: Collection[int] = ()) -> list[Any | RpcError]:
        """See `Rpc.batch`."""
        return await self._anywhere(lambda node: node.batch(requests, answering=answering))

    async def batch_raw(
        self, requests: Sequence[Request], *, answering: Collection[int] = ()
    ) -> list[bytes | RpcError]:
        """See `Rpc.batch_raw`."""
        return await self._anywhere(lambda node: node.batch_raw(requests, answering=answering))

    async def at(self, index: int, ask: Callable[[Rpc], Awaitable[Result]]) -> Result:
        """Ask one node, and remember it where it fails."""
        self._compare_soon()
        try:
            return await ask(self._nodes[index])
        except RetryableError as error:
            self._set_aside(index, str(error))
            raise
        except SettingsError as error:
            # A key that ran out is no reason to stop while others answer.
            if len(self._nodes) == 1:
                raise
            self._set_aside(index, str(error))
            raise RetryableError(str(error)) from error

    async def on_one(self, ask: Callable[[Caller], Awaitable[Result]], /) -> Result:
        """Ask one node after the other, until one's answers are what they must be."""
        return await self._each(lambda index: ask(Pinned(self, index)))

    async def _anywhere(self, ask: Callable[[Rpc], Awaitable[Result]]) -> Result:
        return await self._each(lambda index: self.at(index, ask))

    async def _each(self, ask: Callable[[int], Awaitable[Result]]) -> Result:
        failures: list[RetryableError] = []
        for index in self._order():
            try:
                return await ask(index)
            except RetryableError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        raise RetryableError("no endpoint answers: " + "; ".join(str(error) for error in failures)) from failures[-1]

    def _order(self) -> list[int]:
        """The nodes to ask, in order: those that are fit first, then those that have been set aside the longest."""
        assert self._genesis_hash is not None, "check() comes first"
        now = self._clock()
        proven = [index for index, same in enumerate(self._same_chain) if same]
        return sorted(proven, key=lambda i: (max(self._aside_until[i], self._distrusted_until[i], now), i))

    def _set_aside(self, index: int, why: str) -> None:
        if len(self._nodes) == 1:
            return
        if self._aside_until[index] <= self._clock():
            log.warning("an endpoint is set aside", endpoint=self._nodes[index].shown_url, why=why)
        self._aside_until[index] = self._clock() + ASIDE_S

    def _compare_soon(self) -> None:
        idle = self._comparing is None or self._comparing.done()
        if len(self._nodes) > 1 and idle and self._clock() - self._compared_at > COMPARE_S:
            self._compared_at = self._clock()
            self._comparing = asyncio.create_task(self._compare())

    async def _compare(self) -> None:
        """Set those aside that are far behind the best; one that answers and keeps up is fit again."""
        self._compared_at = self._clock()
        slots = await asyncio.gather(*map(self._slot_of, range(len(self._nodes))), return_exceptions=True)
        best = max((slot for slot in slots if isinstance(slot, int)), default=0)
        for index, slot in enumerate(slots):
            if not isinstance(slot, int):
                self._set_aside(index, str(slot) if isinstance(slot, CapstanError) else "it does not say its slot")
            elif best - slot > self._lag_slots_max:
                self._set_aside(index, f"it is {best - slot} slots behind")
            else:
                self._aside_until[index] = float("-inf")

    async def _slot_of(self, index: int) -> int:
        """Return a node's slot, after it has said that it is of the same chain."""
        node = self._nodes[index]
        if not self._same_chain[index]:
            genesis_hash = await fetch_genesis_hash(node)
            if genesis_hash != self._genesis_hash:
                raise SettingsError(f"{node.shown_url} is of another chain (genesis hash {genesis_hash}): leave it out")
            self._same_chain[index] = True
        return await fetch_slot(node, "confirmed")


class Pinned:
    """One of several nodes. Its failures are remembered, so that the next `pinned` is another one."""

    def __init__(self, endpoints: Endpoints, index: int) -> None:
        self._endpoints = endpoints
        self._index = index

    @property
    def shown_url(self) -> str:
        """This node's url without its secrets."""
        return self._endpoints._nodes[self._index].shown_url  # noqa: SLF001 -- a part of it

    def pinned(self) -> "Pinned":
        """Return itself: it is one node."""
        return self

    def distrust(self, why: str) -> RetryableError:
        """Return the error to raise; the next `pinned` is another node."""
        return self._endpoints.distrust(why, self._index)

    async def on_one(self, ask: Callable[[Caller], Awaitable[Result]], /) -> Result:
        """Ask this one."""
        return await ask(self)

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """See `Rpc.call`."""
        return await self._endpoints.at(self._index, lambda node: node.call(method, params))

    async def call_raw(self, method: str, params: Sequence[Any] = ()) -> bytes:
        """See `Rpc.call_raw`."""
        return await self._endpoints.at(self._index, lambda node: node.call_raw(method, params))

    async def batch(self, requests: Sequence[Request], *, answering: Collection[int] = ()) -> list[Any | RpcError]:
        """See `Rpc.batch`."""
        return await self._endpoints.at(self._index, lambda node: node.batch(requests, answering=answering))

    async def batch_raw(
        self, requests: Sequence[Request], *, answering: Collection[int] = ()
    ) -> list[bytes | RpcError]:
        """See `Rpc.batch_raw`."""
        return await self._endpoints.at(self._index, lambda node: node.batch_raw(requests, answering=answering))
