"""
The live feed: what PubSub hints at is fetched, read and stored within milliseconds.

Speed is all that depends on this module. What it misses, the frontier finds; so it never says that anything is
complete, and where it falls behind it stops reading the socket rather than dropping what it has read.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import structlog
from solders.pubkey import Pubkey

from indexer import metrics
from indexer.accounts import Accounts, Seen
from indexer.errors import RetryableError
from indexer.intake import Programs, read_answers
from indexer.sources import node
from indexer.sources.pubsub import Notification, Subscription, subscribed
from indexer.sources.rpc import Caller
from indexer.store.batch import Commitment
from indexer.store.database import Pool, session
from indexer.store.typed import ProgramTables
from indexer.store.writer import write_batch

COMMITMENT: Commitment = "confirmed"
# What some nodes send in place of a signature; 64 zero bytes.
ALL_ONES = "1" * 64
QUEUE_MAX = 10_000
BATCH_MAX = 200
REMEMBERED_MAX = 50_000
BLOCKHASHES_MAX = 1_000
# A transaction may be unknown to getTransaction for a moment after its log.
ABSENT_RETRIES_MAX = 8
ABSENT_WAIT_S = 0.05

T = TypeVar("T")

log = structlog.get_logger("indexer.live")


class Wanted(NamedTuple):
    """A transaction to fetch, and the slot in which it was announced; `tries` so far found nothing."""

    signature: str
    slot: int
    tries: int = 0


@dataclass(slots=True)
class Live:
    """Follows some programs."""

    rpc: Caller
    ws_url: str
    pool: Pool
    programs: Programs
    tables: Mapping[bytes, ProgramTables]
    accounts: Accounts
    silence_s_max: float
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: asyncio.Queue[Wanted] = field(default_factory=lambda: asyncio.Queue(QUEUE_MAX))
    _states: asyncio.Queue[Seen] = field(default_factory=lambda: asyncio.Queue(QUEUE_MAX))
    _remembered: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _blockhashes: OrderedDict[int, str] = field(default_factory=OrderedDict)
    _touched: dict[bytes, int] = field(default_factory=dict)
    _has_touched: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """
        Follow one connection until it ends, which is always an error.

        Raises:
            RetryableError: the connection could not be made, ended, or fell silent.
        """
        try:
            async with subscribed(self.ws_url, self._subscriptions(), silence_s_max=self.silence_s_max) as stream:
                self.disconnected.clear()
                self.connected.set()
                async for notification in stream:
                    await self._take(notification)
        finally:
            self.connected.clear()
            self.disconnected.set()

    async def want(self, announced: Mapping[str, int]) -> None:
        """Queue transactions (signature -> slot), unless they were a moment ago. Waits while the queue is full."""
        for signature, slot in announced.items():
            if signature == ALL_ONES or signature in self._remembered:
                continue
            self._remembered[signature] = None
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
            await self._wanted.put(Wanted(signature, slot))

    async def store_transactions(self) -> None:
        """
        Fetch and store what is queued, for ever. A failure of the node is waited out; nothing queued is lost.

        May run more than once at a time: one waits for the node while another waits for the database.
        """
        while True:
            batch = await _drain(self._wanted)
            try:
                await self._store(batch)
            except RetryableError as error:
                log.warning("transactions are fetched again", error=str(error), waiting=len(batch))
                await asyncio.sleep(ABSENT_WAIT_S * 10)
                for wanted in batch:
                    self._later(wanted)

    async def refetch_states(self) -> None:
        """
        Fetch the accounts again that stored transactions touched, for ever; behind the transactions, which do not wait.

        Raises:
            RetryableError: the node or the database went away; what was touched is not forgotten.
        """
        while True:
            await self._has_touched.wait()
            self._has_touched.clear()
            touched, self._touched = self._touched, {}
            try:
                await self.accounts.refetch(touched)
            except RetryableError:
                self._touch(touched)
                raise

    async def store_states(self) -> None:
        """Write the account states that programSubscribe sent, for ever."""
        while True:
            await self.accounts.write_seen(await _drain(self._states))

    def depths(self) -> dict[str, int]:
        """Return how many wait to be stored: transactions, account states."""
        return {"transactions": self._wanted.qsize(), "accounts": self._states.qsize()}

    def _subscriptions(self) -> list[Subscription]:
        wanted = [Subscription(("slot",), "slotSubscribe", [])]
        for program_id in self.programs:
            address = str(Pubkey(program_id))
            wanted.append(
                Subscription(("logs",), "logsSubscribe", [{"mentions": [address]}, {"commitment": COMMITMENT}])
            )
            wanted.append(
                Subscription(
                    ("account",), "programSubscribe", [address, {"encoding": "base64", "commitment": COMMITMENT}]
                )
            )
        return wanted

    async def _take(self, notification: Notification) -> None:
        result: Any = notification.result
        metrics.NOTIFICATIONS.labels(notification.tag[0]).inc()
        try:
            match notification.tag[0]:
                case "logs":
                    signature, slot = node.read_logs_notification(result)
                    await self.want({signature: slot})
                case "account":
                    await self._states.put(node.read_account_notification(result))
                case _:  # slots only keep the silence watchdog content
                    return
        except ValueError as error:
            raise RetryableError(f"the node sent a notification of an unknown shape: {error}") from error

    async def _store(self, batch: Sequence[Wanted]) -> None:
        # One node for both: the header first, so that a fork in between can only make it the older one.
        rpc = self.rpc.pinned()
        blockhashes = await self._fetch_blockhashes(rpc, {wanted.slot for wanted in batch})
        bodies = await node.fetch_transactions(rpc, [w.signature for w in batch], commitment=COMMITMENT)
        for wanted, body in zip(batch, bodies, strict=True):
            if body is None:
                self._later(wanted)
            elif isinstance(body, node.Unsupported):
                log.warning(
                    "left to the enumeration: its version cannot be read",
                    signature=wanted.signature,
                    version=body.version,
                )
        found = [body for body in bodies if isinstance(body, bytes)]
        read = read_answers(rpc, found, self.programs, COMMITMENT, blockhashes=blockhashes)
        if not read.transactions:
            return
        with metrics.WRITE_SECONDS.time():
            async with session(self.pool) as connection:
                written = await write_batch(connection, read.batch(finalized={}, frontiers={}), self.tables)
        metrics.TRANSACTIONS.labels("live").inc(written.transactions)
        metrics.EVENTS.inc(written.events)
        self._touch(read.touched)

    def _touch(self, touched: Mapping[bytes, int]) -> None:
        for address, slot in touched.items():
            self._touched[address] = max(slot, self._touched.get(address, slot))
        if touched:
            self._has_touched.set()

    async def _fetch_blockhashes(self, rpc: Caller, slots: set[int]) -> Mapping[int, str]:
        """
        Return the blockhash of each slot as it was before now, where the node shows it.

        An old answer is as good as a new one: where a fork has replaced the block since, the hash will not be that of
        the finalized block, and the transaction is fetched again.
        """
        unknown = sorted(slots - self._blockhashes.keys())
        if unknown:
            headers = await node.fetch_headers(rpc, unknown, commitment=COMMITMENT)
            self._blockhashes.update((slot, header.blockhash) for slot, header in headers.items())
        known = {slot: self._blockhashes[slot] for slot in slots if slot in self._blockhashes}
        while len(self._blockhashes) > BLOCKHASHES_MAX:
            self._blockhashes.popitem(last=False)
        return known

    def _later(self, wanted: Wanted) -> None:
        """Queue again after a growing pause; in the end leave it to the frontier, which forgets nothing."""
        if wanted.tries >= ABSENT_RETRIES_MAX:
            self._remembered.pop(wanted.signature, None)
            log.warning(
                "left to the enumeration: the node announced it and does not have it", signature=wanted.signature
            )
            return
        again = wanted._replace(tries=wanted.tries + 1)
        pause_s = ABSENT_WAIT_S * 2**wanted.tries
        asyncio.get_running_loop().call_later(pause_s, self._put_again, again)

    def _put_again(self, wanted: Wanted) -> None:
        try:
            self._wanted.put_nowait(wanted)
        except asyncio.QueueFull:
            asyncio.get_running_loop().call_later(1.0, self._put_again, wanted)


async def _drain(queue: asyncio.Queue[T]) -> list[T]:
    """Wait for one item, and take what else is there, up to BATCH_MAX."""
    items = [await queue.get()]
    while len(items) < BATCH_MAX and not queue.empty():
        items.append(queue.get_nowait())
    return items
