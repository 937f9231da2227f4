"""What the program refuses before it looks at a balance: wrong bytes, wrong accounts, missing rights, one for two."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

from localnet.clients import collateral_vault as client
from tests.fixtures.collateral_attack import ACCOUNTS, address, places, refused, replaced
from tests.fixtures.collateral_world import (
    ADMIN,
    ALICE,
    ALICE_TOKENS,
    ALICE_VAULT,
    ALICE_VAULT_TOKENS,
    AUTHORITY,
    BOB,
    BOB_TOKENS,
    BOB_VAULT,
    BOB_VAULT_TOKENS,
    ENGINE,
    KEEPER,
    MINT,
    OTHER_ENGINE,
    PAYER,
    STEPS,
    CollateralWorld,
    flagged,
)
from tests.fixtures.vault_world import with_account, with_data, with_key

VAULTS = [
    (name, account)
    for name, account in places(lambda a: a["name"] in ("vault", "from_vault", "to_vault"))
    if name != "initialize_vault"
]
SETTINGS = [name for name, _ in places(lambda a: a["name"] == "vault_authority")]
SETTINGS.remove("initialize_vault_authority")
REQUESTS = ["cancel_withdraw", "execute_withdraw"]
CALLED = ["lock_collateral", "unlock_collateral", "transfer_collateral"]
REQUEST = client.find_withdraw_request(ALICE_VAULT, 0)


@pytest.fixture
def world() -> CollateralWorld:
    """A world in which every instruction would succeed, but for making the settings again."""
    opened = CollateralWorld.opened()
    opened.furnish()
    return opened


# -- instruction data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(8))
def test_data_shorter_than_a_discriminator_is_no_instruction(world: CollateralWorld, length: int) -> None:
    """Anchor wants 8 bytes before it looks for an instruction."""
    step = STEPS["deposit"](world)
    refused(world, with_data(step, bytes(step.data[:length])), 100, None)


def test_an_unknown_discriminator_is_refused(world: CollateralWorld) -> None:
    """There is no fallback, not even for the discriminator of one of the program's own accounts."""
    refused(world, with_data(STEPS["deposit"](world), client.VAULT_DISCRIMINATOR + bytes(8)), 101, None)


@pytest.mark.parametrize("name", [name for name in STEPS if name != "initialize_vault"])
def test_arguments_a_byte_short_are_refused(world: CollateralWorld, name: str) -> None:
    """Short arguments are an error, never read past their end; not even where no argument came at all."""
    step = STEPS[name](world)
    for length in (8, len(step.data) - 1):
        refused(world, with_data(step, bytes(step.data[:length])), 102, None)


@pytest.mark.parametrize("count", [2, 10, 11, 2**16, 2**27, 2**32 - 1])
def test_a_vector_longer_than_its_bytes_is_refused(count: int) -> None:
    """A count that promises more keys than came is an error, however large: 2^27 keys of 32 bytes would be 2^32."""
    world = CollateralWorld()
    data = bytearray(world.initialize().data)
    data[8:12] = count.to_bytes(4, "little")
    refused(world, with_data(world.initialize(), bytes(data)), 102, None)


def test_a_flag_is_0_or_1(world: CollateralWorld) -> None:
    """Borsh has no other bools."""
    step = STEPS["set_paused"](world)
    refused(world, with_data(step, bytes(step.data[:8]) + b"\x02"), 102, None)


@pytest.mark.parametrize("name", [name for name in STEPS if name != "initialize_vault_authority"])
def test_accounts_after_the_known_ones_are_ignored(world: CollateralWorld, name: str) -> None:
    """Many and repeated ones, more than the program keeps, change nothing."""
    step = STEPS[name](world)
    extra = [AccountMeta(Pubkey.new_unique(), is_signer=False, is_writable=False) for _ in range(12)]
    world.done(Instruction(step.program_id, step.data, [*step.accounts, *extra, *step.accounts, *extra]))


# -- rights and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "account"), places(lambda _: True))
def test_a_missing_account_is_named(world: CollateralWorld, name: str, account: str) -> None:
    """An account list that ends early fails at the first account that is missing."""
    step = STEPS[name](world)
    cut = step.accounts[: ACCOUNTS[name].index(account)]
    refused(world, Instruction(step.program_id, step.data, cut), 3005, account)


@pytest.mark.parametrize(("name", "account"), places(lambda a: a.get("signer", False)))
def test_a_missing_signature_is_named(world: CollateralWorld, name: str, account: str) -> None:
    """The right account without its signature is refused: owners, payers, and a program's own PDA."""
    step, index = STEPS[name](world), ACCOUNTS[name].index(account)
    assert step.accounts[index].is_signer
    if step.accounts[index].pubkey == PAYER:  # the fee payer signs everything: let another one pay the rent
        step = with_key(step, index, BOB)
    refused(world, with_account(step, index, flagged(step.accounts[index], signer=False)), 3010, account)


@pytest.mark.parametrize(("name", "account"), places(lambda a: a.get("writable", False)))
def test_a_read_only_account_is_named(world: CollateralWorld, name: str, account: str) -> None:
    """An account that the instruction changes must be writable."""
    step, index = STEPS[name](world), ACCOUNTS[name].index(account)
    assert step.accounts[index].is_writable
    if step.accounts[index].pubkey == PAYER:  # the fee payer is always writable
        step = with_key(step, index, BOB)
    refused(world, with_account(step, index, flagged(step.accounts[index], writable=False)), 2000, account)


@pytest.mark.parametrize(("name", "account"), places(lambda a: "address" in a))
def test_another_program_in_place_of_a_known_one_is_refused(world: CollateralWorld, name: str, account: str) -> None:
    """A look-alike of the system, token or associated token program is never called."""
    keys = (client.PROGRAM_ID, address(world, name, account))
    refused(world, replaced(world, name, account, client.PROGRAM_ID), 3008, account, keys=keys)


def test_the_other_token_program_is_refused(world: CollateralWorld) -> None:
    """Token-2022 could charge for a transfer; only the classic program moves exactly the amount."""
    newer = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
    for name, names in ACCOUNTS.items():
        if "token_program" in names:
            refused(world, replaced(world, name, "token_program", newer), 3008, "token_program")


# -- authorities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impostor", [ALICE, BOB, ENGINE, ALICE_VAULT])
def test_only_the_admin_pauses(world: CollateralWorld, impostor: Pubkey) -> None:
    """Another signer is not the admin."""
    wrong = client.set_paused(impostor, paused=True)
    refused(world, wrong, 2001, "vault_authority", keys=(ADMIN, impostor))


@pytest.mark.parametrize("name", ["withdraw", "request_withdraw", "cancel_withdraw", "execute_withdraw"])
@pytest.mark.parametrize("impostor", [BOB, ADMIN, ALICE_VAULT, client.find_caller_authority(ENGINE)])
def test_only_the_owner_is_the_owner(world: CollateralWorld, name: str, impostor: Pubkey) -> None:
    """Nobody else takes out of a vault: no other owner, not the admin, not an authorised program."""
    refused(world, replaced(world, name, "owner", impostor), 6003, "owner", keys=(impostor, ALICE))


@pytest.mark.parametrize("name", ["withdraw", "request_withdraw", "cancel_withdraw", "execute_withdraw"])
def test_an_owner_does_not_reach_into_another_vault(world: CollateralWorld, name: str) -> None:
    """Alice's signature is worth nothing at bob's vault."""
    refused(world, replaced(world, name, "vault", BOB_VAULT), 6003, "owner", keys=(ALICE, BOB))


@pytest.mark.parametrize("name", CALLED)
def test_only_an_authorised_programs_own_pda_speaks_for_it(world: CollateralWorld, name: str) -> None:
    """Neither the program's address itself, nor another program's PDA, nor a PDA of ours, nor an owner will do."""
    expected = client.find_caller_authority(ENGINE)
    other_seed, _ = Pubkey.find_program_address([b"authority"], ENGINE)
    ours = client.find_caller_authority(client.PROGRAM_ID)
    for impostor in (ENGINE, client.find_caller_authority(OTHER_ENGINE), other_seed, ours, ALICE, ADMIN):
        wrong = replaced(world, name, "caller_authority", impostor)
        refused(world, wrong, 2006, "caller_authority", keys=(impostor, expected))


@pytest.mark.parametrize("name", CALLED)
def test_a_second_bump_is_not_the_callers_pda(world: CollateralWorld, name: str) -> None:
    """Only the canonical address counts, though a program could sign for others of the same seed."""
    _, bump = Pubkey.find_program_address([b"cpi_authority"], ENGINE)
    candidates = (
        Pubkey(sha256(b"cpi_authority" + bytes([n]) + bytes(ENGINE) + b"ProgramDerivedAddress").digest())
        for n in range(bump - 1, 0, -1)
    )
    second = next(candidate for candidate in candidates if not candidate.is_on_curve())
    refused(world, replaced(world, name, "caller_authority", second), 2006, "caller_authority")


@pytest.mark.parametrize("name", CALLED)
def test_an_unauthorised_program_has_no_say(world: CollateralWorld, name: str) -> None:
    """With its own PDA as signer, a program that is not on the list is refused; so is one on the list's far side."""
    step = replaced(world, name, "caller_program", OTHER_ENGINE)
    refused(world, with_key(step, 0, client.find_caller_authority(OTHER_ENGINE)), 6004, "caller_program")
    # What lies after the list's end in the account is not the list.
    data = bytearray(world.data(AUTHORITY))
    data[200:232] = bytes(OTHER_ENGINE)
    world.plant(AUTHORITY, bytes(data))
    refused(world, with_key(step, 0, client.find_caller_authority(OTHER_ENGINE)), 6004, "caller_program")


# -- vaults, settings, requests: existing, ours, of their type, at their address --------------------------------------


@pytest.mark.parametrize(("name", "account"), VAULTS)
def test_a_vault_must_exist_be_ours_and_be_a_vault(world: CollateralWorld, name: str, account: str) -> None:
    """Nothing, lamports, another program's data, short data and another type each have their code."""
    where = address(world, name, account)
    step, data, stranger = STEPS[name](world), world.data(where), Pubkey.new_unique()
    refused(world, replaced(world, name, account, Pubkey.new_unique()), 3012, account)
    refused(world, replaced(world, name, account, AUTHORITY), 3002, account)
    refused(world, replaced(world, name, account, ALICE_VAULT_TOKENS), 3007, account)
    world.plant(where, b"", owner=SYSTEM_PROGRAM_ID)
    refused(world, step, 3007, account, keys=(SYSTEM_PROGRAM_ID, client.PROGRAM_ID))
    world.plant(where, data, owner=stranger)
    refused(world, step, 3007, account, keys=(stranger, client.PROGRAM_ID))
    for planted, code in ((data[:7], 3001), (bytes(129), 3002), (data[:8], 3003), (data[:128], 3003)):
        world.plant(where, planted)
        refused(world, step, code, account)


@pytest.mark.parametrize(("name", "account"), VAULTS)
def test_a_vault_counts_only_at_its_own_address(world: CollateralWorld, name: str, account: str) -> None:
    """The same bytes elsewhere are not the vault, nor is a vault whose stored bump leads elsewhere or nowhere."""
    where, copy = address(world, name, account), Pubkey.new_unique()
    data = world.data(where)
    world.plant(copy, data)
    refused(world, replaced(world, name, account, copy), 2006, account, keys=(copy, where))
    codes = set()
    for bump in set(range(235, 256)) - {data[128]}:
        world.plant(where, data[:128] + bytes([bump]))
        codes.add(world.send(STEPS[name](world)).code)
    assert codes == {2006}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_must_exist_be_ours_and_be_the_settings(world: CollateralWorld, name: str) -> None:
    """As for a vault; the vector must be whole and the flag a flag, and a copy elsewhere is nobody's settings."""
    step, data, copy = STEPS[name](world), world.data(AUTHORITY), Pubkey.new_unique()
    account = "vault_authority"
    refused(world, replaced(world, name, account, Pubkey.new_unique()), 3012, account)
    refused(world, replaced(world, name, account, BOB_VAULT), 3002, account)
    world.plant(copy, data)
    refused(world, replaced(world, name, account, copy), 2006, account, keys=(copy, AUTHORITY))
    world.plant(AUTHORITY, data, owner=ENGINE)
    refused(world, step, 3007, account, keys=(ENGINE, client.PROGRAM_ID))
    length, flag = slice(72, 76), 116
    for planted, code in (
        (data[:7], 3001), (bytes(406), 3002), (data[:8], 3003), (data[: flag + 1], 3003),
        (data[: length.start] + (12).to_bytes(4, "little") + data[length.stop :], 3003),
        (data[: length.start] + b"\xff\xff\xff\xff" + data[length.stop :], 3003),
        (data[:flag] + b"\x02" + data[flag + 1 :], 3003),
        (data[: flag + 1] + bytes([data[flag + 1] ^ 3]) + data[flag + 2 :], 2006),
    ):  # fmt: skip
        world.plant(AUTHORITY, planted)
        refused(world, step, code, account)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_must_exist_be_ours_and_be_one(world: CollateralWorld, name: str) -> None:
    """As for a vault: a request that is not there, not ours, too short, or of another type."""
    step, data, account = STEPS[name](world), world.data(REQUEST), "withdraw_request"
    refused(world, replaced(world, name, account, Pubkey.new_unique()), 3012, account)
    refused(world, replaced(world, name, account, ALICE_VAULT), 3002, account)
    world.plant(REQUEST, data, owner=ENGINE)
    refused(world, step, 3007, account, keys=(ENGINE, client.PROGRAM_ID))
    for planted, code in ((data[:7], 3001), (bytes(97), 3002), (data[:8], 3003), (data[:96], 3003)):
        world.plant(REQUEST, planted)
        refused(world, step, code, account)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_that_of_this_vault_and_id(world: CollateralWorld, name: str) -> None:
    """Not a copy elsewhere, not another id's, not bob's; and the vault it names must be this one."""
    data, copy, account = world.data(REQUEST), Pubkey.new_unique(), "withdraw_request"
    world.plant(copy, data)
    refused(world, replaced(world, name, account, copy), 2006, account, keys=(copy, REQUEST))
    world.done(
        client.request_withdraw(ALICE, amount=1, request_id=1),
        client.deposit(BOB, BOB, mint=MINT, amount=5),
        client.request_withdraw(BOB, amount=5, request_id=0),
    )
    for other in (client.find_withdraw_request(ALICE_VAULT, 1), client.find_withdraw_request(BOB_VAULT, 0)):
        refused(world, replaced(world, name, account, other), 2006, account)
    world.plant(REQUEST, data[:8] + bytes(BOB_VAULT) + data[40:])
    refused(world, STEPS[name](world), 2001, account, keys=(BOB_VAULT, ALICE_VAULT))


def test_new_accounts_go_to_their_own_addresses(world: CollateralWorld) -> None:
    """Settings, vault and request are made at their PDAs and nowhere else; a request at that of the next id."""
    wrong = Pubkey.new_unique()
    for name, account, expected in (
        ("initialize_vault_authority", "vault_authority", AUTHORITY),
        ("initialize_vault", "vault", client.find_vault(KEEPER)),
        ("request_withdraw", "withdraw_request", client.find_withdraw_request(ALICE_VAULT, 1)),
    ):
        refused(world, replaced(world, name, account, wrong), 2006, account, keys=(wrong, expected))
    for request_id in (0, 2):
        refused(world, client.request_withdraw(ALICE, amount=1, request_id=request_id), 2006, "withdraw_request")


# -- anything anywhere -------------------------------------------------------------------------------------------------

POOL = (
    ALICE, BOB, ADMIN, ALICE_VAULT, BOB_VAULT, ALICE_TOKENS, BOB_TOKENS, ALICE_VAULT_TOKENS, BOB_VAULT_TOKENS,
    AUTHORITY, REQUEST, MINT, ENGINE, client.find_caller_authority(ENGINE), client.TOKEN_PROGRAM_ID, SYSTEM_PROGRAM_ID,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(sorted(set(STEPS) - {"initialize_vault_authority"})),
            st.lists(st.tuples(st.integers(0, 8), st.integers(0, len(POOL) - 1)), max_size=3),
            st.one_of(st.none(), st.binary(max_size=24)),
        ),
        min_size=3,
        max_size=10,
    )
)
def test_any_accounts_in_any_place_keep_the_books(calls: list[tuple[str, list[tuple[int, int]], bytes | None]]) -> None:
    """Accounts repeated and misplaced, with every signature given, arguments of any bytes: the tokens stay covered."""
    world = CollateralWorld.opened()
    world.furnish()
    supply = sum(map(world.tokens, POOL[5:9]))
    for name, picks, arguments in calls:
        step = STEPS[name](world)
        accounts = list(step.accounts)
        for at, pick in picks:
            meta = accounts[at % len(accounts)]
            accounts[at % len(accounts)] = AccountMeta(POOL[pick], meta.is_signer, meta.is_writable)
        data = bytes(step.data) if arguments is None else bytes(step.data[:8]) + arguments
        outcome = world.send(Instruction(step.program_id, data, accounts))
        refusals = ("InstructionErrorFieldless.InvalidArgument",)  # the system program's, where a PDA should pay rent
        assert outcome.code is None or isinstance(outcome.code, int) or outcome.code in refusals, outcome.logs
        world.consistent()
        assert sum(map(world.tokens, POOL[5:9])) == supply
