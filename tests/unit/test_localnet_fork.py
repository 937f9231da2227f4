"""Blocks that vanish: what is left is what a chain would be that never saw what was lost."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer.errors import DataError
from localnet.accounts import AccountState
from localnet.chain import Chain, Commitment
from localnet.clients import ephemeral_vault as client
from localnet.fork import Chances, Forked, fork
from localnet.ledger import Block, Executed
from localnet.traffic.history import fill_purses
from localnet.traffic.live import LiveTraffic
from localnet.traffic.schedule import Company
from localnet.traffic.sessions import SessionCast
from localnet.vm import SYSTEM_PROGRAM
from tests.fixtures.chain import build_chain

SOL = 10**9
SLOT_MS = 400
ORACLE = Pubkey(b"\x0a" * 32)
"""An account that is written in every slot, and by no transaction."""


def peopled(seed: int) -> tuple[Chain, LiveTraffic]:
    """Return a chain on which many sessions of a real program are opened and used."""
    chain = build_chain(seed=seed, finalized_distance=12)
    companies = [Company(SessionCast(seed=seed, parents=30))]
    fill_purses(chain, companies)
    return chain, LiveTraffic(chain, companies, seed=seed, rate_tps=40.0)


def live(chain: Chain, traffic: LiveTraffic, slots: int) -> None:
    """Let users act for so many slots."""
    for number in range(slots):
        chain.open_slot(chain.slot + 1, chain.unix_time + number % 2)
        chain.set_account(ORACLE, AccountState(SOL + chain.slot, b"price", SYSTEM_PROGRAM))
        traffic.on_slot(SLOT_MS)


def replay(blocks: list[Block], open_block: Block, seed: int) -> Chain:
    """Return a chain that saw only what those blocks hold."""
    chain, _ = peopled(seed)
    for block in [*blocks[1:], open_block]:
        if block.slot != chain.slot:
            chain.open_slot(block.slot, block.unix_time)
        chain.set_account(ORACLE, AccountState(SOL + block.slot, b"price", SYSTEM_PROGRAM))
        for executed in block.transactions:
            again = chain.execute(executed.transaction, verified=True)
            assert (again.landed, again.err, again.logs) == (True, executed.err, executed.logs)
    return chain


@pytest.mark.parametrize(("seed", "blocks"), [(1, 1), (2, 3), (3, 7), (4, 11)])
def test_state_after_a_fork_is_that_of_a_chain_that_never_saw_what_was_lost(seed: int, blocks: int) -> None:
    """Every account, in the books and in the VM, with lost and moved transactions among hundreds."""
    chain, traffic = peopled(seed)
    live(chain, traffic, 90)
    count = sum(len(block.transactions) for block in chain.ledger.blocks)
    forked = fork(chain, blocks, seed=seed, chances=Chances())
    assert count > 200
    assert forked.lost
    other = replay(chain.ledger.blocks, chain.kept().open, seed)
    assert other.slot == chain.slot
    mine, theirs = dict(chain.all_accounts()), dict(other.all_accounts())
    assert mine == theirs
    for address in mine:
        assert chain._vm.account(address) == other._vm.account(address), Pubkey(address)
    assert [*chain.accounts_of(client.PROGRAM_ID)] == [*other.accounts_of(client.PROGRAM_ID)]


def test_what_is_lost_is_nowhere_and_what_moved_is_elsewhere() -> None:
    """By signature, by address and in blocks; nothing is there twice."""
    chain, traffic = peopled(5)
    live(chain, traffic, 90)
    before = {one.signature: one.slot for block in chain.ledger.blocks for one in block.transactions}
    hashes = {block.slot: block.blockhash for block in chain.ledger.blocks}
    forked = fork(chain, 8, seed=9, chances=Chances())
    assert forked.moved
    assert set(forked.rewritten) < set(forked.dropped)
    for signature in forked.lost:
        assert chain.transaction(signature) is None
    for signature in forked.moved:
        moved = chain.transaction(signature)
        assert moved is not None
        assert moved.slot != before.get(signature, chain.slot)
    inside = [one for block in [*chain.ledger.blocks, chain.kept().open] for one in block.transactions]
    assert len({one.signature for one in inside}) == len(inside)
    assert all(chain.transaction(one.signature) is one for one in inside)
    for slot in forked.dropped:
        block = chain.ledger.block(slot)
        assert (block is not None) == (slot in forked.rewritten)
        assert block is None or block.blockhash != hashes[slot]
    program = [one for one in inside if bytes(client.PROGRAM_ID) in one.footprint.keys and one.slot < chain.slot]
    assert chain.signatures_for(client.PROGRAM_ID, commitment="processed") == program[: -1_000 - 1 : -1]


def test_the_same_seed_forks_the_same_way() -> None:
    """Another seed another way."""

    def forked(seed: int) -> tuple[Forked, bytes]:
        chain, traffic = peopled(6)
        live(chain, traffic, 60)
        result = fork(chain, 6, seed=seed, chances=Chances())
        return result, chain.ledger.blocks[-1].blockhash

    assert forked(1) == forked(1)
    assert forked(1)[0] != forked(2)[0]


def heard(chain: Chain) -> dict[Commitment, list[int]]:
    """Return where the heights of told blocks are noted."""
    told: dict[Commitment, list[int]] = {"processed": [], "confirmed": [], "finalized": []}
    chain.on(lambda commitment, block: told[commitment].append(block.slot))
    return told


def test_what_is_final_stays_and_is_told_once() -> None:
    """Roots go up one by one through a fork; confirmed blocks that replace others are told anew."""
    chain, traffic = peopled(7)
    told = heard(chain)
    live(chain, traffic, 40)
    root, confirmed = chain.block_at("finalized"), chain.block_at("confirmed").slot
    fork(chain, 10, seed=2, chances=Chances(skipped=0.5))
    assert chain.block_at("finalized") is root
    assert chain.block_at("confirmed").slot <= confirmed
    live(chain, traffic, 60)
    blocks = chain.ledger.blocks
    assert told["finalized"] == [block.slot for block in blocks[1 : len(told["finalized"]) + 1]]
    assert len(told["finalized"]) == len(blocks) - 1 - 12
    assert len(told["confirmed"]) > len(blocks) - 2
    assert told["confirmed"][-1] == blocks[-2].slot
    assert [block.height for block in blocks] == list(range(len(blocks)))
    for parent, block in pairwise(blocks):
        assert (block.parent_slot, block.previous_blockhash) == (parent.slot, parent.blockhash)


def test_a_hash_of_a_lost_block_is_no_longer_good() -> None:
    """Whoever signed with one has to sign again."""
    chain = build_chain()
    for _ in range(5):
        chain.open_slot(chain.slot + 1, chain.unix_time)
    stale = chain.latest_blockhash()
    sent = chain.airdrop(Keypair().pubkey(), SOL)
    forked = fork(chain, 3, seed=1, chances=Chances(lost=0, moved=0, skipped=0))
    assert forked.lost == [sent.signature]
    assert not chain.hash_is_valid(bytes(stale), chain.block_height)
    assert chain.airdrop(Keypair().pubkey(), SOL).landed


@pytest.mark.parametrize("blocks", [0, -1, 12, 1_000])
def test_only_what_is_not_final_can_go(blocks: int) -> None:
    """And at least one block must; a refused fork changes nothing."""
    chain, traffic = peopled(8)
    live(chain, traffic, 40)
    newest = chain.ledger.blocks[-1]
    with pytest.raises(DataError, match="11 are confirmed and not final"):
        fork(chain, blocks, seed=1, chances=Chances())
    assert chain.ledger.blocks[-1] is newest


def balance_after(change: Callable[[Chain], Executed], address: Pubkey) -> list[int]:
    chain = build_chain()
    chain.open_slot(chain.slot + 1, chain.unix_time)
    change(chain)
    for _ in range(3):
        chain.open_slot(chain.slot + 1, chain.unix_time)
    fork(chain, 3, seed=1, chances=Chances(lost=1, moved=0, skipped=0))
    found: list[Commitment] = ["processed", "confirmed", "finalized"]
    return [0 if (state := chain.account_at(address, one)) is None else state.lamports for one in found]


def test_what_no_transaction_wrote_is_written_again() -> None:
    """In its slot, in its place among the transactions; where that slot is skipped, in the next one."""
    chain, address = build_chain(), Keypair().pubkey()
    chain.open_slot(2, chain.unix_time)
    for lamports in (3, 4, 5):
        chain.set_account(ORACLE, AccountState(lamports, b"", SYSTEM_PROGRAM))
        chain.airdrop(address, SOL)
        chain.set_account(address, AccountState(lamports, b"", SYSTEM_PROGRAM))
        chain.open_slot(chain.slot + 1, chain.unix_time)
    forked = fork(chain, 2, seed=1, chances=Chances(lost=0, moved=0, skipped=1))
    assert (forked.dropped, forked.rewritten) == ([2, 3, 4], [2])
    chain.open_slot(6, chain.unix_time)
    for one in (ORACLE, address):
        shown = [chain.account_at(one, commitment) for commitment in ("processed", "confirmed")]
        assert [None if state is None else state.lamports for state in shown] == [5, 3]


def test_an_account_that_first_came_in_a_lost_block_is_gone() -> None:
    """At every commitment."""
    address = Keypair().pubkey()
    assert balance_after(lambda chain: chain.airdrop(address, SOL), address) == [0, 0, 0]
