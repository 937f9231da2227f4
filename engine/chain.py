"""
What the engine asks a node for, as values it can decide on.

State to act on is read in one call (clock, own balance and vaults at the same slot), so that a decision never mixes two
moments. Endings are read the careful way; `fetch_view` says how. Nothing here decides, signs or sends.

State is read at `confirmed`, and so is the clock that expires a session: the clock only goes forward along a chain, the
program checks it again, and a fork that takes the block back costs at most one fee. `finalized` would give every other
keeper 13 seconds of start. What was done is only believed at `finalized`.
"""

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature

from engine.landing import SignatureStatus, View
from indexer.errors import RetryableError
from indexer.sources.rpc import RpcError

CLOCK_SYSVAR = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
ACT_COMMITMENT = "confirmed"
BELIEVE_COMMITMENT = "finalized"
ACCOUNTS_PER_CALL_MAX = 100
# The clock and the payer take two places of each call.
VAULTS_PER_CALL_MAX = ACCOUNTS_PER_CALL_MAX - 2


class RpcClient(Protocol):
    """A node. `indexer.sources.rpc.Rpc` is one; its errors are RetryableError and RpcError."""

    async def call(self, method: str, params: Sequence[Any] = (), /) -> Any:
        """Return the result of one call."""
        ...

    async def batch(self, requests: Sequence[tuple[str, Sequence[Any]]], /) -> list[Any | RpcError]:
        """Return one result or RpcError for each call, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the node has it. `owner` is 32 bytes."""

    owner: bytes
    lamports: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster's clock, the payer's balance and some accounts, all of one slot; None where no account is."""

    slot: int
    clock_unix_s: int
    payer_lamports: int
    accounts: tuple[Account | None, ...]


@dataclass(frozen=True, slots=True)
class RecentBlockhash:
    """What a transaction is signed with, and the last block height at which it may land."""

    blockhash: Hash
    last_valid_block_height: int


async def fetch_snapshot(
    rpc: RpcClient,
    *,
    payer: Pubkey,
    addresses: Sequence[bytes] = (),
    commitment: str = ACT_COMMITMENT,
    min_slot: int = 0,
) -> Snapshot:
    """
    Return the state of at most 98 accounts together with the clock and the payer's balance.

    Args:
        addresses: 32 bytes each.
        min_slot: a node that is not that far yet must not answer.

    Raises:
        RetryableError: no answer, or one that does not make sense.
    """
    assert len(addresses) <= VAULTS_PER_CALL_MAX
    keys = [str(CLOCK_SYSVAR), str(payer), *(str(Pubkey(address)) for address in addresses)]
    options: dict[str, Any] = {"encoding": "base64", "commitment": commitment}
    if min_slot:
        options["minContextSlot"] = min_slot
    reply = await rpc.call("getMultipleAccounts", [keys, options])
    with _of_known_shape("getMultipleAccounts"):
        accounts = [_read_account(value) for value in reply["value"]]
        slot = int(reply["context"]["slot"])
    if len(accounts) != len(keys):
        raise RetryableError(f"getMultipleAccounts: asked for {len(keys)} accounts, answered {len(accounts)}")
    clock, payer_account, *rest = accounts
    if clock is None or len(clock.data) < 40:
        raise RetryableError("the node has no Clock sysvar, so nothing can be called expired")
    (unix_s,) = struct.unpack_from("<q", clock.data, 32)
    return Snapshot(slot, unix_s, payer_account.lamports if payer_account else 0, tuple(rest))


async def fetch_blockhash(rpc: RpcClient) -> RecentBlockhash:
    """Return a blockhash to sign with. If a fork drops it, what was signed with it can never land, and expires."""
    reply = await rpc.call("getLatestBlockhash", [{"commitment": ACT_COMMITMENT}])
    with _of_known_shape("getLatestBlockhash"):
        value = reply["value"]
        return RecentBlockhash(Hash.from_string(value["blockhash"]), int(value["lastValidBlockHeight"]))


async def fetch_rent_exempt_lamports(rpc: RpcClient, sizes: Iterable[int]) -> dict[int, int]:
    """Return the rent-exempt minimum of accounts of each size in bytes."""
    wanted = sorted(set(sizes))
    answers = await rpc.batch([("getMinimumBalanceForRentExemption", [size]) for size in wanted])
    lamports = [_or_raise(answer) for answer in answers]
    with _of_known_shape("getMinimumBalanceForRentExemption"):
        return {size: int(answer) for size, answer in zip(wanted, lamports, strict=True)}


async def fetch_view(rpc: RpcClient, signatures: Sequence[bytes]) -> View:
    """
    Return what one node knows of at most 256 signatures, with its finalised block height.

    An absent signature is only proof if it was looked for after the height was reached, by a node that is that far.
    So the height and slot are asked first; then the statuses, history searched, in one body with the height again. The
    lower height counts, and statuses from a node behind the finalised slot do not.

    Raises:
        RetryableError: no answer, or the statuses come from a node that lags behind.
    """
    assert 0 < len(signatures) <= 256
    finalized = {"commitment": BELIEVE_COMMITMENT}
    first = await rpc.batch([("getBlockHeight", [finalized]), ("getSlot", [finalized])])
    asked = [_or_raise(answer) for answer in first]
    with _of_known_shape("getBlockHeight and getSlot"):
        height, slot = (int(answer) for answer in asked)
    texts = [str(Signature(signature)) for signature in signatures]
    second = await rpc.batch(
        [("getBlockHeight", [finalized]), ("getSignatureStatuses", [texts, {"searchTransactionHistory": True}])]
    )
    again, reply = (_or_raise(answer) for answer in second)
    with _of_known_shape("getBlockHeight and getSignatureStatuses"):
        height = min(height, int(again))
        seen_slot = int(reply["context"]["slot"])
        statuses = tuple(_read_status(value) for value in reply["value"])
    if seen_slot < slot:
        raise RetryableError(f"the node's statuses are of slot {seen_slot}, behind the finalised slot {slot}")
    if len(statuses) != len(signatures):
        raise RetryableError(f"asked for {len(signatures)} signature statuses, answered {len(statuses)}")
    return View(height, statuses)


@contextmanager
def _of_known_shape(method: str) -> Iterator[None]:
    """Turn what reading an answer of another shape raises into one sentence; asked again, a node may do better."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, ParseHashError) as error:
        raise RetryableError(f"{method}: the node's answer has an unknown shape: {error!r}") from error


def _or_raise(answer: Any | RpcError) -> Any:
    if isinstance(answer, RpcError):
        raise answer
    return answer


def _read_account(value: Any) -> Account | None:
    if value is None:
        return None
    owner = bytes(Pubkey.from_string(value["owner"]))
    return Account(owner, int(value["lamports"]), base64.b64decode(value["data"][0], validate=True))


def _read_status(value: Any) -> SignatureStatus | None:
    if value is None:
        return None
    # A missing confirmationStatus with null confirmations is how older nodes say "rooted".
    level = value.get("confirmationStatus")
    finalized = level == "finalized" if level is not None else value.get("confirmations") is None
    err = value.get("err")
    return SignatureStatus(int(value["slot"]), finalized, None if err is None else json.dumps(err))
