"""The life of a session, executed by the real program: every instruction, every event, every error of its own."""

import json
from collections.abc import Callable
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.rent import Rent

from localnet.clients import ephemeral_vault as client
from localnet.programs import load_elf
from tests.fixtures.vault_world import DURATION_S, MAX_DEPOSIT, START, WALLET_LAMPORTS, VaultWorld, with_data, with_key

EXPIRY = START + DURATION_S
U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1
MESSAGES = {
    entry["name"]: entry["msg"]
    for entry in json.loads((files("indexer.idls") / "ephemeral_vault.json").read_text())["errors"]
}


@pytest.fixture
def world() -> VaultWorld:
    return VaultWorld()


def open_session(world: VaultWorld, *, deposit: int = 0, fee: int = 0) -> None:
    """Create and approve; deposit and trade where amounts are given."""
    world.done(world.create(), world.approve())
    if deposit:
        world.done(world.deposit(deposit))
    if fee:
        world.done(world.trade(fee))


# -- lives ------------------------------------------------------------------------------------------------------------


def test_create_vault_opens_a_session(world: VaultWorld) -> None:
    """A new vault is active from the cluster's now on, holds exactly its rent, paid by the parent, and says so."""
    outcome = world.done(world.create(duration_s=77, max_deposit=U64_MAX))
    parent, vault, ephemeral = bytes(world.parent.pubkey()), bytes(world.vault), bytes(world.ephemeral.pubkey())
    state = world.state(world.vault)
    assert state == {
        "parent_wallet": parent, "ephemeral_wallet": ephemeral, "session_start": START, "session_expiry": START + 77,
        "is_active": True, "total_deposited": 0, "total_spent": 0, "max_deposit": U64_MAX, "bump": state["bump"],
    }  # fmt: skip
    created = {"parent": parent, "vault": vault, "ephemeral_wallet": ephemeral, "max_deposit": U64_MAX,
               "session_start": START, "session_expiry": START + 77}  # fmt: skip
    assert outcome.events == [("VaultCreated", created)]
    assert world.lamports(world.vault) == world.rent(114)
    assert world.lamports(world.parent.pubkey()) == WALLET_LAMPORTS - world.rent(114)
    assert "Program log: Instruction: CreateVault" in outcome.logs


def test_approve_delegate_makes_the_delegation(world: VaultWorld) -> None:
    """The delegation names vault and delegate, from now on, and has room for a revocation that has not come."""
    world.done(world.create())
    world.at(START + 5)
    outcome = world.done(world.approve())
    vault, ephemeral = bytes(world.vault), bytes(world.ephemeral.pubkey())
    state = world.state(world.delegation)
    assert state == {"vault": vault, "delegate": ephemeral, "approved_at": START + 5, "revoked_at": None,
                     "bump": state["bump"]}  # fmt: skip
    approved = {"vault": vault, "delegate": ephemeral, "approved_at": START + 5}
    assert outcome.events == [("DelegateApproved", approved)]
    assert world.lamports(world.delegation) == world.rent(90)


def test_deposits_move_lamports_and_add_up(world: VaultWorld) -> None:
    """Two deposits move their lamports from parent to vault; the second may reach the maximum exactly."""
    open_session(world)
    before = world.lamports(world.parent.pubkey())
    world.done(world.deposit(20_000_000))
    outcome = world.done(world.deposit(MAX_DEPOSIT - 20_000_000))
    assert world.lamports(world.vault) == world.rent(114) + MAX_DEPOSIT
    assert world.lamports(world.parent.pubkey()) == before - MAX_DEPOSIT
    assert world.state(world.vault)["total_deposited"] == MAX_DEPOSIT
    deposited = {"vault": bytes(world.vault), "amount": 30_000_000, "total_deposited": MAX_DEPOSIT}
    assert outcome.events == [("AutoDeposit", deposited)]


def test_trades_are_booked_and_move_nothing(world: VaultWorld) -> None:
    """Fees add up to at most what was deposited, and no lamports move; the last second of a session still trades."""
    open_session(world, deposit=1_000)
    before = {key: world.lamports(key) for key in (world.vault, world.parent.pubkey(), world.ephemeral.pubkey())}
    world.done(world.trade(999))
    world.at(EXPIRY - 1)
    outcome = world.done(world.trade(1))
    assert {key: world.lamports(key) for key in before} == before
    traded = {"vault": bytes(world.vault), "delegate": bytes(world.ephemeral.pubkey()), "fee_paid": 1,
              "total_spent": 1_000}  # fmt: skip
    assert outcome.events == [("TradeExecuted", traded)]
    assert world.state(world.vault)["total_spent"] == 1_000


def test_revoke_returns_everything_above_rent(world: VaultWorld) -> None:
    """A revoked session is inactive, its delegation says when, and only rent stays in the vault."""
    open_session(world, deposit=5_000_000, fee=4_000_000)
    before = world.lamports(world.parent.pubkey())
    world.at(START + 9)
    outcome = world.done(world.revoke())
    assert world.lamports(world.parent.pubkey()) == before + 5_000_000
    assert world.lamports(world.vault) == world.rent(114)
    assert world.state(world.vault)["is_active"] is False
    assert world.state(world.delegation)["revoked_at"] == START + 9
    revoked = {"vault": bytes(world.vault), "parent": bytes(world.parent.pubkey()), "revoked_at": START + 9}
    assert outcome.events == [("AccessRevoked", revoked)]


def test_the_parent_may_revoke_again_and_after_expiry(world: VaultWorld) -> None:
    """Lamports that reach a revoked or expired vault are never out of the parent's reach."""
    open_session(world)
    world.done(world.revoke())
    world.svm.airdrop(world.vault, 1_000_000)
    world.at(EXPIRY + 10)
    before = world.lamports(world.parent.pubkey())
    world.done(world.revoke())
    assert world.lamports(world.parent.pubkey()) == before + 1_000_000
    assert world.state(world.delegation)["revoked_at"] == EXPIRY + 10


@pytest.mark.parametrize("deposit", [0, 1, 9_999, 10_000, 10_001, MAX_DEPOSIT])
def test_cleanup_pays_a_small_reward_and_sends_the_rest_home(world: VaultWorld, deposit: int) -> None:
    """From expiry on a stranger earns what is above rent, 10,000 lamports at most; the parent gets all else."""
    open_session(world, deposit=deposit)
    parent, keeper = world.lamports(world.parent.pubkey()), world.lamports(world.keeper.pubkey())
    world.at(EXPIRY)
    outcome = world.done(world.cleanup())
    reward = min(deposit, 10_000)
    assert world.lamports(world.keeper.pubkey()) == keeper + reward
    assert world.lamports(world.parent.pubkey()) == parent + world.rent(114) + deposit - reward
    cleaned = {"vault": bytes(world.vault), "parent": bytes(world.parent.pubkey()),
               "cleaner": bytes(world.keeper.pubkey()), "reward": reward}  # fmt: skip
    assert outcome.events == [("VaultCleaned", cleaned)]
    closed = world.svm.get_account(world.vault)
    assert closed is None or (closed.lamports, closed.data) == (0, b"")


def test_cleaning_a_revoked_vault_earns_nothing(world: VaultWorld) -> None:
    """After a revoke only rent is left, so the event says 0 and the parent gets the rent."""
    open_session(world, deposit=5_000_000)
    world.done(world.revoke())
    world.at(EXPIRY)
    before = world.lamports(world.keeper.pubkey())
    assert world.done(world.cleanup()).events[0][1]["reward"] == 0
    assert world.lamports(world.keeper.pubkey()) == before


def test_a_parent_cleaning_its_own_vault_gets_all_of_it(world: VaultWorld) -> None:
    """Cleaner and parent may be one account: no lamport is lost or made."""
    open_session(world, deposit=5_000_000)
    world.at(EXPIRY)
    before = world.lamports(world.parent.pubkey())
    assert world.done(world.cleanup(world.parent)).events[0][1]["reward"] == 10_000
    assert world.lamports(world.parent.pubkey()) == before + world.rent(114) + 5_000_000


def test_a_cleaned_vault_lives_again(world: VaultWorld) -> None:
    """The same address opens a new session, in the very transaction that closed the old one too."""
    open_session(world, deposit=5_000, fee=4_000)
    world.at(EXPIRY + 100)
    outcome = world.done(world.cleanup(), world.create())
    assert [name for name, _ in outcome.events] == ["VaultCleaned", "VaultCreated"]
    state = world.state(world.vault)
    assert (state["session_start"], state["total_deposited"], state["total_spent"]) == (EXPIRY + 100, 0, 0)
    assert world.lamports(world.vault) == world.rent(114)


@pytest.mark.parametrize(("revoked", "error"), [(False, "InvalidDelegationAccount"), (True, "DelegationRevoked")])
def test_a_delegation_counts_in_its_own_session_only(world: VaultWorld, *, revoked: bool, error: str) -> None:
    """A delegation left from an earlier session allows nothing until the parent approves again, which resets it."""
    open_session(world, deposit=5_000)
    if revoked:
        world.done(world.revoke())
    world.at(EXPIRY)
    world.done(world.cleanup(), world.create(), world.deposit(100))
    outcome = world.send(world.trade(1))
    assert error_lines(outcome.logs) == [anchor_line(error, account="delegation")]
    world.done(world.approve())
    assert world.state(world.delegation)["revoked_at"] is None
    assert world.state(world.delegation)["approved_at"] == EXPIRY
    world.done(world.trade(1))


def test_reapproving_leaves_the_second_form_of_the_option_readable(world: VaultWorld) -> None:
    """The option shrinks from 9 bytes to 1 and back inside the same 90; the bump moves with it."""
    open_session(world)
    bump = world.state(world.delegation)["bump"]
    for step in (world.revoke(), world.approve(), world.revoke()):
        world.done(step)
        account = world.svm.get_account(world.delegation)
        assert account is not None
        assert len(account.data) == 90
        assert account.data[81 if account.data[80] == 0 else 89] == bump


@pytest.mark.parametrize("gift", [1, 900_000, 50_000_000])
def test_lamports_sent_ahead_do_not_block_an_address(world: VaultWorld, gift: int) -> None:
    """Anybody may send lamports to a PDA before its account is made; it is made all the same, topped up to rent."""
    world.svm.airdrop(world.vault, gift)
    world.svm.airdrop(world.delegation, gift)
    open_session(world)
    assert world.lamports(world.vault) == max(gift, world.rent(114))
    assert world.lamports(world.delegation) == max(gift, world.rent(90))
    assert world.state(world.vault)["total_deposited"] == 0
    spent = max(0, world.rent(114) - gift) + max(0, world.rent(90) - gift)
    assert world.lamports(world.parent.pubkey()) == WALLET_LAMPORTS - spent


def test_a_living_vault_cannot_be_made_again(world: VaultWorld) -> None:
    """The system program refuses the address with its custom 0, and the session stays as it was."""
    open_session(world, deposit=5_000)
    before = world.state(world.vault)
    outcome = world.send(world.create())
    assert outcome.code == 0
    assert any("already in use" in line for line in outcome.logs)
    assert world.state(world.vault) == before


@pytest.mark.parametrize(("per_byte", "threshold"), [(3_480, 2.0), (6_960, 1.0), (5_000, 1.5), (1_000, 0.75), (1, 3.0)])
def test_rent_follows_the_cluster(world: VaultWorld, per_byte: int, threshold: float) -> None:
    """Rent is the sysvar's, its floating-point threshold included: a vault gets exactly the runtime's own minimum."""
    world.svm.set_rent(Rent(per_byte, threshold, 50))
    world.done(world.create(), world.deposit(5_000))
    assert world.lamports(world.vault) == world.rent(114) + 5_000
    assert world.rent(114) == int((114 + 128) * per_byte * threshold)


def test_a_session_may_be_born_expired(world: VaultWorld) -> None:
    """The program puts no lower limit on a duration: 0 is expired at once, and cleaned at once."""
    world.done(world.create(duration_s=0))
    assert world.send(world.deposit(1)).code == 6001
    world.done(world.cleanup())


def test_the_program_runs_at_any_address(world: VaultWorld) -> None:
    """An operator's deployment has an id of its own; PDAs, owner and checks follow it."""
    program_id, parent, ephemeral = Pubkey.new_unique(), world.parent.pubkey(), world.ephemeral.pubkey()
    world.svm.add_program(program_id, load_elf("ephemeral_vault"))
    world.done(
        client.create_vault(parent, ephemeral, session_duration_s=9, max_deposit=9, program_id=program_id),
        client.approve_delegate(parent, ephemeral, program_id=program_id),
        client.auto_deposit_for_trade(parent, ephemeral, trade_fee_estimate=9, program_id=program_id),
        client.execute_trade(parent, ephemeral, fee_paid=9, program_id=program_id),
        client.revoke_access(parent, ephemeral, program_id=program_id),
    )
    account = world.svm.get_account(client.find_vault(parent, ephemeral, program_id))
    assert account is not None
    assert account.owner == program_id
    world.at(START + 9)
    world.done(client.cleanup_vault(parent, ephemeral, cleaner=world.keeper.pubkey(), program_id=program_id))
    assert world.svm.get_account(world.vault) is None, "the default deployment was not touched"


# -- the program's own errors -----------------------------------------------------------------------------------------


def anchor_line(error: str, *, account: str | None = None) -> str:
    """Return the line Anchor logs for one of the program's errors."""
    number = {name: code for code, name in client.ERRORS.items()}[error]
    where = f"caused by account: {account}" if account else "occurred"
    return (
        f"Program log: AnchorError {where}. Error Code: {error}. Error Number: {number}. "
        f"Error Message: {MESSAGES[error]}."
    )


def error_lines(logs: list[str]) -> list[str]:
    """Return the lines that speak of an error."""
    return [line for line in logs if "AnchorError" in line]


Situation = Callable[[VaultWorld], Instruction]


def revoked_then(step: Situation) -> Situation:
    def situation(world: VaultWorld) -> Instruction:
        world.done(world.revoke())
        world.at(EXPIRY)  # expired as well: that the vault is inactive is said first
        return step(world)

    return situation


def at_expiry(step: Situation) -> Situation:
    def situation(world: VaultWorld) -> Instruction:
        world.at(EXPIRY)
        return step(world)

    return situation


def new_vault(world: VaultWorld, *, duration_s: int) -> Instruction:
    world.at(EXPIRY)
    world.done(world.cleanup())
    return world.create(duration_s=duration_s)


def wrong_delegate(world: VaultWorld) -> Instruction:
    return with_data(world.approve(), bytes(world.approve().data[:8]) + bytes(world.parent.pubkey()))


def foreign_ephemeral(world: VaultWorld) -> Instruction:
    return with_key(world.trade(1), 1, world.keeper.pubkey())


SITUATIONS: list[tuple[str, str | None, Situation]] = [
    ("MathOverflow", None, lambda w: new_vault(w, duration_s=I64_MAX)),
    ("MathOverflow", None, lambda w: w.deposit(U64_MAX)),
    ("MathOverflow", None, lambda w: w.trade(U64_MAX)),
    ("SessionExpired", None, at_expiry(lambda w: w.deposit(1))),
    ("SessionExpired", None, at_expiry(lambda w: w.trade(1))),
    ("SessionNotExpired", None, lambda w: w.cleanup()),
    ("VaultInactive", None, revoked_then(lambda w: w.deposit(1))),
    ("VaultInactive", None, revoked_then(lambda w: w.trade(1))),
    ("InvalidDelegate", None, wrong_delegate),
    ("InvalidDelegate", "ephemeral", foreign_ephemeral),
    ("OverDeposit", None, lambda w: w.deposit(MAX_DEPOSIT - 1_000 + 1)),
    ("InsufficientVaultBalance", None, lambda w: w.trade(1_000 - 10 + 1)),
]


@pytest.mark.parametrize(("error", "account", "situation"), SITUATIONS)
def test_each_error_is_said_and_changes_nothing(
    world: VaultWorld, error: str, account: str | None, situation: Situation
) -> None:
    """The transaction fails with the error's code, Anchor's line names it once, and no event is printed."""
    open_session(world, deposit=1_000, fee=10)
    instruction = situation(world)
    before = {key: world.svm.get_account(key) for key in (world.vault, world.delegation, world.parent.pubkey())}
    outcome = world.send(instruction)
    assert outcome.code == {name: code for code, name in client.ERRORS.items()}[error]
    assert error_lines(outcome.logs) == [anchor_line(error, account=account)]
    assert outcome.events == []
    assert {key: world.svm.get_account(key) for key in before} == before


def test_every_error_has_a_situation() -> None:
    """None of the program's errors is without a test that provokes it."""
    elsewhere = {"InvalidDelegationAccount", "DelegationRevoked"}  # need a second session, see above
    assert {error for error, _, _ in SITUATIONS} | elsewhere == set(client.ERRORS.values())


def test_a_deposit_above_the_parents_means_is_the_system_programs_error(world: VaultWorld) -> None:
    """What the parent does not have cannot be deposited: the transfer fails with the system program's custom 1."""
    world.done(world.create(max_deposit=U64_MAX))
    assert world.send(world.deposit(2 * WALLET_LAMPORTS)).code == 1


# -- any order --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["create", "approve", "deposit", "trade", "revoke", "cleanup", "own_cleanup", "wait"]),
            st.integers(0, 30_000_000),
        ),
        min_size=5,
        max_size=25,
    )
)
def test_no_order_of_steps_loses_a_lamport(steps: list[tuple[str, int]]) -> None:
    """Whatever is sent in whatever order: lamports are conserved but for fees, and the books never contradict."""
    world = VaultWorld()
    now = START
    keys = [world.vault, world.delegation, world.parent.pubkey(), world.ephemeral.pubkey(), world.keeper.pubkey()]
    total = sum(map(world.lamports, keys))
    for step, amount in steps:
        if step == "wait":
            now += DURATION_S // 2
            world.at(now)
            continue
        instruction = {
            "create": world.create(), "approve": world.approve(), "deposit": world.deposit(amount),
            "trade": world.trade(amount), "revoke": world.revoke(), "cleanup": world.cleanup(),
            "own_cleanup": world.cleanup(world.parent),
        }[step]  # fmt: skip
        world.send(instruction)
        assert sum(map(world.lamports, keys)) == total
        if world.lamports(world.vault):
            state = {name: value for name, value in world.state(world.vault).items() if isinstance(value, int)}
            assert state["total_spent"] <= state["total_deposited"] <= state["max_deposit"]
            above_rent = world.lamports(world.vault) - world.rent(114)
            assert above_rent == (state["total_deposited"] if state["is_active"] else 0)
