"""The census reads the VM's logs by itself: whose data line is whose, and which number it has."""

import base64
import struct

from solders.pubkey import Pubkey

from localnet.census import count_events, data_lines, json_values
from localnet.clients import ephemeral_vault as client

VAULT = str(client.PROGRAM_ID)
OTHER = str(Pubkey(bytes([7] * 32)))
SIGNATURE = "1" * 64


def line(payload: bytes) -> str:
    """Return a data line with one field."""
    return "Program data: " + base64.b64encode(payload).decode()


def deposit(amount: int) -> bytes:
    """Return an AutoDeposit event."""
    return client.discriminator("event", "AutoDeposit") + struct.pack("<32sQQ", bytes([1] * 32), amount, amount)


def test_a_data_line_belongs_to_the_innermost_running_program() -> None:
    """After an inner call ends, lines are the caller's again, also where the inner call failed."""
    logs = [
        f"Program {OTHER} invoke [1]",
        line(b"a"),
        f"Program {VAULT} invoke [2]",
        line(b"b"),
        f"Program {VAULT} consumed 10 of 20 compute units",
        f"Program {VAULT} success",
        line(b"c"),
        f"Program {VAULT} invoke [2]",
        f"Program {VAULT} failed: custom program error: 0x1",
        line(b"d"),
        f"Program {OTHER} success",
    ]
    assert [(ordinal, program, payload) for ordinal, program, payload in data_lines(logs)] == [
        (0, OTHER, b"a"),
        (1, VAULT, b"b"),
        (2, OTHER, b"c"),
        (3, OTHER, b"d"),
    ]


def test_only_the_programs_own_lines_are_its_events_and_all_lines_are_numbered() -> None:
    """Another program that prints our bytes makes no event, but takes a number."""
    logs = [
        f"Program {OTHER} invoke [1]",
        line(deposit(5)),
        f"Program {OTHER} success",
        f"Program {VAULT} invoke [1]",
        "Program log: Program data: nothing",
        line(b"unknown!"),
        line(deposit(6)),
        f"Program {VAULT} success",
    ]
    events = count_events(SIGNATURE, 9, logs)
    assert [(event.ordinal, event.name, event.values["amount"]) for event in events] == [(2, "AutoDeposit", 6)]


def test_nothing_counts_after_the_logs_were_cut() -> None:
    """What follows the cut cannot be attributed, so it is nobody's."""
    logs = [f"Program {VAULT} invoke [1]", line(deposit(1)), "Log truncated", line(deposit(2))]
    assert [event.values["amount"] for event in count_events(SIGNATURE, 9, logs)] == [1]


def test_values_cross_json_exactly() -> None:
    """u64::MAX survives as text, addresses are base58, an empty option stays empty."""
    values = json_values({"amount": 2**64 - 1, "vault": bytes(32), "revoked_at": None, "is_active": True})
    assert values == {"amount": "18446744073709551615", "vault": "1" * 32, "revoked_at": None, "is_active": True}
