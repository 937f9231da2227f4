"""
The ledger around LiteSVM: slots, blockhashes, commitments, and every rule that LiteSVM leaves out.

A slot is open while transactions are executed in it, and becomes visible to readers when it is produced, as on a
validator: what `processed` shows is the newest produced block. The numbers between two opened slots are skipped slots.
Nothing here opens a socket or looks at the wall clock; `server.py` does both.

The same seed, start time and transactions give the same chain, to the last blockhash.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import SanitizeError, VersionedTransaction

from indexer.errors import DataError
from localnet.accounts import Accounts, AccountState, State, breaks_rent
from localnet.ledger import Block, Executed, Footprint, Ledger, TransactionError
from localnet.vm import (
    CLOCK_SYSVAR,
    LOOKUP_TABLE_PROGRAM,
    SLOT_HASHES_SYSVAR,
    SLOTS_PER_EPOCH,
    SYSTEM_PROGRAM,
    Simulated,
    Vm,
    fee_of,
    footprint,
    token_balances,
)

TRANSACTION_BYTES_MAX = 1_232
ACCOUNT_LOCKS_MAX = 64
BLOCKHASH_AGE_MAX = 150
"""In blocks: a transaction may land in the 150 blocks above the one whose hash it carries."""
SLOT_HASHES_MAX = 512
FAUCET_LAMPORTS = 500_000_000 * 10**9

Commitment = Literal["processed", "confirmed", "finalized"]
Listener = Callable[[Commitment, Block], None]


class Kept(NamedTuple):
    """
    What a chain is besides its ledger.

    Attributes:
        open: the open slot.
        reached: the height of the newest block at each commitment.
        airdrops, forks: how many there were.
    """

    open: Block
    accounts: Accounts
    reached: dict[Commitment, int]
    airdrops: int
    forks: int


# Without the program nothing can run, and the fee is charged all the same.
FEES_ONLY_ERRORS = frozenset({"InvalidProgramForExecution", "ProgramAccountNotFound"})


class Chain:
    """A chain of one node that votes for itself."""

    def __init__(
        self, *, seed: int, start_time: int, confirmed_distance: int = 1, finalized_distance: int = 32
    ) -> None:
        """
        Args:
            seed: decides genesis hash, blockhashes and the faucet's key.
            start_time: unix seconds of genesis and of the first open slot.
            confirmed_distance: how many produced blocks `confirmed` lies behind `processed`.
            finalized_distance: the same for `finalized`; not below `confirmed_distance`.

        Raises:
            DataError: the distances are negative, or finalized is nearer than confirmed.
        """
        if not 0 <= confirmed_distance <= finalized_distance:
            raise DataError(
                f"confirmed {confirmed_distance} and finalized {finalized_distance} blocks behind: neither may be"
                " negative, and finalized is never the nearer one"
            )
        self.seed = seed
        self.start_time = start_time
        self.distances = (confirmed_distance, finalized_distance)
        self.log_limit: Callable[[bytes], int | None] = lambda _: None
        """To how many bytes the logs of a transaction (its signature, 64 bytes) are cut for clients."""
        self._seed = hashlib.sha256(struct.pack("<qq", seed, start_time)).digest()
        self._distances: dict[Commitment, int] = {
            "processed": 0,
            "confirmed": confirmed_distance,
            "finalized": finalized_distance,
        }
        self._vm = Vm()
        self._accounts = Accounts()
        # Accounts that nobody has written since genesis, as the VM has them.
        self._static: dict[bytes, State] = {}
        self._listeners: list[Listener] = []
        self._hashes_slot = -1
        # The height of the newest block that was told about, by commitment.
        self._reached: dict[Commitment, int] = {"processed": 0, "confirmed": 0, "finalized": 0}
        self._forks = 0
        self._faucet = Keypair.from_seed(hashlib.sha256(b"faucet" + self._seed).digest())
        self._airdrops = 0
        self.ledger = Ledger()
        genesis = Block(0, 0, 0, start_time, bytes(32), epoch_start=start_time)
        genesis.blockhash = hashlib.sha256(genesis.seal(self._seed)).digest()
        self.genesis_hash = str(Hash(hashlib.sha256(b"genesis" + self._seed).digest()))
        self.identity = Keypair.from_seed(hashlib.sha256(b"identity" + self._seed).digest()).pubkey()
        self.ledger.add_block(genesis)
        self._open = self._opened(1, start_time)
        self.set_account(self._faucet.pubkey(), AccountState(FAUCET_LAMPORTS, b"", SYSTEM_PROGRAM))

    # Slots

    @property
    def slot(self) -> int:
        """The open slot."""
        return self._open.slot

    @property
    def block_height(self) -> int:
        """The open slot's height: how many blocks lie below it."""
        return self._open.height

    @property
    def unix_time(self) -> int:
        """What the Clock sysvar says in the open slot."""
        return self._open.unix_time

    def open_slot(self, slot: int, unix_time: int, *, produced_ns: int | None = None) -> None:
        """
        Produce the open slot and open another; the numbers in between are skipped slots.

        Args:
            slot: above the open one.
            unix_time: of the new slot.
            produced_ns: the wall clock, where somebody wants to know later; nanoseconds since 1970.

        Raises:
            DataError: `slot` is not above the open one.
        """
        if slot <= self._open.slot:
            raise DataError(f"slot {slot} cannot be opened: slot {self._open.slot} is open, and slots only go up")
        block = self._open
        blocks = self.ledger.blocks
        block.blockhash = hashlib.sha256(block.seal(self._fork_seed())).digest()
        block.transactions_total = blocks[-1].transactions_total + len(block.transactions)
        block.produced_ns = produced_ns
        self.ledger.add_block(block)
        self._open = self._opened(slot, unix_time)
        for commitment, distance in self._distances.items():
            reached = len(blocks) - 1 - distance
            if reached > self._reached[commitment]:
                self._reached[commitment] = reached
                self._reach(commitment, blocks[reached])

    def rewind(self, height: int, *, slot: int, unix_time: int) -> list[Block]:
        """
        Take back every block from `height` up and the open slot, state and all, and open another slot there.

        Returns:
            What is gone, oldest first; the last one is what was open.

        Raises:
            DataError: a block of that height is final, or there is none.
        """
        finalized = self._reached["finalized"]
        if not finalized < height < len(self.ledger.blocks):
            raise DataError(
                f"blocks from height {height} on cannot be taken back: {finalized} is final,"
                f" {len(self.ledger.blocks) - 1} is the newest"
            )
        dropped = [*self.ledger.drop_from(height, self._open.transactions), self._open]
        written = dict.fromkeys(key for block in dropped for key in block.written)
        for key, state in self._accounts.undo_from(dropped[0].slot, tuple(written)).items():
            if key != CLOCK_SYSVAR:
                self._vm.set_account(key, state)
        for commitment, reached in self._reached.items():
            self._reached[commitment] = min(reached, height - 1)
        self._hashes_slot = -1
        self._forks += 1
        self._open = self._opened(slot, unix_time)
        return dropped

    def latest_blockhash(self) -> Hash:
        """Return the hash of the newest produced block."""
        return Hash(self.ledger.blocks[-1].blockhash)

    def blockhash_at(self, commitment: Commitment) -> Hash:
        """Return the hash of the newest block that is there at `commitment`."""
        return Hash(self.block_at(commitment).blockhash)

    def block_at(self, commitment: Commitment) -> Block:
        """Return the newest block that is there at `commitment`; genesis at first."""
        return self.ledger.blocks[self._reached[commitment]]

    def on(self, listener: Listener) -> Callable[[], None]:
        """
        Call `listener(commitment, block)` for each block that reaches a commitment, and return what ends that.

        Blocks come in order, each once per commitment; after a fork those that replace others are told anew. A
        block's `written` is complete, and gone after `finalized`.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def hash_is_valid(self, blockhash: bytes, height: int) -> bool:
        """Say whether a transaction with that blockhash may land in a block of that height."""
        known = self.ledger.height_of(blockhash)
        return known is not None and height - known <= BLOCKHASH_AGE_MAX

    # Accounts

    def account_at(self, address: Pubkey | bytes, commitment: Commitment | None = None) -> State:
        """Return an account at `commitment`, or in the open slot where that is None. No account: None."""
        key = bytes(address)
        if key not in self._accounts:
            return self._untouched(key)
        if commitment is None:
            return self._accounts.newest(key)
        return self._accounts.at(key, self.block_at(commitment).slot)

    def accounts_of(
        self, owner: Pubkey | bytes, commitment: Commitment | None = None
    ) -> Iterator[tuple[bytes, AccountState]]:
        """
        Yield address (32 bytes) and state of each account that `owner` owns, in the order of their creation.

        Built-in programs and sysvars are not listed: nobody has written them.
        """
        slot = self.slot if commitment is None else self.block_at(commitment).slot
        return self._accounts.owned_by(bytes(owner), slot)

    def all_accounts(self, commitment: Commitment | None = None) -> Iterator[tuple[bytes, AccountState]]:
        """Yield address and state of each account that was ever written and exists."""
        return self._accounts.every(self.slot if commitment is None else self.block_at(commitment).slot)

    def holds(self, address: Pubkey | bytes) -> bool:
        """Say whether an account exists in the open slot."""
        return self.account_at(address) is not None

    def set_account(self, address: Pubkey | bytes, state: State) -> None:
        """Write any account, in the open slot or, before the first transaction, at genesis."""
        key = bytes(address)
        before = self.account_at(key)
        if state is not None and state.lamports == 0:
            state = None
        self._vm.set_account(key, state)
        untouched = len(self.ledger.blocks) == 1 and not self._open.transactions
        self._write(key, before, state, at_genesis=untouched)
        if not untouched:
            self._open.outside.append((len(self._open.transactions), key, state))

    def add_program(self, program_id: Pubkey | bytes, elf: bytes) -> None:
        """
        Put a program on the chain as if it had always been there.

        Raises:
            DataError: the VM does not accept it.
        """
        key = bytes(program_id)
        try:
            self._vm.add_program(key, elf)
        except ValueError as error:
            raise DataError(f"{Pubkey(key)}: {error}; rebuild it") from error
        self._static.pop(key, None)

    def airdrop(self, address: Pubkey | bytes, lamports: int) -> Executed:
        """Send lamports from the faucet, by a transaction like any other."""
        self._airdrops += 1
        faucet = self._faucet.pubkey()
        target = Pubkey(bytes(address))
        instructions = [
            # The limit makes two airdrops of one sum in one block two transactions.
            set_compute_unit_limit(1_000 + self._airdrops % 1_000_000),
            transfer(TransferParams(from_pubkey=faucet, to_pubkey=target, lamports=lamports)),
        ]
        message = Message.new_with_blockhash(instructions, faucet, self.latest_blockhash())
        return self.execute(VersionedTransaction(message, [self._faucet]), verified=True)

    # Keeping

    def kept(self) -> "Kept":
        """Return everything that `resume` needs besides the ledger; a view, not a copy."""
        return Kept(self._open, self._accounts, dict(self._reached), self._airdrops, self._forks)

    def resume(self, ledger: Ledger, kept: "Kept") -> None:
        """Go on from where another chain of the same seed, start time and programs stood."""
        self.ledger = ledger
        self._open, self._accounts, self._reached = kept.open, kept.accounts, kept.reached
        self._airdrops, self._forks, self._hashes_slot = kept.airdrops, kept.forks, -1
        self._static.clear()
        # A program's code is looked for when the account that names it arrives.
        for key, state in sorted(kept.accounts.current(), key=lambda entry: bool(entry[1] and entry[1].executable)):
            if key != CLOCK_SYSVAR:
                self._vm.set_account(key, state)
        block = self._open
        self._vm.set_clock(slot=block.slot, unix_time=block.unix_time, epoch_start=block.epoch_start)

    # Transactions

    def transaction(self, signature: bytes) -> Executed | None:
        """Return a transaction by its first signature (64 bytes), the open slot's too."""
        return self.ledger.transaction(bytes(signature))

    def signatures_for(
        self,
        address: Pubkey | bytes,
        *,
        before: bytes | None = None,
        until: bytes | None = None,
        limit: int = 1_000,
        commitment: Commitment = "finalized",
    ) -> list[Executed]:
        """Return transactions that name `address`, newest first; see `Ledger.page` for unknown cursors."""
        slot_max = self.block_at(commitment).slot
        return self.ledger.page(bytes(address), before=before, until=until, limit=limit, slot_max=slot_max)

    def execute(self, transaction: VersionedTransaction | bytes, *, verified: bool = False) -> Executed:
        """
        Run a transaction in the open slot, at once.

        Args:
            transaction: signed; as bytes at most 1,232.
            verified: its signatures are known to be right and need no check.

        Returns:
            What came of it. `landed` is False where it broke a rule that keeps it out of a block: then nothing has
            changed. One that landed has paid its fee, also with an `err`.
        """
        if isinstance(transaction, bytes):
            transaction = _decoded(transaction)
        named = self.admit(transaction, verified=verified)
        if not isinstance(named, Footprint):
            return Executed(transaction, slot=self.slot, landed=False, err=named)
        return self._run(transaction, named)

    def admit(
        self, transaction: VersionedTransaction, *, verified: bool, any_blockhash: bool = False
    ) -> Footprint | TransactionError:
        """Return what the transaction names, or the error for which no block may contain it."""
        if len(bytes(transaction)) > TRANSACTION_BYTES_MAX:
            return "SanitizeFailure"
        message = transaction.message
        if not verified:
            try:
                transaction.sanitize()
                genuine = all(transaction.verify_with_results())
            except SanitizeError:
                return "SanitizeFailure"
            if not genuine:
                return "SignatureFailure"
        named = footprint(message, slot=self.slot, read=self.account_at)
        if not isinstance(named, Footprint):
            return named
        if len(named.keys) > ACCOUNT_LOCKS_MAX:
            return "TooManyAccountLocks"
        if len(set(named.keys)) < len(named.keys):
            return "AccountLoadedTwice"
        if not any_blockhash and not self.hash_is_valid(bytes(message.recent_blockhash), self.block_height):
            return "BlockhashNotFound"
        if self.ledger.transaction(bytes(transaction.signatures[0])) is not None:
            return "AlreadyProcessed"
        return self._refusal_of_payer(named.keys[0], sum(fee_of(message))) or named

    def simulate(self, transaction: VersionedTransaction, named: Footprint) -> Simulated:
        """Say what would come of a transaction that `admit` let in."""
        self._sync_slot_hashes(named)
        simulated = self._vm.simulate(transaction)
        for index in named.writable:
            key = named.keys[index]
            if key in simulated.accounts and breaks_rent(self.account_at(key), simulated.accounts[key]):
                return simulated._replace(err={"InsufficientFundsForRent": {"account_index": index}})
        if simulated.err == "InvalidProgramForExecution":
            return simulated._replace(err=self._missing_program(transaction, named))
        return simulated

    def _refusal_of_payer(self, payer: bytes, fee: int) -> TransactionError | None:
        state = self.account_at(payer)
        if state is None:
            return "AccountNotFound"
        if state.owner != SYSTEM_PROGRAM or state.data:
            return "InvalidAccountForFee"
        if state.lamports < fee:
            return "InsufficientFundsForFee"
        if breaks_rent(state, _less(state, fee)):
            return {"InsufficientFundsForRent": {"account_index": 0}}
        return None

    def _run(self, transaction: VersionedTransaction, named: Footprint) -> Executed:
        keys = named.keys
        self._sync_slot_hashes(named)
        base, priority = fee_of(transaction.message)
        before = [self.account_at(key) for key in keys]
        payer = before[0]
        assert payer is not None, "admitted with a fee payer"
        paid = _less(payer, base + priority)
        pre_tokens = token_balances(keys, self.account_at)
        if priority:
            self._vm.set_account(keys[0], _less(payer, priority))
        err, meta = self._vm.send(transaction)
        if isinstance(err, str):
            if err not in FEES_ONLY_ERRORS:
                if priority:
                    self._vm.set_account(keys[0], payer)
                return Executed(transaction, slot=self.slot, landed=False, err=err)
            err = self._missing_program(transaction, named)
            self._vm.set_account(keys[0], paid)
        after = list(before)
        after[0] = paid
        if err is None:
            for index in named.writable:
                after[index] = self._vm.account(keys[index])
            err = self._undo_if_rent_broken(named, before, after, paid)
        for index in named.writable:
            if after[index] != before[index]:
                self._write(keys[index], before[index], after[index])
        executed = Executed(
            transaction,
            slot=self.slot,
            landed=True,
            err=err,
            meta=meta,
            index=len(self._open.transactions),
            fee=base + priority,
            footprint=named,
            pre_balances=[0 if state is None else state.lamports for state in before],
            post_balances=[0 if state is None else state.lamports for state in after],
            pre_token_balances=pre_tokens,
            post_token_balances=token_balances(keys, self.account_at),
            log_bytes_max=self.log_limit(bytes(transaction.signatures[0])),
        )
        self._open.transactions.append(executed)
        self.ledger.add_transaction(executed)
        return executed

    def _undo_if_rent_broken(
        self, named: Footprint, before: list[State], after: list[State], paid: State
    ) -> TransactionError | None:
        """Take back everything but the fee where an account ends short of rent, and say where."""
        broken = next((i for i in named.writable if breaks_rent(before[i], after[i])), None)
        if broken is None:
            return None
        for index in named.writable:
            after[index] = paid if index == 0 else before[index]
            self._vm.set_account(named.keys[index], after[index])
        return {"InsufficientFundsForRent": {"account_index": broken}}

    def _missing_program(self, transaction: VersionedTransaction, named: Footprint) -> TransactionError:
        """Tell a program that is not there from an account that is none: LiteSVM has one word for both."""
        for instruction in transaction.message.instructions:
            if self.account_at(named.keys[instruction.program_id_index]) is None:
                return "ProgramAccountNotFound"
        return "InvalidProgramForExecution"

    # State of the open slot

    def _opened(self, slot: int, unix_time: int) -> Block:
        parent = self.ledger.blocks[-1]
        same_epoch = slot // SLOTS_PER_EPOCH == parent.slot // SLOTS_PER_EPOCH
        self._open = Block(
            slot=slot,
            parent_slot=parent.slot,
            height=parent.height + 1,
            unix_time=unix_time,
            previous_blockhash=parent.blockhash,
            epoch_start=parent.epoch_start if same_epoch else unix_time,
        )
        clock = self._vm.set_clock(slot=slot, unix_time=unix_time, epoch_start=self._open.epoch_start)
        self._write(CLOCK_SYSVAR, self._accounts.newest(CLOCK_SYSVAR), clock)
        return self._open

    def _fork_seed(self) -> bytes:
        """Return what blockhashes are made of: after a fork, blocks of the same contents have other hashes."""
        return hashlib.sha256(self._seed + struct.pack("<Q", self._forks)).digest() if self._forks else self._seed

    def _write(self, key: bytes, before: State, after: State, *, at_genesis: bool = False) -> None:
        if at_genesis:
            self._accounts.write(key, 0, after, before=before)
            return
        self._accounts.write(key, self._open.slot, after, before=before)
        self._open.written[key] = after

    def _untouched(self, key: bytes) -> State:
        """Return an account that nobody has written since genesis."""
        if key == SLOT_HASHES_SYSVAR:
            self._set_slot_hashes()
            return self._vm.account(key)
        try:
            return self._static[key]
        except KeyError:
            state = self._static[key] = self._vm.account(key)
            return state

    def _sync_slot_hashes(self, named: Footprint) -> None:
        # 512 hashes a slot are too dear for a long history, in which hardly anybody looks at them.
        if SLOT_HASHES_SYSVAR in named.keys or LOOKUP_TABLE_PROGRAM in named.keys:
            self._set_slot_hashes()

    def _set_slot_hashes(self) -> None:
        newest = self.ledger.blocks[-1].slot
        if self._hashes_slot == newest:
            return
        self._vm.set_slot_hashes([(b.slot, b.blockhash) for b in self.ledger.blocks[: -SLOT_HASHES_MAX - 1 : -1]])
        self._hashes_slot = newest

    def _reach(self, commitment: Commitment, block: Block) -> None:
        for listener in tuple(self._listeners):
            listener(commitment, block)
        if commitment == "finalized":
            self._accounts.forget_before(block.slot, tuple(block.written))
            block.written = {}
            block.outside = []


def _less(state: AccountState, fee: int) -> State:
    left = state.lamports - fee
    return state._replace(lamports=left) if left else None


def _decoded(raw: bytes) -> VersionedTransaction:
    try:
        return VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise DataError(f"these {len(raw)} bytes are no transaction: {error}") from error
