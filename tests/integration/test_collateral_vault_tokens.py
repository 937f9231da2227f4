"""Tokens go where they belong: mints and token accounts checked, and no account passed off for two."""

import pytest
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

from localnet.clients import collateral_vault as client
from tests.fixtures.collateral_attack import address, places, refused, replaced
from tests.fixtures.collateral_world import (
    ADMIN,
    ALICE,
    ALICE_TOKENS,
    ALICE_VAULT,
    ALICE_VAULT_TOKENS,
    BOB,
    BOB_TOKENS,
    BOB_VAULT_TOKENS,
    ENGINE,
    KEEPER,
    MINT,
    OTHER_MINT,
    PAYER,
    STEPS,
    CollateralWorld,
    mint_data,
    token_data,
)
from tests.fixtures.vault_world import with_key

TOKENS = [
    (name, account)
    for name, account in places(lambda a: a["name"].endswith("token_account"))
    if name != "initialize_vault"
]


@pytest.fixture
def world() -> CollateralWorld:
    """A world in which every instruction would succeed, but for making the settings again."""
    opened = CollateralWorld.opened()
    opened.furnish()
    return opened


# -- mints and token accounts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "owner", "code"),
    [
        (b"", SYSTEM_PROGRAM_ID, 3007),
        (mint_data(), SYSTEM_PROGRAM_ID, 3007),
        (token_data(owner=ADMIN, amount=0), client.TOKEN_PROGRAM_ID, 3003),
        (mint_data(initialized=False), client.TOKEN_PROGRAM_ID, 3003),
        (mint_data()[:81], client.TOKEN_PROGRAM_ID, 3003),
        (mint_data(decimals=9), client.TOKEN_PROGRAM_ID, 2018),
        (mint_data(decimals=0), client.TOKEN_PROGRAM_ID, 2018),
    ],
)
def test_the_settings_take_only_a_mint_of_six_decimals(data: bytes, owner: Pubkey, code: int) -> None:
    """Once the mint is fixed it cannot be changed, so it is looked at closely."""
    world = CollateralWorld()
    world.plant(MINT, data, owner=owner)
    refused(world, world.initialize(), code, "mint")
    refused(world, with_key(world.initialize(), 2, Pubkey.new_unique()), 3012, "mint")


def test_a_vault_is_of_the_programs_mint(world: CollateralWorld) -> None:
    """Another mint, with its own token account, makes no vault."""
    wrong = client.initialize_vault(PAYER, KEEPER, mint=OTHER_MINT)
    refused(world, wrong, 2001, "vault_authority", keys=(MINT, OTHER_MINT))


def test_a_vaults_tokens_lie_in_its_associated_account(world: CollateralWorld) -> None:
    """Not in another account, even one of the right mint that the vault owns."""
    vault, other = client.find_vault(KEEPER), Pubkey.new_unique()
    world.plant_tokens(other, owner=vault, amount=0)
    keys = (other, client.find_token_account(vault, MINT))
    wrong = replaced(world, "initialize_vault", "token_account", other)
    refused(world, wrong, 2009, "token_account", keys=keys)


def test_a_token_account_made_ahead_must_be_the_vaults(world: CollateralWorld) -> None:
    """The associated token program refuses what lies at the address with another owner, or mint; no vault is made."""
    vault = client.find_vault(KEEPER)
    for data in (token_data(owner=KEEPER, amount=0), token_data(mint=OTHER_MINT, owner=vault, amount=0)):
        world.plant(client.find_token_account(vault, MINT), data, owner=client.TOKEN_PROGRAM_ID)
        assert world.send(client.initialize_vault(PAYER, KEEPER, mint=MINT)).code is not None
        assert world.data(vault) == b""


@pytest.mark.parametrize(("name", "account"), TOKENS)
def test_a_token_account_has_the_mint_the_owner_and_the_form(world: CollateralWorld, name: str, account: str) -> None:
    """Whatever lies at the right address: another mint, another owner, no token account, one not set up yet."""
    step, where = STEPS[name](world), address(world, name, account)
    owner = Pubkey(world.data(where)[32:64])
    for data, holder, code in (
        (token_data(mint=OTHER_MINT, owner=owner, amount=1_000), client.TOKEN_PROGRAM_ID, 2014),
        (token_data(owner=KEEPER, amount=1_000), client.TOKEN_PROGRAM_ID, 2015),
        (token_data(owner=owner, amount=1_000, state=0), client.TOKEN_PROGRAM_ID, 3003),
        (token_data(owner=owner, amount=1_000)[:164], client.TOKEN_PROGRAM_ID, 3003),
        (mint_data(), client.TOKEN_PROGRAM_ID, 3003),
        (token_data(owner=owner, amount=1_000), ENGINE, 3007),
        (b"", SYSTEM_PROGRAM_ID, 3007),
    ):
        world.plant(where, data, owner=holder)
        refused(world, step, code, account)


VAULTS_TOKENS = {
    "from_token_account": ("from_vault", ALICE_VAULT_TOKENS),
    "to_token_account": ("to_vault", BOB_VAULT_TOKENS),
    "token_account": ("vault", ALICE_VAULT_TOKENS),
}


@pytest.mark.parametrize(("name", "account"), [place for place in TOKENS if place[1] in VAULTS_TOKENS])
def test_a_vaults_token_account_is_the_one_it_names(world: CollateralWorld, name: str, account: str) -> None:
    """Not the user's own, not another vault's, not a second one that the vault owns."""
    vault, expected = VAULTS_TOKENS[account]
    second = Pubkey.new_unique()
    world.plant_tokens(second, owner=address(world, name, vault), amount=1_000)
    other = BOB_VAULT_TOKENS if expected == ALICE_VAULT_TOKENS else ALICE_VAULT_TOKENS
    for wrong in (ALICE_TOKENS, other, second, MINT):
        refused(world, replaced(world, name, account, wrong), 2001, vault, keys=(expected, wrong))


def test_a_deposit_comes_from_the_depositor(world: CollateralWorld) -> None:
    """Not out of another's token account, whether that other has delegated to the depositor or not."""
    wrong = client.deposit(BOB, ALICE, mint=MINT, amount=1, depositor_token_account=ALICE_TOKENS)
    refused(world, wrong, 2015, "depositor_token_account", keys=(ALICE, BOB))


def test_a_withdrawal_goes_to_the_owner(world: CollateralWorld) -> None:
    """Not to another's token account, whoever asks for it."""
    wrong = client.withdraw(ALICE, mint=MINT, amount=1, owner_token_account=BOB_TOKENS)
    refused(world, wrong, 2015, "owner_token_account", keys=(BOB, ALICE))


def test_an_execution_goes_to_the_owners_associated_account(world: CollateralWorld) -> None:
    """Anybody executes, so nobody chooses: not another account of the owner's, not the executor's."""
    purse = Pubkey.new_unique()
    world.plant_tokens(purse, owner=ALICE, amount=0)
    for wrong in (purse, BOB_TOKENS, ALICE_VAULT_TOKENS):
        instruction = replaced(world, "execute_withdraw", "owner_token_account", wrong)
        refused(world, instruction, 2009, "owner_token_account", keys=(wrong, ALICE_TOKENS))


def test_an_associated_account_that_was_given_away_gets_nothing(world: CollateralWorld) -> None:
    """A token account keeps its address when its owner hands it on; the tokens then wait for the owner."""
    hand_over = Instruction(
        client.TOKEN_PROGRAM_ID,
        b"\x06\x02\x01" + bytes(KEEPER),  # SetAuthority, AccountOwner, to
        [client.writable(ALICE_TOKENS), client.readable(ALICE, signer=True)],
    )
    world.done(hand_over)
    refused(world, STEPS["execute_withdraw"](world), 2015, "owner_token_account", keys=(KEEPER, ALICE))
    world.done(STEPS["cancel_withdraw"](world))


def test_an_associated_account_that_is_not_there_gets_nothing_yet(world: CollateralWorld) -> None:
    """Anybody may make it, in the same transaction too, and the execution goes through."""
    world.plant(ALICE_TOKENS, b"", owner=SYSTEM_PROGRAM_ID)
    refused(world, STEPS["execute_withdraw"](world), 3007, "owner_token_account")
    world.done(client.create_token_account(KEEPER, ALICE, MINT), STEPS["execute_withdraw"](world))
    assert world.tokens(ALICE_TOKENS) == 50


# -- one account for two ----------------------------------------------------------------------------------------------


def test_a_transfer_to_itself_is_refused(world: CollateralWorld) -> None:
    """One vault in both places would be credited what it was debited, and its locked tokens set free."""
    refused(world, client.transfer_collateral(ENGINE, ALICE, ALICE, mint=MINT, amount=1), 6010, "to_vault")


def test_one_token_account_for_two_vaults_is_refused(world: CollateralWorld) -> None:
    """Nor may one token account stand for both vaults."""
    for account, wrong in (("from_token_account", BOB_VAULT_TOKENS), ("to_token_account", ALICE_VAULT_TOKENS)):
        vault = VAULTS_TOKENS[account][0]
        refused(world, replaced(world, "transfer_collateral", account, wrong), 2001, vault)


def test_a_vault_does_not_deposit_its_own_tokens(world: CollateralWorld) -> None:
    """Even signed by the vault's PDA, which never happens, tokens that are there already are not credited again."""
    wrong = client.deposit(ALICE_VAULT, ALICE, mint=MINT, amount=1, depositor_token_account=ALICE_VAULT_TOKENS)
    refused(world, wrong, 6010, "depositor_token_account")


def test_a_vault_does_not_withdraw_to_itself(world: CollateralWorld) -> None:
    """The vault's own token account is not the owner's, so that no withdrawal leaves its tokens where they were."""
    wrong = client.withdraw(ALICE, mint=MINT, amount=1, owner_token_account=ALICE_VAULT_TOKENS)
    refused(world, wrong, 2015, "owner_token_account", keys=(ALICE_VAULT, ALICE))


def test_a_request_does_not_take_the_vaults_place(world: CollateralWorld) -> None:
    """Vault and request are told apart by their type, in either place."""
    request = client.find_withdraw_request(ALICE_VAULT, 0)
    refused(world, replaced(world, "cancel_withdraw", "vault", request), 3002, "vault")
    refused(world, replaced(world, "cancel_withdraw", "withdraw_request", ALICE_VAULT), 3002, "withdraw_request")
