"""Every error that is the program's own, and what a pause stops: said in Anchor's words, and nothing has moved."""

import json
from importlib.resources import files

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from localnet.clients import collateral_vault as client
from tests.fixtures.collateral_world import (
    ADMIN,
    ALICE,
    ALICE_TOKENS,
    ALICE_VAULT,
    ALICE_VAULT_TOKENS,
    AUTHORITY,
    BOB,
    BOB_VAULT,
    BOB_VAULT_TOKENS,
    ENGINE,
    MINT,
    OTHER_ENGINE,
    STEPS,
    CollateralWorld,
    Step,
)
from tests.fixtures.vault_world import with_account

DELAY_S = 3_600
U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1
CODES = {name: code for code, name in client.ERRORS.items()}
MESSAGES = {
    entry["name"]: entry["msg"]
    for entry in json.loads((files("indexer.idls") / "collateral_vault.json").read_text())["errors"]
}


@pytest.fixture
def world() -> CollateralWorld:
    """Withdrawals without a delay; alice has 1,000 in her vault, 100 locked and 50 requested."""
    opened = CollateralWorld.opened()
    opened.furnish()
    return opened


# -- pause ------------------------------------------------------------------------------------------------------------

PAUSED = {"deposit", "withdraw", "request_withdraw", "execute_withdraw", "lock_collateral"}


@pytest.mark.parametrize("name", [name for name in STEPS if name != "initialize_vault_authority"])
def test_a_pause_stops_some_instructions_and_not_others(world: CollateralWorld, name: str) -> None:
    """Money stops coming, going and being tied up; unlocking, transfers and cancelling go on; lifted, all goes on."""
    world.done(client.set_paused(ADMIN, paused=True))
    outcome = world.send(STEPS[name](world))
    assert outcome.code == (CODES["Paused"] if name in PAUSED else None)
    if name in PAUSED:
        world.done(client.set_paused(ADMIN, paused=False), STEPS[name](world))
    world.consistent()


# -- the program's own errors -----------------------------------------------------------------------------------------


def delayed(step: Step) -> Step:
    """Return the step in a world whose withdrawals take an hour."""

    def situation(world: CollateralWorld) -> Instruction:
        data = bytearray(world.data(AUTHORITY))
        data[108:116] = DELAY_S.to_bytes(8, "little")  # after one authorised program
        world.plant(AUTHORITY, bytes(data))
        return step(world)

    return situation


def paused(step: Step) -> Step:
    """Return the step after a pause."""

    def situation(world: CollateralWorld) -> Instruction:
        world.done(client.set_paused(ADMIN, paused=True))
        return step(world)

    return situation


def with_field(step: Step, vault: Pubkey, name: str, value: int) -> Step:
    """Return the step with a number in a vault that no instruction of the program would have written."""
    offset = 8 + 64 + 8 * client.VAULT[1][2:].index(name)

    def situation(world: CollateralWorld) -> Instruction:
        data = bytearray(world.data(vault))
        data[offset : offset + 8] = value.to_bytes(8, "little")
        world.plant(vault, bytes(data))
        return step(world)

    return situation


def amounts(amount: int) -> dict[str, Instruction]:
    """Return every instruction that takes an amount, with this one."""
    return {
        "deposit": client.deposit(ALICE, ALICE, mint=MINT, amount=amount),
        "withdraw": client.withdraw(ALICE, mint=MINT, amount=amount),
        "request_withdraw": client.request_withdraw(ALICE, amount=amount, request_id=1),
        "lock_collateral": client.lock_collateral(ENGINE, ALICE, amount=amount),
        "unlock_collateral": client.unlock_collateral(ENGINE, ALICE, amount=amount),
        "transfer_collateral": client.transfer_collateral(ENGINE, ALICE, BOB, mint=MINT, amount=amount),
    }


def zero(name: str) -> tuple[str, str | None, Step]:
    return "InvalidAmount", None, lambda _: amounts(0)[name]


def too_much(name: str, error: str, amount: int) -> tuple[str, str | None, Step]:
    return error, None, lambda _: amounts(amount)[name]


def request_until_the_end_of_time(world: CollateralWorld) -> Instruction:
    world.at(I64_MAX - DELAY_S + 1)
    return delayed(STEPS["request_withdraw"])(world)


def unlocked_by_a_program(step: Step) -> Step:
    """Return the step after an authorised program has unlocked what a request had locked."""

    def situation(world: CollateralWorld) -> Instruction:
        world.done(client.unlock_collateral(ENGINE, ALICE, amount=101))
        return step(world)

    return situation


def early(world: CollateralWorld) -> Instruction:
    delayed(STEPS["request_withdraw"])(world)
    world.done(client.request_withdraw(ALICE, amount=10, request_id=1))
    return client.execute_withdraw(ALICE, mint=MINT, request_id=1)


def of_another_owner(name: str) -> tuple[str, str | None, Step]:
    def situation(world: CollateralWorld) -> Instruction:
        step = STEPS[name](world)
        meta = step.accounts[0]
        return with_account(step, 0, AccountMeta(BOB, is_signer=meta.is_signer, is_writable=meta.is_writable))

    return "UnauthorizedOwner", "owner", situation


SITUATIONS: list[tuple[str, str | None, Step]] = [
    *(zero(name) for name in amounts(0)),
    too_much("withdraw", "InsufficientAvailableBalance", 851),
    too_much("request_withdraw", "InsufficientAvailableBalance", 851),
    too_much("lock_collateral", "InsufficientAvailableBalance", U64_MAX),
    too_much("unlock_collateral", "InsufficientLockedBalance", 151),
    too_much("transfer_collateral", "InsufficientLockedBalance", 151),
    ("InsufficientLockedBalance", None, unlocked_by_a_program(STEPS["cancel_withdraw"])),
    ("InsufficientLockedBalance", None, unlocked_by_a_program(STEPS["execute_withdraw"])),
    *(of_another_owner(name) for name in ("withdraw", "request_withdraw", "cancel_withdraw", "execute_withdraw")),
    ("UnauthorizedProgram", "caller_program", lambda _: client.lock_collateral(OTHER_ENGINE, ALICE, amount=1)),
    ("UnauthorizedProgram", "caller_program", lambda _: client.unlock_collateral(OTHER_ENGINE, ALICE, amount=1)),
    (
        "UnauthorizedProgram",
        "caller_program",
        lambda _: client.transfer_collateral(OTHER_ENGINE, ALICE, BOB, mint=MINT, amount=1),
    ),
    too_much("deposit", "Overflow", U64_MAX),
    ("Overflow", None, with_field(STEPS["deposit"], ALICE_VAULT, "available_balance", U64_MAX)),
    ("Overflow", None, with_field(STEPS["deposit"], ALICE_VAULT, "total_deposited", U64_MAX - 9)),
    ("Overflow", None, with_field(STEPS["withdraw"], ALICE_VAULT, "total_withdrawn", U64_MAX - 9)),
    ("Overflow", None, with_field(STEPS["execute_withdraw"], ALICE_VAULT, "total_withdrawn", U64_MAX - 49)),
    ("Overflow", None, with_field(STEPS["lock_collateral"], ALICE_VAULT, "locked_balance", U64_MAX - 9)),
    ("Overflow", None, with_field(STEPS["unlock_collateral"], ALICE_VAULT, "available_balance", U64_MAX - 9)),
    ("Overflow", None, with_field(STEPS["transfer_collateral"], BOB_VAULT, "total_balance", U64_MAX - 9)),
    ("Overflow", None, request_until_the_end_of_time),
    ("Underflow", None, with_field(STEPS["withdraw"], ALICE_VAULT, "total_balance", 9)),
    ("Underflow", None, with_field(STEPS["execute_withdraw"], ALICE_VAULT, "total_balance", 49)),
    ("Underflow", None, with_field(STEPS["transfer_collateral"], ALICE_VAULT, "total_balance", 9)),
    *(("Paused", None, paused(STEPS[name])) for name in sorted(PAUSED)),
    ("TimelockActive", None, early),
    ("TimelockRequired", None, delayed(STEPS["withdraw"])),
    (
        "SameVault",
        "to_vault",
        lambda _: client.transfer_collateral(ENGINE, ALICE, ALICE, mint=MINT, amount=1),
    ),
]


@pytest.mark.parametrize(("error", "account", "situation"), SITUATIONS)
def test_each_error_is_said_and_changes_nothing(
    world: CollateralWorld, error: str, account: str | None, situation: Step
) -> None:
    """The transaction fails with the error's code, Anchor's line names it once, and nothing moves."""
    instruction = situation(world)
    keys = (ALICE_VAULT, BOB_VAULT, AUTHORITY, ALICE_TOKENS, ALICE_VAULT_TOKENS, BOB_VAULT_TOKENS, ALICE)
    before = {key: world.svm.get_account(key) for key in keys}
    outcome = world.send(instruction)
    where = f"caused by account: {account}" if account else "occurred"
    said = f"Error Code: {error}. Error Number: {CODES[error]}. Error Message: {MESSAGES[error]}."
    errors = [line for line in outcome.logs if "AnchorError" in line]
    assert errors == [f"Program log: AnchorError {where}. {said}"]
    assert outcome.code == CODES[error]
    assert outcome.events == []
    assert {key: world.svm.get_account(key) for key in before} == before


def test_every_error_has_a_situation() -> None:
    """None of the program's errors is without a test that provokes it."""
    assert {error for error, _, _ in SITUATIONS} == set(client.ERRORS.values())


def test_a_negative_delay_is_refused() -> None:
    """A delay that would open a request before it was made is an invalid amount of time."""
    world = CollateralWorld()
    assert world.send(world.initialize(delay_s=-1)).code == CODES["InvalidAmount"]
    world.done(world.initialize(delay_s=I64_MAX))
