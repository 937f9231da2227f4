"""What the engine refuses before it looks at prices and margins: wrong bytes, wrong accounts, missing rights."""

import json
import struct
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from tests.fixtures.market_world import (
    ALICE,
    AUTHORITY,
    BOB,
    CODES,
    FUND,
    KEEPER,
    MINT,
    PAYER,
    PRICE,
    SYMBOL,
    MarketWorld,
)
from tests.fixtures.vault_world import with_account, with_data, with_key

Step = Callable[[MarketWorld], Instruction]

IDL: dict[str, Any] = json.loads((files("indexer.idls") / "liquidation_engine.json").read_text())
ACCOUNTS = {entry["name"]: [account["name"] for account in entry["accounts"]] for entry in IDL["instructions"]}
STEPS: dict[str, Step] = {
    "initialize_insurance_fund": lambda _: client.initialize_insurance_fund(AUTHORITY.pubkey(), mint=MINT),
    "create_market": lambda w: w.create_market("ETH"),
    "set_market_halted": lambda _: client.set_market_halted(AUTHORITY.pubkey(), symbol=SYMBOL, halted=True),
    "contribute": lambda _: client.contribute(KEEPER.pubkey(), amount=5, mint=MINT),
    "open_position": lambda w: w.open(owner=BOB),
    "add_collateral": lambda w: w.add(5),
    "close_position": lambda w: w.close(),
    "liquidate_partial": lambda w: w.liquidate(5),
    "liquidate_full": lambda w: w.liquidate(),
}
ARGUMENT_BYTES = {
    "create_market": 4 + 3 + 32 + 8 + 2 + 2, "set_market_halted": 1, "contribute": 8,
    "open_position": 4 + 3 + 1 + 8 + 8 + 2, "add_collateral": 8, "liquidate_partial": 8,
}  # fmt: skip
EVERY_ACCOUNT = [(name, i) for name, names in ACCOUNTS.items() for i in range(len(names))]
LIQUIDATIONS = ["liquidate_partial", "liquidate_full"]
ELSEWHERE = Pubkey(bytes([99] * 32))


def flagged(flag: str) -> list[tuple[str, int]]:
    """Return the places that the IDL flags so."""
    return [(e["name"], i) for e in IDL["instructions"] for i, a in enumerate(e["accounts"]) if a.get(flag)]


def using(*accounts: str, but: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return (instruction, account) wherever one of the accounts is used."""
    return [(name, a) for name, names in ACCOUNTS.items() for a in names if a in accounts and name not in but]


VAULTS = using("owner_vault", "liquidator_vault", "fund_vault", but=("initialize_insurance_fund",))
TOKENS = using("owner_vault_token_account", "liquidator_vault_token_account", "fund_token_account",
               but=("initialize_insurance_fund",))  # fmt: skip
MARKETS = using("market", but=("create_market",))
POSITIONS = using("position", but=("open_position",))
FUNDS = using("insurance_fund", but=("initialize_insurance_fund",))
PROGRAMS = using("system_program", "token_program", "associated_token_program", "collateral_vault_program")


@pytest.fixture
def world() -> MarketWorld:
    """A world in which every step would come as far as the state: alice has a position, bob has none."""
    opened = MarketWorld.opened()
    opened.done(opened.open())
    return opened


def place(name: str, account: str) -> int:
    """Return an account's place in an instruction."""
    return ACCOUNTS[name].index(account)


def swapped(world: MarketWorld, name: str, account: str, key: Pubkey) -> Instruction:
    """Return the step with another address in that account's place."""
    return with_key(STEPS[name](world), place(name, account), key)


def refused(
    world: MarketWorld,
    instruction: Instruction,
    code: int,
    account: str | None,
    *,
    keys: tuple[Pubkey, Pubkey] | None = None,
) -> None:
    """Assert code, the account that the log names, and the two addresses that were not equal; nothing changes."""
    addresses = {meta.pubkey for meta in instruction.accounts} - {PAYER.pubkey()}
    before = {address: world.svm.get_account(address) for address in addresses}
    outcome = world.send(instruction)
    assert outcome.code == code, outcome.logs
    where = f"AnchorError caused by account: {account}. " if account else "AnchorError occurred. "
    (at,) = [i for i, line in enumerate(outcome.logs) if line.startswith("Program log: AnchorError")]
    assert where in outcome.logs[at]
    assert f"Error Number: {code}." in outcome.logs[at]
    if keys:
        left, right = keys
        assert outcome.logs[at + 1 : at + 5] == [
            "Program log: Left:", f"Program log: {left}", "Program log: Right:", f"Program log: {right}",
        ]  # fmt: skip
    assert {address: world.svm.get_account(address) for address in addresses} == before


# -- instruction data -------------------------------------------------------------------------------------------------


def test_every_instruction_has_a_step() -> None:
    """The tests below are about all instructions of the IDL."""
    assert set(STEPS) == set(ACCOUNTS)


@pytest.mark.parametrize("length", range(8))
def test_data_shorter_than_a_discriminator_is_no_instruction(world: MarketWorld, length: int) -> None:
    """Anchor wants 8 bytes before it looks for an instruction."""
    refused(world, with_data(world.add(1), bytes(world.add(1).data[:length])), 100, None)


def test_an_unknown_discriminator_is_refused(world: MarketWorld) -> None:
    """There is no fallback, not even for the discriminator of one of the program's own accounts."""
    wrong = with_data(world.add(1), client.discriminator("account", "Position") + bytes(8))
    refused(world, wrong, 101, None)


@pytest.mark.parametrize(("name", "size"), ARGUMENT_BYTES.items())
def test_arguments_a_byte_short_are_refused(world: MarketWorld, name: str, size: int) -> None:
    """Arguments cut anywhere are an error, never read past their end."""
    instruction = STEPS[name](world)
    assert len(instruction.data) == 8 + size
    for length in range(8, 8 + size):
        refused(world, with_data(instruction, bytes(instruction.data[:length])), 102, None)


@pytest.mark.parametrize("name", ["create_market", "open_position"])
@pytest.mark.parametrize(
    "symbol",
    [b"\xff", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"a\x80", b"\xc3("],
)
def test_a_symbol_must_be_utf8(world: MarketWorld, name: str, symbol: bytes) -> None:
    """Borsh strings are UTF-8: no stray, missing or overlong bytes, no surrogates, nothing behind Unicode's end."""
    data = bytes(STEPS[name](world).data)
    wrong = data[:8] + struct.pack("<I", len(symbol)) + symbol + data[15:]
    refused(world, with_data(STEPS[name](world), wrong), 102, None)


@pytest.mark.parametrize("name", ["set_market_halted", "open_position"])
def test_a_bool_is_0_or_1(world: MarketWorld, name: str) -> None:
    """Borsh refuses a bool of 2."""
    data = bytearray(STEPS[name](world).data)
    data[8 if name == "set_market_halted" else 15] = 2
    refused(world, with_data(STEPS[name](world), bytes(data)), 102, None)


@pytest.mark.parametrize("name", ["create_market", "contribute", "open_position", "add_collateral", "close_position"])
def test_more_bytes_and_more_accounts_are_ignored(world: MarketWorld, name: str) -> None:
    """Trailing data and accounts after the known ones change nothing."""
    instruction = STEPS[name](world)
    extra = [AccountMeta(Pubkey(bytes([200 + n] * 32)), is_signer=False, is_writable=False) for n in range(8)]
    accounts = [*instruction.accounts, *extra, *instruction.accounts]
    world.done(Instruction(client.PROGRAM_ID, bytes(instruction.data) + b"\xff", accounts))


# -- rights and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), EVERY_ACCOUNT)
def test_a_missing_account_is_named(world: MarketWorld, name: str, index: int) -> None:
    """An account list that ends early fails at the first account that is missing."""
    instruction = STEPS[name](world)
    cut = Instruction(client.PROGRAM_ID, instruction.data, instruction.accounts[:index])
    refused(world, cut, 3005, ACCOUNTS[name][index])


@pytest.mark.parametrize(("name", "index"), flagged("signer"))
def test_a_missing_signature_is_named(world: MarketWorld, name: str, index: int) -> None:
    """The right account without its signature is refused."""
    meta = STEPS[name](world).accounts[index]
    unsigned = with_account(
        STEPS[name](world), index, AccountMeta(meta.pubkey, is_signer=False, is_writable=meta.is_writable)
    )
    refused(world, unsigned, 3010, ACCOUNTS[name][index])


@pytest.mark.parametrize(("name", "index"), flagged("writable"))
def test_a_read_only_account_is_named(world: MarketWorld, name: str, index: int) -> None:
    """An account that the instruction changes must be writable."""
    meta = STEPS[name](world).accounts[index]
    frozen = with_account(
        STEPS[name](world), index, AccountMeta(meta.pubkey, is_signer=meta.is_signer, is_writable=False)
    )
    refused(world, frozen, 2000, ACCOUNTS[name][index])


@pytest.mark.parametrize(("name", "account"), PROGRAMS)
def test_a_look_alike_of_a_program_is_refused(world: MarketWorld, name: str, account: str) -> None:
    """Tokens are moved, and accounts made, by the real programs only: a stranger's program is never called."""
    instruction = STEPS[name](world)
    right = instruction.accounts[place(name, account)].pubkey
    refused(world, swapped(world, name, account, ELSEWHERE), 3008, account, keys=(ELSEWHERE, right))


@pytest.mark.parametrize(("name", "account"), using("event_authority", "cpi_authority", "vault_authority"))
def test_an_authority_has_one_address(world: MarketWorld, name: str, account: str) -> None:
    """Event authority, call authority and the collateral program's settings are those PDAs and nothing else."""
    right = STEPS[name](world).accounts[place(name, account)].pubkey
    refused(world, swapped(world, name, account, ELSEWHERE), 2006, account, keys=(ELSEWHERE, right))


@pytest.mark.parametrize(("name", "account"), using("program"))
def test_program_is_this_program(world: MarketWorld, name: str, account: str) -> None:
    """Events are sent to, and calls are made for, the engine itself."""
    wrong = swapped(world, name, account, vaults.PROGRAM_ID)
    refused(world, wrong, 2012, account, keys=(vaults.PROGRAM_ID, client.PROGRAM_ID))


# -- whose account ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["create_market", "set_market_halted"])
def test_only_the_funds_authority_decides_over_markets(world: MarketWorld, name: str) -> None:
    """Another wallet that signs is not the authority."""
    wrong = swapped(world, name, "authority", KEEPER.pubkey())
    refused(world, wrong, 2001, "insurance_fund", keys=(AUTHORITY.pubkey(), KEEPER.pubkey()))


@pytest.mark.parametrize("name", ["add_collateral", "close_position"])
def test_only_its_owner_tops_up_or_closes_a_position(world: MarketWorld, name: str) -> None:
    """Another wallet that signs is not the owner; nor does a position of its own help."""
    world.done(world.open(owner=BOB))
    wrong = swapped(world, name, "owner", BOB.pubkey())
    refused(world, wrong, 2001, "position", keys=(ALICE.pubkey(), BOB.pubkey()))
    wrong = swapped(world, name, "position", client.find_position(BOB.pubkey(), SYMBOL))
    refused(world, wrong, 2001, "position", keys=(BOB.pubkey(), ALICE.pubkey()))


@pytest.mark.parametrize("name", LIQUIDATIONS)
@pytest.mark.parametrize("who", [BOB, KEEPER], ids=["bob", "keeper"])
def test_a_liquidated_positions_rent_goes_to_its_owner(world: MarketWorld, name: str, who: Any) -> None:
    """`position_owner` is the position's, not the liquidator and not a third."""
    wrong = swapped(world, name, "position_owner", who.pubkey())
    refused(world, wrong, 2001, "position", keys=(ALICE.pubkey(), who.pubkey()))


@pytest.mark.parametrize("name", LIQUIDATIONS)
def test_nobody_liquidates_himself(world: MarketWorld, name: str) -> None:
    """The owner gets no reward for his own failure, whatever vaults he names."""
    size = 5 if name == "liquidate_partial" else None
    refused(world, world.liquidate(size, liquidator=ALICE), CODES["SelfLiquidation"], "liquidator")
    wrong = swapped(world, name, "liquidator", ALICE.pubkey())
    refused(world, wrong, CODES["SelfLiquidation"], "liquidator")


@pytest.mark.parametrize(("name", "account"), VAULTS)
def test_a_vault_is_that_of_its_own_owner(world: MarketWorld, name: str, account: str) -> None:
    """No vault stands in for another: neither any other participant's nor the very one named elsewhere in the list."""
    right = STEPS[name](world).accounts[place(name, account)].pubkey
    everybody = [vaults.find_vault(key) for key in (ALICE.pubkey(), BOB.pubkey(), KEEPER.pubkey(), FUND)]
    for vault in set(everybody) - {right}:
        refused(world, swapped(world, name, account, vault), 2006, account)


@pytest.mark.parametrize(("name", "account"), VAULTS)
def test_a_vault_must_exist_and_be_the_collateral_programs(world: MarketWorld, name: str, account: str) -> None:
    """A copy elsewhere, nothing, another program's data, the engine's own, short data and another type are refused."""
    instruction = STEPS[name](world)
    address = instruction.accounts[place(name, account)].pubkey
    data = world.data(address)
    refused(world, swapped(world, name, account, ELSEWHERE), 3012, account)
    world.plant(ELSEWHERE, data, owner=vaults.PROGRAM_ID)
    refused(world, swapped(world, name, account, ELSEWHERE), 2006, account, keys=(ELSEWHERE, address))
    for stranger in (client.PROGRAM_ID, SYSTEM_PROGRAM_ID):
        world.plant(address, data, owner=stranger)
        refused(world, instruction, 3007, account, keys=(stranger, vaults.PROGRAM_ID))
    for planted, code in ((data[:7], 3001), (bytes(129), 3002), (data[:128], 3003), (data[:128] + b"\x07", 2006)):
        world.plant(address, planted, owner=vaults.PROGRAM_ID)
        refused(world, instruction, code, account)


@pytest.mark.parametrize(("name", "account"), TOKENS)
def test_a_vaults_tokens_are_in_its_own_token_account(world: MarketWorld, name: str, account: str) -> None:
    """Wallets' token accounts and other vaults' are refused, whether or not any token would have moved."""
    right = STEPS[name](world).accounts[place(name, account)].pubkey
    owners = [vaults.find_vault(key) for key in (ALICE.pubkey(), BOB.pubkey(), KEEPER.pubkey(), FUND)]
    for owner in (*owners, ALICE.pubkey(), KEEPER.pubkey()):
        wrong = vaults.find_token_account(owner, MINT)
        if wrong != right:
            refused(world, swapped(world, name, account, wrong), 2012, account, keys=(wrong, right))


@pytest.mark.parametrize(("name", "account"), MARKETS)
def test_a_market_is_that_of_the_symbol(world: MarketWorld, name: str, account: str) -> None:
    """Another symbol's market, with its own limits and feed, is refused; so is a copy of the right one elsewhere."""
    world.done(world.create_market("ETH", max_leverage=7))
    other, right = client.find_market("ETH"), client.find_market(SYMBOL)
    if name != "set_market_halted":
        refused(world, swapped(world, name, account, other), 2006, account)
    world.plant(ELSEWHERE, world.data(right))
    refused(world, swapped(world, name, account, ELSEWHERE), 2006, account, keys=(ELSEWHERE, right))


def corrupted(world: MarketWorld, name: str, account: str, changes: list[tuple[bytes, int]]) -> None:
    """Put other bytes, and other owners, into an account of the engine's, and assert the codes."""
    instruction = STEPS[name](world)
    address = instruction.accounts[place(name, account)].pubkey
    data = world.data(address)
    refused(world, swapped(world, name, account, ELSEWHERE), 3012, account)
    for stranger in (vaults.PROGRAM_ID, SYSTEM_PROGRAM_ID):
        world.plant(address, data, owner=stranger)
        refused(world, instruction, 3007, account, keys=(stranger, client.PROGRAM_ID))
    for planted, code in [(data[:7], 3001), (bytes(8) + data[8:], 3002), (data[:8], 3003), *changes]:
        world.plant(address, planted)
        refused(world, instruction, code, account)


@pytest.mark.parametrize(("name", "account"), MARKETS)
def test_a_market_must_exist_be_ours_and_be_one(world: MarketWorld, name: str, account: str) -> None:
    """Nothing, others' data, another type, short data, a bool of 2, a symbol too long or not UTF-8, a wrong bump."""
    data = world.data(client.find_market(SYMBOL))
    end = 8 + 4 + 3 + 32 + 8 + 2 + 2
    assert len(data) == 74
    corrupted(world, name, account, [
        (data[: end + 1], 3003), (data[:end] + b"\x02" + data[end + 1 :], 3003),
        (data[:8] + b"\x11" + data[9:], 3003), (data[:12] + b"\xff" + data[13:], 3003),
        (data[: end + 1] + b"\x07", 2006), (world.data(FUND), 3002),
    ])  # fmt: skip


@pytest.mark.parametrize(("name", "account"), POSITIONS)
def test_a_position_must_exist_be_ours_and_be_one(world: MarketWorld, name: str, account: str) -> None:
    """The same for a position; and a copy elsewhere is none."""
    address = client.find_position(ALICE.pubkey(), SYMBOL)
    data = world.data(address)
    assert len(data) == 98
    corrupted(world, name, account, [
        (data[:84], 3003), (data[:47] + b"\x02" + data[48:], 3003), (data[:40] + b"\x11" + data[41:], 3003),
        (data[:44] + b"\xff" + data[45:], 3003), (data[:84] + b"\x07", 2006), (world.data(FUND), 3002),
        (data[:8] + bytes(BOB.pubkey()) + data[40:], 2006),
    ])  # fmt: skip
    world.plant(ELSEWHERE, data)
    refused(world, swapped(world, name, account, ELSEWHERE), 2006, account, keys=(ELSEWHERE, address))


@pytest.mark.parametrize(("name", "account"), FUNDS)
def test_the_fund_must_exist_be_ours_and_be_the_one(world: MarketWorld, name: str, account: str) -> None:
    """The same for the fund: whoever could pass another would be every market's authority."""
    data = world.data(FUND)
    corrupted(world, name, account, [(data[:72], 3003), (data[:72] + b"\x07", 2006)])
    world.plant(FUND, data)
    world.plant(ELSEWHERE, data)
    refused(world, swapped(world, name, account, ELSEWHERE), 2006, account, keys=(ELSEWHERE, FUND))


@pytest.mark.parametrize(
    ("name", "account"), [("create_market", "market"), ("open_position", "position"),
                          ("initialize_insurance_fund", "insurance_fund")]
)  # fmt: skip
def test_a_new_account_goes_to_its_own_address(world: MarketWorld, name: str, account: str) -> None:
    """Market, position and fund are made at their PDAs and nowhere else."""
    right = STEPS[name](world).accounts[place(name, account)].pubkey
    refused(world, swapped(world, name, account, ELSEWHERE), 2006, account, keys=(ELSEWHERE, right))


@pytest.mark.parametrize(
    ("account", "wrong", "code", "named"),
    [
        ("fund_vault", ELSEWHERE, 2006, "vault"), ("fund_token_account", ELSEWHERE, 2009, "token_account"),
        ("mint", PRICE, 2001, "vault_authority"),
    ],
)  # fmt: skip
def test_the_funds_vault_is_made_by_the_collateral_programs_rules(
    account: str, wrong: Pubkey, code: int, named: str
) -> None:
    """Vault, token account and mint of the fund are checked where vaults are made, and its refusal comes through."""
    world = MarketWorld()
    world.done(
        vaults.initialize_vault_authority(
            AUTHORITY.pubkey(), mint=MINT, authorized_programs=[client.PROGRAM_ID], withdraw_min_delay_s=0
        )
    )
    world.plant(PRICE, world.data(MINT), owner=vaults.TOKEN_PROGRAM_ID)
    refused(world, swapped(world, "initialize_insurance_fund", account, wrong), code, named)
    world.done(client.initialize_insurance_fund(AUTHORITY.pubkey(), mint=MINT))


@pytest.mark.parametrize("name", ["open_position", "close_position", *LIQUIDATIONS])
def test_a_price_counts_only_from_the_receiver_program(world: MarketWorld, name: str) -> None:
    """A price account that anybody else owns is no price, however well it is written; nor is no account."""
    data = world.data(PRICE)
    for owner in (client.PROGRAM_ID, SYSTEM_PROGRAM_ID, vaults.PROGRAM_ID):
        world.plant(PRICE, data, owner=owner)
        refused(world, STEPS[name](world), CODES["WrongOracleOwner"], "price_update")
    refused(world, swapped(world, name, "price_update", ELSEWHERE), CODES["WrongOracleOwner"], "price_update")


# -- anything in any place --------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(sorted(ACCOUNTS)),
            st.lists(st.tuples(st.integers(0, 17), st.integers(0, 19), st.booleans()), max_size=3),
            st.one_of(st.none(), st.binary(max_size=40)),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_any_accounts_in_any_place_fail_by_a_code(
    calls: list[tuple[str, list[tuple[int, int, bool]], bytes | None]],
) -> None:
    """Accounts repeated, misplaced and swapped, arguments of any bytes: a code or success, and no token is lost."""
    world = MarketWorld.opened()
    world.done(world.open())
    owners = [ALICE.pubkey(), BOB.pubkey(), KEEPER.pubkey(), FUND]
    held = [vaults.find_token_account(key, MINT) for key in owners[:3]]
    pool = [
        *owners, *map(vaults.find_vault, owners), *held, PRICE, MINT, client.find_market(SYMBOL),
        client.find_position(ALICE.pubkey(), SYMBOL), client.PROGRAM_ID, vaults.PROGRAM_ID, SYSTEM_PROGRAM_ID,
        client.find_event_authority(), vaults.find_caller_authority(client.PROGRAM_ID),
    ]  # fmt: skip

    def supply() -> int:
        in_wallets = sum(struct.unpack_from("<Q", world.data(key), 64)[0] for key in held)
        return int(in_wallets) + sum(map(world.tokens, owners))

    total = supply()
    for name, swaps, arguments in calls:
        instruction = STEPS[name](world)
        accounts = list(instruction.accounts)
        for at, pick, signs in swaps:
            accounts[at % len(accounts)] = AccountMeta(pool[pick], is_signer=signs and pick < 3, is_writable=True)
        data = bytes(instruction.data) if arguments is None else bytes(instruction.data[:8]) + arguments
        outcome = world.send(Instruction(client.PROGRAM_ID, data, accounts))
        assert outcome.code is None or isinstance(outcome.code, int) or "Privilege" in outcome.code, outcome
        assert supply() == total
        for owner in owners:
            whole, locked, available = world.balances(owner)
            assert whole == locked + available == world.tokens(owner)
