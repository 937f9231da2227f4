"""What keeps a transaction out of a block, what it costs to break the other rules, and what each commitment shows."""

import struct
from collections.abc import Sequence

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from indexer.errors import DataError
from localnet.accounts import AccountState
from localnet.chain import Chain, Commitment
from localnet.ledger import Block, Executed
from localnet.vm import CLOCK_SYSVAR, SYSTEM_PROGRAM
from tests.fixtures.chain import START_TIME, build_chain, signed

SOL = 10**9
FEE = 5_000
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
LOOKUP_TABLES = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")


def keypair(number: int) -> Keypair:
    return Keypair.from_seed(struct.pack(">Q", number) * 4)


def funded(chain: Chain, number: int = 1, lamports: int = 100 * SOL) -> Keypair:
    payer = keypair(number)
    chain.set_account(payer.pubkey(), AccountState(lamports, b"", SYSTEM_PROGRAM))
    return payer


def pay(payer: Keypair, target: Pubkey, lamports: int = SOL) -> Instruction:
    return transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=target, lamports=lamports))


def run(chain: Chain, instructions: Sequence[Instruction], *signers: Keypair) -> Executed:
    return chain.execute(signed(list(instructions), list(signers), chain.latest_blockhash()))


def step(chain: Chain, blocks: int = 1) -> None:
    for _ in range(blocks):
        chain.open_slot(chain.slot + 1, chain.unix_time + 1)


def told(chain: Chain, *, seed: int) -> str:
    step(chain)
    chain.airdrop(keypair(seed).pubkey(), SOL)
    step(chain)
    return chain.ledger.blocks[-1].blockhash_text


def test_same_seed_same_chain() -> None:
    """The seed, the start time and the transactions decide every hash; another seed is another chain."""
    first, again = build_chain(seed=3), build_chain(seed=3)
    assert told(first, seed=5) == told(again, seed=5)
    assert first.genesis_hash == again.genesis_hash
    assert build_chain(seed=4).genesis_hash != first.genesis_hash
    assert build_chain(seed=3, start_time=START_TIME + 1).genesis_hash != first.genesis_hash


def test_a_transfer_moves_lamports_and_costs_its_fee(chain: Chain) -> None:
    """Balances before and after are told for every account that the transaction names."""
    payer, target = funded(chain), keypair(2).pubkey()
    executed = run(chain, [pay(payer, target)], payer)
    assert executed.landed
    assert executed.err is None
    assert executed.fee == FEE
    assert executed.pre_balances == [100 * SOL, 0, 1]
    assert executed.post_balances == [99 * SOL - FEE, SOL, 1]
    assert chain.account_at(target) == AccountState(SOL, b"", SYSTEM_PROGRAM)


def test_a_failed_transaction_is_kept_with_logs_and_fee(chain: Chain) -> None:
    """A failure lands, says why, and takes nothing but the fee."""
    payer = funded(chain)
    executed = run(chain, [pay(payer, keypair(2).pubkey(), 1_000 * SOL)], payer)
    assert executed.err == {"InstructionError": [0, {"Custom": 1}]}
    assert executed.landed
    assert any("insufficient lamports" in line for line in executed.logs)
    assert executed.pre_balances[0] - executed.post_balances[0] == FEE
    assert chain.transaction(executed.signature) is executed
    assert not chain.holds(keypair(2).pubkey())


def test_the_priority_fee_is_charged(chain: Chain) -> None:
    """Price times limit, in micro-lamports, rounded up; the VM itself would forget it."""
    payer = funded(chain)
    budget = [set_compute_unit_limit(1_001), set_compute_unit_price(1_500)]
    executed = run(chain, [*budget, pay(payer, keypair(2).pubkey())], payer)
    assert executed.err is None
    assert executed.fee == FEE + 2
    step(chain)
    assert run(chain, [pay(payer, keypair(3).pubkey())], payer).pre_balances[0] == 99 * SOL - FEE - 2


def test_an_account_may_not_end_short_of_rent(chain: Chain) -> None:
    """A transfer that leaves too little is taken back whole, apart from the fee."""
    payer, target = funded(chain), keypair(2).pubkey()
    executed = run(chain, [pay(payer, keypair(3).pubkey()), pay(payer, target, 100)], payer)
    assert executed.err == {"InsufficientFundsForRent": {"account_index": 2}}
    assert executed.landed
    assert executed.pre_balances[0] - executed.post_balances[0] == FEE
    assert not chain.holds(target)
    assert not chain.holds(keypair(3).pubkey())
    step(chain)
    again = run(chain, [pay(payer, target)], payer)
    assert again.pre_balances[0] == 100 * SOL - FEE, "the VM and the ledger agree on what is left"


def test_the_fee_payer_is_checked_before_anything_runs(chain: Chain) -> None:
    """Who does not exist, is no wallet, or cannot pay and stay exempt, does not get into a block."""
    poor, short = funded(chain, 1, FEE - 1), funded(chain, 2, 890_880 + FEE - 1)
    odd = keypair(3)
    chain.set_account(odd.pubkey(), AccountState(SOL, b"\1", SYSTEM_PROGRAM))
    target = keypair(9).pubkey()
    for payer, err in (
        (keypair(4), "AccountNotFound"),
        (poor, "InsufficientFundsForFee"),
        (short, {"InsufficientFundsForRent": {"account_index": 0}}),
        (odd, "InvalidAccountForFee"),
    ):
        executed = run(chain, [pay(payer, target, 1)], payer)
        assert (executed.err, executed.landed) == (err, False)
        assert chain.transaction(executed.signature) is None


def test_a_missing_program_costs_the_fee(chain: Chain) -> None:
    """As since fees are charged for transactions that cannot be loaded: the two causes have their own names."""
    payer, other = funded(chain), funded(chain, 2)
    missing = run(chain, [Instruction(keypair(9).pubkey(), b"", [])], payer)
    assert (missing.err, missing.landed, missing.fee) == ("ProgramAccountNotFound", True, FEE)
    wallet = run(chain, [Instruction(other.pubkey(), b"", [])], payer)
    assert (wallet.err, wallet.landed) == ("InvalidProgramForExecution", True)
    assert wallet.post_balances[0] == 100 * SOL - 2 * FEE


def test_a_signature_lands_once(chain: Chain) -> None:
    """The same bytes again are refused, in the same slot and later."""
    payer = funded(chain)
    transaction = signed([pay(payer, keypair(2).pubkey())], [payer], chain.latest_blockhash())
    assert chain.execute(transaction).err is None
    assert chain.execute(bytes(transaction)).err == "AlreadyProcessed"
    step(chain, 3)
    again = chain.execute(transaction)
    assert (again.err, again.landed) == ("AlreadyProcessed", False)


def test_a_blockhash_serves_150_blocks(chain: Chain) -> None:
    """It is good for the 150 blocks above its own and for no other; one of another chain for none."""
    payer, target = funded(chain), keypair(2).pubkey()
    step(chain)
    old = chain.latest_blockhash()
    height = chain.ledger.blocks[-1].height
    for skipped in range(149):
        chain.open_slot(chain.slot + 1 + skipped % 3, chain.unix_time)
    assert chain.block_height == height + 150
    assert chain.execute(signed([pay(payer, target, SOL)], [payer], old)).err is None
    step(chain)
    assert chain.execute(signed([pay(payer, target, SOL + 1)], [payer], old)).err == "BlockhashNotFound"
    assert chain.execute(signed([pay(payer, target)], [payer], Hash.new_unique())).err == "BlockhashNotFound"


def test_signatures_are_checked(chain: Chain) -> None:
    """A wrong signature does not run, unless the caller vouches for it."""
    payer = funded(chain)
    message = signed([pay(payer, keypair(2).pubkey())], [payer], chain.latest_blockhash()).message
    forged = VersionedTransaction.populate(message, [Signature.from_bytes(b"\7" * 64)])
    assert chain.execute(forged).err == "SignatureFailure"
    assert chain.execute(forged, verified=True).err is None


def test_size_and_locks_are_limited(chain: Chain) -> None:
    """1,232 bytes and 64 accounts; no account twice."""
    payer = funded(chain)
    long = run(chain, [Instruction(MEMO, b"x" * 1_200, [])], payer)
    assert (long.err, long.landed) == ("SanitizeFailure", False)
    table, addresses = lookup_table(chain, payer, 40)
    second, others = lookup_table(chain, payer, 40)
    step(chain)
    tables = [AddressLookupTableAccount(table, addresses), AddressLookupTableAccount(second, others)]
    metas = [AccountMeta(key, is_signer=False, is_writable=False) for key in [*addresses, *others]]
    for count, err in ((62, None), (63, "TooManyAccountLocks")):
        instruction = Instruction(
            SYSTEM, struct.pack("<IQ", 2, 0), [AccountMeta(payer.pubkey(), True, True)] * 2 + metas[:count]
        )
        executed = versioned(chain, payer, [instruction], tables)
        assert executed.err == err, count


def test_bytes_that_are_no_transaction_are_named(chain: Chain) -> None:
    """Whoever hands in rubbish hears how long it was."""
    with pytest.raises(DataError, match="7 bytes"):
        chain.execute(b"rubbish")


def lookup_table(chain: Chain, payer: Keypair, size: int) -> tuple[Pubkey, list[Pubkey]]:
    """Make a lookup table of `size` addresses, through the program."""
    step(chain)
    recent = chain.ledger.blocks[-1].slot
    table, bump = Pubkey.find_program_address([bytes(payer.pubkey()), struct.pack("<Q", recent)], LOOKUP_TABLES)
    addresses = [Pubkey(struct.pack(">QQ", recent, i) * 2) for i in range(size)]
    metas = [
        AccountMeta(table, is_signer=False, is_writable=True),
        AccountMeta(payer.pubkey(), is_signer=True, is_writable=False),
        AccountMeta(payer.pubkey(), is_signer=True, is_writable=True),
        AccountMeta(SYSTEM, is_signer=False, is_writable=False),
    ]
    create = Instruction(LOOKUP_TABLES, struct.pack("<IQB", 0, recent, bump), metas)
    assert run(chain, [create], payer).err is None
    for start in range(0, size, 20):
        part = addresses[start : start + 20]
        data = struct.pack("<IQ", 2, len(part)) + b"".join(map(bytes, part))
        assert run(chain, [Instruction(LOOKUP_TABLES, data, metas)], payer).err is None
    return table, addresses


def versioned(
    chain: Chain, payer: Keypair, instructions: list[Instruction], tables: list[AddressLookupTableAccount]
) -> Executed:
    message = MessageV0.try_compile(payer.pubkey(), instructions, tables, chain.latest_blockhash())
    return chain.execute(VersionedTransaction(message, [payer]))


def test_lookup_tables_are_read_from_the_chain(chain: Chain) -> None:
    """A v0 transaction loads addresses, not in the slot in which they were added, and says which it loaded."""
    payer = funded(chain)
    table, addresses = lookup_table(chain, payer, 3)
    wanted = [AddressLookupTableAccount(table, addresses)]
    assert versioned(chain, payer, [pay(payer, addresses[1])], wanted).err == "InvalidAddressLookupTableIndex"
    step(chain)
    executed = versioned(chain, payer, [pay(payer, addresses[1])], wanted)
    assert executed.err is None
    named = executed.footprint
    assert named.keys[named.static :] == (bytes(addresses[1]),)
    assert named.loaded_writable == 1
    assert chain.account_at(addresses[1]) == AccountState(SOL, b"", SYSTEM_PROGRAM)
    strange = [AddressLookupTableAccount(keypair(8).pubkey(), addresses)]
    assert versioned(chain, payer, [pay(payer, addresses[1])], strange).err == "AddressLookupTableNotFound"


def test_logs_are_cut_as_on_solana(chain: Chain) -> None:
    """10,000 bytes, then `Log truncated`, and shorter lines may still follow."""
    payer = funded(chain)
    instructions = [set_compute_unit_limit(1_400_000), *[Instruction(MEMO, b"", [])] * 60]
    executed = run(chain, instructions, payer)
    cut = executed.logs.index("Log truncated")
    assert executed.logs.count("Log truncated") == 1
    assert sum(map(len, executed.logs[:cut])) <= 10_000


def test_commitments_count_produced_blocks() -> None:
    """What runs in the open slot is seen when it is produced; skipped slots do not count."""
    chain = build_chain(confirmed_distance=2, finalized_distance=4)
    payer, target = funded(chain), keypair(2).pubkey()
    step(chain)
    executed = run(chain, [pay(payer, target)], payer)
    seen: dict[Commitment, int] = {}
    for block in range(6):
        for commitment in ("processed", "confirmed", "finalized"):
            if chain.account_at(target, commitment) is not None:
                seen.setdefault(commitment, block)
                assert chain.signatures_for(target, commitment=commitment) == [executed]
        chain.open_slot(chain.slot + 5, chain.unix_time)
    assert seen == {"processed": 1, "confirmed": 3, "finalized": 5}


def test_an_old_state_is_shown_until_the_new_one_is_final() -> None:
    """Every commitment sees its own version of an account, its owner and its absence."""
    chain = build_chain(confirmed_distance=1, finalized_distance=2)
    payer, target = funded(chain), keypair(2)
    program = keypair(7).pubkey()
    step(chain)
    run(chain, [pay(payer, target.pubkey())], payer)
    step(chain, 3)
    chain.set_account(target.pubkey(), AccountState(2 * SOL, b"abc", bytes(program)))
    step(chain)
    chain.set_account(target.pubkey(), None)
    assert chain.account_at(target.pubkey()) is None
    shown = {c: chain.account_at(target.pubkey(), c) for c in ("processed", "confirmed", "finalized")}
    assert shown["processed"] == AccountState(2 * SOL, b"abc", bytes(program))
    assert shown["confirmed"] == shown["finalized"] == AccountState(SOL, b"", SYSTEM_PROGRAM)
    assert [address for address, _ in chain.accounts_of(program, "processed")] == [bytes(target.pubkey())]
    assert list(chain.accounts_of(program, "finalized")) == []
    step(chain, 4)
    assert chain.account_at(target.pubkey(), "finalized") is None
    assert list(chain.accounts_of(program, "processed")) == []


def test_an_account_of_no_lamports_is_none(chain: Chain) -> None:
    """Who gives everything away is gone, and may come back."""
    payer, other = funded(chain, 1), funded(chain, 2, 3 * SOL)
    assert run(chain, [pay(other, payer.pubkey(), 3 * SOL - FEE)], other).err is None
    assert not chain.holds(other.pubkey())
    step(chain)
    assert run(chain, [pay(payer, other.pubkey())], payer).err is None
    assert chain.account_at(other.pubkey()) == AccountState(SOL, b"", SYSTEM_PROGRAM)


def test_the_clock_follows_the_slot(chain: Chain) -> None:
    """The Clock sysvar says slot, epoch and time of the slot, at each commitment its own."""
    chain.open_slot(432_005, START_TIME + 500)
    chain.open_slot(432_009, START_TIME + 502)
    now, before = chain.account_at(CLOCK_SYSVAR), chain.account_at(CLOCK_SYSVAR, "processed")
    assert now is not None
    assert before is not None
    assert struct.unpack("<QqQQq", now.data) == (432_009, START_TIME + 500, 1, 2, START_TIME + 502)
    assert struct.unpack("<QqQQq", before.data)[0] == 432_005
    assert before.lamports > 0


def test_slots_only_go_up(chain: Chain) -> None:
    """The open slot cannot be opened again."""
    with pytest.raises(DataError, match="slot 1 cannot be opened"):
        chain.open_slot(1, START_TIME)


def test_listeners_hear_each_block_once_per_commitment() -> None:
    """In order, with what was written in the block, until they leave."""
    chain = build_chain(confirmed_distance=1, finalized_distance=2)
    heard: list[tuple[str, int, int]] = []

    def listen(commitment: Commitment, block: Block) -> None:
        heard.append((commitment, block.slot, len(block.written)))

    leave = chain.on(listen)
    chain.airdrop(keypair(1).pubkey(), SOL)
    for slot in (4, 6, 9):
        chain.open_slot(slot, START_TIME)
    leave()
    chain.open_slot(12, START_TIME)
    assert heard == [
        ("processed", 1, 3),
        ("processed", 4, 1),
        ("confirmed", 1, 3),
        ("processed", 6, 1),
        ("confirmed", 4, 1),
        ("finalized", 1, 3),
    ]


def test_pages_of_signatures(chain: Chain) -> None:
    """Newest first; an unknown `before` is an empty page, an unknown `until` changes nothing."""
    payer, target = funded(chain), keypair(2).pubkey()
    sent = []
    for number in range(20):
        sent.append(run(chain, [pay(payer, target, SOL + number)], payer))
        if number % 3 == 2:
            step(chain)
    elsewhere = run(chain, [pay(payer, keypair(3).pubkey())], payer)
    step(chain, 40)
    newest_first = sent[::-1]

    def page(before: bytes | None = None, until: bytes | None = None, limit: int = 1_000) -> list[Executed]:
        return chain.signatures_for(target, before=before, until=until, limit=limit)

    assert page() == newest_first
    read: list[Executed] = []
    while part := page(before=read[-1].signature if read else None, limit=7):
        read += part
    assert read == newest_first
    assert page(until=sent[4].signature) == newest_first[:15]
    assert page(before=sent[9].signature, until=sent[4].signature) == sent[5:9][::-1]
    assert page(before=b"\1" * 64) == []
    assert page(until=b"\1" * 64, limit=3) == newest_first[:3]
    assert page(before=elsewhere.signature) == newest_first, "a cursor need not name the address"


def test_airdrops_of_one_sum_are_two_transactions(chain: Chain) -> None:
    """Two in one block differ, so that both land."""
    first, second = (chain.airdrop(keypair(1).pubkey(), SOL) for _ in range(2))
    assert first.signature != second.signature
    assert chain.account_at(keypair(1).pubkey()) == AccountState(2 * SOL, b"", SYSTEM_PROGRAM)


def test_a_broken_program_is_refused(chain: Chain) -> None:
    """What is no ELF does not take the chain down."""
    with pytest.raises(DataError, match="does not accept"):
        chain.add_program(keypair(1).pubkey(), b"not an elf")
    assert chain.airdrop(keypair(1).pubkey(), SOL).err is None


def test_distances_make_sense() -> None:
    """Finalized is never nearer than confirmed."""
    with pytest.raises(DataError, match="neither may be"):
        Chain(seed=1, start_time=START_TIME, confirmed_distance=3, finalized_distance=2)
