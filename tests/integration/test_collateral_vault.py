"""Collateral in and out, executed by the real program: every instruction's life and every event."""

import pytest
from solders.pubkey import Pubkey

from localnet.clients import collateral_vault as client
from localnet.programs import load_elf
from tests.fixtures.collateral_world import (
    ADMIN,
    ALICE,
    ALICE_TOKENS,
    ALICE_VAULT,
    ALICE_VAULT_TOKENS,
    AUTHORITY,
    BOB,
    BOB_VAULT,
    ENGINE,
    KEEPER,
    MINT,
    OTHER_ENGINE,
    PAYER,
    START,
    STEPS,
    WALLET_LAMPORTS,
    WALLET_TOKENS,
    CollateralWorld,
    token_data,
)
from tests.fixtures.vault_world import with_data

DELAY_S = 3_600
I64_MAX = 2**63 - 1
CODES = {name: code for code, name in client.ERRORS.items()}


@pytest.fixture
def world() -> CollateralWorld:
    """Withdrawals without a delay; alice has 1,000 in her vault, 100 locked and 50 requested."""
    opened = CollateralWorld.opened()
    opened.furnish()
    return opened


@pytest.fixture
def slow() -> CollateralWorld:
    """The same where a withdrawal takes an hour."""
    opened = CollateralWorld.opened(delay_s=DELAY_S)
    opened.furnish()
    return opened


def moved(user: Pubkey, amount: int, name: str, value: int, *, now: int = START) -> dict[str, client.Value]:
    """Return the fields of an event about one vault's balance."""
    vault = bytes(client.find_vault(user))
    return {"user": bytes(user), "vault": vault, "amount": amount, name: value, "timestamp": now}


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 9, 10])
def test_the_settings_hold_up_to_ten_programs(count: int) -> None:
    """Admin, mint, programs in their order, delay: as given, not paused, in an account of the largest size."""
    world = CollateralWorld()
    programs = tuple(Pubkey(bytes([100 + n] * 32)) for n in range(count))
    outcome = world.done(world.initialize(delay_s=77, programs=programs))
    state = world.state(AUTHORITY)
    assert state == {
        "admin": bytes(ADMIN), "mint": bytes(MINT), "authorized_programs": list(map(bytes, programs)),
        "withdraw_min_delay": 77, "paused": False, "bump": state["bump"],
    }  # fmt: skip
    assert len(world.data(AUTHORITY)) == client.AUTHORITY_BYTES
    assert world.lamports(AUTHORITY) == world.rent(client.AUTHORITY_BYTES)
    assert world.lamports(ADMIN) == WALLET_LAMPORTS - world.rent(client.AUTHORITY_BYTES)
    assert outcome.events == []
    assert "Program log: Instruction: InitializeVaultAuthority" in outcome.logs


@pytest.mark.parametrize("count", [0, 1, 10])
def test_a_pause_is_set_and_lifted(count: int) -> None:
    """The flag changes, wherever the vector before it has moved it, and nothing else does; each change is an event."""
    world = CollateralWorld()
    world.done(world.initialize(programs=tuple(Pubkey(bytes([100 + n] * 32)) for n in range(count))))
    before = world.state(AUTHORITY)
    for paused in (True, True, False):
        world.at(START + 5)
        outcome = world.done(client.set_paused(ADMIN, paused=paused))
        assert outcome.events == [("PausedSet", {"admin": bytes(ADMIN), "paused": paused, "timestamp": START + 5})]
        assert world.state(AUTHORITY) == {**before, "paused": paused}


def test_settings_are_made_once(world: CollateralWorld) -> None:
    """The second to come changes nothing: the system program refuses the address with its custom 0."""
    before = world.data(AUTHORITY)
    outcome = world.send(
        client.initialize_vault_authority(BOB, mint=MINT, authorized_programs=[OTHER_ENGINE], withdraw_min_delay_s=0)
    )
    assert outcome.code == 0
    assert world.data(AUTHORITY) == before


def test_an_eleventh_program_has_no_room() -> None:
    """As with Anchor, an account too small for its contents fails when it is written."""
    world = CollateralWorld()
    outcome = world.send(world.initialize(programs=(ENGINE,) * 11))
    assert outcome.code == 3004
    assert "AnchorError caused by account: vault_authority. Error Code: AccountDidNotSerialize" in outcome.logs[-3]


# -- vaults -----------------------------------------------------------------------------------------------------------


def test_initialize_vault_opens_an_empty_vault() -> None:
    """All balances are 0, the tokens' place is the vault's associated token account, the payer pays both rents."""
    world = CollateralWorld()
    world.done(world.initialize())
    before = world.lamports(KEEPER)
    outcome = world.done(client.initialize_vault(KEEPER, ALICE, mint=MINT))
    state = world.state(ALICE_VAULT)
    assert state == {
        "owner": bytes(ALICE), "token_account": bytes(ALICE_VAULT_TOKENS), "total_balance": 0, "locked_balance": 0,
        "available_balance": 0, "total_deposited": 0, "total_withdrawn": 0, "created_at": START, "next_request": 0,
        "bump": state["bump"],
    }  # fmt: skip
    opened = {"user": bytes(ALICE), "vault": bytes(ALICE_VAULT), "timestamp": START}
    assert outcome.events == [("VaultInitialized", opened)]
    assert world.data(ALICE_VAULT_TOKENS)[:72] == token_data(owner=ALICE_VAULT, amount=0)[:72]
    assert world.lamports(KEEPER) == before - world.rent(client.VAULT_BYTES) - world.rent(165)
    assert world.lamports(ALICE) == WALLET_LAMPORTS


def test_an_owner_may_be_a_pda_and_may_pay_itself() -> None:
    """A program's PDA gets a vault like a wallet does; and a wallet may be payer and owner in one."""
    world = CollateralWorld()
    world.done(world.initialize())
    pda, _ = Pubkey.find_program_address([b"insurance_fund"], ENGINE)
    world.done(client.initialize_vault(PAYER, pda, mint=MINT), client.initialize_vault(BOB, BOB, mint=MINT))
    assert world.state(client.find_vault(pda))["owner"] == bytes(pda)
    assert world.state(BOB_VAULT)["owner"] == bytes(BOB)


@pytest.mark.parametrize("gift", [0, 500])
def test_a_stranger_may_have_made_the_token_account(gift: int) -> None:
    """A token account made ahead is taken as it is; tokens a stranger left in it belong to no balance, for good."""
    world = CollateralWorld()
    world.done(world.initialize(), client.create_token_account(KEEPER, ALICE_VAULT, MINT))
    world.plant_tokens(ALICE_VAULT_TOKENS, owner=ALICE_VAULT, amount=gift)
    world.done(
        client.initialize_vault(PAYER, ALICE, mint=MINT),
        client.deposit(ALICE, ALICE, mint=MINT, amount=10),
        client.withdraw(ALICE, mint=MINT, amount=10),
    )
    assert world.balances(ALICE_VAULT) == (0, 0, 0)
    assert world.tokens(ALICE_VAULT_TOKENS) == gift
    assert world.send(client.withdraw(ALICE, mint=MINT, amount=1)).code == CODES["InsufficientAvailableBalance"]


@pytest.mark.parametrize("gift", [1, 900_000, 50_000_000])
def test_lamports_sent_ahead_do_not_block_an_address(gift: int) -> None:
    """Settings, vault and request are made where somebody sent lamports before, topped up to rent."""
    world = CollateralWorld()
    request = client.find_withdraw_request(ALICE_VAULT, 0)
    sizes = {AUTHORITY: client.AUTHORITY_BYTES, ALICE_VAULT: client.VAULT_BYTES, request: client.REQUEST_BYTES}
    for address in sizes:
        world.svm.airdrop(address, gift)
    world.done(
        world.initialize(),
        client.initialize_vault(PAYER, ALICE, mint=MINT),
        client.deposit(ALICE, ALICE, mint=MINT, amount=10),
        client.request_withdraw(ALICE, amount=10, request_id=0),
    )
    for address, size in sizes.items():
        assert world.lamports(address) == max(gift, world.rent(size))
        world.state(address)


def test_a_vault_is_made_once(world: CollateralWorld) -> None:
    """A living vault is not made again, so its balances cannot be wiped."""
    before = world.data(ALICE_VAULT)
    assert world.send(client.initialize_vault(PAYER, ALICE, mint=MINT)).code == 0
    assert world.data(ALICE_VAULT) == before


# -- deposits and withdrawals -----------------------------------------------------------------------------------------


def test_deposits_add_up(world: CollateralWorld) -> None:
    """Tokens move from the wallet to the vault's account and are available; the event tells the new total."""
    world.at(START + 3)
    outcome = world.done(client.deposit(ALICE, ALICE, mint=MINT, amount=200))
    assert outcome.events == [("DepositEvent", moved(ALICE, 200, "new_balance", 1_200, now=START + 3))]
    assert world.balances(ALICE_VAULT) == (1_200, 150, 1_050)
    assert world.state(ALICE_VAULT)["total_deposited"] == 1_200
    assert world.tokens(ALICE_TOKENS) == WALLET_TOKENS - 1_200
    world.consistent()


def test_anybody_may_deposit_for_anybody_from_any_account_of_theirs(world: CollateralWorld) -> None:
    """Bob pays into alice's vault from a token account that is not his associated one; the event's user is alice."""
    purse = Pubkey.new_unique()
    world.plant_tokens(purse, owner=BOB, amount=70)
    outcome = world.done(client.deposit(BOB, ALICE, mint=MINT, amount=70, depositor_token_account=purse))
    assert outcome.events == [("DepositEvent", moved(ALICE, 70, "new_balance", 1_070))]
    assert world.tokens(purse) == 0
    world.consistent()


def test_withdrawals_take_what_is_available(world: CollateralWorld) -> None:
    """All that is available leaves, to the last unit, to any token account of the owner; what is locked stays."""
    purse = Pubkey.new_unique()
    world.plant_tokens(purse, owner=ALICE, amount=0)
    world.done(client.withdraw(ALICE, mint=MINT, amount=1))
    outcome = world.done(client.withdraw(ALICE, mint=MINT, amount=849, owner_token_account=purse))
    assert outcome.events == [("WithdrawEvent", moved(ALICE, 849, "new_balance", 150))]
    assert world.balances(ALICE_VAULT) == (150, 150, 0)
    assert world.state(ALICE_VAULT)["total_withdrawn"] == 850
    assert (world.tokens(purse), world.tokens(ALICE_TOKENS)) == (849, WALLET_TOKENS - 999)
    world.consistent()


def test_more_than_a_wallet_has_is_the_token_programs_error(world: CollateralWorld) -> None:
    """A deposit without cover fails with the token program's custom 1 and credits nothing."""
    before = world.data(BOB_VAULT)
    assert world.send(client.deposit(BOB, BOB, mint=MINT, amount=WALLET_TOKENS + 1)).code == 1
    assert world.data(BOB_VAULT) == before


@pytest.mark.parametrize("name", ["deposit", "withdraw", "execute_withdraw"])
def test_a_frozen_account_moves_nothing(world: CollateralWorld, name: str) -> None:
    """The token program refuses with its custom 17, and no balance changes."""
    frozen = token_data(owner=ALICE, amount=WALLET_TOKENS, state=2)
    world.plant(ALICE_TOKENS, frozen, owner=client.TOKEN_PROGRAM_ID)
    before = world.data(ALICE_VAULT)
    assert world.send(STEPS[name](world)).code == 17
    assert world.data(ALICE_VAULT) == before


# -- withdrawal requests ----------------------------------------------------------------------------------------------


def test_a_request_locks_its_amount(slow: CollateralWorld) -> None:
    """The request says whose, how much and from when; the owner pays its rent; the vault counts on."""
    before = slow.lamports(ALICE)
    slow.at(START + 7)
    outcome = slow.done(client.request_withdraw(ALICE, amount=850, request_id=1))
    request = client.find_withdraw_request(ALICE_VAULT, 1)
    state = slow.state(request)
    assert state == {
        "vault": bytes(ALICE_VAULT), "owner": bytes(ALICE), "id": 1, "amount": 850, "unlock_at": START + 7 + DELAY_S,
        "bump": state["bump"],
    }  # fmt: skip
    requested = {"user": bytes(ALICE), "vault": bytes(ALICE_VAULT), "id": 1, "amount": 850,
                 "unlock_at": START + 7 + DELAY_S}  # fmt: skip
    assert outcome.events == [("WithdrawRequested", requested)]
    assert slow.balances(ALICE_VAULT) == (1_000, 1_000, 0)
    assert slow.state(ALICE_VAULT)["next_request"] == 2
    assert slow.lamports(ALICE) == before - slow.rent(client.REQUEST_BYTES)
    slow.consistent()


def test_a_cancelled_request_is_available_again(slow: CollateralWorld) -> None:
    """The amount is back, the request is gone and its rent is the owner's; its id is not given again."""
    before = slow.lamports(ALICE)
    slow.at(START + 9)
    outcome = slow.done(client.cancel_withdraw(ALICE, request_id=0))
    cancelled = {"user": bytes(ALICE), "vault": bytes(ALICE_VAULT), "id": 0, "amount": 50, "timestamp": START + 9}
    assert outcome.events == [("WithdrawCancelled", cancelled)]
    assert slow.balances(ALICE_VAULT) == (1_000, 100, 900)
    assert slow.lamports(ALICE) == before + slow.rent(client.REQUEST_BYTES)
    assert slow.data(client.find_withdraw_request(ALICE_VAULT, 0)) == b""
    assert slow.state(ALICE_VAULT)["next_request"] == 1
    for again in (
        client.cancel_withdraw(ALICE, request_id=0),
        client.execute_withdraw(ALICE, mint=MINT, request_id=0),
    ):
        assert slow.send(again).code == 3012
    slow.consistent()


def test_anybody_executes_a_request_from_its_second_on(slow: CollateralWorld) -> None:
    """Nobody but the fee payer signs; one second early is too early; tokens and rent go to the owner alone, once."""
    lamports = slow.lamports(ALICE)
    instruction = client.execute_withdraw(ALICE, mint=MINT, request_id=0)
    slow.at(START + DELAY_S - 1)
    assert slow.send(instruction).code == CODES["TimelockActive"]
    slow.at(START + DELAY_S)
    outcome = slow.done(instruction)
    assert outcome.events == [("WithdrawEvent", moved(ALICE, 50, "new_balance", 950, now=START + DELAY_S))]
    assert slow.balances(ALICE_VAULT) == (950, 100, 850)
    assert slow.state(ALICE_VAULT)["total_withdrawn"] == 50
    assert slow.tokens(ALICE_TOKENS) == WALLET_TOKENS - 950
    assert slow.lamports(ALICE) == lamports + slow.rent(client.REQUEST_BYTES)
    assert slow.send(instruction).code == 3012
    slow.consistent()


def test_requests_stand_beside_each_other(slow: CollateralWorld) -> None:
    """Each request has its own time and amount, and they end in any order."""
    slow.at(START + 100)
    slow.done(
        client.request_withdraw(ALICE, amount=1, request_id=1), client.request_withdraw(ALICE, amount=2, request_id=2)
    )
    slow.at(START + 100 + DELAY_S)
    slow.done(
        client.execute_withdraw(ALICE, mint=MINT, request_id=2),
        client.cancel_withdraw(ALICE, request_id=1),
        client.execute_withdraw(ALICE, mint=MINT, request_id=0),
    )
    assert slow.balances(ALICE_VAULT) == (948, 100, 848)
    slow.consistent()


def test_without_a_delay_a_request_is_due_at_once(world: CollateralWorld) -> None:
    """Requesting is allowed where withdrawing at once is, too."""
    outcome = world.done(
        client.request_withdraw(ALICE, amount=10, request_id=1),
        client.execute_withdraw(ALICE, mint=MINT, request_id=1),
    )
    assert [name for name, _ in outcome.events] == ["WithdrawRequested", "WithdrawEvent"]
    world.consistent()


# -- authorised programs ----------------------------------------------------------------------------------------------


def test_an_authorised_program_locks_and_unlocks(world: CollateralWorld) -> None:
    """Balances move between locked and available, no token does; the events tell what is locked."""
    outcome = world.done(client.lock_collateral(ENGINE, ALICE, amount=850))
    assert outcome.events == [("LockEvent", moved(ALICE, 850, "locked_balance", 1_000))]
    assert world.balances(ALICE_VAULT) == (1_000, 1_000, 0)
    outcome = world.done(client.unlock_collateral(ENGINE, ALICE, amount=1_000))
    assert outcome.events == [("UnlockEvent", moved(ALICE, 1_000, "locked_balance", 0))]
    assert world.balances(ALICE_VAULT) == (1_000, 0, 1_000)
    world.consistent()


def test_a_transfer_moves_locked_tokens_to_what_is_available_elsewhere(world: CollateralWorld) -> None:
    """The tokens move with the balances; deposits and withdrawals of either side stay as they were."""
    outcome = world.done(client.transfer_collateral(ENGINE, ALICE, BOB, mint=MINT, amount=90))
    transferred = {
        "from_user": bytes(ALICE), "to_user": bytes(BOB), "from_vault": bytes(ALICE_VAULT),
        "to_vault": bytes(BOB_VAULT), "amount": 90, "timestamp": START,
    }  # fmt: skip
    assert outcome.events == [("TransferEvent", transferred)]
    assert (world.balances(ALICE_VAULT), world.balances(BOB_VAULT)) == ((910, 60, 850), (90, 0, 90))
    sums = [world.state(vault)[name] for vault in (ALICE_VAULT, BOB_VAULT)
            for name in ("total_deposited", "total_withdrawn")]  # fmt: skip
    assert sums == [1_000, 0, 0, 0]
    world.consistent()


def test_each_of_ten_programs_is_authorised() -> None:
    """The list counts from its first to its last entry, each with the PDA of its own."""
    world = CollateralWorld()
    programs = tuple(Pubkey(bytes([100 + n] * 32)) for n in range(10))
    world.done(world.initialize(programs=programs), client.initialize_vault(PAYER, ALICE, mint=MINT))
    world.done(client.deposit(ALICE, ALICE, mint=MINT, amount=10))
    for program in programs:
        world.done(client.lock_collateral(program, ALICE, amount=1))
    assert world.send(client.lock_collateral(ENGINE, ALICE, amount=1)).code == CODES["UnauthorizedProgram"]
    assert world.balances(ALICE_VAULT) == (10, 10, 0)


# -- anywhere, anyhow --------------------------------------------------------------------------------------------------


def test_the_program_runs_at_any_address() -> None:
    """An operator's deployment has an id of its own; PDAs, owner and checks follow it."""
    own = Pubkey.new_unique()
    world = CollateralWorld()
    world.svm.add_program(own, load_elf("collateral_vault"))
    world.done(
        client.initialize_vault_authority(
            ADMIN, mint=MINT, authorized_programs=[ENGINE], withdraw_min_delay_s=0, program_id=own
        ),
        client.initialize_vault(PAYER, ALICE, mint=MINT, program_id=own),
        client.initialize_vault(PAYER, BOB, mint=MINT, program_id=own),
    )
    world.done(
        client.deposit(ALICE, ALICE, mint=MINT, amount=10, program_id=own),
        client.lock_collateral(ENGINE, ALICE, amount=5, program_id=own),
        client.unlock_collateral(ENGINE, ALICE, amount=1, program_id=own),
        client.transfer_collateral(ENGINE, ALICE, BOB, mint=MINT, amount=4, program_id=own),
    )
    world.done(
        client.withdraw(BOB, mint=MINT, amount=4, program_id=own),
        client.request_withdraw(ALICE, amount=3, request_id=0, program_id=own),
        client.request_withdraw(ALICE, amount=3, request_id=1, program_id=own),
        client.cancel_withdraw(ALICE, request_id=0, program_id=own),
        client.execute_withdraw(ALICE, mint=MINT, request_id=1, program_id=own),
        client.set_paused(ADMIN, paused=True, program_id=own),
    )
    assert world.balances(client.find_vault(ALICE, own)) == (3, 0, 3)
    assert world.data(ALICE_VAULT) == b"", "the default deployment was not touched"


def test_bytes_after_the_arguments_are_ignored(world: CollateralWorld) -> None:
    """As with Anchor, data that goes on after the last argument changes nothing."""
    for name in ("deposit", "withdraw", "request_withdraw", "cancel_withdraw", "lock_collateral", "set_paused"):
        step = STEPS[name](world)
        world.done(with_data(step, bytes(step.data) + b"\xff" * 9))
