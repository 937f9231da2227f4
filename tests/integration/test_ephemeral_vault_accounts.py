"""What the program refuses before it looks at the state of a session: wrong bytes, wrong accounts, missing rights."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

from localnet.clients import ephemeral_vault as client
from tests.fixtures.vault_world import DURATION_S, START, VaultWorld, with_account, with_data, with_key

Step = Callable[[VaultWorld], Instruction]

ACCOUNTS: dict[str, tuple[str, ...]] = {
    "create_vault": ("parent", "ephemeral_wallet", "vault", "system_program"),
    "approve_delegate": ("vault", "parent", "delegation", "system_program"),
    "auto_deposit_for_trade": ("vault", "parent", "system_program"),
    "execute_trade": ("vault", "ephemeral", "delegation", "parent_wallet"),
    "revoke_access": ("vault", "parent", "delegation", "system_program", "parent_wallet"),
    "cleanup_vault": ("vault", "parent", "cleaner", "parent_wallet"),
}
STEPS: dict[str, Step] = {
    "create_vault": lambda w: w.create(),
    "approve_delegate": lambda w: w.approve(),
    "auto_deposit_for_trade": lambda w: w.deposit(1),
    "execute_trade": lambda w: w.trade(1),
    "revoke_access": lambda w: w.revoke(),
    "cleanup_vault": lambda w: w.cleanup(),
}
ARGUMENT_BYTES = {"create_vault": 48, "approve_delegate": 32, "auto_deposit_for_trade": 8, "execute_trade": 8}
SIGNERS = [(name, i) for name, names in ACCOUNTS.items() for i, account in enumerate(names)
           if account in ("ephemeral", "cleaner") or (account == "parent" and name != "cleanup_vault")]  # fmt: skip
WRITABLE = [(name, i) for name, names in ACCOUNTS.items() for i, account in enumerate(names)
            if account in ("vault", "delegation", "parent", "cleaner")]  # fmt: skip
EVERY_ACCOUNT = [(name, i) for name, names in ACCOUNTS.items() for i in range(len(names))]
USING_VAULT = [name for name in ACCOUNTS if name != "create_vault"]
USING_DELEGATION = ["execute_trade", "revoke_access"]

MESSAGES = {
    100: ("InstructionMissing", "8 byte instruction identifier not provided"),
    101: ("InstructionFallbackNotFound", "Fallback functions are not supported"),
    102: ("InstructionDidNotDeserialize", "The program could not deserialize the given instruction"),
    2000: ("ConstraintMut", "A mut constraint was violated"),
    2001: ("ConstraintHasOne", "A has one constraint was violated"),
    2006: ("ConstraintSeeds", "A seeds constraint was violated"),
    2012: ("ConstraintAddress", "An address constraint was violated"),
    3001: ("AccountDiscriminatorNotFound", "No 8 byte discriminator was found on the account"),
    3002: ("AccountDiscriminatorMismatch", "8 byte discriminator did not match what was expected"),
    3003: ("AccountDidNotDeserialize", "Failed to deserialize the account"),
    3004: ("AccountDidNotSerialize", "Failed to serialize the account"),
    3005: ("AccountNotEnoughKeys", "Not enough account keys given to the instruction"),
    3007: ("AccountOwnedByWrongProgram", "The given account is owned by a different program than expected"),
    3008: ("InvalidProgramId", "Program ID was not as expected"),
    3010: ("AccountNotSigner", "The given account did not sign"),
    3012: ("AccountNotInitialized", "The program expected this account to be already initialized"),
    6005: ("InvalidDelegationAccount", "The delegation does not belong to this vault and session"),
    6004: ("InvalidDelegate", "The delegate is not the vault's ephemeral wallet"),
}
"""Name and text of each error, Anchor's own as in its `lang/src/error.rs`."""


@pytest.fixture
def world() -> VaultWorld:
    """A world in which every instruction would succeed, but for create_vault (made already) and cleanup (too early)."""
    opened = VaultWorld()
    opened.done(opened.create(), opened.approve(), opened.deposit(1_000))
    return opened


def refused(
    world: VaultWorld,
    instruction: Instruction,
    code: int,
    account: str | None,
    *,
    keys: tuple[Pubkey, Pubkey] | None = None,
) -> None:
    """Send the instruction and assert its code and Anchor's very lines; `keys` are those logged as left and right."""
    outcome = world.send(instruction)
    name, message = MESSAGES[code]
    assert outcome.code == code, outcome.logs
    where = f"caused by account: {account}" if account else "occurred"
    line = f"Program log: AnchorError {where}. Error Code: {name}. Error Number: {code}. Error Message: {message}."
    assert line in outcome.logs
    after = outcome.logs[outcome.logs.index(line) + 1 :]
    if keys:
        left, right = keys
        assert after[:4] == [
            "Program log: Left:",
            f"Program log: {left}",
            "Program log: Right:",
            f"Program log: {right}",
        ]
    assert outcome.events == []


def place(name: str, account: str) -> int:
    """Return an account's place in an instruction."""
    return ACCOUNTS[name].index(account)


# -- instruction data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(8))
def test_data_shorter_than_a_discriminator_is_no_instruction(world: VaultWorld, length: int) -> None:
    """Anchor wants 8 bytes before it looks for an instruction."""
    refused(world, with_data(world.deposit(1), bytes(world.deposit(1).data[:length])), 100, None)


def test_an_unknown_discriminator_is_refused(world: VaultWorld) -> None:
    """There is no fallback, not even for the discriminator of one of the program's own accounts."""
    refused(world, with_data(world.deposit(1), client.VAULT_DISCRIMINATOR + bytes(8)), 101, None)


@pytest.mark.parametrize(("name", "size"), ARGUMENT_BYTES.items())
def test_arguments_a_byte_short_are_refused(world: VaultWorld, name: str, size: int) -> None:
    """Short arguments are an error, never read past their end; not even where no argument came at all."""
    instruction = STEPS[name](world)
    assert len(instruction.data) == 8 + size
    for length in (8, 8 + size - 1):
        refused(world, with_data(instruction, bytes(instruction.data[:length])), 102, None)


@pytest.mark.parametrize("name", ["approve_delegate", "auto_deposit_for_trade", "execute_trade", "revoke_access"])
def test_more_bytes_and_more_accounts_are_ignored(world: VaultWorld, name: str) -> None:
    """Trailing data and accounts after the known ones, also many and repeated ones, change nothing."""
    instruction = STEPS[name](world)
    extra = [AccountMeta(Pubkey.new_unique(), is_signer=False, is_writable=False) for _ in range(12)]
    accounts = [*instruction.accounts, *extra, *instruction.accounts, *extra]
    world.done(Instruction(client.PROGRAM_ID, bytes(instruction.data) + b"\xff", accounts))


# -- rights and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), EVERY_ACCOUNT)
def test_a_missing_account_is_named(world: VaultWorld, name: str, index: int) -> None:
    """An account list that ends early fails at the first account that is missing."""
    instruction = STEPS[name](world)
    cut = Instruction(client.PROGRAM_ID, instruction.data, instruction.accounts[:index])
    refused(world, cut, 3005, ACCOUNTS[name][index])


@pytest.mark.parametrize(("name", "index"), SIGNERS)
def test_a_missing_signature_is_named(world: VaultWorld, name: str, index: int) -> None:
    """The right account without its signature is refused."""
    meta = STEPS[name](world).accounts[index]
    assert meta.is_signer
    unsigned = with_account(STEPS[name](world), index, AccountMeta(meta.pubkey, False, meta.is_writable))
    refused(world, unsigned, 3010, ACCOUNTS[name][index])


@pytest.mark.parametrize(("name", "index"), WRITABLE)
def test_a_read_only_account_is_named(world: VaultWorld, name: str, index: int) -> None:
    """An account that the instruction changes must be writable."""
    meta = STEPS[name](world).accounts[index]
    assert meta.is_writable
    frozen = with_account(STEPS[name](world), index, AccountMeta(meta.pubkey, meta.is_signer, False))
    refused(world, frozen, 2000, ACCOUNTS[name][index])


@pytest.mark.parametrize("name", [name for name, names in ACCOUNTS.items() if "system_program" in names])
def test_another_program_in_place_of_the_system_program_is_refused(world: VaultWorld, name: str) -> None:
    """A look-alike is never called, nor silently accepted where the instruction needs no call."""
    wrong = with_key(STEPS[name](world), place(name, "system_program"), client.PROGRAM_ID)
    refused(world, wrong, 3008, "system_program", keys=(client.PROGRAM_ID, SYSTEM_PROGRAM_ID))


# -- whose account ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["approve_delegate", "auto_deposit_for_trade", "revoke_access", "cleanup_vault"])
@pytest.mark.parametrize("who", ["keeper", "vault"])
def test_only_the_vaults_parent_is_its_parent(world: VaultWorld, name: str, who: str) -> None:
    """Another wallet that signs is not the parent; where no signature is asked the vault itself is not either."""
    if who == "vault" and name != "cleanup_vault":
        who = "ephemeral"  # a PDA cannot sign
    impostor = world.vault if who == "vault" else getattr(world, who).pubkey()
    wrong = with_key(STEPS[name](world), place(name, "parent"), impostor)
    refused(world, wrong, 2012, "parent", keys=(impostor, world.parent.pubkey()))


@pytest.mark.parametrize("name", ["execute_trade", "revoke_access", "cleanup_vault"])
def test_parent_wallet_is_the_vaults(world: VaultWorld, name: str) -> None:
    """The second mention of the parent is checked like the first."""
    wrong = with_key(STEPS[name](world), place(name, "parent_wallet"), world.keeper.pubkey())
    refused(world, wrong, 2001, "vault", keys=(world.parent.pubkey(), world.keeper.pubkey()))


def test_create_vault_wants_argument_and_account_to_agree(world: VaultWorld) -> None:
    """The ephemeral wallet is given twice; a vault is not made for one that is addressed by the other."""
    instruction = world.create()
    data = bytes(instruction.data[:24]) + bytes(world.keeper.pubkey())
    wallets = (world.ephemeral.pubkey(), world.keeper.pubkey())
    refused(world, with_data(instruction, data), 2012, "ephemeral_wallet", keys=wallets)


def test_a_new_account_goes_to_its_own_address(world: VaultWorld) -> None:
    """Vault and delegation are made at their PDAs and nowhere else."""
    wrong = Pubkey.new_unique()
    refused(world, with_key(world.create(), 2, wrong), 2006, "vault", keys=(wrong, world.vault))
    refused(world, with_key(world.approve(), 2, wrong), 2006, "delegation", keys=(wrong, world.delegation))


def vault_data(world: VaultWorld) -> bytes:
    account = world.svm.get_account(world.vault)
    assert account is not None
    return bytes(account.data)


def delegation_data(world: VaultWorld) -> bytes:
    account = world.svm.get_account(world.delegation)
    assert account is not None
    return bytes(account.data)


@pytest.mark.parametrize("name", USING_VAULT)
def test_a_vault_counts_only_at_its_own_address(world: VaultWorld, name: str) -> None:
    """The same bytes at another address of the program's are not the vault."""
    copy = Pubkey.new_unique()
    world.plant(copy, vault_data(world))
    refused(world, with_key(STEPS[name](world), 0, copy), 2006, "vault", keys=(copy, world.vault))


@pytest.mark.parametrize("name", USING_VAULT)
def test_a_bump_that_gives_no_address_is_refused(world: VaultWorld, name: str) -> None:
    """A stored bump that leads onto the curve, or to another address, is a violated seed and nothing worse."""
    data = bytearray(vault_data(world))
    codes = set()
    for bump in range(230, 255):
        data[-1] = bump
        world.plant(world.vault, bytes(data))
        codes.add(world.send(STEPS[name](world)).code)
    assert codes == {2006}


@pytest.mark.parametrize("name", USING_DELEGATION)
def test_another_vaults_delegation_is_refused(world: VaultWorld, name: str) -> None:
    """A delegation is that of the vault beside it: neither a copy elsewhere nor another vault's own."""
    index = place(name, "delegation")
    copy = Pubkey.new_unique()
    world.plant(copy, delegation_data(world))
    refused(world, with_key(STEPS[name](world), index, copy), 2006, "delegation", keys=(copy, world.delegation))
    keeper = world.keeper.pubkey()
    world.done(
        client.create_vault(keeper, keeper, session_duration_s=DURATION_S, max_deposit=1),
        client.approve_delegate(keeper, keeper),
    )
    other = client.find_delegation(client.find_vault(keeper, keeper))
    refused(world, with_key(STEPS[name](world), index, other), 2006, "delegation")


@pytest.mark.parametrize(("offset", "code", "account"), [(8, 6005, "delegation"), (40, 6004, "ephemeral")])
def test_a_delegation_that_names_others_is_refused(world: VaultWorld, offset: int, code: int, account: str) -> None:
    """Even at the right address: the vault and the delegate it names must be these."""
    data = bytearray(delegation_data(world))
    data[offset : offset + 32] = bytes(world.keeper.pubkey())
    world.plant(world.delegation, bytes(data))
    refused(world, world.trade(1), code, account)


# -- what lies in it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USING_VAULT)
def test_a_vault_must_exist_be_ours_and_be_a_vault(world: VaultWorld, name: str) -> None:
    """Nothing, lamports, another program's data, short data, another type, and a bool of 2 each have their code."""
    instruction, data = STEPS[name](world), vault_data(world)
    refused(world, with_key(instruction, 0, Pubkey.new_unique()), 3012, "vault")
    refused(world, with_key(instruction, 0, world.delegation), 3002, "vault")
    world.plant(world.vault, b"", owner=SYSTEM_PROGRAM_ID)
    refused(world, instruction, 3007, "vault", keys=(SYSTEM_PROGRAM_ID, client.PROGRAM_ID))
    stranger = Pubkey.new_unique()
    world.plant(world.vault, data, owner=stranger)
    refused(world, instruction, 3007, "vault", keys=(stranger, client.PROGRAM_ID))
    for planted, code in (
        (data[:7], 3001), (bytes(114), 3002), (data[:8], 3003), (data[:113], 3003),
        (data[:88] + b"\x02" + data[89:], 3003),
    ):  # fmt: skip
        world.plant(world.vault, planted)
        refused(world, instruction, code, "vault")


@pytest.mark.parametrize("name", USING_DELEGATION)
def test_a_delegation_must_exist_be_ours_and_be_one(world: VaultWorld, name: str) -> None:
    """As for the vault; the option's tag is 0 or 1, and what the tag announces must be there."""
    instruction, data, index = STEPS[name](world), delegation_data(world), place(name, "delegation")
    refused(world, with_key(instruction, index, Pubkey.new_unique()), 3012, "delegation")
    refused(world, with_key(instruction, index, world.vault), 3002, "delegation")
    world.plant(world.delegation, data, owner=SYSTEM_PROGRAM_ID)
    refused(world, instruction, 3007, "delegation", keys=(SYSTEM_PROGRAM_ID, client.PROGRAM_ID))
    for planted, code in (
        (data[:5], 3001), (bytes(90), 3002), (data[:81], 3003), (data[:80] + b"\x01" + data[81:89], 3003),
        (data[:80] + b"\x02" + data[81:], 3003),
    ):  # fmt: skip
        world.plant(world.delegation, planted)
        refused(world, instruction, code, "delegation")


def test_approve_resets_nothing_but_a_delegation(world: VaultWorld) -> None:
    """What already lies at the delegation's address must be one, with room for its longest form in a revocation."""
    data = delegation_data(world)
    world.plant(world.delegation, data, owner=Pubkey.new_unique())
    refused(world, world.approve(), 3007, "delegation")
    world.plant(world.delegation, client.VAULT_DISCRIMINATOR + data[8:])
    refused(world, world.approve(), 3002, "delegation")
    world.plant(world.delegation, data[:81])
    refused(world, world.approve(), 3004, "delegation")
    world.plant(world.delegation, data[:82])
    world.done(world.approve())
    refused(world, world.revoke(), 3004, "delegation")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(sorted(ACCOUNTS)),
            st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=6),
            st.binary(max_size=48),
        ),
        min_size=3,
        max_size=10,
    )
)
def test_any_accounts_in_any_place_fail_by_a_code(
    calls: list[tuple[str, list[tuple[int, bool]], bytes]],
) -> None:
    """Accounts repeated, misplaced and missing, arguments of any bytes: always a code, never a fault of the machine."""
    world = VaultWorld()
    world.done(world.create(), world.approve(), world.deposit(1_000))
    parent, keeper = world.parent.pubkey(), world.keeper.pubkey()
    keys = [parent, world.ephemeral.pubkey(), keeper, world.vault, world.delegation]
    total = sum(map(world.lamports, keys))
    pool = [*keys, SYSTEM_PROGRAM_ID, client.find_vault(keeper, parent), client.PROGRAM_ID]
    for name, picks, arguments in calls:
        accounts = list(STEPS[name](world).accounts)
        for place_taken, (pick, signs) in enumerate(picks[: len(accounts)]):
            if signs or pick > 2:  # else the right account stays
                accounts[place_taken] = AccountMeta(pool[pick], is_signer=signs and pick <= 2, is_writable=True)
        data = bytes(STEPS[name](world).data[:8]) + arguments
        world.send(Instruction(client.PROGRAM_ID, data, accounts))  # an error without a code raises in there
        assert sum(map(world.lamports, [*keys, pool[6]])) == total


def test_an_expiry_before_the_start_is_expired(world: VaultWorld) -> None:
    """Times are signed: an expiry of -1 is long past, not far ahead."""
    data = bytearray(vault_data(world))
    struct.pack_into("<q", data, 80, -1)
    world.plant(world.vault, bytes(data))
    world.at(START)
    world.done(world.cleanup())
