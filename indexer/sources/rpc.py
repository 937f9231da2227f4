"""
One JSON-RPC client for the indexer and the engine.

It turns everything a node or the way to it can do wrong into two exceptions: RetryableError after this client's own
attempts are used up, and RpcError where the node understood and refused. An error is never an answer: no method here
returns "nothing" because a call failed. What the results mean is decided elsewhere.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import stamina

from indexer.errors import DataError, RetryableError, SettingsError
from indexer.sources.rate import TokenBucket

# Codes with which a node says "not now", "not I" or "something broke here": a later call, or another node, may answer.
RETRYABLE_CODES = frozenset({-32001, -32004, -32005, -32011, -32014, -32016, -32019, -32603})
RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
BATCH_SIZE_MAX = 100

Request = tuple[str, Sequence[Any]]
Answer = TypeVar("Answer")


class RpcError(DataError):
    """The node understood the request and refused it: its `code`, `message` and `data`, as JSON-RPC has them."""

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{method} was refused by the node with code {code}: {message}")
        self.method = method
        self.code = code
        self.message = message
        self.data = data


class Caller(Protocol):
    """
    What answers calls: one node, or several that stand in for each other. See `Rpc` for its methods.

    `pinned` is one node of them: what must not be pieced together from two nodes, such as a listing and the status
    that confirms what it lacks, is asked there. Who finds that a node's answers cannot be true, or lack what must be
    there, raises what `distrust` returns: the next `pinned` is another node, where there is one. `on_one` asks one
    after the other until one does not fail, also in that way.
    """

    @property
    def shown_url(self) -> str: ...
    def pinned(self) -> "Caller": ...
    def distrust(self, why: str) -> RetryableError: ...
    async def on_one(self, ask: Callable[["Caller"], Awaitable[Answer]], /) -> Answer: ...
    async def call(self, method: str, params: Sequence[Any] = ()) -> Any: ...
    async def call_raw(self, method: str, params: Sequence[Any] = ()) -> bytes: ...
    async def batch(self, requests: Sequence[Request], *, answering: Collection[int] = ()) -> list[Any | RpcError]: ...
    async def batch_raw(
        self, requests: Sequence[Request], *, answering: Collection[int] = ()
    ) -> list[bytes | RpcError]: ...


class _ErrorBody(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = None


class _Reply(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _ErrorBody | None = None


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_replies = msgspec.json.Decoder(list[_Reply]).decode
_decode_value = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def masked_url(url: str) -> str:
    """Return `url` without what may be a key: user, password, path and query go, scheme, host and port stay."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    rest = "/…" if parts.path not in ("", "/") or parts.query else ""
    return f"{parts.scheme}://{host}{port}{rest}"


def checked_url(url: str, schemes: tuple[str, ...], what: str) -> str:
    """
    Return `url` if it can be one.

    Raises:
        SettingsError: not an absolute url of one of `schemes`.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise SettingsError(f"the {what} must look like {schemes[0]}://host:port, and this one does not: {url[:12]!r}…")
    return url


def _wait_of(error: Exception) -> bool | float:
    """Say to the retry loop whether to go on, and with the server's own delay where it named one."""
    if not isinstance(error, RetryableError):
        return False
    return True if error.retry_after_s is None else error.retry_after_s


class Rpc:
    """A node, spoken to over one pool of connections. Use as an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        attempts_max: int = 6,
        wait_s_max: float = 5.0,
        rate: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Args:
            url: the node's HTTP url; may carry a key, which never reaches an error or a repr.
            timeout_s: for each attempt.
            attempts_max: how often a call is made before RetryableError goes to the caller.
            wait_s_max: the longest wait between two attempts, also where the server asks for more.
            rate: calls a second that the node is asked at most, each call of a batch counted; None for no limit.
            transport: stands in for the network in tests.
        """
        self._url = checked_url(url, ("http", "https"), "RPC url")
        self._attempts_max = attempts_max
        self._wait_s_max = wait_s_max
        self._next_id = 0
        self._bucket = None if rate is None else TokenBucket(rate)
        # A batch above what one second allows would be refused by a node that counts as we do.
        self._batch_size = BATCH_SIZE_MAX if rate is None else max(1, min(BATCH_SIZE_MAX, int(rate)))
        self._http = httpx.AsyncClient(
            timeout=timeout_s,
            transport=transport,
            headers={"content-type": "application/json"},
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
        )

    def __repr__(self) -> str:
        return f"Rpc({masked_url(self._url)})"

    @property
    def shown_url(self) -> str:
        """The url without its secrets."""
        return masked_url(self._url)

    def pinned(self) -> "Rpc":
        """Return itself: it is one node."""
        return self

    def distrust(self, why: str) -> RetryableError:
        """Return the error to raise; there is nobody else to turn to."""
        return RetryableError(why)

    async def on_one(self, ask: Callable[[Caller], Awaitable[Answer]], /) -> Answer:
        """Ask this one."""
        return await ask(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """
        Return the decoded result of one call; JSON null is None.

        Raises:
            RpcError: the node refused.
            RetryableError: no answer after this client's attempts.
        """
        return self._parsed(_decode_value, await self.call_raw(method, params))

    async def call_raw(self, method: str, params: Sequence[Any] = ()) -> bytes:
        """Return the result's JSON bytes undecoded: for large results that have a typed decoder of their own."""
        async for attempt in self._attempts():
            with attempt:
                reply = self._parsed(_decode_reply, await self._post(self._request(method, params)))
                if reply.error is not None:
                    raise _error_of(method, reply.error)
                return bytes(reply.result)
        raise AssertionError("the retry loop returns or raises")

    async def batch(self, requests: Sequence[Request], *, answering: Collection[int] = ()) -> list[Any | RpcError]:
        """Return one decoded result or RpcError for each request, in their order. See `batch_raw`."""
        answers = await self.batch_raw(requests, answering=answering)
        return [answer if isinstance(answer, RpcError) else self._parsed(_decode_value, answer) for answer in answers]

    async def batch_raw(
        self, requests: Sequence[Request], *, answering: Collection[int] = ()
    ) -> list[bytes | RpcError]:
        """
        Return one result (JSON bytes) or RpcError for each request, in their order.

        Longer lists are sent in several batches. What the node says it cannot answer yet is asked again, alone.

        Args:
            answering: codes that are not asked again although they may pass: "not yet" is answer enough here.

        Raises:
            RetryableError: some requests had no answer after this client's attempts.
        """
        answers: dict[int, bytes | RpcError] = {}
        async for attempt in self._attempts():
            with attempt:
                open_ = [i for i in range(len(requests)) if i not in answers]
                for start in range(0, len(open_), self._batch_size):
                    chunk = open_[start : start + self._batch_size]
                    await self._ask(requests, chunk, answers, answering)
                missing = len(requests) - len(answers)
                if missing:
                    first = next(requests[i][0] for i in range(len(requests)) if i not in answers)
                    raise RetryableError(
                        f"{self.shown_url} left {missing} of {len(requests)} calls unanswered ({first})"
                    )
        return [answers[i] for i in range(len(requests))]

    async def _ask(
        self,
        requests: Sequence[Request],
        chunk: Sequence[int],
        answers: dict[int, bytes | RpcError],
        answering: Collection[int],
    ) -> None:
        body = [self._request(*requests[i]) for i in chunk]
        wanted = {request["id"]: i for request, i in zip(body, chunk, strict=True)}
        raw = await self._post(body)
        if raw[:1] == b"{":  # some nodes refuse a whole batch with one error object
            whole = self._parsed(_decode_reply, raw)
            if whole.error is not None:
                raise _error_of("batch", whole.error)
            raise RetryableError(f"{self.shown_url} answered a batch with a single object")
        for reply in self._parsed(_decode_replies, raw):
            index = wanted.get(reply.id) if isinstance(reply.id, int) else None
            if index is None:
                continue
            if reply.error is None:
                answers[index] = bytes(reply.result)
            elif reply.error.code in answering or reply.error.code not in RETRYABLE_CODES:
                error = reply.error
                answers[index] = RpcError(requests[index][0], error.code, error.message, error.data)

    def _request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        self._next_id += 1
        return {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": list(params)}

    def _attempts(self) -> Any:
        return stamina.retry_context(
            on=_wait_of,
            attempts=self._attempts_max,
            timeout=None,
            wait_initial=0.05,
            wait_max=self._wait_s_max,
            wait_jitter=0.1,
        )

    def _parsed(self, decode: Any, raw: bytes) -> Any:
        try:
            return decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RetryableError(f"{self.shown_url} sent a body that is not a JSON-RPC answer: {error}") from error

    async def _post(self, body: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
        if self._bucket is not None:
            await self._bucket.take(len(body) if isinstance(body, list) else 1)
        try:
            response = await self._http.post(self._url, content=_encode(body))
        except httpx.HTTPError as error:
            raise RetryableError(
                f"cannot reach {self.shown_url} ({type(error).__name__}): start the node, or correct the RPC url"
            ) from error
        if response.status_code == 200:
            return response.content
        if response.status_code in RETRYABLE_STATUS:
            raise RetryableError(
                f"{self.shown_url} answered HTTP {response.status_code}",
                retry_after_s=_retry_after_s(response.headers.get("retry-after"), self._wait_s_max),
            )
        raise SettingsError(
            f"{self.shown_url} answered HTTP {response.status_code}: check the url and, if it needs one, its key"
        )


def _error_of(method: str, body: _ErrorBody) -> RpcError | RetryableError:
    if body.code in RETRYABLE_CODES:
        return RetryableError(f"{method}: the node cannot answer now (code {body.code}: {body.message})")
    return RpcError(method, body.code, body.message, body.data)


def _retry_after_s(header: str | None, wait_s_max: float) -> float | None:
    """Return the seconds of a Retry-After header, bounded; a date or nonsense is None: our own backoff then."""
    try:
        wait_s = float(header) if header is not None else -1.0
    except ValueError:
        return None
    return min(wait_s, wait_s_max) if wait_s >= 0 else None
