"""Nobody speaks in the engine's name: neither its events nor its calls of the collateral program can be forged."""

from collections.abc import Callable
from pathlib import Path

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from localnet.programs import build
from tests.fixtures.market_world import (
    ALICE,
    FEED_ID,
    KEEPER,
    MINT,
    MarketWorld,
)
from tests.fixtures.vault_world import with_account


@pytest.fixture
def world() -> MarketWorld:
    """A world in which alice has a position."""
    opened = MarketWorld.opened()
    opened.done(opened.open())
    return opened


def refused(world: MarketWorld, instruction: Instruction, code: int, account: str) -> None:
    """Assert the code and the account that the log names."""
    outcome = world.send(instruction)
    assert outcome.code == code, outcome.logs
    assert any(f"AnchorError caused by account: {account}. " in line for line in outcome.logs)


def forged_event(signer: Pubkey, *, signs: bool) -> Instruction:
    """Return an event instruction as the engine sends it to itself, with whatever signer."""
    payload = client.discriminator("event", "MarketCreated") + client.text("FAKE") + FEED_ID + bytes(8)
    return Instruction(client.PROGRAM_ID, client.EVENT_TAG + payload, [AccountMeta(signer, signs, is_writable=False)])


def test_an_event_that_nobody_signed_is_refused(world: MarketWorld) -> None:
    """Naming the event authority is not enough: it must sign, and only the engine can make it."""
    refused(world, forged_event(client.find_event_authority(), signs=False), 2002, "event_authority")


def test_an_event_that_another_signed_is_refused(world: MarketWorld) -> None:
    """A signature of somebody else does not help."""
    refused(world, forged_event(KEEPER.pubkey(), signs=True), 2006, "event_authority")


def test_an_event_without_accounts_is_refused(world: MarketWorld) -> None:
    """Nor does no account at all: the runtime's own error, as Anchor has it."""
    outcome = world.send(Instruction(client.PROGRAM_ID, client.EVENT_TAG + bytes(60), []))
    assert outcome.code is not None
    assert "insufficient account keys" in outcome.logs[-1]


FORGER = """
#include "anchor.h"

/* Call the engine with this very instruction data and the first account as a signer, which it may not be. */
u64 entrypoint(u8 *input) {
    Context context;
    AccountInfo accounts[4];
    read_input(input, accounts, 4, &context);
    AccountMeta meta = {accounts[0].key, false, true};
    Instruction instruction = {accounts[1].key, &meta, 1, context.data, context.data_len};
    char seed[] = {'_', '_', 'e', 'v', 'e', 'n', 't', '_', 'a', 'u', 't', 'h', 'o', 'r', 'i', 't', 'y'};
    u8 bump;
    Pubkey own;
    Slice seeds[2] = {{seed, sizeof seed}, {&bump, 1}};
    sol_try_find_program_address(seeds, 1, context.program_id, &own, &bump);
    Slice signer = {seeds, 2};
    return invoke(&context, &instruction, &signer);
}
"""
EMPTY_IDL = """{"metadata": {"name": "forger"}, "instructions": [], "accounts": [], "events": [], "types": [],
                "errors": [{"code": 6000, "name": "None", "msg": "none"}]}"""


def test_another_program_cannot_send_the_engines_events(
    world: MarketWorld, tmp_path: Path, require: Callable[[str], None]
) -> None:
    """By CPI neither: the runtime lets nobody else sign for the authority, and the forger's own is another address."""
    require("ziglang")
    source = tmp_path / "forger.c"
    source.write_text(FORGER)
    forger = Pubkey(bytes([77] * 32))
    world.svm.add_program(forger, build.compile_program(source, EMPTY_IDL))
    engine = AccountMeta(client.PROGRAM_ID, is_signer=False, is_writable=False)
    for authority in (client.find_event_authority(), client.find_event_authority(forger)):
        event = forged_event(authority, signs=False)
        outcome = world.send(Instruction(forger, event.data, [*event.accounts, engine]))
        assert outcome.code is not None
        if authority == client.find_event_authority():
            assert "privilege escalated" in "".join(outcome.logs)
        else:
            assert outcome.code == 2006


@pytest.mark.parametrize("step", ["lock", "unlock", "transfer"])
def test_nobody_calls_the_collateral_program_in_the_engines_name(world: MarketWorld, step: str) -> None:
    """What the engine may move, only the engine moves: its authority's signature cannot be had from outside."""
    alice, keeper = ALICE.pubkey(), KEEPER.pubkey()
    instruction = {
        "lock": vaults.lock_collateral(client.PROGRAM_ID, alice, amount=5),
        "unlock": vaults.unlock_collateral(client.PROGRAM_ID, alice, amount=5),
        "transfer": vaults.transfer_collateral(client.PROGRAM_ID, alice, keeper, mint=MINT, amount=5),
    }[step]
    authority = vaults.find_caller_authority(client.PROGRAM_ID)
    unsigned = with_account(instruction, 0, AccountMeta(authority, is_signer=False, is_writable=False))
    refused(world, unsigned, 3010, "caller_authority")
