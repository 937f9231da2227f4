"""getTransaction bodies: keys in one list, who may write, instructions as bytes, in all encodings that are read."""

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from indexer.chain.transaction import Transaction, parse_transaction
from indexer.errors import CapstanError, DataError

PAYER, OTHER = Keypair.from_seed(bytes(32)), Keypair.from_seed(bytes([1]) * 32)
PROGRAM, READ, WRITE, LOADED_WRITE, LOADED_READ = (Pubkey(bytes([n]) * 32) for n in range(10, 15))
TABLE = AddressLookupTableAccount(Pubkey(bytes([99]) * 32), [LOADED_WRITE, LOADED_READ])
LOADED = {"writable": [str(LOADED_WRITE)], "readonly": [str(LOADED_READ)]}

ACCOUNTS = [
    AccountMeta(OTHER.pubkey(), is_signer=True, is_writable=False),
    AccountMeta(WRITE, is_signer=False, is_writable=True),
    AccountMeta(READ, is_signer=False, is_writable=False),
]
LOADED_ACCOUNTS = [
    AccountMeta(LOADED_WRITE, is_signer=False, is_writable=True),
    AccountMeta(LOADED_READ, is_signer=False, is_writable=False),
]


def signed(*, v0: bool) -> VersionedTransaction:
    instruction = Instruction(PROGRAM, b"\0\x01data", ACCOUNTS + (LOADED_ACCOUNTS if v0 else []))
    message: Message | MessageV0
    if v0:
        message = MessageV0.try_compile(PAYER.pubkey(), [instruction], [TABLE], Hash.default())
    else:
        message = Message.new_with_blockhash([instruction], PAYER.pubkey(), Hash.default())
    return VersionedTransaction(message, [PAYER, OTHER])


def body(transaction: VersionedTransaction, encoding: str, **meta: Any) -> dict[str, Any]:
    """Return what a node answers for `transaction`."""
    v0 = isinstance(transaction.message, MessageV0)
    if encoding == "json":
        encoded: Any = {"signatures": [str(s) for s in transaction.signatures], "message": _json_message(transaction)}
    else:
        encoded = [base64.b64encode(bytes(transaction)).decode(), encoding]
    return {
        "slot": 77,
        "blockTime": 1_700_000_000,
        "version": 0 if v0 else "legacy",
        "transaction": encoded,
        "meta": {
            "err": None,
            "fee": 10_000,
            "computeUnitsConsumed": 450,
            "logMessages": ["a", "b"],
            "innerInstructions": [],
            "loadedAddresses": copy.deepcopy(LOADED) if v0 else {"writable": [], "readonly": []},
            "preBalances": [1],
            "unheardOf": {"x": 1},
            **meta,
        },
    }


def base58(raw: bytes) -> str:
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def _json_message(transaction: VersionedTransaction) -> dict[str, Any]:
    message = transaction.message
    header = message.header
    instructions = [
        {"programIdIndex": i.program_id_index, "accounts": list(i.accounts), "data": base58(bytes(i.data))}
        for i in message.instructions
    ]
    described: dict[str, Any] = {
        "accountKeys": [str(key) for key in message.account_keys],
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": instructions,
    }
    if isinstance(message, MessageV0):
        described["addressTableLookups"] = [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(lookup.writable_indexes),
                "readonlyIndexes": list(lookup.readonly_indexes),
            }
            for lookup in message.address_table_lookups
        ]
    return described


def facts(tx: Transaction) -> dict[str, Any]:
    return {
        "signature": tx.signature,
        "keys": tx.account_keys,
        "writable": tx.writable,
        "signers": tx.signers,
        "instructions": [(i.program_id, tx.accounts_of(i), i.data) for i in tx.instructions],
    }


@pytest.mark.parametrize("v0", [False, True])
def test_all_encodings_say_the_same(v0: bool) -> None:
    """JSON as bytes, JSON as a dict, base64: the same keys, flags and instruction."""
    transaction = signed(v0=v0)
    as_json, as_base64 = body(transaction, "json"), body(transaction, "base64")
    from_bytes = facts(parse_transaction(json.dumps(as_json).encode()))
    assert facts(parse_transaction(as_json)) == from_bytes
    assert facts(parse_transaction(as_base64)) == from_bytes
    assert from_bytes["signature"] == bytes(transaction.signatures[0])
    ((program_id, accounts, data),) = from_bytes["instructions"]
    expected = [OTHER.pubkey(), WRITE, READ] + ([LOADED_WRITE, LOADED_READ] if v0 else [])
    assert (program_id, accounts, data) == (bytes(PROGRAM), tuple(map(bytes, expected)), b"\0\x01data")


@pytest.mark.parametrize("encoding", ["json", "base64"])
def test_keys_are_static_then_loaded_writable_then_loaded_readonly(encoding: str) -> None:
    """And each has its flag: of the header for static ones, of the table for loaded ones."""
    tx = parse_transaction(body(signed(v0=True), encoding))
    flags = dict(zip(tx.account_keys, tx.writable, strict=True))
    assert tx.account_keys[-2:] == (bytes(LOADED_WRITE), bytes(LOADED_READ))
    assert flags == {
        bytes(PAYER.pubkey()): True,
        bytes(OTHER.pubkey()): False,
        bytes(PROGRAM): False,
        bytes(WRITE): True,
        bytes(READ): False,
        bytes(LOADED_WRITE): True,
        bytes(LOADED_READ): False,
    }
    assert (tx.signers, tx.keys_complete, tx.version) == (2, True, "0")


def test_a_version_1_transaction_in_binary_says_the_same_as_in_json() -> None:
    """Its message is made of the same parts in another order; SIMD-0385 says which."""
    transaction = signed(v0=False)
    as_json = parse_transaction(body(transaction, "json") | {"version": 1})
    message = transaction.message
    keys, (call,) = list(map(bytes, message.account_keys)), message.instructions
    header = message.header
    counts = header.num_readonly_signed_accounts, header.num_readonly_unsigned_accounts
    raw = bytes([0x81, header.num_required_signatures, *counts, 0, 0, 0, 0]) + bytes(message.recent_blockhash)
    raw += bytes([1, len(keys)]) + b"".join(keys)
    raw += bytes([call.program_id_index, len(call.accounts), len(call.data), 0]) + bytes(call.accounts) + call.data
    raw += b"".join(map(bytes, transaction.signatures))
    encoded = [base64.b64encode(raw).decode(), "base64"]
    as_bytes = parse_transaction(body(transaction, "json") | {"version": 1, "transaction": encoded})
    assert (as_bytes.version, as_bytes.keys_complete) == ("1", True)
    for part in ("signature", "account_keys", "writable", "signers", "logs", "fee"):
        assert getattr(as_bytes, part) == getattr(as_json, part)
    (one,), (other,) = as_bytes.instructions, as_json.instructions
    assert (one.program_id, one.data) == (other.program_id, other.data)
    assert as_bytes.accounts_of(one) == as_json.accounts_of(other)


def test_a_version_1_transaction_in_json_needs_no_tables() -> None:
    """Its keys are all static, its message has a field more, and `loadedAddresses` may be absent."""
    document = body(signed(v0=False), "json")
    document["version"] = 1
    document["transaction"]["message"]["config"] = {"computeUnitLimit": 1}
    del document["meta"]["loadedAddresses"]
    tx = parse_transaction(document)
    assert (tx.version, tx.keys_complete, len(tx.account_keys)) == ("1", True, 5)


def test_what_the_node_may_not_know_is_none() -> None:
    """blockTime, logs, compute units, inner instructions, stack heights: absent or null are the same."""
    document = body(signed(v0=False), "json", logMessages=None, computeUnitsConsumed=None, innerInstructions=None)
    document["blockTime"] = None
    tx = parse_transaction(document)
    assert (tx.block_time, tx.logs, tx.compute_units, tx.inner) == (None, None, None, None)
    for name in ("blockTime", "version"):
        del document[name]
    document["meta"] = None
    tx = parse_transaction(document)
    assert (tx.block_time, tx.logs, tx.err, tx.fee, tx.inner, tx.version) == (None, None, None, 0, None, "legacy")


def test_an_error_is_kept_as_json() -> None:
    """Whatever shape the TransactionError has."""
    err = {"InstructionError": [0, {"Custom": 6001}]}
    tx = parse_transaction(json.dumps(body(signed(v0=False), "json", err=err)))
    assert json.loads(tx.err or "") == err
    assert parse_transaction(body(signed(v0=False), "json", err="AccountInUse")).err == '"AccountInUse"'


def test_inner_instructions_are_kept_in_order_under_their_outer_one() -> None:
    """Flat, with or without stackHeight, with keys from the tables too."""
    inner = [
        {"index": 3, "instructions": [
            {"programIdIndex": 6, "accounts": [0, 5], "data": "2g", "stackHeight": 2},
            {"programIdIndex": 2, "accounts": [], "data": ""},
        ]}
    ]  # fmt: skip
    tx = parse_transaction(body(signed(v0=True), "json", innerInstructions=inner))
    ((outer, (first, second)),) = tx.inner or ()
    assert (outer, first.program_id, first.data, first.stack_height) == (3, bytes(LOADED_READ), b"a", 2)
    assert tx.accounts_of(first) == (tx.account_keys[0], bytes(LOADED_WRITE))
    assert (second.data, second.stack_height) == (b"", None)


def test_without_the_loaded_keys_nothing_is_put_in_their_place() -> None:
    """Static keys stay right, and what was loaded is unknown instead of shifted."""
    inner = [{"index": 0, "instructions": [{"programIdIndex": 6, "accounts": [0], "data": ""}]}]
    for loaded in (None, {"writable": [], "readonly": [str(LOADED_READ)]}):
        tx = parse_transaction(body(signed(v0=True), "json", loadedAddresses=loaded, innerInstructions=inner))
        assert (tx.keys_complete, len(tx.account_keys), len(tx.writable)) == (False, 5, 5)
        ((_, (instruction,)),) = tx.inner or ()
        assert instruction.program_id is None
        with pytest.raises(DataError, match="refers to account 6 of 5"):
            tx.accounts_of(tx.instructions[0])


def spoilt(*path: Any, to: Any) -> Any:
    document = body(signed(v0=False), "json")
    target = document
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = to
    return document


MESSAGE = ("transaction", "message")
BROKEN: dict[str, Any] = {
    "null": None,
    "an address": spoilt(*MESSAGE, "accountKeys", 0, to="0OIl"),
    "jsonParsed keys": spoilt(*MESSAGE, "accountKeys", 0, to={"pubkey": str(PROGRAM)}),
    "an impossible header": spoilt(*MESSAGE, "header", "numRequiredSignatures", to=9),
    "no signature": spoilt("transaction", "signatures", to=[]),
    "the all-ones signature": spoilt("transaction", "signatures", to=["1" * 64]),
    "a program that is not there": spoilt(*MESSAGE, "instructions", 0, "programIdIndex", to=5),
    "a negative position": spoilt(*MESSAGE, "instructions", 0, "accounts", to=[-1]),
    "base64 of nothing": spoilt("transaction", to=["", "base64"]),
    "bad base64": spoilt("transaction", to=["!", "base64"]),
    "an unknown encoding": spoilt("transaction", to=["", "base85"]),
    "v1 in binary that is none": spoilt("transaction", to=[base64.b64encode(b"\x81" + bytes(200)).decode(), "base64"]),
    "no slot": spoilt("slot", to="7"),
    "logs that are no texts": spoilt("meta", "logMessages", to=[1]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_transaction_is_refused_with_one_sentence(name: str) -> None:
    """As JSON and as a dict."""
    with pytest.raises(DataError) as error:
        parse_transaction(json.dumps(BROKEN[name]).encode())
    assert "\n" not in str(error.value)
    if BROKEN[name] is not None:
        with pytest.raises(DataError):
            parse_transaction(BROKEN[name])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_body_raises_anything_but_our_own_errors(data: st.DataObject) -> None:
    """Any part of a body replaced by anything, and any bytes at all."""
    document = body(signed(v0=data.draw(st.booleans())), data.draw(st.sampled_from(["json", "base64"])))
    target: Any = document
    while isinstance(target, dict | list) and target:
        keys = sorted(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or data.draw(st.booleans()):
            target[key] = data.draw(st.none() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}))
            break
        target = target[key]
    for form in (document, json.dumps(document).encode(), data.draw(st.binary(max_size=30))):
        try:
            tx = parse_transaction(form)
            for instruction in tx.instructions:
                tx.accounts_of(instruction)
        except CapstanError:
            pass
