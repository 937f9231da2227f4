"""
JSON-RPC 2.0: a body in, a body out, whatever the body is.

Requests, batches and notifications by the rules that a validator applies; an error of our own becomes -32603 and is
logged, and the next request finds the server alive. Long batches let the slot clock run in between.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from localnet.chain import Chain
from localnet.rpc.accounts import AccountMethods
from localnet.rpc.cluster import ClusterMethods
from localnet.rpc.errors import (
    BATCH_TOO_LARGE,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcError,
    method_not_found,
)
from localnet.rpc.faults import Faults
from localnet.rpc.history import HistoryMethods
from localnet.rpc.sending import SendingMethods
from localnet.rpc.slots import SlotMethods

Method = Callable[[Any], Any]
"""On the request's `params` (a list, an object, None); returns the result, or an awaitable of it; raises RpcError."""

ExtraMethod = Callable[[Sequence[Any]], Any]
"""As `Method`, on positional params only."""

CALLS_BETWEEN_BREATHS = 50
BATCH_BYTES_MAX = 256 * 1024 * 1024
"""Of an answer: a thousand asks for everything must not take the machine's memory."""

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Dispatcher:
    """All methods of a chain behind one function."""

    def __init__(
        self, chain: Chain, extra_methods: Mapping[str, ExtraMethod] | None = None, faults: Faults | None = None
    ) -> None:
        """
        Args:
            chain: what the methods are about.
            extra_methods: more of them; they get a list, empty where the request has no params.
            faults: what goes wrong with answers; None: nothing ever.
        """
        self._faults = Faults() if faults is None else faults
        self._methods: dict[str, Method] = {}
        for group in (SlotMethods, ClusterMethods, AccountMethods, HistoryMethods, SendingMethods):
            self._methods.update(group(chain).methods())
        for name, method in (extra_methods or {}).items():
            self._methods[name] = _positional(method)

    def names(self) -> frozenset[str]:
        """Return the names of all methods."""
        return frozenset(self._methods)

    async def answer(self, body: bytes) -> bytes:
        """Return the response body; empty where nothing but notifications came in."""
        try:
            request = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _encode(failure(None, RpcError(PARSE_ERROR, "Parse error")))
        if not isinstance(request, list):
            response = await self.answer_one(request)
            return b"" if response is None else _encode(response)
        if not request:
            return _encode(failure(None, _invalid_request()))
        responses = []
        size = 0
        for number, one in enumerate(request, start=1):
            response = await self.answer_one(one)
            if response is not None:
                responses.append(_encode(response))
                size += len(responses[-1])
            if size > BATCH_BYTES_MAX:
                error = RpcError(BATCH_TOO_LARGE, "The batch response was too large", f"max {BATCH_BYTES_MAX} bytes")
                return _encode(failure(None, error))
            if number % CALLS_BETWEEN_BREATHS == 0:
                await asyncio.sleep(0)
        return b"[" + b",".join(responses) + b"]" if responses else b""

    async def answer_one(self, request: Any) -> dict[str, Any] | None:
        """Return the response to one decoded request, None to a notification."""
        refused = malformed(request)
        if refused is not None:
            return refused
        number = request.get("id")
        try:
            method = self._methods.get(request["method"])
            if method is None:
                raise method_not_found()  # noqa: TRY301  # every refusal leaves by the same door
            result = method(request.get("params"))
            if inspect.isawaitable(result):
                result = await result
            result = self._faults.of_result(request["method"], request.get("params"), result)
            response = {"jsonrpc": "2.0", "result": result, "id": number}
        except RpcError as error:
            response = failure(number, error)
        except Exception:  # noqa: BLE001  # a bug in one method must not take the chain down; it is logged
            _log.exception("localnet could not answer %s", request["method"])
            response = failure(number, RpcError(INTERNAL_ERROR, "Internal error"))
        return response if "id" in request else None


def failure(number: Any, error: RpcError) -> dict[str, Any]:
    """Return the response that refuses request `number`."""
    return {"jsonrpc": "2.0", "error": error.body(), "id": number}


def malformed(request: Any) -> dict[str, Any] | None:
    """Return the response to what is no JSON-RPC 2.0 request, None where it is one."""
    if not isinstance(request, dict):
        return failure(None, _invalid_request())
    number = request.get("id")
    if isinstance(number, bool) or not isinstance(number, int | str | None):
        return failure(None, _invalid_request())
    if not isinstance(request.get("method"), str) or not isinstance(request.get("params"), list | dict | None):
        return failure(number, _invalid_request())
    if request.get("jsonrpc") != "2.0":
        return failure(number, RpcError(INVALID_REQUEST, "Unsupported JSON-RPC protocol version"))
    return None


def _invalid_request() -> RpcError:
    return RpcError(INVALID_REQUEST, "Invalid request")


def _positional(method: ExtraMethod) -> Method:
    def called(given: Any) -> Any:
        if given is None:
            return method([])
        if not isinstance(given, list):
            raise RpcError(-32602, "`params` should be an array")
        return method(given)

    return called
