"""What a node answers the engine: an answer that cannot be is asked for again, and nothing is decided by it."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from solders.pubkey import Pubkey

from engine.chain import fetch_blockhash, fetch_rent_exempt_lamports, fetch_snapshot, fetch_view
from indexer.errors import RetryableError
from indexer.sources.rpc import RpcError

SYSTEM = "1" * 32
CLOCK: dict[str, Any] = {"owner": SYSTEM, "lamports": 1, "data": [base64.b64encode(bytes(40)).decode(), "base64"]}


class OddNode:
    """Answers one method with something odd, and the others as a node does."""

    def __init__(self, method: str, odd: Any) -> None:
        self.answers: dict[str, Any] = {
            "getMultipleAccounts": {"context": {"slot": 7}, "value": [CLOCK, None]},
            "getLatestBlockhash": {"value": {"blockhash": SYSTEM, "lastValidBlockHeight": 9}},
            "getMinimumBalanceForRentExemption": 9,
            "getBlockHeight": 7,
            "getSlot": 7,
            "getSignatureStatuses": {"context": {"slot": 7}, "value": [None]},
        } | {method: odd}

    async def call(self, method: str, _: Sequence[Any] = (), /) -> Any:
        """Answer one call."""
        return self.answers[method]

    async def batch(self, requests: Sequence[tuple[str, Sequence[Any]]], /) -> list[Any | RpcError]:
        """Answer each call by itself."""
        return [self.answers[method] for method, _ in requests]


def statuses(*values: Any) -> Any:
    return {"context": {"slot": 7}, "value": list(values)}


ASKED: dict[str, tuple[Callable[[OddNode], Awaitable[Any]], list[Any]]] = {
    "getMultipleAccounts": (
        lambda rpc: fetch_snapshot(rpc, payer=Pubkey.default()),
        [
            *(None, 7, [], {}, statuses(), statuses(CLOCK), statuses(None, None), statuses(7, None)),
            *(statuses(CLOCK | {"data": data}, None) for data in ([], None, ["?", "base64"])),
            *(statuses(CLOCK | odd, None) for odd in ({"owner": "?"}, {"lamports": None})),
        ],
    ),
    "getLatestBlockhash": (
        fetch_blockhash,
        [
            None,
            7,
            [],
            {},
            {"value": None},
            {"value": {"blockhash": "?", "lastValidBlockHeight": 9}},
            {"value": {"blockhash": SYSTEM}},
            {"value": {"blockhash": SYSTEM, "lastValidBlockHeight": None}},
        ],
    ),
    "getMinimumBalanceForRentExemption": (lambda rpc: fetch_rent_exempt_lamports(rpc, [9]), [None, {}, [], "x"]),
    "getBlockHeight": (lambda rpc: fetch_view(rpc, [bytes(64)]), [None, {}, [], "x"]),
    "getSlot": (lambda rpc: fetch_view(rpc, [bytes(64)]), [None, {}, [], "x"]),
    "getSignatureStatuses": (
        lambda rpc: fetch_view(rpc, [bytes(64)]),
        [
            None,
            7,
            [],
            {},
            statuses(),
            statuses(7),
            statuses({}),
            statuses({"slot": None}),
            statuses(None, None),
            {"context": {"slot": 7}, "value": None},
        ],
    ),
}


@pytest.mark.parametrize(("method", "number"), [(m, n) for m, (_, odd) in ASKED.items() for n in range(len(odd))])
async def test_an_answer_that_cannot_be_is_asked_for_again(method: str, number: int) -> None:
    """One sentence, and never a traceback that ends a process which holds signed transactions."""
    ask, odd = ASKED[method]
    with pytest.raises(RetryableError) as caught:
        await ask(OddNode(method, odd[number]))
    assert "\n" not in str(caught.value)
