"""IDL, client and program say the same: names, order, flags, discriminators, sizes, codes."""

import inspect
import json
from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.clients import ephemeral_vault as client
from localnet.programs import PROGRAM_IDS
from localnet.programs.header import header_of, size_max
from tests.fixtures.vault_world import VaultWorld

TEXT = (files("indexer.idls") / "ephemeral_vault.json").read_text()
IDL: dict[str, Any] = json.loads(TEXT)
TYPES = {entry["name"]: entry["type"] for entry in IDL["types"]}
INSTRUCTIONS = {entry["name"]: entry for entry in IDL["instructions"]}

PARENT, EPHEMERAL, CLEANER = (Keypair.from_seed(bytes([n] * 32)).pubkey() for n in (11, 12, 13))
VAULT = client.find_vault(PARENT, EPHEMERAL)
ADDRESSES = {
    "parent": PARENT, "parent_wallet": PARENT, "ephemeral": EPHEMERAL, "ephemeral_wallet": EPHEMERAL,
    "cleaner": CLEANER, "vault": VAULT, "delegation": client.find_delegation(VAULT),
    "system_program": Pubkey.default(),
}  # fmt: skip
BUILT: dict[str, Instruction] = {
    "create_vault": client.create_vault(PARENT, EPHEMERAL, session_duration_s=1, max_deposit=2),
    "approve_delegate": client.approve_delegate(PARENT, EPHEMERAL),
    "auto_deposit_for_trade": client.auto_deposit_for_trade(PARENT, EPHEMERAL, trade_fee_estimate=1),
    "execute_trade": client.execute_trade(PARENT, EPHEMERAL, fee_paid=1),
    "revoke_access": client.revoke_access(PARENT, EPHEMERAL),
    "cleanup_vault": client.cleanup_vault(PARENT, EPHEMERAL, cleaner=CLEANER),
}


def fields(type_name: str) -> tuple[str, ...]:
    return tuple(field["name"] for field in TYPES[type_name]["fields"])


def test_the_idl_carries_the_programs_address() -> None:
    """IDL, client and the table of programs agree on the default id."""
    assert IDL["address"] == str(client.PROGRAM_ID)
    assert PROGRAM_IDS["ephemeral_vault"] == bytes(client.PROGRAM_ID)


@pytest.mark.parametrize(
    ("kind", "namespace"), [("instructions", "global"), ("accounts", "account"), ("events", "event")]
)
def test_discriminators_are_anchors(kind: str, namespace: str) -> None:
    """Each discriminator is the hash Anchor takes of the name, and every account and event has its type."""
    for entry in IDL[kind]:
        assert bytes(entry["discriminator"]) == sha256(f"{namespace}:{entry['name']}".encode()).digest()[:8]
        assert kind == "instructions" or entry["name"] in TYPES


def test_instructions_are_the_clients() -> None:
    """The client builds all instructions of the IDL and no others."""
    assert set(BUILT) == set(INSTRUCTIONS)


@pytest.mark.parametrize("name", BUILT)
def test_accounts_stand_in_the_idls_order_with_its_flags(name: str) -> None:
    """Place by place: address, signer and writable, and arguments of the IDL's size."""
    expected = [
        (ADDRESSES[account["name"]], account.get("signer", False), account.get("writable", False))
        for account in INSTRUCTIONS[name]["accounts"]
    ]
    assert [(meta.pubkey, meta.is_signer, meta.is_writable) for meta in BUILT[name].accounts] == expected
    size = size_max({"kind": "struct", "fields": INSTRUCTIONS[name]["args"]}, TYPES)
    assert size is not None
    assert len(BUILT[name].data) == 8 + size
    assert bytes(BUILT[name].data[:8]) == bytes(INSTRUCTIONS[name]["discriminator"])


@pytest.mark.parametrize("name", BUILT)
def test_the_idls_seeds_lead_to_the_addresses(name: str) -> None:
    """Each PDA in the IDL, derived as the IDL says, is the address the client uses."""
    for account in INSTRUCTIONS[name]["accounts"]:
        if "pda" in account:
            seeds = [
                bytes(seed["value"]) if seed["kind"] == "const" else bytes(ADDRESSES[seed["path"].split(".")[-1]])
                for seed in account["pda"]["seeds"]
            ]
            assert Pubkey.find_program_address(seeds, client.PROGRAM_ID)[0] == ADDRESSES[account["name"]]


def test_errors_count_from_6000_in_order() -> None:
    """Codes and names are the client's, and each has a message."""
    assert {error["code"]: error["name"] for error in IDL["errors"]} == client.ERRORS
    assert list(client.ERRORS) == list(range(6000, 6009))
    assert all(error["msg"] for error in IDL["errors"])


def test_events_and_accounts_have_the_idls_fields() -> None:
    """The client names the fields of each event and account as the IDL does, in its order."""
    assert {entry["name"] for entry in IDL["events"]} == set(client.EVENTS)
    for name, (_, names) in client.EVENTS.items():
        assert names == fields(name)
    assert client.VAULT[1] == fields("EphemeralVault")


def test_accounts_on_chain_have_the_idls_size() -> None:
    """The program allocates what the IDL's types take at their largest."""
    world = VaultWorld()
    world.done(world.create(), world.approve())
    for address, name in ((world.vault, "EphemeralVault"), (world.delegation, "VaultDelegation")):
        account, size = world.svm.get_account(address), size_max(TYPES[name], TYPES)
        assert account is not None
        assert size is not None
        assert len(account.data) == 8 + size
        assert tuple(world.state(address)) == fields(name)


def test_the_client_reads_nothing_that_is_not_exactly_one() -> None:
    """A byte more, a byte less, or another discriminator is None, for events and for accounts."""
    event = client.discriminator("event", "AutoDeposit") + bytes(48)
    assert client.parse_event(event) is not None
    for wrong in (b"", event[:7], event[:-1], event + b"\0", bytes(8) + event[8:]):
        assert client.parse_event(wrong) is None
    for data in (client.VAULT_DISCRIMINATOR + bytes(106), client.DELEGATION_DISCRIMINATOR + bytes(82)):
        assert client.parse_account(data) is not None
        for wrong in (b"", data[:7], data[:-1], data + b"\0", bytes(8) + data[8:]):
            assert client.parse_account(wrong) is None


def test_the_header_says_what_the_idl_says() -> None:
    """The C program takes its constants from a header that holds the IDL's very values."""
    header = header_of(TEXT)
    created = int.from_bytes(client.discriminator("event", "VaultCreated"), "little")
    for line in (
        f"#define EVENT_VAULT_CREATED 0x{created:016x}ULL",
        "#define SIZE_VAULT_DELEGATION 90",
        "enum { EXECUTE_TRADE_VAULT, EXECUTE_TRADE_EPHEMERAL, EXECUTE_TRADE_DELEGATION, EXECUTE_TRADE_PARENT_WALLET };",
        '    {"cleaner", SIGNER | WRITABLE, NULL}, \\',
        '    X(MATH_OVERFLOW, 6000, "MathOverflow", "Arithmetic overflow") \\',
    ):
        assert line in header.splitlines()


def test_the_client_stands_alone() -> None:
    """The client reads neither the IDL nor the indexer's decoder: a mistake there must not repeat itself here."""
    source = inspect.getsource(client)
    assert "import indexer" not in source
    assert "from indexer" not in source
