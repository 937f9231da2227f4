"""
What has happened: blocks, their transactions, and the ways to find them again.

Nothing here executes anything or knows a commitment; the chain says up to which slot a reader may look.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from solders.hash import Hash
from solders.message import Message, MessageV0
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import InnerInstruction, TransactionMetadata

from localnet.accounts import State

TransactionError = str | dict[str, Any]
"""As Solana's JSON has it: "AccountNotFound" or {"InstructionError": [0, {"Custom": 6001}]}."""


class Footprint(NamedTuple):
    """
    The accounts that a transaction names.

    Attributes:
        keys: 32 bytes each: those in the message, then the loaded writable, then the loaded readonly ones.
        writable: positions in `keys` of what it may write, ascending; the fee payer is always the first.
        static: how many of the keys are in the message.
        loaded_writable: how many were loaded from lookup tables to be written.
    """

    keys: tuple[bytes, ...]
    writable: tuple[int, ...]
    static: int
    loaded_writable: int


LOG_TRUNCATED = "Log truncated"

NO_FOOTPRINT = Footprint((), (), 0, 0)
"""Of a transaction that was refused before anybody looked."""


class TokenBalance(NamedTuple):
    """A token account of a transaction. `mint`, `owner` and `program` are 32 bytes, `amount` base units."""

    account_index: int
    mint: bytes
    owner: bytes
    program: bytes
    amount: int
    decimals: int


@dataclass(eq=False)
class Executed:
    """
    What came of one transaction.

    Attributes:
        landed: whether it is in the ledger. One that is not changed nothing and cost nothing.
        slot: where it is; the open slot's number where it is nowhere.
        index: its position in the block; -1 where it is nowhere.
        err: None where it succeeded.
        fee: lamports taken from the first signer.
        pre_balances, post_balances: lamports by position in `footprint.keys`.
        log_bytes_max: what clients see of its logs is cut there, beyond the VM's own limit; None: nothing is.
    """

    transaction: VersionedTransaction
    slot: int
    landed: bool
    err: TransactionError | None
    meta: TransactionMetadata | None = None
    index: int = -1
    fee: int = 0
    footprint: Footprint = NO_FOOTPRINT
    pre_balances: Sequence[int] = ()
    post_balances: Sequence[int] = ()
    pre_token_balances: Sequence[TokenBalance] = ()
    post_token_balances: Sequence[TokenBalance] = ()
    log_bytes_max: int | None = None

    @cached_property
    def signature(self) -> bytes:
        """The first signature, 64 bytes."""
        return bytes(self.transaction.signatures[0])

    @property
    def signature_text(self) -> str:
        """The first signature in base58, its name at the edge."""
        return str(Signature(self.signature))

    @property
    def message(self) -> Message | MessageV0:
        """What was signed."""
        return self.transaction.message

    @cached_property
    def logs(self) -> list[str]:
        """What the VM printed; empty where nothing ran."""
        return self.meta.logs() if self.meta is not None else []

    @cached_property
    def shown_logs(self) -> list[str]:
        """What clients are shown of the logs."""
        return self.logs if self.log_bytes_max is None else cut_logs(self.logs, self.log_bytes_max)

    @cached_property
    def inner_instructions(self) -> list[tuple[int, list[InnerInstruction]]]:
        """Instructions called by others, under the position of the outer one; outer ones that call none are absent."""
        if self.meta is None:
            return []
        return [(i, inner) for i, inner in enumerate(self.meta.inner_instructions()) if inner]

    @property
    def compute_units(self) -> int:
        """Compute units consumed."""
        return self.meta.compute_units_consumed() if self.meta is not None else 0

    @property
    def return_data(self) -> tuple[str, bytes] | None:
        """Program (base58) and bytes of the last non-empty return data."""
        if self.meta is None:
            return None
        returned = self.meta.return_data()  # type: ignore[attr-defined]  # the stubs have another name than the library
        data = bytes(returned.data)
        return (str(returned.program_id), data) if data else None


@dataclass(eq=False)
class Block:
    """
    One produced slot.

    Attributes:
        height: how many blocks lie below it.
        unix_time: what its Clock sysvar said.
        transactions_total: transactions in it and all blocks below.
        written: state at its end of each account written in it; emptied once it is finalized.
        produced_ns: wall clock at which it was produced live, nanoseconds since 1970; None for history.
        epoch_start: unix time of the first block of its epoch.
        outside: accounts written by no transaction (a test, an oracle), in order: how many transactions had run before,
            address, state; emptied once it is finalized.
    """

    slot: int
    parent_slot: int
    height: int
    unix_time: int
    previous_blockhash: bytes
    blockhash: bytes = bytes(32)
    transactions: list[Executed] = field(default_factory=list)
    transactions_total: int = 0
    written: dict[bytes, State] = field(default_factory=dict)
    produced_ns: int | None = None
    epoch_start: int = 0
    outside: list[tuple[int, bytes, State]] = field(default_factory=list)

    @property
    def blockhash_text(self) -> str:
        """The blockhash in base58."""
        return str(Hash(self.blockhash))

    def only(self, address: bytes | None) -> "Block":
        """Return the block with nothing but the transactions that name `address`; with all of them where it is None."""
        if address is None:
            return self
        return replace(self, transactions=[one for one in self.transactions if address in one.footprint.keys])

    def seal(self, digest: bytes) -> bytes:
        """Return what the blockhash is the hash of, given the digest of its parent's and the chain's seed."""
        place = struct.pack("<QQq", self.slot, self.parent_slot, self.unix_time)
        return b"".join((digest, self.previous_blockhash, place, *(landed.signature for landed in self.transactions)))


class Ledger:
    """Every produced block, and every transaction with the open slot's, by signature and by address."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._slots: list[int] = []
        self._height_by_hash: dict[bytes, int] = {}
        self._by_signature: dict[bytes, Executed] = {}
        self._by_address: dict[bytes, list[Executed]] = {}

    def add_transaction(self, executed: Executed) -> None:
        """Make a transaction of the open slot findable."""
        self._by_signature[executed.signature] = executed
        for key in executed.footprint.keys:
            found = self._by_address.get(key)
            if found is None:
                self._by_address[key] = [executed]
            else:
                found.append(executed)

    def add_block(self, block: Block) -> None:
        """Append a produced block."""
        self.blocks.append(block)
        self._slots.append(block.slot)
        self._height_by_hash[block.blockhash] = block.height

    def drop_from(self, height: int, unproduced: Sequence[Executed]) -> list[Block]:
        """
        Forget the blocks from `height` up and the open slot's transactions; return the blocks, oldest first.

        Args:
            unproduced: the open slot's transactions, in order.
        """
        dropped = self.blocks[height:]
        del self.blocks[height:], self._slots[height:]
        for block in dropped:
            del self._height_by_hash[block.blockhash]
        gone = [executed for block in dropped for executed in block.transactions]
        for executed in reversed([*gone, *unproduced]):
            del self._by_signature[executed.signature]
            for key in executed.footprint.keys:
                newest = self._by_address[key].pop()
                assert newest is executed, "what came last is dropped first"
        return dropped

    def block(self, slot: int) -> Block | None:
        """Return the block in `slot`, None where there is none."""
        position = bisect_left(self._slots, slot)
        if position < len(self._slots) and self._slots[position] == slot:
            return self.blocks[position]
        return None

    def slots(self, first: int, last: int) -> list[int]:
        """Return the slots from `first` to `last` (both included) that have a block."""
        return self._slots[bisect_left(self._slots, first) : bisect_right(self._slots, last)]

    def slots_from(self, first: int, limit: int) -> list[int]:
        """Return the first `limit` slots from `first` on that have a block."""
        start = bisect_left(self._slots, first)
        return self._slots[start : start + limit]

    def height_of(self, blockhash: bytes) -> int | None:
        """Return the height of the block with that hash."""
        return self._height_by_hash.get(blockhash)

    def transaction(self, signature: bytes) -> Executed | None:
        """Return a transaction, the open slot's too."""
        return self._by_signature.get(signature)

    def page(
        self, address: bytes, *, before: bytes | None, until: bytes | None, limit: int, slot_max: int
    ) -> list[Executed]:
        """
        Return transactions that name `address`, newest first, none of a slot above `slot_max`.

        Args:
            before: only those older than this signature; an unknown one gives an empty page, as on a validator.
            until: only those newer than this signature; an unknown one is ignored, as on a validator.
        """
        history = self._by_address.get(address, [])
        end = bisect_right(history, slot_max, key=lambda executed: executed.slot)
        start = 0
        if before is not None:
            newest = self._by_signature.get(before)
            if newest is None or newest.slot > slot_max:
                return []
            end = min(end, bisect_left(history, _place(newest), key=_place))
        if until is not None:
            oldest = self._by_signature.get(until)
            if oldest is not None and oldest.slot <= slot_max:
                start = bisect_right(history, _place(oldest), key=_place)
        start = max(start, end - limit)
        return history[start:end][::-1]


def cut_logs(lines: Sequence[str], bytes_max: int) -> list[str]:
    """
    Return logs as a validator keeps them: a line that no longer fits is left out, and the first such one is replaced.

    What is left out does not count, so shorter lines may still follow `Log truncated`.

    Source: the validator's `LogCollector::log`.
    """
    kept: list[str] = []
    size = 0
    warned = False
    for line in lines:
        length = len(line.encode())
        if size + length < bytes_max:
            size += length
            kept.append(line)
        elif not warned:
            warned = True
            kept.append(LOG_TRUNCATED)
    return kept


def _place(executed: Executed) -> tuple[int, int]:
    return executed.slot, executed.index
