"""The IDLs, the client and the program say the same: names, order, flags, discriminators, seeds, sizes, codes."""

import importlib
import inspect
import json
import warnings
from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from indexer.chain.idl import Idl, load_idl
from indexer.chain.program import Program
from indexer.chain.value import snake_case
from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from localnet.programs import PROGRAM_IDS
from localnet.programs.header import header_of
from tests.fixtures.market_world import ALICE, AUTHORITY, FUND, KEEPER, MINT, PRICE, SYMBOL, MarketWorld

FOLDER = files("indexer.idls")
TEXT = (FOLDER / "liquidation_engine.json").read_text()
LEGACY_TEXT = (FOLDER / "legacy" / "liquidation_engine.json").read_text()
IDL: dict[str, Any] = json.loads(TEXT)
TYPES = {entry["name"]: entry["type"] for entry in IDL["types"]}
INSTRUCTIONS = {entry["name"]: entry for entry in IDL["instructions"]}
PROGRAM = Program.from_idl(load_idl(TEXT, source="current"))
LEGACY = Program.from_idl(load_idl(LEGACY_TEXT, source="legacy"))

OWNER, LIQUIDATOR, BOSS = ALICE.pubkey(), KEEPER.pubkey(), AUTHORITY.pubkey()
MARKET, POSITION = client.find_market(SYMBOL), client.find_position(OWNER, SYMBOL)
OWNER_VAULT, LIQUIDATOR_VAULT, FUND_VAULT = map(vaults.find_vault, (OWNER, LIQUIDATOR, FUND))
ADDRESSES = {
    "authority": BOSS, "insurance_fund": FUND, "fund_vault": FUND_VAULT, "owner": OWNER, "position_owner": OWNER,
    "liquidator": LIQUIDATOR, "contributor": LIQUIDATOR, "market": MARKET, "position": POSITION,
    "price_update": PRICE, "mint": MINT, "owner_vault": OWNER_VAULT, "liquidator_vault": LIQUIDATOR_VAULT,
    "fund_token_account": vaults.find_token_account(FUND_VAULT, MINT),
    "owner_vault_token_account": vaults.find_token_account(OWNER_VAULT, MINT),
    "liquidator_vault_token_account": vaults.find_token_account(LIQUIDATOR_VAULT, MINT),
    "contributor_token_account": vaults.find_token_account(LIQUIDATOR, MINT),
    "vault_authority": vaults.find_vault_authority(), "collateral_vault_program": vaults.PROGRAM_ID,
    "cpi_authority": vaults.find_caller_authority(client.PROGRAM_ID),
    "event_authority": client.find_event_authority(), "program": client.PROGRAM_ID,
    "token_program": vaults.TOKEN_PROGRAM_ID, "associated_token_program": vaults.ASSOCIATED_TOKEN_PROGRAM_ID,
    "system_program": Pubkey.default(),
}  # fmt: skip
BUILT: dict[str, tuple[Instruction, dict[str, Any]]] = {
    "initialize_insurance_fund": (client.initialize_insurance_fund(BOSS, mint=MINT), {}),
    "create_market": (
        client.create_market(
            BOSS, symbol=SYMBOL, feed_id=bytes(range(32)), max_price_age_s=-2, max_conf_bps=3, max_leverage=4
        ),
        {"symbol": SYMBOL, "feed_id": bytes(range(32)), "max_price_age": -2, "max_conf_bps": 3, "max_leverage": 4},
    ),
    "set_market_halted": (client.set_market_halted(BOSS, symbol=SYMBOL, halted=True), {"halted": True}),
    "contribute": (client.contribute(LIQUIDATOR, amount=5, mint=MINT), {"amount": 5}),
    "open_position": (
        client.open_position(
            OWNER, symbol=SYMBOL, price_update=PRICE, is_long=True, size=6, collateral=7, leverage=8
        ),
        {"symbol": SYMBOL, "is_long": True, "size": 6, "collateral": 7, "leverage": 8},
    ),
    "add_collateral": (client.add_collateral(OWNER, symbol=SYMBOL, amount=9), {"amount": 9}),
    "close_position": (client.close_position(OWNER, symbol=SYMBOL, price_update=PRICE, mint=MINT), {}),
    "liquidate_partial": (
        client.liquidate_partial(LIQUIDATOR, OWNER, symbol=SYMBOL, price_update=PRICE, mint=MINT, size=10),
        {"size": 10},
    ),
    "liquidate_full": (
        client.liquidate_full(LIQUIDATOR, OWNER, symbol=SYMBOL, price_update=PRICE, mint=MINT), {},
    ),
}  # fmt: skip
"""Each instruction as the client builds it, and its arguments."""


def fields(type_name: str) -> tuple[str, ...]:
    return tuple(field["name"] for field in TYPES[type_name]["fields"])


def test_the_idl_carries_the_programs_address() -> None:
    """IDLs, client and the table of programs agree on the default id."""
    assert IDL["address"] == str(client.PROGRAM_ID)
    assert PROGRAM.program_id == LEGACY.program_id == PROGRAM_IDS["liquidation_engine"] == bytes(client.PROGRAM_ID)


@pytest.mark.parametrize(
    ("kind", "namespace"), [("instructions", "global"), ("accounts", "account"), ("events", "event")]
)
def test_discriminators_are_anchors(kind: str, namespace: str) -> None:
    """Each discriminator is the hash Anchor takes of the name, and every account and event has its type."""
    for entry in IDL[kind]:
        assert bytes(entry["discriminator"]) == sha256(f"{namespace}:{entry['name']}".encode()).digest()[:8]
        assert kind == "instructions" or entry["name"] in TYPES


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_accounts_stand_in_the_idls_order_with_its_flags(name: str) -> None:
    """Place by place: address, signer and writable; and a fixed address is the one that is given."""
    instruction, _ = BUILT[name]
    listed = INSTRUCTIONS[name]["accounts"]
    expected = [(ADDRESSES[a["name"]], a.get("signer", False), a.get("writable", False)) for a in listed]
    assert [(meta.pubkey, meta.is_signer, meta.is_writable) for meta in instruction.accounts] == expected
    for account in listed:
        assert account.get("address") in (None, str(ADDRESSES[account["name"]]))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_arguments_are_the_idls(name: str) -> None:
    """What the client packs, the decoder reads by the IDL, whole."""
    instruction, arguments = BUILT[name]
    decoded = PROGRAM.decode_instruction(bytes(instruction.data), tuple(bytes(m.pubkey) for m in instruction.accounts))
    assert (decoded.name, decoded.values, decoded.trailing) == (name, arguments, 0)
    assert PROGRAM.encode_instruction(name, arguments) == bytes(instruction.data)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_idls_seeds_lead_to_the_addresses(name: str) -> None:
    """Each PDA in the IDL, derived as the IDL says, is the address the client uses."""
    texts = {"symbol": SYMBOL.encode(), "position.symbol": SYMBOL.encode(), "market.symbol": SYMBOL.encode()}
    keys = {**ADDRESSES, "position.owner": OWNER}
    found = 0
    for account in INSTRUCTIONS[name]["accounts"]:
        if "pda" not in account:
            continue
        seeds = [
            bytes(seed["value"]) if seed["kind"] == "const" else texts.get(seed["path"]) or bytes(keys[seed["path"]])
            for seed in account["pda"]["seeds"]
        ]
        owner = account["pda"].get("program")
        program_id = Pubkey(bytes(owner["value"])) if owner else client.PROGRAM_ID
        assert Pubkey.find_program_address(seeds, program_id)[0] == ADDRESSES[account["name"]]
        found += 1
    assert found


def test_errors_count_from_6000_in_order() -> None:
    """Codes and names are the client's, and each has a message."""
    assert {error["code"]: error["name"] for error in IDL["errors"]} == client.ERRORS
    assert list(client.ERRORS) == list(range(6000, 6017))
    assert all(error["msg"] for error in IDL["errors"])


def test_events_and_accounts_have_the_idls_fields() -> None:
    """The client names the fields of each event and account as the IDL does, in its order."""
    assert {entry["name"] for entry in IDL["events"]} == set(client.EVENTS)
    assert {entry["name"] for entry in IDL["accounts"]} == set(client.ACCOUNTS)
    for name, (_, names) in client.EVENTS.items():
        assert names == fields(name)
    for name, (_, (_, names)) in client.ACCOUNTS.items():
        assert names == fields(name)


@pytest.mark.parametrize("program", [PROGRAM, LEGACY], ids=["current", "legacy"])
def test_accounts_on_chain_are_read_by_both_idls_as_by_the_client(program: Program) -> None:
    """What the program writes, the decoder and the client read alike; unused bytes are what a shorter symbol leaves."""
    world = MarketWorld.opened()
    world.done(world.open())
    for address, name, left in ((MARKET, "Market", 13), (POSITION, "Position", 13), (FUND, "InsuranceFund", 0)):
        decoded = program.decode_account(world.data(address))
        assert (decoded.name, decoded.trailing) == (name, left)
        assert {snake_case(key): value for key, value in decoded.values.items()} == world.state(address)


def test_the_legacy_idl_says_the_same() -> None:
    """Instructions, arguments, accounts, flags, events, types and errors: the same, in the older spelling."""
    for one in ("liquidation_engine", "ephemeral_vault"):
        now = load_idl((FOLDER / f"{one}.json").read_text(), source=one)
        then = load_idl((FOLDER / "legacy" / f"{one}.json").read_text(), source=one)
        assert (now.legacy, then.legacy) == (False, True)
        assert (now.name, now.address, now.errors) == (then.name, then.address, then.errors)
        assert instructions(now) == instructions(then)
        for kind in ("accounts", "events"):
            assert described(now, kind) == described(then, kind)


def instructions(idl: Idl) -> list[Any]:
    """Return what matters of the instructions, in snake_case."""
    return [
        (
            snake_case(i.name), i.discriminator, [(snake_case(f.name), f.type) for f in i.fields],
            [(snake_case(a.name), a.writable, a.signer) for a in i.accounts],
        )
        for i in idl.instructions
    ]  # fmt: skip


def described(idl: Idl, kind: str) -> list[Any]:
    """Return what matters of accounts or events, in snake_case."""
    return [(e.name, e.discriminator, [(snake_case(f.name), f.type) for f in e.fields]) for e in getattr(idl, kind)]


@pytest.mark.parametrize("name", ["liquidation_engine", "ephemeral_vault"])
def test_anchorpy_reads_the_legacy_idl(name: str) -> None:
    """Its coder builds from it, with all instructions, accounts and events."""
    text = (FOLDER / "legacy" / f"{name}.json").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are deprecated in its own dependencies
        anchorpy = importlib.import_module("anchorpy")
        idl = anchorpy.Idl.from_json(text)
        coder = anchorpy.Coder(idl)
    document = json.loads((FOLDER / f"{name}.json").read_text())
    for kind in ("instructions", "accounts", "events"):
        assert {snake_case(e.name) for e in getattr(idl, kind)} == {snake_case(e["name"]) for e in document[kind]}
    if name == "liquidation_engine":
        world = MarketWorld.opened()
        world.done(world.open())
        position = coder.accounts.decode(world.data(POSITION))
        assert (position.symbol, position.entry_price, position.maintenance_margin_bps) == (SYMBOL, 10**8, 250)
        assert position.owner == OWNER
        (name, arguments) = "add_collateral", {"amount": 9}
        assert coder.instruction.encode(name, arguments) == bytes(BUILT[name][0].data)


def test_the_client_reads_nothing_that_is_not_exactly_one() -> None:
    """A byte more, a byte less, or another discriminator is None, for events and for accounts."""
    event = client.discriminator("event", "MarketCreated") + client.text("SOL") + bytes(40)
    assert client.parse_event(event) is not None
    for wrong in (b"", event[:7], event[:-1], event + b"\0", bytes(8) + event[8:], event[:12] + b"\xff" * 47):
        assert client.parse_event(wrong) is None
    for name, (size, _) in client.ACCOUNTS.items():
        data = client.discriminator("account", name) + bytes(size - 8)
        assert client.parse_account(data) is not None
        for wrong in (b"", data[:7], data[:-1], data + b"\0", bytes(8) + data[8:]):
            assert client.parse_account(wrong) is None
    not_utf8 = client.discriminator("account", "Market") + b"\x01\0\0\0\xff" + bytes(61)
    assert client.parse_account(not_utf8) is None


def test_the_header_says_what_the_idl_says() -> None:
    """The C program takes its constants from a header that holds the IDL's very values."""
    header = header_of(TEXT).splitlines()
    created = int.from_bytes(client.discriminator("event", "LiquidationEvent"), "little")
    assert f"#define EVENT_LIQUIDATION_EVENT 0x{created:016x}ULL" in header
    assert "#define SIZE_INSURANCE_FUND 73" in header


def test_the_client_stands_alone() -> None:
    """The client reads neither the IDL nor the indexer's decoder: a mistake there must not repeat itself here."""
    source = inspect.getsource(client)
    assert "import indexer" not in source
    assert "from indexer" not in source
