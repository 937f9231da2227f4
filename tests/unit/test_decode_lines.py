"""A line in, a line out: what `decode` and `decode-tx` answer, whatever the line holds."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.base58 import decode_base58
from indexer.chain.events import CPI_EVENT_TAG, event_authority
from indexer.chain.program import Program
from indexer.commands.decode import PayloadDecoder
from indexer.commands.decode_tx import TransactionDecoder
from indexer.idls import given_idls, home_programs, named_programs
from tests.fixtures.scripted_node import Entry

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"
HOME = {program.name: program for program in home_programs().values()}
VAULT, ENGINE = HOME["ephemeral_vault"], HOME["liquidation_engine"]
VAULT_ID, ENGINE_ID = str(Pubkey(VAULT.program_id)), str(Pubkey(ENGINE.program_id))
DEPOSIT = VAULT.encode_event("AutoDeposit", {"vault": bytes(32), "amount": 2**64 - 1, "total_deposited": 7})
DEPOSIT_JSON = {"vault": "1" * 32, "amount": str(2**64 - 1), "total_deposited": "7"}
PAYLOADS = PayloadDecoder(given_idls([]))
TRANSACTIONS = TransactionDecoder(home_programs())


def said(line: Any, decoder: PayloadDecoder = PAYLOADS) -> dict[str, Any]:
    """Return the decoder's answer to `line`, a value or raw bytes."""
    raw = decoder.answer(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert b"\n" not in raw
    answer = json.loads(raw.decode())
    assert isinstance(answer, dict)
    return answer


def told(line: Any, decoder: TransactionDecoder = TRANSACTIONS) -> dict[str, Any]:
    """Return the decoder's answer to a transaction, which has its members whatever the line was."""
    raw = decoder.answer(line if isinstance(line, bytes) else json.dumps(line).encode())
    answer: dict[str, Any] = json.loads(raw.decode())
    assert list(answer) == ["signature", "err", "events", "instructions", "truncated", "errors"]
    return answer


def event(data: bytes = DEPOSIT, **more: Any) -> dict[str, Any]:
    return {"kind": "event", "hex": data.hex(), **more}


def test_an_event() -> None:
    """In the edge format: wide integers are text, keys base58."""
    assert said(event()) == {"name": "AutoDeposit", "value": DEPOSIT_JSON}
    assert said({"kind": "event", "hex": DEPOSIT.hex().upper(), "id": 5}) == {
        "name": "AutoDeposit",
        "value": DEPOSIT_JSON,
    }


def test_bytes_left_over() -> None:
    """Are counted for events and instructions, and are normal for accounts."""
    delegation = {
        "vault": bytes(32),
        "delegate": bytes(32),
        "approved_at": 1,
        "revoked_at": None,
        "bump": 255,
    }
    data = VAULT.encode_account(
        "VaultDelegation", {f.name: delegation[f.name] for f in VAULT.accounts["VaultDelegation"].fields}
    )
    answer = said({"kind": "account", "hex": (data + bytes(8)).hex()})
    assert answer["name"] == "VaultDelegation"
    assert list(answer) == ["name", "value"]
    assert said(event(DEPOSIT + b"abc")) == {"name": "AutoDeposit", "value": DEPOSIT_JSON, "trailing": 3}
    call = VAULT.encode_instruction("execute_trade", {"fee_paid": 5})
    assert said({"kind": "instruction", "hex": call.hex()}) == {"name": "execute_trade", "value": {"fee_paid": "5"}}
    assert said({"kind": "instruction", "hex": call.hex() + "00"})["trailing"] == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"", "it is empty"),
        (b" \r", "it is empty"),
        (b"{", "truncated"),
        (b"[1]", "Expected `object`"),
        (b'{"kind": "event"}', "missing required field `hex`"),
        (b'{"kind": "event", "hex": "\xff"}', "the line is not"),
        (b'{"kind": "event", "hex": "\\ud800"}', "the line is not"),
        (b"[" * 100_000, "the line is not"),
        ({"kind": "events", "hex": ""}, "kind is 'events'"),
        ({"kind": "event", "hex": "abc"}, "Odd-length"),
        ({"kind": "event", "hex": "é0"}, "hexadecimal"),
        ({"kind": "event", "hex": "0x00"}, "hexadecimal"),
        ({"kind": "event", "hex": ""}, "(no bytes)"),
        (event(DEPOSIT[:-1]), "AutoDeposit"),
        (event(program="nobody"), "program is 'nobody'"),
        (event(program="1" * 32), "no IDL was given for the program"),
        (event(program=ENGINE_ID), "no event with the discriminator"),
    ],
)
def test_what_cannot_be_decoded_is_an_error_in_its_place(line: Any, sentence: str) -> None:
    """One sentence, and nothing else."""
    answer = said(line)
    assert list(answer) == ["error"]
    assert sentence in answer["error"]


def unaddressed(tmp_path: Path, name: str = "a.json") -> str:
    document = json.loads(VAULT.idl.text)
    del document["address"]
    (tmp_path / name).write_text(json.dumps(document))
    return str(tmp_path / name)


def test_an_idl_without_an_address_decodes(tmp_path: Path) -> None:
    """Alone, also what names some program; a payload needs none."""
    decoder = PayloadDecoder(given_idls([unaddressed(tmp_path)]))
    assert said(event(), decoder)["value"] == DEPOSIT_JSON
    assert said(event(program=ENGINE_ID), decoder)["value"] == DEPOSIT_JSON


def test_of_several_idls_the_one_that_knows_the_discriminator(tmp_path: Path) -> None:
    """Where two know it the line must say, and is never guessed about."""
    twin = unaddressed(tmp_path)
    decoder = PayloadDecoder(given_idls([f"{VAULT_ID}={twin}", f"{ENGINE_ID}={twin}"]))
    assert "2 of the IDLs" in said(event(), decoder)["error"]
    assert said(event(program=ENGINE_ID), decoder)["value"] == DEPOSIT_JSON


def test_tuple_structs_and_enums_have_the_form_of_the_edge() -> None:
    """Also where an event or account is one itself."""
    registry = PayloadDecoder(given_idls([str(IDLS / "registry.json")]))
    program = given_idls([str(IDLS / "registry.json")])[0].program
    seen = 0
    for kind, entries in (("event", program.events), ("account", program.accounts)):
        for name, entry in entries.items():
            for length in range(300):
                answer = said({"kind": kind, "hex": (entry.discriminator + bytes(length)).hex()}, registry)
                if answer.get("name") == name:
                    assert isinstance(answer["value"], dict)
                    seen += 1
                    break
    assert seen == len(program.events) + len(program.accounts)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda b: b'{"kind":"event","hex":"' + b + b'"}'))
def test_no_line_is_too_wrong(line: bytes) -> None:
    """Whatever bytes arrive, the answer is JSON in UTF-8."""
    assert said(line)
    assert told(line)


def body(**meta: Any) -> dict[str, Any]:
    found = Entry(3, 8, amount=9).body(VAULT)
    found["meta"] |= meta
    return found


def test_a_transaction() -> None:
    """As getTransaction's result, and inside a whole reply."""
    answer = told(body())
    assert answer["signature"] == Entry(3, 8).signature
    assert answer["err"] is None
    assert answer["events"] == [
        {
            "program": VAULT_ID,
            "name": "AutoDeposit",
            "source": "log",
            "ordinal": 0,
            "value": {"vault": str(Pubkey(bytes(range(32)))), "amount": "9", "total_deposited": "9"},
        }
    ]
    assert told({"jsonrpc": "2.0", "id": 1, "result": body()}) == answer


def test_a_failed_transaction_has_no_events() -> None:
    """It says why it failed, and what it was asked to do."""
    answer = told(body(err={"InstructionError": [0, {"Custom": 6000}]}))
    assert answer["err"] == {"InstructionError": [0, {"Custom": 6000}]}
    assert answer["events"] == []


def test_what_is_missing_is_said_with_its_place() -> None:
    """Cut logs, unreadable data lines, instructions that the IDL does not know."""
    program = body()["meta"]["logMessages"][0]
    answer = told(body(logMessages=[program, "Program data: AAAA", "Program data: !", "Log truncated"]))
    assert answer["truncated"] is True
    places = {error["kind"]: (error["source"], error["ordinal"], error["program"]) for error in answer["errors"]}
    assert places["bad_base64"] == ("log", 1, VAULT_ID)
    assert places["truncated"] == (None, None, VAULT_ID)
    assert places["short_payload"][0] in ("log", "instruction")
    unknown = next(error for error in answer["errors"] if error["source"] == "instruction")
    assert (unknown["outer"], unknown["inner"]) == (0, None)


def calling(data: bytes, accounts: list[int], inner: list[dict[str, Any]], keys: list[str]) -> dict[str, Any]:
    found = body(innerInstructions=[{"index": 0, "instructions": inner}])
    message = found["transaction"]["message"]
    message["accountKeys"] += keys
    message["instructions"] = [{"programIdIndex": 1, "accounts": accounts, "data": base58(data)}]
    return found


def base58(data: bytes) -> str:
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = digits[digit] + text
    text = "1" * (len(data) - len(data.lstrip(b"\0"))) + text
    assert decode_base58(text) == data
    return text


def test_instructions_with_their_accounts() -> None:
    """Top-level and inner ones, in the order they ran; an event that a program tells itself is none."""
    trade = VAULT.encode_instruction("execute_trade", {"fee_paid": 5})
    opened = CPI_EVENT_TAG + DEPOSIT
    keys = [str(Pubkey(event_authority(VAULT.program_id))), ENGINE_ID]
    inner = [
        {"programIdIndex": 1, "accounts": [2], "data": base58(opened)},
        {"programIdIndex": 1, "accounts": [0, 0, 0, 0, 2], "data": base58(trade)},
        {"programIdIndex": 1, "accounts": [9], "data": base58(trade)},
        {"programIdIndex": 1, "accounts": [0], "data": "0OIl"},
    ]
    answer = told(calling(trade, [0, 2], inner, keys))
    assert [(e["source"], e["ordinal"]) for e in answer["events"]] == [("log", 0), ("cpi", 0)]
    payer, authority = str(Pubkey(bytes([7]) * 32)), keys[0]
    first, second = answer["instructions"]
    assert first == {
        "program": VAULT_ID,
        "name": "execute_trade",
        "outer": 0,
        "inner": None,
        "args": {"fee_paid": "5"},
        "accounts": {"vault": payer, "ephemeral": authority, "delegation": None, "parent_wallet": None},
        "remaining": [],
    }
    assert (second["inner"], second["remaining"]) == (1, [authority])
    assert [e["kind"] for e in answer["errors"]] == ["bad_instruction", "bad_instruction"]
    assert {(e["source"], e["ordinal"], e.get("inner")) for e in answer["errors"]} == {
        ("cpi", 3, None),
        ("instruction", None, 2),
    }


def test_an_absent_optional_account_is_null(tmp_path: Path) -> None:
    """Anchor marks it with the program's own id."""
    document = json.loads(VAULT.idl.text)
    trade = next(i for i in document["instructions"] if i["name"] == "execute_trade")
    trade["accounts"][1]["optional"] = True
    (tmp_path / "idl.json").write_text(json.dumps(document))
    decoder = TransactionDecoder(named_programs([str(tmp_path / "idl.json")]))
    call = VAULT.encode_instruction("execute_trade", {"fee_paid": 5})
    (instruction,) = told(calling(call, [0, 1, 0, 0], [], []), decoder)["instructions"]
    assert instruction["accounts"]["ephemeral"] is None


def test_logs_alone() -> None:
    """As PubSub sends them: events by `emit!`, and of `emit_cpi!` nothing can be known."""
    logs = body()["meta"]["logMessages"]
    answer = told({"logs": logs})
    assert (answer["signature"], len(answer["events"]), answer["errors"]) == (None, 1, [])
    signature = str(Signature(bytes(range(64))))
    assert told({"logs": logs, "signature": signature, "err": None})["signature"] == signature
    failed = told({"logs": logs, "signature": signature, "err": "AccountInUse"})
    assert (failed["err"], failed["events"]) == ("AccountInUse", [])
    assert {e["kind"] for e in told({"logs": None})["errors"]} == {"no_logs"}
    assert told({"logs": [*logs[:1], "Log truncated"]})["truncated"] is True


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"", "bad_line"),
        (b"7", "bad_line"),
        (b'{"transaction": \xff}', "bad_line"),
        (b'{"transaction": ' + b"[" * 100_000, "bad_line"),
        ({}, "bad_line"),
        ({"logs": 5}, "bad_line"),
        ({"logs": [], "signature": "x"}, "bad_line"),
        ({"transaction": {}, "slot": 1}, "bad_line"),
        ({"result": {"transaction": ["", "base64"], "slot": 1}}, "bad_line"),
        ({"result": None}, "not_found"),
        ({"error": {"code": -32009, "message": "skipped"}}, "rpc_error"),
    ],
)
def test_a_line_without_a_transaction(line: Any, kind: str) -> None:
    """Has the members of every answer, and the reason among its errors."""
    answer = told(line)
    assert [error["kind"] for error in answer["errors"]] == [kind]
    assert answer["errors"][0]["reason"]
    assert (answer["signature"], answer["events"], answer["instructions"]) == (None, [], [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_body_with_anything_anywhere(data: st.DataObject) -> None:
    """One member replaced by another value: an answer all the same."""
    found = calling(b"\1" * 9, [0], [{"programIdIndex": 1, "accounts": [0], "data": "1"}], [])
    at: Any = found
    while True:
        keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    told(json.dumps(found).encode())


def test_the_program_of_an_idl_can_be_chosen(tmp_path: Path) -> None:
    """The same IDL at another address: a deployment of one's own."""
    decoder = TransactionDecoder(named_programs([f"{ENGINE_ID}={unaddressed(tmp_path)}"]))
    payload = base64.b64encode(DEPOSIT).decode()
    logs = [f"Program {ENGINE_ID} invoke [1]", f"Program data: {payload}", f"Program {ENGINE_ID} success"]
    assert told({"logs": logs}, decoder)["events"][0]["program"] == ENGINE_ID
    assert told(body(), decoder)["events"] == []


def test_every_home_event_keeps_its_form() -> None:
    """What `decode` and `decode-tx` say of one payload is the same."""
    program: Program = ENGINE
    name, entry = next(iter(program.events.items()))
    length = next(n for n in range(300) if _decodes(program, entry.discriminator + bytes(n)))
    payload = entry.discriminator + bytes(length)
    logs = [f"Program {ENGINE_ID} invoke [1]", f"Program data: {base64.b64encode(payload).decode()}"]
    (found,) = told({"logs": logs})["events"]
    assert {"name": name, "value": found["value"]} == said(event(payload))


def _decodes(program: Program, payload: bytes) -> bool:
    answer = said(event(payload, program=str(Pubkey(program.program_id))))
    return "error" not in answer
