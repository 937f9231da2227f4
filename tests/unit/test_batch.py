"""A batch of bodies gives the events, problems and gaps that each body gives by itself."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from indexer.chain.batch import IDENTITY_SCHEMA, Extracted, extract_batch
from indexer.chain.bodies import TransactionColumns, read_bodies
from indexer.chain.body_lines import BodyLines, body_batches
from indexer.chain.columns import to_values
from indexer.chain.events import event_authority, extract_events
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.chain.transaction import parse_transaction
from indexer.errors import DataError

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"
OURS = Program.from_idl(load_idl((IDLS / "market_legacy.json").read_bytes(), source="market"))
OTHER = Program.from_idl(load_idl((IDLS / "registry.json").read_bytes(), source="registry"))
PROGRAMS = {OURS.program_id: OURS, OTHER.program_id: OTHER}
FOREIGN = bytes([250]) * 32
TAG = bytes.fromhex("e445a52e51cb9a1d")
OPENED = OURS.encode_event("Opened", {"open": True, "at": 5})
REGISTERED = OTHER.encode_event(
    "Registered",
    {"price": 1, "at": [2], "pair": {"first": True, "rest": [False] * 3}, "limit": 3, "both": [4, "x"], "none": {}},
)
KEYS = [bytes([1]) * 32, OURS.program_id, OTHER.program_id, FOREIGN, event_authority(OURS.program_id)]
LOADED = event_authority(OTHER.program_id)
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(raw: bytes) -> str:
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def data(*payloads: bytes) -> str:
    return "Program data: " + " ".join(base64.b64encode(payload).decode() for payload in payloads)


def invoke(program_id: bytes, *lines: str, depth: int = 1) -> list[str]:
    key = Pubkey(program_id)
    return [f"Program {key} invoke [{depth}]", *lines, f"Program {key} success"]


def call(payload: bytes = TAG + OPENED, program: int = 1, accounts: Sequence[int] = (4,)) -> dict[str, Any]:
    return {"programIdIndex": program, "accounts": list(accounts), "data": base58(payload), "stackHeight": 2}


def body(
    number: int = 1, logs: Sequence[str] | None = ("Program log: x",), inner: Sequence[Any] | None = (), **more: Any
) -> dict[str, Any]:
    """Return a body of a v0 transaction with one loaded key."""
    return {
        "slot": 70 + number,
        "blockTime": 1_700_000_000 + number,
        "version": 0,
        "transaction": {
            "signatures": [base58(bytes([number]) * 64)],
            "message": {
                "accountKeys": [str(Pubkey(key)) for key in KEYS],
                "header": {
                    "numRequiredSignatures": 1,
                    "numReadonlySignedAccounts": 0,
                    "numReadonlyUnsignedAccounts": 4,
                },
                "instructions": [{"programIdIndex": 1, "accounts": [0], "data": base58(b"x"), "stackHeight": None}],
                "addressTableLookups": [{"accountKey": "1" * 32, "writableIndexes": [], "readonlyIndexes": [3]}],
            },
        },
        "meta": {
            "err": None,
            "fee": 5000,
            "computeUnitsConsumed": 77,
            "logMessages": None if logs is None else list(logs),
            "innerInstructions": None if inner is None else list(inner),
            "loadedAddresses": {"writable": [], "readonly": [str(Pubkey(LOADED))]},
            **more,
        },
    }


def binary() -> dict[str, Any]:
    """Return a body in base64."""
    payer = Keypair.from_seed(bytes(32))
    message = Message.new_with_blockhash(
        [Instruction(Pubkey(OURS.program_id), b"", [])], payer.pubkey(), Hash.default()
    )
    transaction = VersionedTransaction(message, [payer])
    meta = {"err": None, "fee": 1, "logMessages": invoke(OURS.program_id, data(OPENED)), "innerInstructions": []}
    encoded = [base64.b64encode(bytes(transaction)).decode(), "base64"]
    return {"slot": 5, "transaction": encoded, "meta": meta, "version": "legacy"}


def said(transactions: TransactionColumns, found: Extracted) -> list[Any]:
    """Return errors, events in their order, problems and flags."""
    events: list[Any] = []
    for (program_id, name), group in found.events.items():
        assert group.identity.schema == IDENTITY_SCHEMA
        values = to_values(PROGRAMS[program_id].events[name].type, group.values)
        for row, identity, value in zip(group.rows.tolist(), group.identity.to_pylist(), values, strict=True):
            assert identity["signature"] == transactions.table["signature"][row].as_py()
            key = (row, identity["kind"] == "cpi", identity["ordinal"])
            events.append((key, (program_id, name, *identity.values(), repr(value))))
        keys = [event[0] for event in events[-len(values) :]]
        assert keys == sorted(keys)
    errors = [tuple(error) for error in transactions.errors]
    ordered = [event for _, event in sorted(events, key=lambda event: event[0])]
    return [errors, ordered, sorted(found.problems), found.complete.tolist()]


def expected(bodies: Sequence[bytes]) -> list[Any]:
    """Return what reading one by one finds."""
    errors: list[Any] = []
    events: list[Any] = []
    problems: list[Any] = []
    complete = []
    for line, text in enumerate(bodies):
        try:
            tx = parse_transaction(text)
        except DataError as error:
            errors.append((line, str(error)))
            continue
        found = extract_events(tx, PROGRAMS)
        in_order = sorted(found.events, key=lambda event: (event.kind == "cpi", event.ordinal))
        events += [
            (e.program_id, e.name, e.signature, e.kind, e.ordinal, e.slot, e.block_time, repr(e.values))
            for e in in_order
        ]
        problems += found.problems
        complete.append(found.complete)
    return [errors, events, sorted(problems), complete]


def batch(bodies: bytes | Sequence[bytes]) -> list[Any]:
    transactions = read_bodies(bodies, list(PROGRAMS))
    return said(transactions, extract_batch(transactions, PROGRAMS))


payloads = st.one_of(
    st.just(OPENED),
    st.just(REGISTERED),
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda tail: OPENED + tail),
    st.binary(max_size=40).map(lambda tail: OURS.events["Filled"].discriminator + tail),
    st.just(OPENED[:8] + b"\2" + OPENED[9:]),
)
program_ids = st.sampled_from([OURS.program_id, OURS.program_id, OTHER.program_id, FOREIGN])
printed = st.one_of(
    payloads.map(data),
    payloads.map(data),
    st.lists(payloads, max_size=3).map(lambda some: data(*some)),
    st.sampled_from(["Program log: x", "Program data: !", "Program data: YQ=", "Log truncated", "", "Program data: "]),
    st.builds(lambda by, line: "\n".join(invoke(by, data(line), depth=2)), program_ids, payloads),
)
calls_printed = st.builds(lambda by, lines: invoke(by, *lines), program_ids, st.lists(printed, max_size=5))
logs = st.one_of(
    calls_printed,
    st.builds(lambda a, b: a[:-1] + b + a[-1:], calls_printed, calls_printed),
    st.builds(
        lambda by, outer, inner, lines: invoke(by, outer, *invoke(inner, *lines, depth=2), outer),
        program_ids, printed, program_ids, st.lists(printed, max_size=3),
    ),
    st.lists(printed, max_size=3),
    st.none(),
)  # fmt: skip
inner_calls = st.builds(
    lambda payload, tagged, program, accounts: call(TAG + payload if tagged else payload, program, accounts),
    payloads,
    st.integers(0, 4).map(bool),
    st.sampled_from([1, 1, 2, 2, 3, 5, 9]),
    st.sampled_from([[4], [4], [5], [5], [], [4, 4], [0], [99]]),
)
inner = st.one_of(
    st.none(),
    st.lists(
        st.builds(
            lambda at, some: {"index": at, "instructions": some}, st.integers(0, 3), st.lists(inner_calls, max_size=4)
        ),
        max_size=2,
    ),
    st.just([]),
)
changes = st.sampled_from(
    [
        None, None, None, None, None, None,
        ("meta",), ("meta", "err"), ("meta", "fee"), ("meta", "logMessages"), ("meta", "innerInstructions"),
        ("meta", "loadedAddresses"), ("meta", "loadedAddresses", "readonly"),
        ("meta", "loadedAddresses", "readonly", 0),
        ("meta", "innerInstructions", 0, "instructions", 0, "data"), ("meta", "innerInstructions", 0, "index"),
        ("meta", "innerInstructions", 0, "instructions", 0, "accounts"), ("meta", "logMessages", 1),
        ("transaction", "signatures"), ("transaction", "signatures", 0), ("transaction", "message", "accountKeys", 0),
        ("transaction", "message", "accountKeys", 1), ("transaction", "message", "accountKeys"),
        ("transaction", "message", "header", "numRequiredSignatures"),
        ("transaction", "message", "addressTableLookups"),
        ("transaction", "message", "header", "numReadonlyUnsignedAccounts"), ("slot",), ("blockTime",), ("version",),
        ("transaction", "message", "instructions", 0, "programIdIndex"), ("transaction",),
        ("transaction", "message", "instructions", 0, "accounts", 0), ("transaction", "message", "instructions"),
    ]
)  # fmt: skip
replacements = st.sampled_from(
    [None, 1, -1, 0, 5, 99, "x", "", "1" * 64, "1" * 32, "0OIl", "é", [], ["x"], [None], {}, True, 1.5, "11" * 40,
     str(Pubkey(OTHER.program_id)), {"InstructionError": [0, "x"]}, "2" * 87, ALPHABET[-1] * 88, "9" * 44, "REMOVE"]
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 12))
    if kind == 0:
        return draw(st.sampled_from([b"", b"null", b"{}", b"[]", b"\xff", b'{"slot":', b" "]))
    made = body(draw(st.integers(0, 9)), draw(logs), draw(inner)) if kind > 1 else binary()
    if draw(st.integers(0, 9)) == 0:
        made["meta"]["err"] = {"InstructionError": [0, {"Custom": 1}]}
    path, value = draw(changes), draw(replacements)
    if path is not None and not _is_let_pass(path, value):
        _replace(made, path, value)
    text = json.dumps(made).encode()
    return text if draw(st.integers(0, 19)) else text[: draw(st.integers(0, len(text)))]


def _is_let_pass(path: Sequence[Any], value: Any) -> bool:
    """Whether that is wrong where reading many at once is not particular. See `parse_columns`."""
    last = [step for step in path if isinstance(step, str)][-1]
    if path == ("version",) or "header" in path or path[:3] == ("transaction", "message", "instructions"):
        return True
    if last in {"data", "logMessages"} and path[-1] != "logMessages":
        return value is not None and not isinstance(value, str)
    if last in {"blockTime", "computeUnitsConsumed"} and not isinstance(value, int):
        return value is not None
    if isinstance(value, bool | float):
        return last in {"slot", "fee", "index", "accounts", "blockTime", "computeUnitsConsumed"}
    return False


def _replace(made: Any, path: Sequence[Any], value: Any) -> None:
    try:
        for step in path[:-1]:
            made = made[step]
        if value == "REMOVE":
            del made[path[-1]]
        else:
            made[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        return


@settings(max_examples=400, deadline=None)
@given(st.lists(bodies(), max_size=6))
def test_a_batch_says_what_each_body_says(some: list[bytes]) -> None:
    """Whole, mutated, failed, forged and broken ones, in one list."""
    assert batch(some) == expected(some)


@settings(max_examples=50, deadline=None)
@given(st.lists(bodies().filter(lambda text: b"\n" not in text), max_size=5))
def test_lines_are_bodies(some: list[bytes]) -> None:
    """Bytes with one body a line are the same as a list; with or without the last line end."""
    text = b"".join(one + b"\n" for one in some)
    assert batch(text) == expected(some)
    if some and some[-1]:
        assert batch(memoryview(text[:-1])) == expected(some)


def test_both_styles_and_two_programs_in_order() -> None:
    """Log events come before self-calls of the same transaction, transactions in the order of their lines."""
    logs = invoke(OURS.program_id, data(OPENED), *invoke(OTHER.program_id, data(REGISTERED), depth=2), data(OPENED))
    group = [{"index": 0, "instructions": [call(), call(TAG + REGISTERED, 2, [5])]}]
    some = [json.dumps(body(number, logs, group)).encode() for number in (1, 2)]
    transactions = read_bodies(some, list(PROGRAMS))
    found = extract_batch(transactions, PROGRAMS)
    opened = found.events[OURS.program_id, "Opened"]
    assert [(i["kind"], i["ordinal"], i["slot"]) for i in opened.identity.to_pylist()] == [
        ("log", 0, 71), ("log", 2, 71), ("cpi", 0, 71), ("log", 0, 72), ("log", 2, 72), ("cpi", 0, 72),
    ]  # fmt: skip
    assert found.events[OTHER.program_id, "Registered"].identity["ordinal"].to_pylist() == [1, 1, 1, 1]
    assert (found.event_count, found.problems, transactions.left, found.complete.all()) == (10, [], {}, np.True_)
    assert said(transactions, found) == expected(some)


def test_nesting_that_nobody_writes_spoils_its_line_alone() -> None:
    """In the lookups, in the error, and as a line of its own: no parser's stack ends the batch."""
    deep = b"[" * 100_000 + b"]" * 100_000
    whole = json.dumps(body(1)).encode()
    lookups = whole.replace(b'"addressTableLookups": [', b'"addressTableLookups": [{"x": ' + deep + b"}, ", 1)
    transactions = read_bodies([lookups, deep, whole.replace(b'"err": null', b'"err": ' + deep, 1), whole])
    assert [error.line for error in transactions.errors] == [0, 1]
    assert transactions.table["line"].to_pylist() == [2, 3]


def test_calls_without_accounts_are_no_events() -> None:
    """None of a whole batch names an account."""
    some = [json.dumps(body(1, inner=[{"index": 0, "instructions": [call(accounts=[])]}])).encode()]
    assert batch(some) == expected(some)


def test_groups_out_of_order_are_put_in_order() -> None:
    """Of a body that somebody put together; self-calls come by their position."""
    groups = [{"index": 2, "instructions": [call()]}, {"index": 0, "instructions": [call(), call()]}]
    some = [json.dumps(body(number, inner=groups)).encode() for number in (1, 2)]
    transactions = read_bodies(some, list(PROGRAMS))
    opened = extract_batch(transactions, PROGRAMS).events[OURS.program_id, "Opened"]
    assert opened.identity["ordinal"].to_pylist() == [0, 1, 131_072] * 2
    assert opened.rows.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_table_says_what_the_transaction_says() -> None:
    """Of ordinary ones and of those that are read one by one."""
    failed = body(3)
    failed["meta"]["err"] = {"InstructionError": [0, {"Custom": 1}]}
    some = [json.dumps(one).encode() for one in (body(1), binary(), body(2, None), failed)]
    transactions = read_bodies([some[0], b"broken", *some[1:]], list(PROGRAMS))
    assert [error.line for error in transactions.errors] == [1]
    for row, (line, text) in enumerate(zip([0, 2, 3, 4], some, strict=True)):
        tx = parse_transaction(text)
        logs = None if tx.logs is None else list(tx.logs)
        assert transactions.table.slice(row, 1).to_pylist() == [
            {"signature": tx.signature, "slot": tx.slot, "block_time": tx.block_time, "err": tx.err, "fee": tx.fee,
             "compute_units": tx.compute_units, "logs": logs, "line": line}
        ]  # fmt: skip
        assert transactions.transaction(row).account_keys == tx.account_keys


def test_whole_replies_are_read_like_results() -> None:
    """As a node sends them; a reply without a result is a wrong line."""
    result = body(1, invoke(OURS.program_id, data(OPENED)))
    reply = json.dumps({"jsonrpc": "2.0", "result": result, "id": 1}, separators=(",", ":")).encode()
    cut = json.dumps({"jsonrpc": "2.0", "result": {**result, "meta": None}}, separators=(",", ":")).encode()
    same = [json.dumps(result).encode(), json.dumps({**result, "meta": None}).encode()]
    assert batch([reply, cut]) == expected(same)
    (error,) = read_bodies(b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"x"},"id":1}\n').errors
    assert error.reason.startswith("not a transaction")


def test_what_reading_many_lets_pass_is_told_where_it_matters() -> None:
    """An account that is no number is not looked at, until a cut log makes the transaction be read by itself."""
    whole, cut = body(1, invoke(OURS.program_id, data(OPENED))), body(2, [*invoke(OURS.program_id), "Log truncated"])
    for made in (whole, cut):
        made["transaction"]["message"]["instructions"][0]["accounts"] = ["x"]
    transactions = read_bodies([json.dumps(made).encode() for made in (whole, cut)], list(PROGRAMS))
    found = extract_batch(transactions, PROGRAMS)
    assert (found.event_count, found.complete.tolist()) == (1, [True, False])
    kinds = {(p.program_id, p.kind, p.slot) for p in found.problems}
    assert kinds == {(OURS.program_id, "bad_body", 72), (OTHER.program_id, "bad_body", 72)}


def test_mentions_and_texts_are_of_the_rows() -> None:
    """A program counts whether its key is static or loaded; a text is the transaction alone, without a reply's rest."""
    ours, other, neither = body(1), body(2), body(3)
    keys = ours["transaction"]["message"]["accountKeys"]
    for made in (ours, other, neither):
        made["transaction"]["message"]["accountKeys"] = [keys[0], keys[3], keys[4]]
        made["transaction"]["message"]["header"]["numReadonlyUnsignedAccounts"] = 2
    ours["transaction"]["message"]["accountKeys"][1] = keys[1]
    other["meta"]["loadedAddresses"]["readonly"] = [keys[2]]
    alone = [json.dumps(made).encode() for made in (ours, other, neither)]
    singly = json.dumps({**binary(), "slot": 9}).encode()
    for lines in (b"\n".join([alone[0], b"broken", *alone[1:], singly]), [alone[0], b"", *alone[1:], singly]):
        transactions = read_bodies(lines, list(PROGRAMS), first_line=7)
        assert transactions.mentions.tolist() == [[True, False, False, True], [False, True, False, False]]
        assert transactions.texts().to_pylist() == [*alone, singly]
    reply = b'{"jsonrpc":"2.0","id":1,"result":' + alone[0] + b"}\n"
    assert read_bodies(reply + alone[1], list(PROGRAMS)).texts().to_pylist() == alone[:2]


def test_a_number_that_no_column_holds_is_an_error_of_its_line() -> None:
    """No chain has such a slot; it must not spoil the other lines."""
    some = [json.dumps({**body(1), "slot": 1 << 70}).encode(), json.dumps(body(2)).encode()]
    transactions = read_bodies(some, list(PROGRAMS))
    assert [error.line for error in transactions.errors] == [0]
    assert transactions.table["slot"].to_pylist() == [72]


@pytest.mark.parametrize("size", [1, 50, 5000, 10**6])
def test_batches_end_with_lines_and_leave_nothing_out(size: int) -> None:
    """Whatever their size; lines are numbered on."""
    some = [json.dumps(body(number)).encode() for number in range(1, 8)]
    text = b"\n".join(some)
    pieces = list(body_batches(text, size))
    assert b"".join(pieces) == text
    assert [bytes(line) for piece in pieces for line in BodyLines(piece)] == some
    numbered = read_bodies(b"x\n" + text, first_line=10)
    assert numbered.errors[0].line == 10
    assert numbered.table["line"].to_pylist() == list(range(11, 18))
    assert str(Signature.from_bytes(numbered.transaction(3).signature)) == base58(bytes([4]) * 64)
