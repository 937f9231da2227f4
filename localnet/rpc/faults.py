"""
What can go wrong between a chain and its clients: how often, decided by a seed, and counted.

Nothing here touches a socket: `server.py`, `pubsub.py` and `rpc/dispatch.py` ask what is to happen and do it. A fate
depends on the seed, on what it is about (the n-th request, the n-th notification of the n-th client, a signature) and
on nothing else, so the same questions meet the same faults. The chain itself never goes wrong: `localnet_fork` is for
that.
"""

import hashlib
from collections import Counter
from typing import Annotated, Any, Literal

import msgspec

from localnet.rpc.errors import block_not_available, invalid_params

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
HttpFault = Literal["http_429", "http_5xx", "http_timeout", "http_cut"]
HTTP_FAULTS: tuple[HttpFault, ...] = ("http_429", "http_5xx", "http_timeout", "http_cut")
NoteFault = Literal[
    "socket_close",
    "socket_silent",
    "notification_drop",
    "notification_repeat",
    "notification_reorder",
    "notification_delay",
]
NOTE_FAULTS: tuple[NoteFault, ...] = (
    "socket_close",
    "socket_silent",
    "notification_drop",
    "notification_repeat",
    "notification_reorder",
    "notification_delay",
)


class FaultSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How often what happens; a rate is a share from 0 to 1.

    Attributes:
        seed: decides every fate.
        notification_drop, notification_repeat, notification_reorder, notification_delay: of notifications, for each
            client apart. One that is reordered comes after the next one, or after `notification_delay_ms`.
        notification_delay_ms: how long one is held back.
        socket_close: of notifications, those in whose place the connection is closed.
        socket_silent: of notifications, those after which the client hears nothing more, not even replies; the
            connection stays open and answers pings.
        http_429: of requests, those refused with status 429 and Retry-After; nothing is done.
        retry_after_s: what Retry-After says.
        http_5xx: of requests, those refused with 500, 502 or 503; nothing is done.
        http_timeout: of requests, those done and not answered for `timeout_s`, then with 504.
        timeout_s: how long a client is left to wait.
        http_cut: of requests, those done and answered in part: half of them with a length that is not kept, half with
            JSON that ends too early.
        transaction_null_asks: how often getTransaction answers null before it shows a transaction.
        block_unavailable: of the asks for a block or its time, those refused with -32004.
        logs_cut: of transactions, those whose logs are cut, for good and everywhere, as they run.
        logs_bytes_max: where they are cut.
    """

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    notification_drop: Rate = 0.0
    notification_repeat: Rate = 0.0
    notification_reorder: Rate = 0.0
    notification_delay: Rate = 0.0
    notification_delay_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 500
    socket_close: Rate = 0.0
    socket_silent: Rate = 0.0
    http_429: Rate = 0.0
    retry_after_s: Annotated[int, msgspec.Meta(ge=0, le=3_600)] = 1
    http_5xx: Rate = 0.0
    http_timeout: Rate = 0.0
    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 30.0
    http_cut: Rate = 0.0
    transaction_null_asks: Count = 0
    block_unavailable: Rate = 0.0
    logs_cut: Rate = 0.0
    logs_bytes_max: Count = 400


class Faults:
    """
    What is to go wrong now, and how often it has.

    Attributes:
        settings: in force.
        counts: faults that have happened since they were set, by the names of the rates.
    """

    def __init__(self) -> None:
        self.settings = FaultSettings()
        self.counts: Counter[str] = Counter()
        self._requests = 0
        self._block_asks = 0
        self._transaction_asks: Counter[str] = Counter()

    def set(self, given: Any) -> None:
        """
        Replace all settings; what is not named is off. Counts begin again.

        Raises:
            RpcError: an unknown name, or a value out of range.
        """
        try:
            self.settings = msgspec.convert(given, FaultSettings)
        except msgspec.ValidationError as error:
            raise invalid_params(f"faults: {error}") from None
        self.counts.clear()
        self._requests = self._block_asks = 0
        self._transaction_asks.clear()

    def of_request(self) -> HttpFault | None:
        """Return what happens to the next HTTP request."""
        settings = self.settings
        if not (settings.http_429 or settings.http_5xx or settings.http_timeout or settings.http_cut):
            return None
        self._requests += 1
        fault: HttpFault | None = self._first(HTTP_FAULTS, self._requests)
        return fault

    def of_notification(self, client: int, number: int) -> NoteFault | None:
        """Return what happens to the n-th notification of the n-th client."""
        fault: NoteFault | None = self._first(NOTE_FAULTS, client, number)
        return fault

    @property
    def disturbs_notifications(self) -> bool:
        """Whether any notification can meet a fault."""
        return any(getattr(self.settings, kind) for kind in NOTE_FAULTS)

    def pick(self, choices: int, *about: object) -> int:
        """Return one of `range(choices)`, as the seed has it."""
        return int(self._draw("pick", *about) * choices)

    def log_limit(self, signature: bytes) -> int | None:
        """Return to how many bytes a transaction's logs are cut."""
        if not self.settings.logs_cut or self._draw("logs_cut", signature.hex()) >= self.settings.logs_cut:
            return None
        self.counts["logs_cut"] += 1
        return self.settings.logs_bytes_max

    def of_result(self, method: str, given: Any, result: Any) -> Any:
        """
        Return what a client is told instead of `result`.

        Raises:
            RpcError: -32004 for a block that is there.
        """
        settings = self.settings
        if method == "getTransaction" and settings.transaction_null_asks and result is not None:
            self._transaction_asks[given[0]] += 1
            if self._transaction_asks[given[0]] <= settings.transaction_null_asks:
                self.counts["transaction_null_asks"] += 1
                return None
        if method in ("getBlock", "getBlockTime") and settings.block_unavailable:
            self._block_asks += 1
            if self._draw("block_unavailable", self._block_asks) < settings.block_unavailable:
                self.counts["block_unavailable"] += 1
                raise block_not_available(given[0])
        return result

    def _first(self, kinds: tuple[Any, ...], *about: object) -> Any:
        for kind in kinds:
            rate = getattr(self.settings, kind)
            if rate and self._draw(kind, *about) < rate:
                self.counts[kind] += 1
                return kind
        return None

    def _draw(self, *about: object) -> float:
        """Return a number from 0 to below 1 for this seed and matter."""
        text = "/".join(map(str, (self.settings.seed, *about)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56
