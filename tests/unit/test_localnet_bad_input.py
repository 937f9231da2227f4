"""Whatever a client gets wrong: Solana's code and message, an unchanged chain, and a server that answers the next."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from localnet.accounts import AccountState
from localnet.control import ControlMethods
from localnet.rpc import Dispatcher
from localnet.rpc.encoding import base58
from localnet.rpc.faults import Faults
from localnet.steering import SteeringMethods
from localnet.vm import SYSTEM_PROGRAM
from tests.fixtures.chain import build_chain, signed

SOL = 10**9
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
BASE64 = {"encoding": "base64"}
SKIP = {**BASE64, "skipPreflight": True}


def keypair(number: int) -> Keypair:
    return Keypair.from_seed(struct.pack(">Q", number) * 4)


class Node:
    """A chain with every method there is, control too, and one rich wallet."""

    def __init__(self) -> None:
        self.chain = build_chain()
        self.wallet = keypair(1)
        self.chain.set_account(self.wallet.pubkey(), AccountState(1_000 * SOL, b"", SYSTEM_PROGRAM))
        control = ControlMethods(self.chain, stop_traffic=lambda: None)
        steering = SteeringMethods(self.chain, Faults(), slot_ms=400)
        self.dispatcher = Dispatcher(self.chain, {**control.methods(), **steering.methods()})
        self.chain.open_slot(2, self.chain.unix_time)

    async def answer(self, body: Any) -> Any:
        """Return the decoded answer to a body."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(await self.dispatcher.answer(raw))

    async def call(self, method: str, *params: Any) -> Any:
        """Return a whole answer to a request."""
        return await self.answer({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})

    def transfer(self, *, blockhash: Hash | None = None, extra: bytes = b"") -> VersionedTransaction:
        """Return a good transaction, or one with another hash or a memo behind it."""
        pay = transfer(TransferParams(from_pubkey=self.wallet.pubkey(), to_pubkey=keypair(2).pubkey(), lamports=SOL))
        memo = [Instruction(MEMO, extra, [])] if extra else []
        return signed([pay, *memo], [self.wallet], blockhash or self.chain.latest_blockhash())


def wire(transaction: VersionedTransaction) -> str:
    return base64.b64encode(bytes(transaction)).decode()


@pytest.fixture
def node() -> Node:
    return Node()


async def test_an_oversized_transaction(node: Node) -> None:
    """Refused before anybody looks inside, by its encoded length and by its own."""
    long = wire(node.transfer(extra=b"x" * 1_100))
    error = (await node.call("sendTransaction", long, BASE64))["error"]
    assert error["code"] == -32602
    expected = f"base64 encoded solana_transaction::versioned::VersionedTransaction too large: {len(long)} bytes"
    assert error["message"] == f"{expected} (max: encoded/raw 1644/1232)"
    raw = b"\1" * 1_233
    error = (await node.call("sendTransaction", base64.b64encode(raw).decode(), BASE64))["error"]
    assert error == {
        "code": -32602,
        "message": "decoded solana_transaction::versioned::VersionedTransaction too large: 1233 bytes"
        " (max: 1232 bytes)",
    }


async def test_unsigned_and_wrongly_signed(node: Node) -> None:
    """-32003 at preflight; without preflight the signature comes back and nothing ever lands."""
    good = node.transfer()
    for signature in (Signature.default(), Signature.from_bytes(b"\7" * 64), keypair(3).sign_message(b"other")):
        bad = VersionedTransaction.populate(good.message, [signature])
        error = (await node.call("sendTransaction", wire(bad), BASE64))["error"]
        assert error == {"code": -32003, "message": "Transaction signature verification failure"}
        assert (await node.call("sendTransaction", wire(bad), SKIP))["result"] == str(signature)
        assert node.chain.transaction(bytes(signature)) is None
    short = VersionedTransaction.populate(good.message, [])
    error = (await node.call("sendTransaction", wire(short), BASE64))["error"]
    assert error == {
        "code": -32602,
        "message": "invalid transaction: Transaction failed to sanitize accounts offsets correctly",
    }


async def test_an_expired_blockhash(node: Node) -> None:
    """-32002 with what a simulation says; one that never was looks the same."""
    old = node.transfer()
    for _ in range(151):
        node.chain.open_slot(node.chain.slot + 1, node.chain.unix_time)
    for stale in (old, node.transfer(blockhash=Hash(b"\5" * 32))):
        error = (await node.call("sendTransaction", wire(stale), BASE64))["error"]
        assert (error["code"], error["message"]) == (-32002, "Transaction simulation failed: Blockhash not found")
        assert error["data"]["err"] == "BlockhashNotFound"
        assert error["data"]["logs"] == []
        assert (await node.call("sendTransaction", wire(stale), SKIP))["result"] == str(stale.signatures[0])
        assert node.chain.transaction(bytes(stale.signatures[0])) is None


async def test_a_duplicate(node: Node) -> None:
    """The second is refused at preflight and does nothing without; the money moves once."""
    once = wire(node.transfer())
    assert "result" in await node.call("sendTransaction", once, BASE64)
    for _ in range(2):
        error = (await node.call("sendTransaction", once, BASE64))["error"]
        assert error["code"] == -32002
        assert error["message"] == "Transaction simulation failed: This transaction has already been processed"
        assert error["data"]["err"] == "AlreadyProcessed"
        assert "result" in await node.call("sendTransaction", once, SKIP)
        node.chain.open_slot(node.chain.slot + 1, node.chain.unix_time)
    assert node.chain.account_at(keypair(2).pubkey()) == AccountState(SOL, b"", SYSTEM_PROGRAM)


async def test_a_byte_changed_after_signing(node: Node) -> None:
    """Anywhere in the message: it cannot be read, or its signature is no longer good."""
    good = bytes(node.transfer(extra=b"abc"))
    for position in range(65, len(good)):
        bad = good[:position] + b"\xff" + good[position + 1 :]
        answer = await node.call("sendTransaction", base64.b64encode(bad).decode(), BASE64)
        assert answer.get("error", {}).get("code") in (-32602, -32003, -32002), position


async def test_a_batch_of_a_thousand(node: Node) -> None:
    """Good and bad requests mixed: each has its answer, in order, by its own id."""
    kinds: list[tuple[str, list[Any], int | None]] = [
        ("getSlot", [], None),
        ("getSlot", [{"commitment": "someday"}], -32602),
        ("getBalance", ["0OIl"], -32602),
        ("nothing", [], -32601),
        ("sendTransaction", [wire(node.transfer()) + "AAAA", BASE64], None),
        ("getHealth", [], None),
    ]
    batch = [{"jsonrpc": "2.0", "id": i, "method": kinds[i % 6][0], "params": kinds[i % 6][1]} for i in range(1_000)]
    answers = await node.answer(batch)
    assert [answer["id"] for answer in answers] == list(range(1_000))
    for number, answer in enumerate(answers):
        code = kinds[number % 6][2]
        if kinds[number % 6][0] != "sendTransaction":
            assert answer.get("error", {}).get("code") == code, number


async def test_a_batch_whose_answer_would_fill_the_memory(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as a whole, and the next request is answered."""
    monkeypatch.setattr("localnet.rpc.dispatch.BATCH_BYTES_MAX", 100_000)
    batch = [{"jsonrpc": "2.0", "id": i, "method": "getVersion"} for i in range(2_000)]
    assert (await node.answer(batch))["error"]["code"] == -32011
    assert (await node.call("getHealth"))["result"] == "ok"


@pytest.mark.parametrize("text", ["", "0", "O", "l" * 44, "1" * 31, "1" * 45, "ü", "1" * 100_000, " " + "1" * 32])
@pytest.mark.parametrize("method", ["getBalance", "getSignaturesForAddress", "getTransaction", "getProgramAccounts"])
async def test_bad_base58(node: Node, method: str, text: str) -> None:
    """Wrong letters and wrong lengths, each by its name."""
    error = (await node.call(method, text))["error"]
    assert error["code"] == -32602
    assert error["message"] in ("Invalid param: Invalid", "Invalid param: WrongSize")


SHARED = Node()
FINE = "1" * 32
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=70), st.just(FINE)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
CONTROL_WORDS = st.sampled_from(
    ["unix_time", "slot", "count", "address", "lamports", "data", "owner", "blocks", "lost", "feed_id", "price",
     "limit", "seed", "http_cut", "commitment", "range", "filter", "identity"]
)  # fmt: skip
PARAMS = st.lists(VALUES | st.dictionaries(CONTROL_WORDS, VALUES | st.integers(0, 3), max_size=3), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SHARED.dispatcher.names() - {"requestAirdrop"})), PARAMS)
async def test_no_parameters_of_any_method_are_our_fault(method: str, params: list[Any]) -> None:
    """The control methods and those about the cluster too: a result or a refusal, never -32603."""
    answer = await SHARED.call(method, *params)
    assert ("result" in answer) != ("error" in answer)
    assert answer.get("error", {}).get("code") != -32603, answer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), VALUES.map(lambda value: json.dumps(value).encode())))
async def test_no_body_is_our_fault(body: bytes) -> None:
    """Any bytes and any JSON: an answer that is JSON-RPC, or none to notifications."""
    raw = await SHARED.dispatcher.answer(body)
    answers = json.loads(raw) if raw else []
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer["error"]["code"] in (-32700, -32600)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
async def test_no_change_of_a_good_transaction_is_our_fault(data: st.DataObject) -> None:
    """Bytes changed, cut out or put in, in both encodings; a changed one never lands."""
    good = bytes(SHARED.transfer(extra=b"memo"))
    start = data.draw(st.integers(0, len(good)))
    bad = good[:start] + data.draw(st.binary(max_size=40)) + good[start + data.draw(st.integers(0, 40)) :]
    text, encoding = (wire_of(bad), "base64") if data.draw(st.booleans()) else (base58(bad), "base58")
    options = {"encoding": encoding, "skipPreflight": data.draw(st.booleans())}
    before = SHARED.chain.account_at(keypair(2).pubkey())
    answer = await SHARED.call("sendTransaction", text, options)
    assert answer.get("error", {}).get("code") != -32603, answer
    if bad != good:
        assert SHARED.chain.account_at(keypair(2).pubkey()) == before


def wire_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
