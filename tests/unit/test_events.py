"""The events of a transaction: the right ones, under the right identity, and a word about everything else."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.events import CPI_PROBLEM_BASE, Extraction, event_authority, extract_events
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.chain.transaction import Instruction, Transaction

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"
OURS = Program.from_idl(load_idl((IDLS / "market_legacy.json").read_bytes(), source="market"))
OTHER = Program.from_idl(load_idl((IDLS / "registry.json").read_bytes(), source="registry"))
PROGRAMS = {OURS.program_id: OURS, OTHER.program_id: OTHER}
FOREIGN = bytes([250]) * 32
SIGNATURE = bytes(range(64))
TAG = bytes.fromhex("e445a52e51cb9a1d")

OPENED = {"open": True, "at": 5}
PAYLOAD = OURS.encode_event("Opened", OPENED)
REGISTERED = {
    "price": 1, "at": [2], "pair": {"first": True, "rest": [False] * 3}, "limit": 3, "both": [4, "x"], "none": {},
}  # fmt: skip
KEYS = (bytes([1]) * 32, OURS.program_id, OTHER.program_id, FOREIGN, event_authority(OURS.program_id))
PAYER_AT, OURS_AT, OTHER_AT, FOREIGN_AT, AUTHORITY_AT = range(5)


def transaction(
    logs: Sequence[str] | None = ("Program log: quiet",),
    inner: Sequence[tuple[int, Sequence[Instruction]]] | None = (),
    **more: Any,
) -> Transaction:
    facts: dict[str, Any] = {
        "signature": SIGNATURE, "slot": 77, "block_time": None, "err": None, "fee": 5000, "compute_units": None,
        "logs": None if logs is None else tuple(logs), "account_keys": KEYS, "writable": (True,) * 5, "signers": 1,
        "instructions": (Instruction(OURS.program_id, (), b"", None),),
        "inner": None if inner is None else tuple((outer, tuple(group)) for outer, group in inner),
        "keys_complete": True, "version": "0", **more,
    }  # fmt: skip
    return Transaction(**facts)


def invoke(program_id: bytes, *lines: str, depth: int = 1) -> list[str]:
    key = Pubkey(program_id)
    return [f"Program {key} invoke [{depth}]", *lines, f"Program {key} success"]


def data(*payloads: bytes) -> str:
    return "Program data: " + " ".join(base64.b64encode(p).decode() for p in payloads)


def cpi(
    payload: bytes = TAG + PAYLOAD, accounts: tuple[int, ...] = (AUTHORITY_AT,), by: bytes | None = OURS.program_id
) -> Instruction:
    return Instruction(by, accounts, payload, None)


def identities(found: Extraction) -> list[tuple[str, str, int]]:
    return [(event.name, event.kind, event.ordinal) for event in found.events]


def problems(found: Extraction) -> list[tuple[str, int]]:
    return [(problem.kind, problem.ordinal) for problem in found.problems]


def test_both_styles_and_two_programs_in_one_transaction() -> None:
    """Log events under the number of their line, self-calls under their place among the instructions."""
    foreign = invoke(FOREIGN, data(PAYLOAD), depth=2)
    nested = invoke(OTHER.program_id, data(OTHER.encode_event("Registered", REGISTERED)), depth=2)
    logs = invoke(OURS.program_id, *foreign, data(PAYLOAD), *nested, data(PAYLOAD))
    inner = [(0, [cpi(by=FOREIGN), cpi()]), (2, [cpi()])]
    found = extract_events(transaction(logs, inner, block_time=9), PROGRAMS)
    assert found.complete
    assert found.problems == ()
    assert identities(found) == [
        ("Opened", "log", 1),
        ("Registered", "log", 2),
        ("Opened", "log", 3),
        ("Opened", "cpi", 1),
        ("Opened", "cpi", 2 * 65_536),
    ]
    assert found.events[0][:3] == (OURS.program_id, "Opened", SIGNATURE)
    assert found.events[0][5:] == (77, 9, OPENED)
    assert found.events[1].values == REGISTERED


def test_a_foreign_program_with_our_discriminator_has_no_event_of_ours() -> None:
    """It may print our bytes before, after and from inside a call of ours."""
    inside = invoke(FOREIGN, data(PAYLOAD), depth=2)
    logs = [*invoke(FOREIGN, data(PAYLOAD)), *invoke(OURS.program_id, *inside), *invoke(FOREIGN, data(PAYLOAD))]
    found = extract_events(transaction(logs), PROGRAMS)
    assert found == Extraction((), (), complete=True)


@pytest.mark.parametrize(
    "forged",
    [
        cpi(by=FOREIGN),
        cpi(accounts=()),
        cpi(accounts=(PAYER_AT,)),
        cpi(accounts=(AUTHORITY_AT, AUTHORITY_AT)),
        cpi(accounts=(AUTHORITY_AT, PAYER_AT)),
        cpi(b"\0" + TAG[1:] + PAYLOAD),
        cpi(TAG[:7]),
        cpi(b""),
        cpi(PAYLOAD),
    ],
    ids=["program", "no account", "authority", "twice", "one more", "tag", "part of a tag", "no data", "no tag"],
)
def test_a_forged_cpi_event_is_none(forged: Instruction) -> None:
    """Program, tag and event authority must all be right; anything else is just an instruction."""
    assert extract_events(transaction(inner=[(0, [forged])]), PROGRAMS) == Extraction((), (), complete=True)


def test_a_direct_call_with_the_tag_is_no_event() -> None:
    """Only a self-call is: outer instructions are whatever a user sends."""
    assert extract_events(transaction(instructions=(cpi(),)), PROGRAMS).events == ()


def test_failed_transactions_have_no_events() -> None:
    """Their logs are there, and nothing in them happened."""
    failed = transaction(invoke(OURS.program_id, data(PAYLOAD)), [(0, [cpi()])], err='"AccountInUse"')
    assert extract_events(failed, PROGRAMS) == Extraction((), (), complete=True)


def test_cut_logs_give_what_came_before_and_say_that_more_may_be_missing() -> None:
    """After the cut nothing is ours, whatever it looks like; self-calls do not need the logs."""
    logs = [*invoke(OURS.program_id, data(PAYLOAD))[:-1], "Log truncated", data(PAYLOAD)]
    found = extract_events(transaction(logs, [(0, [cpi()])]), PROGRAMS)
    assert identities(found) == [("Opened", "log", 0), ("Opened", "cpi", 0)]
    assert not found.complete
    assert {(p.program_id, p.kind) for p in found.problems} == {(p, "truncated") for p in PROGRAMS}


def test_missing_logs_are_not_silence() -> None:
    """Null logs, and no lines at all where a program of ours did run: both are incomplete."""
    for logs in (None, ()):
        found = extract_events(transaction(logs), PROGRAMS)
        assert not found.complete
        assert {p.kind for p in found.problems} == {"no_logs"}
    assert extract_events(transaction((), instructions=()), PROGRAMS).complete


def test_missing_inner_instructions_and_unknown_keys_are_said() -> None:
    """A node that did not record them, one that did not say what the tables loaded."""
    found = extract_events(transaction(inner=None), PROGRAMS)
    assert (found.complete, {p.kind for p in found.problems}) == (False, {"no_inner_instructions"})
    hidden = transaction(inner=[(0, [cpi(by=None)])], keys_complete=False)
    found = extract_events(hidden, PROGRAMS)
    assert (found.complete, {p.kind for p in found.problems}) == (False, {"unknown_keys"})


def test_only_programs_that_the_transaction_mentions_are_told() -> None:
    """Another program's cut logs are no problem of ours, but the transaction is not complete all the same."""
    found = extract_events(transaction(["Log truncated"], account_keys=KEYS[:2]), PROGRAMS)
    assert [p.program_id for p in found.problems] == [OURS.program_id]


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on() -> None:
    """Unknown discriminator, short payload, bool of 2, bad base64, no field, trailing bytes: each with its place."""
    bad_bool = PAYLOAD[:8] + b"\2" + PAYLOAD[9:]
    logs = invoke(
        OURS.program_id, data(bytes(20)), data(PAYLOAD[:-1]), data(bad_bool), "Program data: !", "Program data: ",
        data(PAYLOAD + b"more"), data(PAYLOAD, b"more"), data(PAYLOAD),
    )  # fmt: skip
    found = extract_events(transaction(logs), PROGRAMS)
    assert identities(found) == [("Opened", "log", n) for n in (5, 6, 7)]
    assert sorted(problems(found), key=lambda p: p[1]) == [
        ("unknown_discriminator", 0),
        ("short_payload", 1),
        ("invalid_value", 2),
        ("bad_base64", 3),
        ("short_payload", 4),
        ("trailing_bytes", 5),
        ("extra_fields", 6),
    ]
    (problem,) = [p for p in found.problems if p.kind == "invalid_value"]
    assert problem[:3] == (OURS.program_id, SIGNATURE, "invalid_value")
    assert (problem.detail, problem.slot) == ("Opened.open: a bool is 0 or 1, not 2", 77)


def test_problems_of_lines_and_of_calls_never_share_a_place() -> None:
    """The first data line and the first inner instruction, both unreadable, are two problems."""
    logs = invoke(OURS.program_id, data(bytes(20)))
    found = extract_events(transaction(logs, [(0, [cpi(TAG + bytes(20))])]), PROGRAMS)
    assert problems(found) == [("unknown_discriminator", 0), ("unknown_discriminator", CPI_PROBLEM_BASE)]


def test_data_that_nobody_can_have_printed_makes_the_transaction_incomplete() -> None:
    """A data line outside every program means that lines are missing."""
    found = extract_events(transaction([data(PAYLOAD)]), {OURS.program_id: OURS})
    assert (found.events, problems(found), found.complete) == ((), [("unattributed", 0)], False)


def test_an_inner_instruction_with_broken_data_is_a_problem_not_a_crash() -> None:
    """Base58 that is none, an account that is not there."""
    broken = [Instruction(OURS.program_id, (), "0OIl", None), cpi(accounts=(99,))]
    found = extract_events(transaction(inner=[(0, broken)]), PROGRAMS)
    assert problems(found) == [("bad_instruction", CPI_PROBLEM_BASE), ("bad_instruction", CPI_PROBLEM_BASE + 1)]
    assert not found.complete


def test_events_of_the_home_program() -> None:
    """The IDL that comes with Capstan reads what its client writes, from a whole body of getTransaction."""
    path = Path(__file__).parents[2] / "indexer" / "idls" / "ephemeral_vault.json"
    home = Program.from_idl(load_idl(path.read_bytes(), source=path.name))
    values = {"vault": bytes([1]) * 32, "delegate": bytes([2]) * 32, "fee_paid": 2**64 - 1, "total_spent": 0}
    logs = invoke(home.program_id, data(home.encode_event("TradeExecuted", values)))
    found = extract_events(transaction(logs, account_keys=(home.program_id,)), {home.program_id: home})
    assert [(e.name, e.values) for e in found.events] == [("TradeExecuted", values)]


payloads = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda tail: PAYLOAD + tail),
    st.binary(max_size=60).map(lambda tail: OURS.events["Filled"].discriminator + tail),
    st.binary(max_size=60).map(lambda tail: b"\xaa\xbb" + tail),
)
program_ids = st.sampled_from([OURS.program_id, OTHER.program_id, FOREIGN])
log_lines = st.one_of(
    st.text(max_size=20),
    payloads.map(data),
    program_ids.map(lambda key: f"Program {Pubkey(key)} success"),
    st.builds(lambda key, depth: f"Program {Pubkey(key)} invoke [{depth}]", program_ids, st.integers(0, 12)),
    st.just("Log truncated"),
)
instructions = st.builds(
    lambda by, accounts, payload, tagged: Instruction(by, accounts, TAG + payload if tagged else payload, None),
    st.none() | program_ids,
    st.lists(st.integers(0, 9), max_size=2).map(tuple),
    payloads,
    st.booleans(),
)


@settings(max_examples=500, deadline=None)
@given(st.none() | st.lists(log_lines, max_size=15), st.lists(instructions, max_size=6))
def test_nothing_raises_and_no_two_share_an_identity(logs: list[str] | None, inner: list[Instruction]) -> None:
    """Whatever a transaction holds: a list of events and a list of problems, each with a place of its own."""
    tx = transaction(logs, [(0, inner[:3]), (1, inner[3:])])
    found = extract_events(tx, PROGRAMS)
    assert len({(e.kind, e.ordinal) for e in found.events}) == len(found.events)
    assert len({p[:4] for p in found.problems}) == len(found.problems)
    assert found == extract_events(tx, PROGRAMS)
    assert str(Signature.from_bytes(tx.signature))
    json.dumps([p.detail for p in found.problems])
