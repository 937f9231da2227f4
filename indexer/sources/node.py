"""
What the indexer asks a node for, as values: signatures, transactions, accounts, the clock.

Every function here either has the whole answer or raises; none returns less than it was asked for, and what has another
shape than it must have is that node's failure: the next one is asked. Bodies of transactions stay JSON bytes:
`indexer.chain` reads them.
"""

import base64
import binascii
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Annotated, Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

import msgspec
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.errors import SettingsError
from indexer.sources.rpc import Caller, RpcError

METHOD_NOT_FOUND = -32601
UNSUPPORTED_VERSION = -32015
PAGE_SIZE_MAX = 1_000
ACCOUNTS_PER_CALL_MAX = 100
# Signatures in one getSignatureStatuses call; the node's own limit.
STATUSES_PER_CALL_MAX = 256
# v1 transactions are live. Of what lies above, a node only says that it is there.
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


# Codes of getBlock that say nothing about whether there is a block: not yet there, cleaned up, skipped or missing.
BLOCK_UNKNOWN_CODES = frozenset({-32001, -32004, -32007, -32009, -32014})
Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Until the year 9999, behind which neither Python nor JSON has a date.
UnixTime = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
# A base58 text of 32 bytes has 44 characters at most; whether it is one, only being equal to another depends on.
Hash = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,44}$")]
U64_MAX = 2**64 - 1
Value = TypeVar("Value")
Asked = ParamSpec("Asked")


def on_one_node(
    fetch: Callable[Concatenate[Caller, Asked], Awaitable[Value]],
) -> Callable[Concatenate[Caller, Asked], Coroutine[Any, Any, Value]]:
    """Let several nodes stand in for each other where one's answers are not what they must be, too."""

    @wraps(fetch)
    async def asked(rpc: Caller, /, *args: Asked.args, **options: Asked.kwargs) -> Value:
        return await rpc.on_one(lambda one: fetch(one, *args, **options))

    return asked


class SignatureInfo(msgspec.Struct, frozen=True):
    """One entry of getSignaturesForAddress; `err` is the TransactionError, None where it succeeded."""

    signature: str
    slot: Slot
    err: Any = None


class SignatureStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of getSignatureStatuses."""

    slot: Slot
    confirmation_status: str | None = None
    err: Any = None


class BlockHeader(msgspec.Struct, frozen=True, rename="camel"):
    """What names a block, and the slot of the block below it."""

    blockhash: Hash
    parent_slot: Slot


class Block(msgspec.Struct, frozen=True, rename="camel"):
    """A block with its transactions as JSON, each as getTransaction has it but for slot and time."""

    blockhash: Hash
    parent_slot: Slot
    transactions: list[msgspec.Raw]
    block_time: UnixTime | None = None


class ClosedBlock(msgspec.Struct, frozen=True, rename="camel"):
    """A block that the node does not open, as one of its transactions is of a version above the ceiling."""

    blockhash: Hash
    parent_slot: Slot
    signatures: list[str]
    block_time: UnixTime | None = None


class Unsupported(NamedTuple):
    """A transaction that is there, of a version above the ceiling: nothing more is said of it."""

    version: int


class RawAccount(NamedTuple):
    """An account as the node gave it. `address` and `owner` are 32 bytes."""

    address: bytes
    owner: bytes
    lamports: int
    data: bytes


class Clock(NamedTuple):
    """The cluster's own clock: what decides expiry and price age. `unix_time` in seconds."""

    slot: Slot
    unix_time: UnixTime


class _Context(msgspec.Struct):
    slot: Slot


class _Account(msgspec.Struct):
    owner: str
    lamports: Annotated[int, msgspec.Meta(ge=0)]
    data: tuple[str, Literal["base64"]]
    executable: bool = False


class _KeyedAccount(msgspec.Struct):
    pubkey: str
    account: _Account


class _AccountReply(msgspec.Struct):
    context: _Context
    value: _Account | None


class _AccountsReply(msgspec.Struct):
    context: _Context
    value: list[_Account | None]


class _ProgramReply(msgspec.Struct):
    context: _Context
    value: list[_KeyedAccount]


class _Logs(msgspec.Struct):
    signature: str


class _LogsSaid(msgspec.Struct):
    context: _Context
    value: _Logs


class _AccountSaid(msgspec.Struct):
    context: _Context
    value: _KeyedAccount


class _StatusesReply(msgspec.Struct):
    context: _Context
    value: list[SignatureStatus | None]


def read_reply(rpc: Caller, what: str, body: bytes, kind: type[Value]) -> Value:
    """
    Return a result as the type it has to have.

    Raises:
        RetryableError: it has another shape: another node, or this one later, may do better.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise rpc.distrust(f"{rpc.shown_url} sent {what} of an unknown shape: {error}") from error


@on_one_node
async def fetch_genesis_hash(rpc: Caller) -> str:
    """Return the chain's identity, base58."""
    return read_reply(rpc, "a genesis hash", await rpc.call_raw("getGenesisHash"), Hash)


@on_one_node
async def fetch_slot(rpc: Caller, commitment: str) -> int:
    """Return the newest slot at `commitment`."""
    return read_reply(rpc, "a slot", await rpc.call_raw("getSlot", [{"commitment": commitment}]), Slot)


@on_one_node
async def fetch_clock(rpc: Caller, commitment: str) -> Clock:
    """
    Return the Clock sysvar.

    Raises:
        RetryableError: the node does not have it; every healthy one does.
    """
    body = await rpc.call_raw("getAccountInfo", [CLOCK_SYSVAR, {"encoding": "base64", "commitment": commitment}])
    value = read_reply(rpc, "the Clock sysvar", body, _AccountReply).value
    if value is None:
        raise rpc.distrust(f"{rpc.shown_url} has no Clock sysvar yet")
    try:
        slot, _, _, _, unix_time = struct.unpack_from("<QqQQq", base64.b64decode(value.data[0], validate=True))
    except (struct.error, binascii.Error) as error:
        raise rpc.distrust(f"{rpc.shown_url} sent a Clock sysvar that cannot be read: {error}") from error
    try:
        return msgspec.convert((slot, unix_time), Clock)
    except msgspec.ValidationError as error:
        raise rpc.distrust(f"{rpc.shown_url} sent a Clock sysvar that cannot be: {error}") from error


@on_one_node
async def check_program(rpc: Caller, program_id: bytes) -> None:
    """
    Raises:
        SettingsError: there is no program at that address on this chain.
    """
    address = str(Pubkey(program_id))
    options = {"encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}
    value = read_reply(rpc, "an account", await rpc.call_raw("getAccountInfo", [address, options]), _AccountReply).value
    if value is None:
        raise SettingsError(f"there is no account {address} on {rpc.shown_url}: check the program id and the cluster")
    if not value.executable and value.owner not in BPF_LOADERS:
        raise SettingsError(f"{address} on {rpc.shown_url} is an account of {value.owner}, not a program")


class Listed(NamedTuple):
    """
    One step of a listing: every signature in [from_slot, to_slot].

    Args:
        cursor: where the listing goes on; None before its first page.
        ended: the node's history ended here, before the range did.
    """

    from_slot: int
    to_slot: int
    infos: list[SignatureInfo]
    cursor: str | None
    ended: bool = False


async def list_signatures(
    rpc: Caller, address: bytes, *, commitment: str, from_slot: int, to_slot: int, cursor: str | None = None
) -> AsyncIterator[Listed]:
    """
    Give every signature that mentions `address` in [from_slot, to_slot], newest slots first, whole slots at a time.

    Memory holds a page, or the signatures of one slot where those are more. The steps lie side by side and cover the
    range. The order inside a slot is not reliable, and two nodes may differ in it; so a page starts again at the whole
    slot the last one ended in. An unknown cursor also answers an empty page, so that alone never ends a history.

    Args:
        rpc: one node; `pinned`.
        cursor: a signature above `to_slot` to begin at; None begins at the newest.

    Raises:
        RetryableError: the node lost the cursor, or sent what is no page.
    """
    open_to = to_slot
    last_cut: int | None = None
    rest: dict[str, SignatureInfo] = {}  # of the slot that the last page ended in, where that is not read again
    while True:
        options: dict[str, Any] = {"limit": PAGE_SIZE_MAX, "commitment": commitment}
        if cursor is not None:
            options["before"] = cursor
        body = await rpc.call_raw("getSignaturesForAddress", [str(Pubkey(address)), options])
        page = read_reply(rpc, "a page of signatures", body, list[SignatureInfo])
        _check_page(rpc, page, cursor)
        if not page:
            if cursor is not None:
                await _check_cursor(rpc, cursor)
            yield Listed(from_slot, open_to, list(rest.values()), cursor, ended=True)
            return
        cut = page[-1].slot
        found = {info.signature: info for info in page if from_slot <= info.slot <= open_to} | rest
        if cut < from_slot:
            yield Listed(from_slot, open_to, list(found.values()), cursor)
            return
        # The page's oldest slot is read again as a whole; where that brought nothing new it is larger than a page.
        above = next((info.signature for info in reversed(page) if info.slot > cut), None)
        again = above is not None and cut != last_cut
        # Who goes on after a crash has no `rest`: then this page is read again.
        resume = above if again else cursor
        cursor = above if again else page[-1].signature
        rest = {} if again else {signature: info for signature, info in found.items() if info.slot <= cut}
        last_cut = cut
        if cut < open_to:
            yield Listed(cut + 1, open_to, [info for info in found.values() if info.slot > cut], resume)
            open_to = cut


def _check_page(rpc: Caller, page: Sequence[SignatureInfo], cursor: str | None) -> None:
    """A page that is none would be followed for ever, or end in the middle of something else."""
    if any(info.slot < later.slot for info, later in pairwise(page)):
        raise rpc.distrust(f"{rpc.shown_url} sent a page of signatures that is not sorted by slot")
    for info in page:
        if info.signature == cursor:
            raise rpc.distrust(f"{rpc.shown_url} pays no attention to where a page of signatures is to begin")
        try:
            Signature.from_string(info.signature)
        except ValueError as error:
            raise rpc.distrust(f"{rpc.shown_url} sent {info.signature[:50]!r} where a signature belongs") from error


async def check_reach(rpc: Caller, listed: Listed) -> None:
    """
    Prove that a history which ended before its range was not merely thrown away by the node.

    Raises:
        RetryableError: the node keeps no blocks that old; another endpoint may.
    """
    if not listed.ended:
        return
    try:
        body = await rpc.call_raw("getFirstAvailableBlock")
    except RpcError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        return
    first = read_reply(rpc, "a slot", body, Slot)
    if first > max(listed.from_slot, 1):  # there is nothing in slot 0 but the genesis
        raise rpc.distrust(
            f"{rpc.shown_url} keeps no blocks below slot {first}, so it cannot show what was in slot "
            f"{listed.from_slot} and after: name an endpoint with the whole history, or let history start later with "
            f"capstan index --from {first}"
        )


async def fetch_signatures(
    rpc: Caller,
    address: bytes,
    *,
    commitment: str,
    after_slot: int | None,
    up_to_slot: int,
    on_page: Callable[[int], None] = lambda _: None,
) -> list[SignatureInfo]:
    """
    Return every signature that mentions `address` in (after_slot, up_to_slot], oldest slot first, each once.

    For ranges that are known to be short; see `list_signatures`.

    Args:
        after_slot: exclusive; None reads back to the beginning.
        on_page: called with the number of signatures so far.
    """
    found: list[SignatureInfo] = []
    first = 0 if after_slot is None else after_slot + 1
    if first > up_to_slot:
        return found
    async for step in list_signatures(rpc, address, commitment=commitment, from_slot=first, to_slot=up_to_slot):
        found += step.infos
        on_page(len(found))
    return sorted(found, key=lambda info: info.slot)


async def _check_cursor(rpc: Caller, signature: str) -> None:
    _, (status,) = await fetch_statuses(rpc, [signature])
    if status is None:
        raise rpc.distrust(f"{rpc.shown_url} no longer knows {signature}: its page of signatures proves nothing")


@on_one_node
async def fetch_statuses(rpc: Caller, signatures: Sequence[str]) -> tuple[int, list[SignatureStatus | None]]:
    """Return the node's slot and the status of each signature, history searched; at most STATUSES_PER_CALL_MAX."""
    assert len(signatures) <= STATUSES_PER_CALL_MAX, "the node's own limit"
    body = await rpc.call_raw("getSignatureStatuses", [list(signatures), {"searchTransactionHistory": True}])
    reply = read_reply(rpc, "signature statuses", body, _StatusesReply)
    if len(reply.value) != len(signatures):
        raise rpc.distrust(f"{rpc.shown_url} answered {len(reply.value)} statuses for {len(signatures)} signatures")
    return reply.context.slot, reply.value


@on_one_node
async def fetch_headers(rpc: Caller, slots: Sequence[int], *, commitment: str) -> dict[int, BlockHeader]:
    """Return the header of each slot's block; slots without one, and those the node cannot show now, are left out."""
    options = {
        "commitment": commitment,
        "transactionDetails": "none",
        "rewards": False,
        "maxSupportedTransactionVersion": TRANSACTION_VERSION_MAX,
    }
    answers = await rpc.batch_raw([("getBlock", [slot, options]) for slot in slots], answering=BLOCK_UNKNOWN_CODES)
    headers: dict[int, BlockHeader] = {}
    for slot, answer in zip(slots, answers, strict=True):
        if isinstance(answer, RpcError):
            # A node that shows no blocks at all leaves every hash unknown: rows are then fetched again once final.
            if answer.code not in BLOCK_UNKNOWN_CODES and answer.code != METHOD_NOT_FOUND:
                raise answer
        elif answer != b"null":
            headers[slot] = read_reply(rpc, "a block's header", answer, BlockHeader)
    return headers


@on_one_node
async def fetch_blocks(rpc: Caller, slots: Sequence[int]) -> list[Block | ClosedBlock]:
    """
    Return the finalized block of each slot, all of its transactions in it, or at least their signatures.

    Raises:
        RetryableError: the node does not show one. That never means that there is none.
    """
    answers = await _ask_blocks(rpc, slots, "full")
    closed = [slot for slot, answer in answers.items() if isinstance(answer, RpcError)]
    signed = await _ask_blocks(rpc, closed, "signatures") if closed else {}
    blocks: list[Block | ClosedBlock] = []
    for slot in slots:
        answer = signed.get(slot, answers[slot])
        if isinstance(answer, RpcError):
            raise answer
        if slot in signed:
            blocks.append(read_reply(rpc, "a block's signatures", answer, ClosedBlock))
        else:
            blocks.append(read_reply(rpc, "a block", answer, Block))
    return blocks


async def _ask_blocks(rpc: Caller, slots: Sequence[int], details: str) -> dict[int, bytes | RpcError]:
    """Return the answer for each slot; the only refusal among them is that of a version above the ceiling."""
    options = {
        "commitment": "finalized",
        "encoding": "json",
        "transactionDetails": details,
        "rewards": False,
        "maxSupportedTransactionVersion": TRANSACTION_VERSION_MAX,
    }
    answers = await rpc.batch_raw([("getBlock", [slot, options]) for slot in slots])
    for slot, answer in zip(slots, answers, strict=True):
        if isinstance(answer, RpcError) and answer.code == UNSUPPORTED_VERSION:
            _unsupported(rpc, answer)
        elif isinstance(answer, RpcError) and answer.code not in BLOCK_UNKNOWN_CODES:
            raise answer
        elif isinstance(answer, RpcError) or answer == b"null":
            raise rpc.distrust(f"{rpc.shown_url} does not have the block of slot {slot}, and its children name it")
    return dict(zip(slots, answers, strict=True))


@on_one_node
async def fetch_block_times(rpc: Caller, slots: Sequence[int]) -> dict[int, int]:
    """Return unix seconds of each slot's block; those that the node does not know are left out."""
    answers = await rpc.batch_raw([("getBlockTime", [slot]) for slot in slots], answering=BLOCK_UNKNOWN_CODES)
    times: dict[int, int] = {}
    for slot, answer in zip(slots, answers, strict=True):
        if isinstance(answer, RpcError):
            if answer.code not in BLOCK_UNKNOWN_CODES and answer.code != METHOD_NOT_FOUND:
                raise answer
        elif answer != b"null":
            times[slot] = read_reply(rpc, "a block's time", answer, UnixTime)
    return times


@on_one_node
async def fetch_block_slots(rpc: Caller, from_slot: int, to_slot: int) -> list[int]:
    """Return the slots of [from_slot, to_slot] that the node says have a finalized block: a hint, never a proof."""
    body = await rpc.call_raw("getBlocks", [from_slot, to_slot, {"commitment": "finalized"}])
    return read_reply(rpc, "a list of blocks", body, list[Slot])


@on_one_node
async def fetch_next_block_slot(rpc: Caller, slot: int) -> int | None:
    """Return the first slot from `slot` on that has a finalized block; None where there is none yet."""
    body = await rpc.call_raw("getBlocksWithLimit", [slot, 1, {"commitment": "finalized"}])
    found = read_reply(rpc, "a list of blocks", body, list[Slot])
    return found[0] if found else None


@on_one_node
async def fetch_transactions(
    rpc: Caller, signatures: Sequence[str], *, commitment: str
) -> list[bytes | Unsupported | None]:
    """
    Return the body (JSON bytes, `json` encoding) of each transaction, None where the node does not have it (yet).

    Raises:
        RpcError: the node refused one for another reason than its version: that is never "no transaction".
    """
    options = {
        "encoding": "json",
        "commitment": commitment,
        "maxSupportedTransactionVersion": TRANSACTION_VERSION_MAX,
    }
    answers = await rpc.batch_raw([("getTransaction", [signature, options]) for signature in signatures])
    bodies: list[bytes | Unsupported | None] = []
    for answer in answers:
        if isinstance(answer, RpcError):
            if answer.code != UNSUPPORTED_VERSION:
                raise answer
            bodies.append(_unsupported(rpc, answer))
        else:
            bodies.append(None if answer == b"null" else answer)
    return bodies


def _unsupported(rpc: Caller, refusal: RpcError) -> Unsupported:
    """
    Return what a refusal for its version says; where it names none, the first that we do not ask for.

    Raises:
        RetryableError: it names one that we do ask for, so the node does not do as it is told.
    """
    named = re.search(r"version \((\d{1,5})\)", refusal.message)
    version = int(named[1]) if named else TRANSACTION_VERSION_MAX + 1
    if version <= TRANSACTION_VERSION_MAX:
        raise rpc.distrust(
            f"{rpc.shown_url} refuses version {version} of a transaction, which it was asked for: name another endpoint"
        )
    return Unsupported(version)


@on_one_node
async def fetch_program_accounts(rpc: Caller, program_id: bytes, *, commitment: str) -> tuple[int, list[RawAccount]]:
    """Return the slot of the snapshot and every account that `program_id` owns then."""
    options = {"encoding": "base64", "commitment": commitment, "withContext": True}
    body = await rpc.call_raw("getProgramAccounts", [str(Pubkey(program_id)), options])
    reply = read_reply(rpc, "a program's accounts", body, _ProgramReply)
    accounts = [_raw_account(rpc, _pubkey(rpc, row.pubkey), row.account) for row in reply.value]
    return reply.context.slot, accounts


@on_one_node
async def fetch_accounts(
    rpc: Caller, addresses: Iterable[bytes], *, commitment: str, min_slot: int
) -> list[tuple[int, bytes, RawAccount | None]]:
    """Return (slot of the answer, address, account or None) for each address, as of `min_slot` or later."""
    wanted = list(addresses)
    options = {"encoding": "base64", "commitment": commitment, "minContextSlot": min_slot}
    chunks = [wanted[i : i + ACCOUNTS_PER_CALL_MAX] for i in range(0, len(wanted), ACCOUNTS_PER_CALL_MAX)]
    requests = [("getMultipleAccounts", [[str(Pubkey(a)) for a in chunk], options]) for chunk in chunks]
    rows: list[tuple[int, bytes, RawAccount | None]] = []
    for chunk, answer in zip(chunks, await rpc.batch_raw(requests), strict=True):
        if isinstance(answer, RpcError):
            raise answer
        reply = read_reply(rpc, "accounts", answer, _AccountsReply)
        slot = reply.context.slot
        if len(reply.value) != len(chunk):
            raise rpc.distrust(f"{rpc.shown_url} answered {len(reply.value)} accounts for {len(chunk)} addresses")
        for address, value in zip(chunk, reply.value, strict=True):
            rows.append((slot, address, None if value is None else _raw_account(rpc, address, value)))
    return rows


def read_logs_notification(result: Any) -> tuple[str, int]:
    """
    Return the signature and the slot that a logsNotification names.

    Raises:
        ValueError: it has another shape.
    """
    said = msgspec.convert(result, _LogsSaid)
    return str(Signature.from_string(said.value.signature)), said.context.slot


def read_account_notification(result: Any) -> tuple[int, bytes, RawAccount]:
    """
    Return the slot, the address and the account that a programNotification names.

    Raises:
        ValueError: it has another shape.
    """
    said = msgspec.convert(result, _AccountSaid)
    account = said.value.account
    if account.lamports > U64_MAX:
        raise ValueError(f"an account has {account.lamports} lamports")
    address, owner = (bytes(Pubkey.from_string(text)) for text in (said.value.pubkey, account.owner))
    data = base64.b64decode(account.data[0], validate=True)
    return said.context.slot, address, RawAccount(address, owner, account.lamports, data)


def _raw_account(rpc: Caller, address: bytes, value: _Account) -> RawAccount:
    if value.lamports > U64_MAX:
        raise rpc.distrust(f"{rpc.shown_url} sent an account with {value.lamports} lamports, which no account can have")
    try:
        data = base64.b64decode(value.data[0], validate=True)
    except binascii.Error as error:
        raise rpc.distrust(f"{rpc.shown_url} sent an account whose data is not base64: {error}") from error
    return RawAccount(address, _pubkey(rpc, value.owner), value.lamports, data)


def _pubkey(rpc: Caller, text: str) -> bytes:
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError as error:
        raise rpc.distrust(f"{rpc.shown_url} sent {text[:50]!r} where an address belongs") from error
