"""Transactions and logs that somebody hostile wrote: read, or refused by our own errors; events never raise."""

import base64
import json
import random
from typing import Any

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.events import extract_events
from indexer.chain.logs import scan_logs
from indexer.chain.transaction import Transaction, parse_transaction
from indexer.errors import CapstanError, DataError
from tests.fixtures.idl_values import public_program, random_fields
from tests.fixtures.mutations import hostile_line, mutated_bytes, mutated_json

SEED = 1_232
PUMP = public_program("pump")
PROGRAMS = {PUMP.program_id: PUMP}


def valid_body(rng: random.Random, encoding: str) -> dict[str, Any]:
    """Return a transaction in which the program logged events of all kinds, and called itself with one."""
    name = str(Pubkey(PUMP.program_id))
    logs = [f"Program {name} invoke [1]"]
    for event in rng.sample(PUMP.idl.events, 4):
        payload = PUMP.encode_event(event.name, random_fields(event.fields, rng))
        logs.append(f"Program data: {base64.b64encode(payload).decode()}")
    logs.append(f"Program {name} success")
    keys = [str(Pubkey(rng.randbytes(32))), str(Pubkey(rng.randbytes(32))), name]
    call = {"programIdIndex": 2, "accounts": [0, 1], "data": "3Bxs4h24hBtQy9rw"}
    message = {
        "accountKeys": keys,
        "header": {"numRequiredSignatures": 1, "numReadonlySignedAccounts": 0, "numReadonlyUnsignedAccounts": 1},
        "recentBlockhash": keys[0],
        "instructions": [call],
    }
    body: dict[str, Any] = {"slot": 9, "blockTime": 1, "version": 1}
    if encoding == "json":
        body["transaction"] = {"signatures": [str(Signature.from_bytes(rng.randbytes(64)))], "message": message}
    else:
        raw = b"\x81\x01\0\x01\0\0\0\0" + bytes(32) + b"\x01\x03" + rng.randbytes(64) + PUMP.program_id
        raw += b"\x02\x02\x04\0" + b"\0\x01data" + rng.randbytes(64)
        body["transaction"] = [base64.b64encode(mutated_bytes(raw, rng)).decode(), "base64"]
    inner = [{"index": 0, "instructions": [call | {"stackHeight": 2}]}]
    return body | {"meta": {"err": None, "fee": 5000, "logMessages": logs, "innerInstructions": inner}}


def use(tx: Transaction) -> None:
    """Ask everything that can be asked of a transaction."""
    extraction = extract_events(tx, PROGRAMS)
    for problem in extraction.problems:
        assert "\n" not in problem.detail
    for instruction in tx.instructions:
        try:
            tx.accounts_of(instruction)
            assert isinstance(instruction.data, bytes)
        except DataError:
            pass


@pytest.mark.parametrize("encoding", ["json", "base64"])
def test_a_spoilt_transaction_is_read_or_refused(encoding: str) -> None:
    """Any part of the body or any byte of the message, as JSON and as a dict."""
    rng = random.Random(f"{SEED} {encoding}")
    read = 0
    for _ in range(400):
        body = valid_body(rng, encoding)
        if encoding == "json" or rng.random() < 0.3:
            body = mutated_json(body, rng)
        for form in (body, json.dumps(body)):
            try:
                use(parse_transaction(form))
            except CapstanError as error:
                assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right, and one has a condition
            else:
                read += 1
    assert read > 20


def test_hostile_logs_never_raise() -> None:
    """Lines that look like the runtime's, in any order: whatever is attributed is attributed to a program."""
    rng = random.Random(SEED)
    key = str(Pubkey(PUMP.program_id))
    for _ in range(1_500):
        lines = [hostile_line(rng) for _ in range(rng.randrange(12))]
        for at in range(rng.randrange(3)):
            lines.insert(at, f"Program {key} invoke [{rng.randrange(1, 5)}]")
        scan = scan_logs(lines)
        ordinals = [line.ordinal for line in scan.data] + [line.ordinal for line in scan.bad]
        assert len(set(ordinals)) == len(ordinals)
        body = valid_body(rng, "json")
        body["meta"]["logMessages"] = lines
        use(parse_transaction(body))
