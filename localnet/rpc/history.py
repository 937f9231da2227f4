"""Methods about what has happened: blocks, transactions, signatures."""

from collections.abc import Callable
from typing import Any

from localnet.chain import Chain
from localnet.ledger import Block, Executed
from localnet.rpc.bodies import (
    DETAILS,
    TRANSACTION_ENCODINGS,
    TransactionView,
    block_json,
    memo_of,
    status_json,
)
from localnet.rpc.errors import block_not_available, invalid_params, slot_skipped
from localnet.rpc.params import Config, Params, as_choice, as_signature, as_u64
from localnet.rpc.view import Bank, history_bank_of

SIGNATURES_PAGE_MAX = 1_000
STATUSES_MAX = 256
BLOCK_RANGE_MAX = 500_000
STATUS_CACHE_BLOCKS = 300
"""How far back a status is found without searching history."""


class HistoryMethods:
    """The methods, each on the params of a request."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "getBlock": self.block,
            "getBlocks": self.blocks,
            "getBlocksWithLimit": self.blocks_with_limit,
            "getBlockTime": self.block_time,
            "getFirstAvailableBlock": self.first_available_block,
            "minimumLedgerSlot": self.first_available_block,
            "getTransaction": self.transaction,
            "getSignaturesForAddress": self.signatures_for_address,
            "getSignatureStatuses": self.signature_statuses,
        }

    def block(self, given: Any) -> Any:
        """One block."""
        params = Params(given, required=1, allowed=2)
        slot = params.u64(0)
        config = _encoding_config(params, 1, "RpcBlockConfig")
        bank = history_bank_of(self._chain, config)
        details = config.choice("transactionDetails", DETAILS, "full")
        view = _transaction_view(config)
        rewards = config.flag("rewards", default=True)
        block = self._found(slot, bank.block.slot)
        previous = self._chain.ledger.blocks[max(0, block.height - 1)]
        return block_json(block, previous, view, details, rewards=rewards)

    def blocks(self, given: Any) -> list[int]:
        """The slots of a range that have a block."""
        params = Params(given, required=1, allowed=3)
        first = params.u64(0)
        # The end may be left out and the config take its place.
        early_config = isinstance(params.raw(1), dict)
        config = params.config(1 if early_config else 2, "RpcContextConfig")
        bank = history_bank_of(self._chain, config)
        end = None if early_config or params.raw(1) is None else as_u64(params.raw(1))
        last = bank.block.slot if end is None else min(end, bank.block.slot)
        if last < first:
            return []
        if last - first > BLOCK_RANGE_MAX:
            raise invalid_params(f"Slot range too large; max {BLOCK_RANGE_MAX}")
        return self._chain.ledger.slots(first, last)

    def blocks_with_limit(self, given: Any) -> list[int]:
        """The first so many slots from one on that have a block."""
        params = Params(given, required=2, allowed=3)
        first, limit = params.u64(0), params.u64(1)
        if limit > BLOCK_RANGE_MAX:
            raise invalid_params(f"Limit too large; max {BLOCK_RANGE_MAX}")
        bank = history_bank_of(self._chain, params.config(2, "RpcContextConfig"))
        return [slot for slot in self._chain.ledger.slots_from(first, limit) if slot <= bank.block.slot]

    def block_time(self, given: Any) -> int:
        """A block's clock, unix seconds."""
        slot = Params(given, required=1, allowed=1).u64(0)
        return self._found(slot, self._chain.block_at("processed").slot).unix_time

    def first_available_block(self, given: Any) -> int:
        """Nothing is ever cleaned up."""
        Params(given, required=0, allowed=0)
        return self._chain.ledger.blocks[0].slot

    def transaction(self, given: Any) -> Any:
        """One transaction; null where it is not there at the commitment."""
        params = Params(given, required=1, allowed=2)
        signature = params.signature(0)
        config = _encoding_config(params, 1, "RpcTransactionConfig")
        bank = history_bank_of(self._chain, config)
        view = _transaction_view(config)
        executed = self._chain.transaction(signature)
        if executed is None or executed.slot > bank.block.slot:
            return None
        block = self._chain.ledger.block(executed.slot)
        assert block is not None, "below the newest block every transaction has one"
        return {"blockTime": block.unix_time, "slot": executed.slot, **view.body(executed)}

    def signatures_for_address(self, given: Any) -> list[dict[str, Any]]:
        """Who named an address, newest first."""
        params = Params(given, required=1, allowed=2)
        address = params.pubkey(0)
        config = params.config(1, "RpcSignaturesForAddressConfig")
        limit = config.u64("limit")
        if limit is not None and not 0 < limit <= SIGNATURES_PAGE_MAX:
            raise invalid_params(f"Invalid limit; max {SIGNATURES_PAGE_MAX}")
        before, until = config.signature("before"), config.signature("until")
        bank = history_bank_of(self._chain, config)
        page = self._chain.signatures_for(
            address, before=before, until=until, limit=limit or SIGNATURES_PAGE_MAX, commitment=bank.commitment
        )
        finalized = self._chain.block_at("finalized").slot
        return [self._signature_row(executed, finalized) for executed in page]

    def signature_statuses(self, given: Any) -> dict[str, Any]:
        """What came of transactions: recent ones, and older ones where history is searched."""
        params = Params(given, required=1, allowed=2)
        signatures = [as_signature(text) for text in params.list_of(0, at_most=STATUSES_MAX)]
        search = params.config(1, "RpcSignatureStatusConfig").flag("searchTransactionHistory")
        newest = Bank("processed", self._chain.block_at("processed"))
        return newest.context([self._status(signature, newest.block, search=search) for signature in signatures])

    def _found(self, slot: int, slot_max: int) -> Block:
        block = self._chain.ledger.block(slot)
        if block is not None and slot <= slot_max:
            return block
        if slot < self._chain.block_at("finalized").slot:
            raise slot_skipped(slot)
        raise block_not_available(slot)

    def _signature_row(self, executed: Executed, finalized: int) -> dict[str, Any]:
        block = self._chain.ledger.block(executed.slot)
        assert block is not None, "pages hold produced blocks only"
        return {
            "blockTime": block.unix_time,
            "confirmationStatus": "finalized" if executed.slot <= finalized else "confirmed",
            "err": executed.err,
            "memo": memo_of(executed),
            "signature": executed.signature_text,
            "slot": executed.slot,
        }

    def _status(self, signature: bytes, newest: Block, *, search: bool) -> dict[str, Any] | None:
        executed = self._chain.transaction(signature)
        if executed is None or executed.slot > newest.slot:
            return None
        block = self._chain.ledger.block(executed.slot)
        assert block is not None, "below the newest block every transaction has one"
        above = newest.height - block.height
        if above >= STATUS_CACHE_BLOCKS and not search:
            return None
        reached = "processed"
        if block.slot <= self._chain.block_at("confirmed").slot:
            reached = "confirmed"
        if block.slot <= self._chain.block_at("finalized").slot:
            reached = "finalized"
        return {
            "confirmationStatus": reached,
            "confirmations": None if reached == "finalized" else above,
            "err": executed.err,
            "slot": executed.slot,
            "status": status_json(executed.err),
        }


def _encoding_config(params: Params, position: int, struct: str) -> Config:
    """Return the config; an encoding alone may stand in its place, as it once did."""
    if isinstance(params.raw(position), str):
        return Config({"encoding": as_choice(params.raw(position), TRANSACTION_ENCODINGS)})
    return params.config(position, struct)


def _transaction_view(config: Config) -> TransactionView:
    encoding = config.choice("encoding", TRANSACTION_ENCODINGS, "json")
    return TransactionView(encoding, config.u64("maxSupportedTransactionVersion"))
