"""Both IDLs, client and program say the same: names, order, flags, discriminators, sizes, codes, seeds."""

import inspect
import json
import warnings
from collections.abc import Mapping
from hashlib import sha256
from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest
from solders.pubkey import Pubkey

from indexer.chain.idl import AccountType, EventType, Idl, InstructionType, load_idl
from indexer.chain.program import Program
from indexer.chain.value import snake_case
from localnet.clients import collateral_vault as client
from localnet.programs import PROGRAM_IDS
from localnet.programs.header import header_of, size_max
from tests.fixtures.collateral_world import (
    ADMIN,
    ALICE,
    ALICE_TOKENS,
    ALICE_VAULT,
    ALICE_VAULT_TOKENS,
    AUTHORITY,
    BOB_VAULT,
    BOB_VAULT_TOKENS,
    ENGINE,
    KEEPER,
    MINT,
    PAYER,
    STEPS,
    CollateralWorld,
)

TEXTS = {
    "current": (files("indexer.idls") / "collateral_vault.json").read_text(),
    "legacy": (files("indexer.idls") / "legacy" / "collateral_vault.json").read_text(),
}
DOCUMENT: dict[str, Any] = json.loads(TEXTS["current"])
LEGACY: dict[str, Any] = json.loads(TEXTS["legacy"])
TYPES = {entry["name"]: entry["type"] for entry in DOCUMENT["types"]}
INSTRUCTIONS = {entry["name"]: entry for entry in DOCUMENT["instructions"]}
READ = {form: load_idl(text, source=form) for form, text in TEXTS.items()}

KEEPER_VAULT = client.find_vault(KEEPER)
ADDRESSES = {
    "admin": ADMIN, "mint": MINT, "vault_authority": AUTHORITY, "payer": PAYER, "owner": ALICE, "depositor": ALICE,
    "vault": ALICE_VAULT, "token_account": ALICE_VAULT_TOKENS, "from_vault": ALICE_VAULT, "to_vault": BOB_VAULT,
    "from_token_account": ALICE_VAULT_TOKENS, "to_token_account": BOB_VAULT_TOKENS,
    "depositor_token_account": ALICE_TOKENS, "owner_token_account": ALICE_TOKENS,
    "withdraw_request": client.find_withdraw_request(ALICE_VAULT, 0), "caller_program": ENGINE,
    "caller_authority": client.find_caller_authority(ENGINE), "system_program": Pubkey.default(),
    "token_program": client.TOKEN_PROGRAM_ID, "associated_token_program": client.ASSOCIATED_TOKEN_PROGRAM_ID,
}  # fmt: skip
SPECIAL = {
    "initialize_vault": {
        "owner": KEEPER, "vault": KEEPER_VAULT, "token_account": client.find_token_account(KEEPER_VAULT, MINT),
    },
    "request_withdraw": {"withdraw_request": client.find_withdraw_request(ALICE_VAULT, 1)},
}  # fmt: skip
"""Where an instruction of STEPS has other addresses."""


@pytest.fixture
def world() -> CollateralWorld:
    """One vault with balances, a request, and settings."""
    opened = CollateralWorld.opened()
    opened.furnish()
    return opened


def fields(type_name: str) -> tuple[str, ...]:
    return tuple(field["name"] for field in TYPES[type_name]["fields"])


def where(name: str) -> dict[str, Pubkey]:
    """Return the addresses of an instruction's accounts."""
    return {**ADDRESSES, **SPECIAL.get(name, {})}


# -- IDL and client ---------------------------------------------------------------------------------------------------


def test_the_idls_carry_the_programs_address() -> None:
    """Both IDLs, client and the table of programs agree on the default id."""
    assert {idl.address for idl in READ.values()} == {str(client.PROGRAM_ID)}
    assert PROGRAM_IDS["collateral_vault"] == bytes(client.PROGRAM_ID)


@pytest.mark.parametrize(
    ("kind", "namespace"), [("instructions", "global"), ("accounts", "account"), ("events", "event")]
)
def test_discriminators_are_anchors(kind: str, namespace: str) -> None:
    """Each discriminator is the hash Anchor takes of the name, and every account and event has its type."""
    for entry in DOCUMENT[kind]:
        assert bytes(entry["discriminator"]) == sha256(f"{namespace}:{entry['name']}".encode()).digest()[:8]
        assert kind == "instructions" or entry["name"] in TYPES


def test_instructions_are_the_clients() -> None:
    """The client builds all instructions of the IDL and no others."""
    assert set(STEPS) == set(INSTRUCTIONS)


@pytest.mark.parametrize("name", STEPS)
def test_accounts_stand_in_the_idls_order_with_its_flags(world: CollateralWorld, name: str) -> None:
    """Place by place: address, signer and writable; then the arguments, of the IDL's size."""
    built = STEPS[name](world)
    expected = [
        (where(name)[account["name"]], account.get("signer", False), account.get("writable", False))
        for account in INSTRUCTIONS[name]["accounts"]
    ]
    assert [(meta.pubkey, meta.is_signer, meta.is_writable) for meta in built.accounts] == expected
    size = size_max({"kind": "struct", "fields": INSTRUCTIONS[name]["args"]}, TYPES)
    assert len(built.data) == 8 + (4 + 32 + 8 if size is None else size)  # the vector has one key in it
    assert bytes(built.data[:8]) == bytes(INSTRUCTIONS[name]["discriminator"])


@pytest.mark.parametrize("name", STEPS)
def test_the_idls_seeds_lead_to_the_addresses(world: CollateralWorld, name: str) -> None:
    """Each PDA in the IDL, derived as the IDL says from accounts, fields and arguments, is the client's address."""
    known = where(name)
    numbers = {"id": (0).to_bytes(8, "little")}

    def seed(entry: dict[str, Any]) -> bytes:
        if entry["kind"] == "const":
            return bytes(entry["value"])
        if entry["kind"] == "arg":
            return numbers[entry["path"]]
        account, _, field = entry["path"].partition(".")
        if not field:
            return bytes(known[account])
        value = world.state(known[account])[field]
        return value if isinstance(value, bytes) else int(value).to_bytes(8, "little")  # type: ignore[arg-type]  # no list

    derived = 0
    for account in INSTRUCTIONS[name]["accounts"]:
        if "pda" in account:
            program = account["pda"].get("program")
            program_id = Pubkey(seed(program)) if program else client.PROGRAM_ID
            seeds = [seed(entry) for entry in account["pda"]["seeds"]]
            assert Pubkey.find_program_address(seeds, program_id)[0] == known[account["name"]]
            derived += 1
    assert derived > 0


def test_relations_name_fields_that_hold_the_address(world: CollateralWorld) -> None:
    """Where the IDL says that one account names another, it does, in a field of the other's name."""
    found = 0
    for name, instruction in INSTRUCTIONS.items():
        for account in instruction["accounts"]:
            for holder in account.get("relations", []):
                stored = world.state(where(name)[holder])[account["name"]]
                assert stored == bytes(where(name)[account["name"]])
                found += 1
    assert found == 5


def test_errors_count_from_6000_in_order() -> None:
    """Codes and names are the client's, in both IDLs, and each has a message."""
    for document in (DOCUMENT, LEGACY):
        assert {error["code"]: error["name"] for error in document["errors"]} == client.ERRORS
        assert all(error["msg"] for error in document["errors"])
    assert list(client.ERRORS) == list(range(6000, 6011))


def test_events_and_accounts_have_the_idls_fields() -> None:
    """The client names the fields of each event and account as the IDL does, in its order."""
    assert {entry["name"] for entry in DOCUMENT["events"]} == set(client.EVENTS)
    for name, (_, names) in client.EVENTS.items():
        assert names == fields(name)
    assert client.VAULT[1] == fields("CollateralVault")
    assert client.REQUEST[1] == fields("WithdrawRequest")


def test_everything_is_documented() -> None:
    """Every instruction, account of an instruction, argument and type says what it is."""
    for instruction in DOCUMENT["instructions"]:
        for entry in (instruction, *instruction["accounts"], *instruction["args"]):
            assert entry["docs"], entry["name"]
    assert all(entry["docs"] for entry in DOCUMENT["types"])


# -- IDL and program --------------------------------------------------------------------------------------------------


def test_accounts_on_chain_have_the_idls_size(world: CollateralWorld) -> None:
    """The program allocates what the IDL's types take; the settings' vector at its ten keys."""
    for address, name in ((ALICE_VAULT, "CollateralVault"), (ADDRESSES["withdraw_request"], "WithdrawRequest")):
        size = size_max(TYPES[name], TYPES)
        assert size is not None
        assert len(world.data(address)) == 8 + size
        assert tuple(world.state(address)) == fields(name)
    without = [field for field in TYPES["VaultAuthority"]["fields"] if field["name"] != "authorized_programs"]
    rest = size_max({"kind": "struct", "fields": without}, TYPES)
    assert rest is not None
    assert len(world.data(AUTHORITY)) == 8 + rest + 4 + 32 * client.AUTHORIZED_PROGRAMS_MAX == client.AUTHORITY_BYTES
    assert tuple(world.state(AUTHORITY)) == fields("VaultAuthority")


def test_the_header_says_what_the_idl_says() -> None:
    """The C program takes its constants from a header that holds the IDL's very values."""
    header = header_of(TEXTS["current"]).splitlines()
    deposited = int.from_bytes(client.discriminator("event", "DepositEvent"), "little")
    for line in (
        f"#define EVENT_DEPOSIT_EVENT 0x{deposited:016x}ULL",
        "#define SIZE_COLLATERAL_VAULT 129",
        "#define SIZE_WITHDRAW_REQUEST 97",
        "enum { SET_PAUSED_ADMIN, SET_PAUSED_VAULT_AUTHORITY };",
        '    {"caller_authority", SIGNER, NULL}, \\',
        '    X(OVERFLOW, 6005, "Overflow", "Arithmetic overflow") \\',
    ):
        assert line in header
    assert not any(line.startswith("#define SIZE_VAULT_AUTHORITY") for line in header), "it has no fixed size"


@pytest.mark.parametrize("form", TEXTS)
def test_the_indexer_reads_what_the_program_writes(world: CollateralWorld, form: str) -> None:
    """Every event, account and instruction, decoded by either IDL, is what the client reads."""
    program, current = Program.from_idl(READ[form]), Program.from_idl(READ["current"])
    for address in (ALICE_VAULT, BOB_VAULT, AUTHORITY, ADDRESSES["withdraw_request"]):
        account = program.decode_account(world.data(address))
        assert (account.name, snake(account.values)) == client.parse_account(world.data(address))
        assert account.trailing == (32 * 9 if address == AUTHORITY else 0)
    for name, values in every_event(world):
        event = program.decode_event(current.encode_event(name, values))
        assert (event.name, snake(event.values), event.trailing) == (name, values, 0)
    for name, step in STEPS.items():
        data = bytes(step(world).data)
        instruction = program.decode_instruction(data)
        assert snake_case(instruction.name) == name
        assert program.encode_instruction(instruction.name, instruction.values) == data


def snake(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return decoded values under the names the current format gives them: the legacy one has camel case."""
    return {snake_case(name): value for name, value in values.items()}


def every_event(world: CollateralWorld) -> list[tuple[str, dict[str, client.Value]]]:
    """Return one of each kind of event, as the program emitted it."""
    seen = dict(world.done(STEPS["initialize_vault"](world)).events)
    for name in ("request_withdraw", "deposit", "withdraw", "lock_collateral", "unlock_collateral", "cancel_withdraw",
                 "transfer_collateral", "set_paused"):  # fmt: skip
        seen.update(world.done(STEPS[name](world)).events)
    assert set(seen) == set(client.EVENTS)
    return list(seen.items())


# -- the two formats --------------------------------------------------------------------------------------------------


def shape(idl: Idl) -> dict[str, Any]:
    """Return what an IDL says, without how it says it."""

    def typed(entry: AccountType | EventType | InstructionType) -> list[tuple[str, object]]:
        return [(snake_case(field.name), field.type) for field in entry.fields]

    return {
        "name": idl.name,
        "address": idl.address,
        "instructions": {
            snake_case(entry.name): (
                entry.discriminator,
                typed(entry),
                [(snake_case(account.name), account.writable, account.signer) for account in entry.accounts],
            )
            for entry in idl.instructions
        },
        "accounts": {entry.name: (entry.discriminator, typed(entry)) for entry in idl.accounts},
        "events": {entry.name: (entry.discriminator, typed(entry)) for entry in idl.events},
        "errors": idl.errors,
    }


def test_both_formats_say_the_same() -> None:
    """Instructions, accounts, events, errors: names, discriminators, order, flags and types."""
    assert READ["legacy"].legacy
    assert not READ["current"].legacy
    assert shape(READ["legacy"]) == shape(READ["current"])


def test_both_formats_give_the_same_seeds() -> None:
    """The legacy form writes seeds as text and base58; in bytes they are the same, in the same order."""
    for new, old in zip(DOCUMENT["instructions"], LEGACY["instructions"], strict=True):
        for account, legacy in zip(new["accounts"], old["accounts"], strict=True):
            assert ("pda" in account) == ("pda" in legacy)
            assert account["docs"] == legacy["docs"]
            if "pda" in account:
                ours = account["pda"]["seeds"] + [account["pda"][key] for key in ("program",) if key in account["pda"]]
                theirs = legacy["pda"]["seeds"] + [legacy["pda"][k] for k in ("programId",) if k in legacy["pda"]]
                assert [in_bytes(seed) for seed in ours] == [in_bytes(seed) for seed in theirs]


def in_bytes(seed: dict[str, Any]) -> tuple[str, bytes | str]:
    """Return a seed of either format as its kind, and its bytes or its path without case and underscores."""
    if seed["kind"] != "const":
        return seed["kind"], seed["path"].replace("_", "").lower()
    value = seed["value"]
    if isinstance(value, list):
        return "const", bytes(value)
    return "const", value.encode() if seed["type"] == "string" else bytes(Pubkey.from_string(value))


def test_anchorpy_reads_the_legacy_format(world: CollateralWorld) -> None:
    """Somebody else's reader decodes the program's accounts and builds its instructions, the vector included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it and what it stands on use names that are deprecated elsewhere
        anchorpy: Any = import_module("anchorpy")
        coder = anchorpy.Coder(anchorpy.Idl.from_json(TEXTS["legacy"]))
    for address in (ALICE_VAULT, AUTHORITY, ADDRESSES["withdraw_request"]):
        theirs = coder.accounts.decode(world.data(address))
        for name, value in world.state(address).items():
            assert plain(getattr(theirs, name)) == value
    for name, values in every_event(world):
        payload = Program.from_idl(READ["current"]).encode_event(name, values)
        event = coder.events.parse(payload)
        assert event.name == name
        assert {field: plain(getattr(event.data, field)) for field in values} == values
    made = {"authorized_programs": [ENGINE], "withdraw_min_delay": 0}
    assert coder.instruction.encode("initialize_vault_authority", made) == bytes(world.initialize().data)
    assert coder.instruction.encode("deposit", {"amount": 10}) == bytes(STEPS["deposit"](world).data)


def plain(value: Any) -> Any:
    """Return anchorpy's objects as our values."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return bytes(value) if isinstance(value, Pubkey) else value


# -- the client -------------------------------------------------------------------------------------------------------


def test_the_client_reads_nothing_that_is_not_exactly_one() -> None:
    """A byte more, a byte less, another discriminator, or a vector beyond its room is None."""
    event = client.discriminator("event", "LockEvent") + bytes(88)
    assert client.parse_event(event) is not None
    for wrong in (b"", event[:7], event[:-1], event + b"\0", bytes(8) + event[8:]):
        assert client.parse_event(wrong) is None
    for data in (
        client.VAULT_DISCRIMINATOR + bytes(121),
        client.AUTHORITY_DISCRIMINATOR + bytes(398),
        client.REQUEST_DISCRIMINATOR + bytes(89),
    ):
        assert client.parse_account(data) is not None
        for wrong in (b"", data[:7], data[:-1], data + b"\0", bytes(8) + data[8:]):
            assert client.parse_account(wrong) is None
    assert client.parse_account(client.AUTHORITY_DISCRIMINATOR + bytes(64) + b"\x0b" + bytes(333)) is None


def test_the_client_stands_alone() -> None:
    """The client reads neither the IDL nor the indexer's decoder: a mistake there must not repeat itself here."""
    source = inspect.getsource(client)
    assert "import indexer" not in source
    assert "from indexer" not in source
