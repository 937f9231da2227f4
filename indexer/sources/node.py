"""
What the indexer asks a node for, as values: signatures, transactions, accounts, the clock.

Every function here either has the whole answer or raises; none returns less than it was asked for. Bodies of
transactions stay JSON bytes: `indexer.chain` reads them.
"""

import base64
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from solders.pubkey import Pubkey

from indexer.errors import RetryableError, SettingsError
from indexer.sources.rpc import Rpc, RpcError

PAGE_SIZE_MAX = 1_000
ACCOUNTS_PER_CALL_MAX = 100
# v1 transactions are live, and a lower ceiling fails the whole call.
TRANSACTION_VERSION_MAX = 1
CLOCK_SYSVAR = "SysvarC1ock11111111111111111111111111111111"
BPF_LOADERS = frozenset(
    {
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
    }
)


class SignatureInfo(msgspec.Struct, frozen=True):
    """One entry of getSignaturesForAddress."""

    signature: str
    slot: int


class RawAccount(NamedTuple):
    """An account as the node gave it. `address` and `owner` are 32 bytes."""

    address: bytes
    owner: bytes
    lamports: int
    data: bytes


class Clock(NamedTuple):
    """The cluster's own clock: what decides expiry and price age. `unix_time` in seconds."""

    slot: int
    unix_time: int


_decode_page = msgspec.json.Decoder(list[SignatureInfo]).decode


async def fetch_genesis_hash(rpc: Rpc) -> str:
    """Return the chain's identity, base58."""
    return str(await rpc.call("getGenesisHash"))


async def fetch_slot(rpc: Rpc, commitment: str) -> int:
    """Return the newest slot at `commitment`."""
    return int(await rpc.call("getSlot", [{"commitment": commitment}]))


async def fetch_clock(rpc: Rpc, commitment: str) -> Clock:
    """
    Return the Clock sysvar.

    Raises:
        RetryableError: the node does not have it; every healthy one does.
    """
    reply = await rpc.call("getAccountInfo", [CLOCK_SYSVAR, {"encoding": "base64", "commitment": commitment}])
    if reply["value"] is None:
        raise RetryableError(f"{rpc.shown_url} has no Clock sysvar yet")
    slot, _, _, _, unix_time = struct.unpack_from("<QqQQq", base64.b64decode(reply["value"]["data"][0]))
    return Clock(slot, unix_time)


async def check_program(rpc: Rpc, program_id: bytes) -> None:
    """
    Raises:
        SettingsError: there is no program at that address on this chain.
    """
    address = str(Pubkey(program_id))
    reply = await rpc.call("getAccountInfo", [address, {"encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}])
    value = reply["value"]
    if value is None:
        raise SettingsError(f"there is no account {address} on {rpc.shown_url}: check the program id and the cluster")
    if not value["executable"] and value["owner"] not in BPF_LOADERS:
        raise SettingsError(f"{address} on {rpc.shown_url} is an account of {value['owner']}, not a program")


async def fetch_signatures(
    rpc: Rpc,
    address: bytes,
    *,
    commitment: str,
    after_slot: int | None,
    up_to_slot: int,
    on_page: Callable[[int], None] = lambda _: None,
) -> list[SignatureInfo]:
    """
    Return every signature that mentions `address` in (after_slot, up_to_slot], oldest slot first, each once.

    The order inside a slot is not reliable, and two nodes may differ in it; so a page starts again at the whole slot
    the last one ended in. An unknown cursor also answers an empty page, so that alone never ends a history.

    Args:
        after_slot: exclusive; None reads back to the beginning.
        on_page: called with the number of signatures so far.

    Raises:
        RetryableError: the node lost the cursor, or its history ends where it should go on.
    """
    found: dict[str, SignatureInfo] = {}
    cursor: str | None = None
    while True:
        options: dict[str, Any] = {"limit": PAGE_SIZE_MAX, "commitment": commitment}
        if cursor is not None:
            options["before"] = cursor
        page = _read_page(rpc, await rpc.call_raw("getSignaturesForAddress", [str(Pubkey(address)), options]))
        if not page:
            if cursor is not None:
                await _check_cursor(rpc, cursor)
            break
        new = [info for info in page if info.signature not in found]
        found.update((info.signature, info) for info in new)
        on_page(len(found))
        oldest_slot = min(info.slot for info in page)
        if after_slot is not None and oldest_slot <= after_slot:
            break
        cursor = _next_cursor(page, cursor, progressed=bool(new))
    kept = [i for i in found.values() if i.slot <= up_to_slot and (after_slot is None or i.slot > after_slot)]
    return sorted(kept, key=lambda info: info.slot)


def _read_page(rpc: Rpc, body: bytes) -> list[SignatureInfo]:
    try:
        return _decode_page(body)
    except msgspec.DecodeError as error:
        raise RetryableError(f"{rpc.shown_url} sent a page of signatures of an unknown shape: {error}") from error


def _next_cursor(page: Sequence[SignatureInfo], cursor: str | None, *, progressed: bool) -> str:
    """Return where the next page starts: before the page's oldest slot, so that this slot is read again as a whole."""
    oldest_slot = page[-1].slot
    for info in reversed(page):
        if info.slot != oldest_slot and info.signature != cursor and progressed:
            return info.signature
    return page[-1].signature


async def _check_cursor(rpc: Rpc, signature: str) -> None:
    reply = await rpc.call("getSignatureStatuses", [[signature], {"searchTransactionHistory": True}])
    if reply["value"][0] is None:
        raise RetryableError(f"{rpc.shown_url} no longer knows {signature}: its page of signatures proves nothing")


async def fetch_transactions(rpc: Rpc, signatures: Sequence[str], *, commitment: str) -> list[bytes | None]:
    """
    Return the body (JSON bytes, `json` encoding) of each transaction, None where the node does not have it (yet).

    Raises:
        RpcError: the node refused one, whatever the reason: that is never "no transaction".
    """
    options = {
        "encoding": "json",
        "commitment": commitment,
        "maxSupportedTransactionVersion": TRANSACTION_VERSION_MAX,
    }
    answers = await rpc.batch_raw([("getTransaction", [signature, options]) for signature in signatures])
    bodies: list[bytes | None] = []
    for answer in answers:
        if isinstance(answer, RpcError):
            raise answer
        bodies.append(None if answer == b"null" else answer)
    return bodies


async def fetch_program_accounts(rpc: Rpc, program_id: bytes, *, commitment: str) -> tuple[int, list[RawAccount]]:
    """Return the slot of the snapshot and every account that `program_id` owns then."""
    options = {"encoding": "base64", "commitment": commitment, "withContext": True}
    reply = await rpc.call("getProgramAccounts", [str(Pubkey(program_id)), options])
    accounts = [read_account(_pubkey(row["pubkey"]), row["account"]) for row in reply["value"]]
    return int(reply["context"]["slot"]), accounts


async def fetch_accounts(
    rpc: Rpc, addresses: Iterable[bytes], *, commitment: str, min_slot: int
) -> list[tuple[int, bytes, RawAccount | None]]:
    """Return (slot of the answer, address, account or None) for each address, as of `min_slot` or later."""
    wanted = list(addresses)
    options = {"encoding": "base64", "commitment": commitment, "minContextSlot": min_slot}
    chunks = [wanted[i : i + ACCOUNTS_PER_CALL_MAX] for i in range(0, len(wanted), ACCOUNTS_PER_CALL_MAX)]
    requests = [("getMultipleAccounts", [[str(Pubkey(a)) for a in chunk], options]) for chunk in chunks]
    rows: list[tuple[int, bytes, RawAccount | None]] = []
    for chunk, reply in zip(chunks, await rpc.batch(requests), strict=True):
        if isinstance(reply, RpcError):
            raise reply
        slot = int(reply["context"]["slot"])
        for address, value in zip(chunk, reply["value"], strict=True):
            rows.append((slot, address, None if value is None else read_account(address, value)))
    return rows


def read_account(address: bytes, value: dict[str, Any]) -> RawAccount:
    """Return the account of one JSON value in base64 encoding."""
    return RawAccount(
        address, _pubkey(value["owner"]), int(value["lamports"]), base64.b64decode(value["data"][0], validate=True)
    )


def _pubkey(text: str) -> bytes:
    return bytes(Pubkey.from_string(text))
