"""The IDLs of large programs: each loads, compiles, and has the sizes that its accounts are known to have on chain."""

import hashlib
import json
import struct
from typing import NamedTuple

import pytest

from indexer.chain.idl import load_idl
from indexer.chain.layout import Compiler, Mode
from tests.fixtures.idl_values import PUBLIC, PUBLIC_NAMES, public_idl, public_program


class Facts(NamedTuple):
    """Counts of what an IDL has, and a hash over all discriminators in their order."""

    legacy: bool
    instructions: int
    accounts: int
    events: int
    errors: int
    discriminators: str


FACTS = {
    "account_compression": Facts(True, 10, 0, 0, 14, "a9fe495c8945"),
    "anchor_generics": Facts(False, 1, 1, 0, 0, "1e673b210524"),
    "drift": Facts(True, 246, 27, 26, 344, "b49176e24aa1"),
    "jupiter_perps": Facts(True, 35, 6, 11, 42, "4506591e84e5"),
    "klend": Facts(True, 63, 10, 5, 185, "1c059093e432"),
    "kvault": Facts(True, 22, 4, 5, 62, "c1602a9f131b"),
    "mango_v4": Facts(True, 103, 12, 52, 73, "219184abcef1"),
    "marginfi": Facts(False, 78, 12, 22, 163, "d7ad1253bf87"),
    "marinade": Facts(True, 29, 2, 26, 93, "457fe868caf0"),
    "meteora_cp_amm": Facts(False, 39, 9, 25, 73, "8fef9a6dfa21"),
    "meteora_dlmm": Facts(False, 76, 12, 30, 111, "c24c0a3cc266"),
    "openbook_v2": Facts(True, 29, 6, 8, 44, "abcc37806bea"),
    "pump": Facts(False, 47, 7, 28, 94, "6a9a7ddc7361"),
    "pump_amm": Facts(False, 32, 7, 26, 78, "af829a224160"),
    "pyth_receiver": Facts(True, 13, 3, 0, 29, "13e51e702304"),
    "squads_v4": Facts(True, 36, 9, 0, 45, "7d1c61552883"),
    "switchboard_on_demand": Facts(False, 38, 6, 15, 71, "265191902589"),
    "switchboard_v2": Facts(True, 48, 15, 31, 100, "bd1b5622ad36"),
    "wormhole_core": Facts(False, 10, 3, 0, 57, "ee295293e7d7"),
}


def facts_of(name: str) -> Facts:
    idl = public_idl(name)
    discriminators = [
        *(instruction.discriminator for instruction in idl.instructions),
        *(account.discriminator for account in idl.accounts),
        *(event.discriminator for event in idl.events),
    ]
    digest = hashlib.sha256(b"".join(discriminators)).hexdigest()[:12]
    counts = len(idl.instructions), len(idl.accounts), len(idl.events), len(idl.errors)
    return Facts(idl.legacy, *counts, digest)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_large_program_loads_and_compiles(name: str) -> None:
    """Nothing is lost, and no two discriminators are alike."""
    assert facts_of(name) == FACTS[name]
    program = public_program(name)
    assert program.idl.conflicts == ()
    assert len(program.events) == FACTS[name].events


def test_every_idl_says_where_it_is_from() -> None:
    """The README beside them has a line for each file, and no other."""
    rows = [line for line in (PUBLIC / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [f"{name}.json" for name in PUBLIC_NAMES]


# The whole account on chain, discriminator included: what the programs assert of themselves, what their own SDKs ask
# nodes for by size, and what one program's IDL says of another's accounts (marginfi of Kamino's and Drift's).
SIZES = {
    "drift": {"User": 4376, "PerpMarket": 1216, "SpotMarket": 776, "UserStats": 240},
    "klend": {"Reserve": 8624, "Obligation": 3344, "LendingMarket": 4664},
    "kvault": {"VaultState": 62_552},
    "mango_v4": {"bank": 3072, "perpMarket": 2816, "bookSide": 123_720},
    "marginfi": {
        "Bank": 1864,
        "MarginfiAccount": 2312,
        "MarginfiGroup": 1064,
        "MinimalReserve": 8624,
        "MinimalObligation": 3344,
        "MinimalUser": 4376,
        "MinimalSpotMarket": 776,
    },
    "meteora_cp_amm": {"Pool": 1112, "Position": 408},
    "meteora_dlmm": {"LbPair": 904, "BinArray": 10_136, "PositionV2": 8120},
    "openbook_v2": {"market": 848, "openOrdersAccount": 1264, "bookSide": 90_952, "eventHeap": 91_288},
    "switchboard_on_demand": {"PullFeedAccountData": 3208, "QueueAccountData": 6280},
    "switchboard_v2": {"AggregatorAccountData": 3851},
}
# Legacy IDLs do not say which accounts are bytemuck; of these it is known. Switchboard's are packed.
LEGACY_BYTEMUCK = ("drift", "klend", "kvault", "mango_v4", "openbook_v2")


def sizes_of(name: str, mode: Mode) -> dict[str, int | None]:
    program, compiler = public_program(name), Compiler()
    found = {}
    for account in SIZES[name]:
        size = compiler.compile(program.accounts[account].type, mode).size
        found[account] = None if size is None else size + len(program.accounts[account].discriminator)
    return found


@pytest.mark.parametrize("name", SIZES)
def test_accounts_have_the_sizes_that_they_have_on_chain(name: str) -> None:
    """Zero-copy accounts in full: explicit padding, nested arrays, 128-bit integers."""
    assert sizes_of(name, "borsh") == SIZES[name]


@pytest.mark.parametrize("name", LEGACY_BYTEMUCK)
def test_integers_of_128_bits_are_aligned_to_eight_bytes(name: str) -> None:
    """Laid out as C does, the accounts keep their size: with sixteen, most would have padding that they do not have."""
    assert sizes_of(name, "c") == SIZES[name]


CURRENT = tuple(name for name, facts in FACTS.items() if not facts.legacy)
# Marginfi names other programs' accounts in its own way. Wormhole's IDL was converted from one in camelCase, and says
# what that spelling gives, which is not what is on chain; what an IDL says is taken, right or wrong.
OTHERWISE = {
    "marginfi": {"MinimalObligation", "MinimalReserve", "MinimalSpotMarket", "MinimalUser", "SolendMinimalReserve"},
    "wormhole_core": {"encodedVaa", "guardianSet", "signatureSet"},
}


@pytest.mark.parametrize("name", CURRENT)
def test_discriminators_are_computed_as_anchor_computed_these(name: str) -> None:
    """A current IDL says them; as a legacy one, without them and in camelCase, it would be given the same."""
    idl = public_idl(name)
    document = json.loads(idl.text)
    for part in ("instructions", "accounts", "events"):
        for entry in document.get(part, []):
            del entry["discriminator"]
    for entry in document["instructions"]:
        entry["name"] = camel_case(entry["name"])
    computed = load_idl(json.dumps(document), source=name)
    for ours, theirs in zip(computed.instructions, idl.instructions, strict=True):
        assert ours.discriminator == theirs.discriminator, theirs.name
    events = {event.name: event.discriminator for event in idl.events}
    assert {event.name: event.discriminator for event in computed.events} == events
    accounts = {account.name: account.discriminator for account in idl.accounts}
    otherwise = {one.name for one in computed.accounts if one.discriminator != accounts[one.name]}
    assert otherwise == OTHERWISE.get(name, set())


def camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def test_generics_in_generics_have_the_bytes_of_what_they_stand_for() -> None:
    """Anchor's own JavaScript does not read its test program's IDL, so here is the account by hand."""
    program = public_program("anchor_generics")
    pair = {"gen1": 1, "gen2": 2}
    data = {
        "gen1": 3,
        "gen2": 4,
        "gen3": pair,
        "gen4": {"gen1": 5, "gen2": {"some_field": 6}},
        "gen5": pair,
        "gen6": pair,
        "gen7": {"gen1": 7, "gen2": pair},
        "arr": bytes(range(10)),
        "warr": [8],
        "warrval": [9],
        "enm1": {"Named": {"gen1": 10, "gen2": 11}},
        "enm2": {"Arr": [[{"gen1": index, "gen2": index} for index in range(30)]]},
    }
    written = struct.pack("<IQIQIB", 3, 4, 1, 2, 5, 6) + struct.pack("<IQIQIIQ", 1, 2, 1, 2, 7, 1, 2)
    written += bytes(range(10)) + bytes([8, 9]) + struct.pack("<BIQ", 1, 10, 11)
    written += b"\x03" + b"".join(struct.pack("<IQ", index, index) for index in range(30))
    raw = program.accounts["GenericAccount"].discriminator + written
    assert tuple(program.decode_account(raw)) == ("GenericAccount", {"data": data}, 0)
    assert program.encode_account("GenericAccount", {"data": data}) == raw
    assert program.decode_instruction(program.encode_instruction("generic", {"generic_field": data}))[2] == 0
