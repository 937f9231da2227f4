"""What the engine builds and signs, run by the real program in the real VM."""

import base64
import json
from importlib import resources

import pytest
from solders.compute_budget import set_compute_unit_limit
from solders.keypair import Keypair
from solders.transaction_metadata import FailedTransactionMetadata

from engine.chain import Account
from engine.keys import Signer
from engine.programs.ephemeral_vault import CLEANUP_REWARD_LAMPORTS_MAX, EphemeralVault, Refusal
from engine.rules.cleanup import Session, Unreadable
from engine.settings import EngineSettings
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import SettingsError
from localnet.clients import ephemeral_vault as client
from tests.fixtures.vault_world import DURATION_S, START, VaultWorld


def idl_text() -> str:
    return (resources.files("indexer") / "idls" / "ephemeral_vault.json").read_text()


@pytest.fixture
def adapter() -> EphemeralVault:
    return EphemeralVault(Program.from_idl(load_idl(idl_text(), source="ephemeral_vault.json")))


def session_in(world: VaultWorld, adapter: EphemeralVault) -> Session | Unreadable | None:
    found = world.svm.get_account(world.vault)
    account = None if found is None else Account(bytes(found.owner), found.lamports, bytes(found.data))
    rent = world.svm.minimum_balance_for_rent_exemption(len(found.data) if found else 0)
    return adapter.read_session(bytes(world.vault), account, rent_exempt_lamports=rent)


def clean(world: VaultWorld, adapter: EphemeralVault, cleaner: Keypair) -> FailedTransactionMetadata | int:
    """Clean up as the engine does; return the failure, or the compute units of success."""
    instruction = adapter.cleanup_instruction(
        vault=bytes(world.vault), parent_wallet=bytes(world.parent.pubkey()), cleaner=cleaner.pubkey()
    )
    limit = EngineSettings().compute_unit_limit
    world.svm.expire_blockhash()
    transaction = Signer(cleaner).sign(
        [set_compute_unit_limit(limit), instruction], blockhash=world.svm.latest_blockhash()
    )
    result = world.svm.send_transaction(transaction)
    return result if isinstance(result, FailedTransactionMetadata) else result.compute_units_consumed()


@pytest.mark.parametrize("deposit", [0, 1, 9_999, 10_000, 10_001, 5_000_000])
def test_the_reward_that_the_rule_sees_is_the_reward_that_is_paid(adapter: EphemeralVault, deposit: int) -> None:
    """Off-chain arithmetic equals on-chain arithmetic: the cleaner's balance moves by reward less fee."""
    world = VaultWorld()
    world.done(world.create(), world.approve())
    if deposit:
        world.done(world.deposit(deposit))
    world.at(START + DURATION_S)
    session = session_in(world, adapter)
    assert isinstance(session, Session)
    assert session.reward_lamports == min(deposit, CLEANUP_REWARD_LAMPORTS_MAX)
    before = world.svm.get_balance(world.keeper.pubkey()) or 0
    units = clean(world, adapter, world.keeper)
    assert isinstance(units, int)
    assert units < EngineSettings().compute_unit_limit // 2
    after = world.svm.get_balance(world.keeper.pubkey()) or 0
    assert after - before == session.reward_lamports - 5_000
    assert session_in(world, adapter) is None


def test_a_session_reads_as_it_was_created(adapter: EphemeralVault) -> None:
    """Address, parent, begin and end are those of the chain."""
    world = VaultWorld()
    world.done(world.create())
    session = session_in(world, adapter)
    assert session == Session(bytes(world.vault), bytes(world.parent.pubkey()), START, START + DURATION_S, 0)


def test_the_programs_refusals_are_told_apart(adapter: EphemeralVault) -> None:
    """Too early, and gone, as the VM says it: neither is a failure for a person to look at."""
    world = VaultWorld()
    world.done(world.create())
    world.at(START + DURATION_S - 1)
    assert adapter.read_refusal(error_of(clean(world, adapter, world.keeper))) is Refusal.EARLY
    world.at(START + DURATION_S)
    assert isinstance(clean(world, adapter, world.keeper), int)
    assert adapter.read_refusal(error_of(clean(world, adapter, world.keeper))) is Refusal.LOST
    world.svm.airdrop(world.vault, 2_000_000)
    assert adapter.read_refusal(error_of(clean(world, adapter, world.keeper))) is Refusal.LOST
    for other in ('"InsufficientFundsForFee"', '{"InstructionError":[1,"ComputationalBudgetExceeded"]}', "null"):
        assert adapter.read_refusal(other) is Refusal.FAILED


def error_of(result: FailedTransactionMetadata | int) -> str:
    """Return the failure as the RPC writes it."""
    assert isinstance(result, FailedTransactionMetadata)
    return json.dumps({"InstructionError": [1, {"Custom": result.err().err.code}]})  # type: ignore[union-attr]  # only custom codes here


def test_what_is_no_vault_is_never_a_session(adapter: EphemeralVault) -> None:
    """A delegation, a cut account, an account of another owner: unreadable or gone, never something to clean."""
    world = VaultWorld()
    world.done(world.create(), world.approve())
    found = world.svm.get_account(world.vault)
    delegation = world.svm.get_account(world.delegation)
    assert found is not None
    assert delegation is not None
    owner, data = bytes(client.PROGRAM_ID), bytes(found.data)

    def read(account: Account) -> Session | Unreadable | None:
        return adapter.read_session(bytes(world.vault), account, rent_exempt_lamports=0)

    assert isinstance(read(Account(owner, 1, data)), Session)
    assert isinstance(read(Account(owner, 1, bytes(delegation.data))), Unreadable)
    assert isinstance(read(Account(owner, 1, data[:50])), Unreadable)
    assert isinstance(read(Account(owner, 1, b"")), Unreadable)
    assert read(Account(bytes(32), 1, data)) is None


def test_an_idl_of_another_program_is_refused() -> None:
    """The engine does not start on a program that it cannot clean up."""
    document = json.loads(idl_text())
    document["instructions"] = [i for i in document["instructions"] if i["name"] != "cleanup_vault"]
    with pytest.raises(SettingsError, match="cleanup_vault"):
        EphemeralVault(Program.from_idl(load_idl(json.dumps(document), source="other.json")))


def test_the_instruction_is_what_an_independent_client_builds(adapter: EphemeralVault) -> None:
    """Accounts, flags and data from the IDL equal those that localnet's own client writes by hand."""
    world = VaultWorld()
    parent, cleaner = world.parent.pubkey(), world.keeper.pubkey()
    ours = adapter.cleanup_instruction(vault=bytes(world.vault), parent_wallet=bytes(parent), cleaner=cleaner)
    theirs = client.cleanup_vault(parent, world.ephemeral.pubkey(), cleaner=cleaner)
    assert base64.b64encode(bytes(ours)) == base64.b64encode(bytes(theirs))
