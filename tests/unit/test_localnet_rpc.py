"""JSON-RPC bodies in, JSON-RPC bodies out, without a socket: Solana's codes and words, and no body that hurts."""

import base64
import json
import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from indexer.chain.base58 import decode_base58
from localnet.accounts import AccountState
from localnet.chain import Chain
from localnet.rpc import Dispatcher, RpcError
from localnet.rpc.encoding import base58
from localnet.vm import SYSTEM_PROGRAM, TOKEN_PROGRAM
from tests.fixtures.chain import build_chain, signed

SOL = 10**9
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
NOBODY = str(Pubkey(b"\x09" * 32))
UNKNOWN_SIGNATURE = str(Signature.from_bytes(b"\x05" * 64))


def keypair(number: int) -> Keypair:
    return Keypair.from_seed(struct.pack(">Q", number) * 4)


def pay(payer: Keypair, target: Pubkey, lamports: int = SOL) -> Instruction:
    return transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=target, lamports=lamports))


class Node:
    """A chain and its methods, with one rich wallet."""

    def __init__(self) -> None:
        self.chain = build_chain()
        self.wallet = keypair(1)
        self.chain.set_account(self.wallet.pubkey(), AccountState(1_000 * SOL, b"", SYSTEM_PROGRAM))
        self.dispatcher = Dispatcher(self.chain)

    async def body(self, body: Any) -> Any:
        """Return the decoded answer to a body, None where there is none."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self.dispatcher.answer(raw)
        return json.loads(answer) if answer else None

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result of a call that must succeed."""
        answer = await self.body({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        assert "error" not in answer, answer
        return answer["result"]

    async def refusal(self, method: str, *params: Any) -> dict[str, Any]:
        """Return the error of a call that must fail."""
        answer = await self.body({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        assert "error" in answer, answer
        error: dict[str, Any] = answer["error"]
        return error

    def step(self, blocks: int = 1) -> None:
        """Produce blocks, each two slots after the one before."""
        for _ in range(blocks):
            self.chain.open_slot(self.chain.slot + 2, self.chain.unix_time + 1)

    def payment(self, lamports: int = SOL, target: Pubkey | None = None) -> VersionedTransaction:
        """Return a signed transfer from the wallet."""
        to = keypair(2).pubkey() if target is None else target
        return signed([pay(self.wallet, to, lamports)], [self.wallet], self.chain.latest_blockhash())


def wire(transaction: VersionedTransaction) -> str:
    return base64.b64encode(bytes(transaction)).decode()


BASE64 = {"encoding": "base64"}
CONFIRMED = {"commitment": "confirmed"}


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{not json", -32700, "Parse error"),
        (b"", -32700, "Parse error"),
        (b"[" * 5_000, -32700, "Parse error"),
        (b"\xff\xfe", -32700, "Parse error"),
        (b"[]", -32600, "Invalid request"),
        (b"5", -32600, "Invalid request"),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600, "Invalid request"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600, "Invalid request"),
        (b'{"id": 1, "method": "getSlot"}', -32600, "Unsupported JSON-RPC protocol version"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getSlut"}', -32601, "Method not found"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"}', -32601, "Method not found"),
    ],
)
async def test_bodies_that_are_no_request(node: Node, body: bytes, code: int, message: str) -> None:
    """Each has its code, and the server goes on."""
    answer = await node.body(body)
    assert (answer["error"]["code"], answer["error"]["message"]) == (code, message)
    assert await node.call("getHealth") == "ok"


async def test_batches(node: Node) -> None:
    """Answers come in the order of the requests, each with its id; notifications have none."""
    batch: list[Any] = [
        {"jsonrpc": "2.0", "id": "a", "method": "getHealth"},
        {"jsonrpc": "2.0", "method": "getHealth"},
        17,
        {"jsonrpc": "2.0", "id": 3, "method": "nope"},
    ]
    answers = await node.body(batch)
    assert [answer["id"] for answer in answers] == ["a", None, 3]
    assert answers[0]["result"] == "ok"
    assert [answer["error"]["code"] for answer in answers[1:]] == [-32600, -32601]
    assert await node.body([batch[1]]) is None
    many = await node.body([{"jsonrpc": "2.0", "id": i, "method": "getSlot"} for i in range(1_000)])
    assert [answer["id"] for answer in many] == list(range(1_000))


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("getAccountInfo", [], "`params` should have at least 1 argument(s)"),
        ("getAccountInfo", [5], "Invalid params: invalid type: integer `5`, expected a string."),
        ("getAccountInfo", ["0OIl"], "Invalid param: Invalid"),
        ("getAccountInfo", ["abc"], "Invalid param: WrongSize"),
        (
            "getAccountInfo",
            [NOBODY, "x"],
            'Invalid params: invalid type: string "x", expected struct RpcAccountInfoConfig.',
        ),
        (
            "getSlot",
            [{"commitment": "max"}],
            "Invalid params: unknown variant `max`, expected one of `processed`, `confirmed`, `finalized`.",
        ),
        ("getSlot", [{}, {}], "Invalid params: invalid length 2, expected fewer elements in array."),
        ("getHealth", [1], "Invalid parameters: No parameters were expected"),
        ("getBlock", [-1], "Invalid params: invalid value: integer `-1`, expected u64."),
        ("getBlock", ["1"], 'Invalid params: invalid type: string "1", expected u64.'),
        ("getBlock", [True], "Invalid params: invalid type: boolean `true`, expected u64."),
        ("getBlock", [1, {"commitment": "processed"}], "Method does not support commitment below `confirmed`"),
        ("getMultipleAccounts", [[NOBODY] * 101], "Too many inputs provided; max 100"),
        ("getSignatureStatuses", [[UNKNOWN_SIGNATURE] * 257], "Too many inputs provided; max 256"),
        ("getSignaturesForAddress", [NOBODY, {"limit": 1_001}], "Invalid limit; max 1000"),
        ("getSignaturesForAddress", [NOBODY, {"limit": 0}], "Invalid limit; max 1000"),
        ("getSignaturesForAddress", [NOBODY, {"before": "abc"}], "Invalid param: WrongSize"),
        ("getTransaction", [NOBODY], "Invalid param: WrongSize"),
        ("getProgramAccounts", [NOBODY, {"filters": [{"dataSize": 1}] * 5}], "Too many filters provided; max 4"),
        ("getTokenAccountBalance", [NOBODY], "Invalid param: could not find account"),
        ("getTokenAccountsByOwner", [NOBODY, {"mint": NOBODY}], "Invalid param: could not find mint"),
        ("sendTransaction", ["!!!", BASE64], "invalid base64 encoding"),
        ("sendTransaction", ["0", {}], "invalid base58 encoding: InvalidCharacter { character: '0', index: 0 }"),
        ("sendTransaction", ["AAAA", BASE64], "failed to deserialize"),
        ("sendTransaction", ["A" * 1_645, BASE64], "too large: 1645 bytes (max: encoded/raw 1644/1232)"),
        ("simulateTransaction", ["AAAA", {"encoding": "hex"}], "unknown variant `hex`"),
    ],
)
async def test_wrong_parameters(node: Node, method: str, params: list[Any], message: str) -> None:
    """-32602, in the words of a validator."""
    error = await node.refusal(method, *params)
    assert error["code"] == -32602
    assert message in error["message"]


async def test_params_by_name_are_refused(node: Node) -> None:
    """Solana takes positions only."""
    answer = await node.body({"jsonrpc": "2.0", "id": 1, "method": "getSlot", "params": {"commitment": "confirmed"}})
    assert answer["error"] == {"code": -32602, "message": "`params` should be an array"}


async def test_min_context_slot(node: Node) -> None:
    """A client that has seen more is told how far this node is."""
    node.step(3)
    slot = await node.call("getSlot", {"commitment": "processed"})
    assert await node.call("getSlot", {"commitment": "processed", "minContextSlot": slot}) == slot
    error = await node.refusal("getSlot", {"commitment": "confirmed", "minContextSlot": slot})
    assert error == {
        "code": -32016,
        "message": "Minimum context slot has not been reached",
        "data": {"contextSlot": await node.call("getSlot", CONFIRMED)},
    }


async def test_skipped_and_missing_slots(node: Node) -> None:
    """Slot numbers without a block: skipped below the finalized one, not available above."""
    node.step(50)
    finalized = await node.call("getSlot")
    slots = await node.call("getBlocks", 0, 20)
    assert slots == [0, 1, *range(3, 20, 2)]
    assert await node.call("getBlocksWithLimit", 2, 3) == [3, 5, 7]
    assert (await node.call("getBlocks", 3, CONFIRMED))[-1] == await node.call("getSlot", CONFIRMED)
    assert (await node.refusal("getBlock", 4))["code"] == -32007
    assert (await node.refusal("getBlockTime", 4))["code"] == -32007
    newer = await node.refusal("getBlock", finalized + 2)
    assert newer == {"code": -32004, "message": f"Block not available for slot {finalized + 2}"}
    block = await node.call("getBlock", finalized + 2, CONFIRMED)
    assert block["parentSlot"] == finalized
    assert block["previousBlockhash"] == (await node.call("getBlock", finalized))["blockhash"]
    assert block["blockTime"] == await node.call("getBlockTime", finalized + 2)
    assert (await node.refusal("getBlock", 10**6))["code"] == -32004


async def test_a_sent_transaction_is_found_everywhere(node: Node) -> None:
    """Statuses, transaction, block, signatures and balances agree, from `processed` to `finalized`."""
    signature = await node.call("sendTransaction", wire(node.payment()), BASE64)
    assert (await node.call("getSignatureStatuses", [signature]))["value"] == [None]
    node.step()
    target = str(keypair(2).pubkey())
    status = (await node.call("getSignatureStatuses", [signature]))["value"][0]
    assert status == {
        "slot": 1,
        "confirmations": 0,
        "err": None,
        "status": {"Ok": None},
        "confirmationStatus": "processed",
    }
    assert await node.call("getTransaction", signature, CONFIRMED) is None
    assert (await node.call("getBalance", target, CONFIRMED))["value"] == 0
    node.step()
    body = await node.call("getTransaction", signature, {**CONFIRMED, "maxSupportedTransactionVersion": 1})
    assert (body["slot"], body["version"], body["meta"]["err"], body["meta"]["fee"]) == (1, "legacy", None, 5_000)
    assert body["meta"]["postBalances"][1] == SOL
    assert body["transaction"]["message"]["accountKeys"][1] == target
    block = await node.call("getBlock", 1, {**CONFIRMED, "transactionDetails": "signatures", "rewards": False})
    assert block["signatures"] == [signature]
    assert "rewards" not in block
    rows = await node.call("getSignaturesForAddress", target, CONFIRMED)
    assert [(row["signature"], row["confirmationStatus"]) for row in rows] == [(signature, "confirmed")]
    assert await node.call("getSignaturesForAddress", target) == []
    node.step(32)
    status = (await node.call("getSignatureStatuses", [signature]))["value"][0]
    assert (status["confirmationStatus"], status["confirmations"]) == ("finalized", None)
    assert (await node.call("getBalance", target))["value"] == SOL


async def test_old_statuses_need_the_history_searched(node: Node) -> None:
    """The recent ones are at hand; for the others a client must say that it wants them."""
    signature = await node.call("sendTransaction", wire(node.payment()), BASE64)
    node.step(301)
    assert (await node.call("getSignatureStatuses", [signature]))["value"] == [None]
    found = await node.call("getSignatureStatuses", [signature], {"searchTransactionHistory": True})
    assert found["value"][0]["confirmationStatus"] == "finalized"


async def test_preflight_refuses_with_logs(node: Node) -> None:
    """-32002 with the simulation as data, and nothing is sent."""
    transaction = node.payment(2_000 * SOL)
    error = await node.refusal("sendTransaction", wire(transaction), BASE64)
    assert error["code"] == -32002
    assert error["message"] == (
        "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    )
    assert error["data"]["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert any("insufficient lamports" in line for line in error["data"]["logs"])
    assert error["data"]["unitsConsumed"] == 150
    assert node.chain.transaction(bytes(transaction.signatures[0])) is None


async def test_without_preflight_a_failure_lands(node: Node) -> None:
    """The sender asked for it: the transaction is in the block with its error."""
    signature = await node.call("sendTransaction", wire(node.payment(2_000 * SOL)), {**BASE64, "skipPreflight": True})
    node.step(2)
    body = await node.call("getTransaction", signature, CONFIRMED)
    assert body["meta"]["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert body["meta"]["status"] == {"Err": body["meta"]["err"]}
    assert body["meta"]["logMessages"][0] == "Program 11111111111111111111111111111111 invoke [1]"


async def test_preflight_names_what_cannot_land(node: Node) -> None:
    """Duplicates, old blockhashes, unknown payers and bad signatures, each with its code."""
    first = node.payment()
    await node.call("sendTransaction", wire(first), BASE64)
    again = await node.refusal("sendTransaction", wire(first), BASE64)
    assert (again["code"], again["data"]["err"]) == (-32002, "AlreadyProcessed")
    assert again["message"] == "Transaction simulation failed: This transaction has already been processed"
    assert await node.call("sendTransaction", wire(first), {**BASE64, "skipPreflight": True}) == str(
        first.signatures[0]
    )
    old = node.payment(2 * SOL)
    node.step(152)
    error = await node.refusal("sendTransaction", wire(old), BASE64)
    assert error["message"] == "Transaction simulation failed: Blockhash not found"
    assert error["data"]["err"] == "BlockhashNotFound"
    stranger = keypair(77)
    unpaid = signed([pay(stranger, keypair(2).pubkey())], [stranger], node.chain.latest_blockhash())
    error = await node.refusal("sendTransaction", wire(unpaid), BASE64)
    assert error["data"]["err"] == "AccountNotFound"
    forged = VersionedTransaction.populate(node.payment(3 * SOL).message, [Signature.from_bytes(b"\3" * 64)])
    error = await node.refusal("sendTransaction", wire(forged), BASE64)
    assert error == {"code": -32003, "message": "Transaction signature verification failure"}


async def test_base58_is_the_old_default_of_sending(node: Node) -> None:
    """A transaction without an encoding is base58."""
    transaction = node.payment()
    assert await node.call("sendTransaction", base58(bytes(transaction))) == str(transaction.signatures[0])


async def test_simulation_changes_nothing(node: Node) -> None:
    """It tells logs, units and the accounts that would be; a blockhash may be stood in for."""
    target = keypair(2).pubkey()
    stale = node.payment()
    node.step(200)
    value = (await node.call("simulateTransaction", wire(stale), BASE64))["value"]
    assert value["err"] == "BlockhashNotFound"
    options = {**BASE64, "replaceRecentBlockhash": True, "accounts": {"addresses": [str(target)], "encoding": "base64"}}
    value = (await node.call("simulateTransaction", wire(stale), options))["value"]
    assert value["err"] is None
    assert value["unitsConsumed"] == 150
    assert value["accounts"][0]["lamports"] == SOL
    assert value["replacementBlockhash"]["lastValidBlockHeight"] > 150
    assert not node.chain.holds(target)
    assert node.chain.transaction(bytes(stale.signatures[0])) is None


async def test_blockhashes_and_fees(node: Node) -> None:
    """The newest hash, how long it serves, and what a message with it costs."""
    node.step(3)
    value = (await node.call("getLatestBlockhash", {"commitment": "processed"}))["value"]
    height = await node.call("getBlockHeight", {"commitment": "processed"})
    assert value["lastValidBlockHeight"] == height + 150
    assert value["blockhash"] == str(node.chain.latest_blockhash())
    processed = {"commitment": "processed"}
    message = base64.b64encode(bytes(node.payment().message)).decode()
    assert (await node.call("getFeeForMessage", message, processed))["value"] == 5_000
    node.step(150)
    assert (await node.call("isBlockhashValid", value["blockhash"], processed))["value"] is True
    node.step()
    assert (await node.call("isBlockhashValid", value["blockhash"], processed))["value"] is False
    assert (await node.call("getFeeForMessage", message, processed))["value"] is None
    assert await node.call("getMinimumBalanceForRentExemption", 165) == 2_039_280


async def test_airdrop(node: Node) -> None:
    """A transaction like any other: found by its signature."""
    signature = await node.call("requestAirdrop", NOBODY, 5 * SOL)
    node.step(2)
    assert (await node.call("getBalance", NOBODY, CONFIRMED))["value"] == 5 * SOL
    assert (await node.call("getTransaction", signature, CONFIRMED))["meta"]["err"] is None


async def test_account_encodings_and_slices(node: Node) -> None:
    """base58 for little data, base64 and base64+zstd for any; a slice cuts data, not `space`."""
    data = bytes(range(200))
    address, program = keypair(5).pubkey(), bytes(keypair(6).pubkey())
    node.chain.set_account(address, AccountState(SOL, data, program))
    text = str(address)

    async def read(**config: Any) -> Any:
        return (await node.call("getAccountInfo", text, config))["value"]

    full = await read(encoding="base64")
    assert full == {
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
        "lamports": SOL,
        "owner": str(keypair(6).pubkey()),
        "rentEpoch": 2**64 - 1,
        "space": 200,
    }
    packed = await read(encoding="base64+zstd")
    assert packed["data"][1] == "base64+zstd"
    frame = base64.b64decode(packed["data"][0])
    assert pa.decompress(frame, decompressed_size=200, codec="zstd", asbytes=True) == data
    cut = await read(encoding="base58", dataSlice={"offset": 190, "length": 100})
    assert (decode_base58(cut["data"][0]), cut["space"]) == (data[190:], 200)
    refused = await node.refusal("getAccountInfo", text, {"encoding": "base58"})
    assert refused["code"] == -32600
    assert "should be less than 128 bytes" in refused["message"]
    both = await node.call("getMultipleAccounts", [NOBODY, text], {"encoding": "base64"})
    assert both["value"] == [None, full]


async def test_program_accounts_and_filters(node: Node) -> None:
    """memcmp in both encodings, dataSize, all of them together; with and without context."""
    program = keypair(6).pubkey()
    addresses = [keypair(number).pubkey() for number in (10, 11, 12)]
    for address, data in zip(addresses, (b"abcd", b"abce", b"abcde"), strict=True):
        node.chain.set_account(address, AccountState(SOL, data, bytes(program)))

    async def found(*filters: Any) -> list[str]:
        rows = await node.call("getProgramAccounts", str(program), {"encoding": "base64", "filters": list(filters)})
        return [row["pubkey"] for row in rows]

    first, second, third = map(str, addresses)
    assert await found() == [first, second, third]
    assert await found({"dataSize": 4}) == [first, second]
    needle = base58(b"cd")
    assert await found({"memcmp": {"offset": 2, "bytes": needle}}) == [first, third]
    as_base64 = {"offset": 2, "bytes": base64.b64encode(b"cd").decode(), "encoding": "base64"}
    assert await found({"memcmp": as_base64}, {"dataSize": 5}) == [third]
    assert await found({"memcmp": {"offset": 99, "bytes": needle}}) == []
    options = {"encoding": "base64", "withContext": True}
    answer = await node.call("getProgramAccounts", str(program), options)
    assert answer["context"]["slot"] == 0
    assert len(answer["value"]) == 3


def token_bytes(mint: bytes, owner: bytes, amount: int) -> bytes:
    return mint + owner + struct.pack("<Q", amount) + bytes(36) + b"\1" + bytes(56)


async def test_token_accounts(node: Node) -> None:
    """Balances with their decimals, by owner and mint, and in parsed form."""
    mint, holder = keypair(20).pubkey(), keypair(21).pubkey()
    account = keypair(22).pubkey()
    mint_data = bytes(36) + struct.pack("<QBB", 5_000_000, 6, 1) + bytes(36)
    node.chain.set_account(mint, AccountState(SOL, mint_data, TOKEN_PROGRAM))
    data = token_bytes(bytes(mint), bytes(holder), 1_230_000)
    node.chain.set_account(account, AccountState(SOL, data, TOKEN_PROGRAM))
    amount = {"amount": "1230000", "decimals": 6, "uiAmount": 1.23, "uiAmountString": "1.23"}
    assert (await node.call("getTokenAccountBalance", str(account)))["value"] == amount
    assert (await node.call("getTokenSupply", str(mint)))["value"]["uiAmountString"] == "5"
    for wanted in ({"mint": str(mint)}, {"programId": str(Pubkey(TOKEN_PROGRAM))}):
        rows = await node.call("getTokenAccountsByOwner", str(holder), wanted, {"encoding": "jsonParsed"})
        assert [row["pubkey"] for row in rows["value"]] == [str(account)]
        info = rows["value"][0]["account"]["data"]["parsed"]["info"]
        assert (info["tokenAmount"], info["owner"], info["state"]) == (amount, str(holder), "initialized")
    assert (await node.call("getTokenAccountsByOwner", str(mint), {"mint": str(mint)}))["value"] == []


async def test_memos_and_inner_instructions(node: Node) -> None:
    """A memo shows in the list of signatures; encodings of the transaction carry the same bytes."""
    memo = Instruction(MEMO, b"for you", [])
    transaction = signed([memo], [node.wallet], node.chain.latest_blockhash())
    signature = await node.call("sendTransaction", wire(transaction), BASE64)
    node.step(2)
    rows = await node.call("getSignaturesForAddress", str(MEMO), CONFIRMED)
    assert rows[0]["memo"] == "[7] for you"
    raw = await node.call("getTransaction", signature, {**CONFIRMED, "encoding": "base64"})
    assert base64.b64decode(raw["transaction"][0]) == bytes(transaction)
    short = await node.call("getTransaction", signature, {**CONFIRMED, "encoding": "base58"})
    assert decode_base58(short["transaction"][0]) == bytes(transaction)
    parsed = await node.call("getTransaction", signature, {**CONFIRMED, "encoding": "jsonParsed"})
    assert parsed["transaction"]["message"]["instructions"][0]["parsed"] == "for you"
    assert "version" not in raw


async def test_extra_methods() -> None:
    """They get a list of params, may be async, may refuse; a bug in one is an internal error and no more."""

    async def double(params: Any) -> int:
        return 2 * int(params[0])

    def refuse(_: Any) -> None:
        raise RpcError(-32050, "not today", {"until": 5})

    def broken(params: Any) -> Any:
        return params["no such"]

    methods = {"localnet_double": double, "localnet_refuse": refuse, "localnet_broken": broken}
    dispatcher = Dispatcher(Chain(seed=1, start_time=5), methods)

    async def call(method: str, params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        return json.loads(await dispatcher.answer(body))

    assert (await call("localnet_double", [4]))["result"] == 8
    assert (await call("localnet_refuse", []))["error"] == {
        "code": -32050,
        "message": "not today",
        "data": {"until": 5},
    }
    assert (await call("localnet_broken", None))["error"] == {"code": -32603, "message": "Internal error"}
    assert (await call("localnet_double", {}))["error"]["code"] == -32602


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLAUSIBLE = st.one_of(
    JSON,
    st.sampled_from([NOBODY, UNKNOWN_SIGNATURE, "1" * 32, "1" * 64, 0, 1, 2**64 - 1, [NOBODY], [UNKNOWN_SIGNATURE]]),
    st.dictionaries(
        st.sampled_from(
            ["commitment", "encoding", "limit", "before", "until", "filters", "dataSlice", "minContextSlot", "mint"]
        ),
        JSON | st.sampled_from(["base64", "jsonParsed", "confirmed", NOBODY]),
        max_size=3,
    ),
)
FUZZED = Node()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FUZZED.dispatcher.names())), st.lists(PLAUSIBLE, max_size=4))
async def test_no_parameters_are_an_internal_error(method: str, params: list[Any]) -> None:
    """Whatever comes in, the answer is a result or a refusal that blames the client, never a bug of ours."""
    answer = await FUZZED.body({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    if "error" in answer and method != "requestAirdrop":
        assert answer["error"]["code"] != -32603, answer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.binary(max_size=200))
async def test_no_transaction_bytes_are_an_internal_error(raw: bytes) -> None:
    """Random bytes, and a good transaction with a part replaced, are refused or dropped."""
    good = bytes(FUZZED.payment())
    for body in (raw, good[: len(raw)] + raw, raw + good[len(raw) :]):
        for options in (BASE64, {**BASE64, "skipPreflight": True}):
            text = base64.b64encode(body[:1_300]).decode()
            request = {"jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": [text, options]}
            answer = await FUZZED.body(request)
            assert "error" not in answer or answer["error"]["code"] != -32603, answer
