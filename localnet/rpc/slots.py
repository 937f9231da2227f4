"""Methods about the node, the clock of blocks, and fees."""

from collections.abc import Callable
from typing import Any

from solders.message import Message, MessageV0, from_bytes_versioned

from localnet.accounts import rent_exempt_minimum
from localnet.chain import BLOCKHASH_AGE_MAX, Chain
from localnet.rpc.encoding import decode_wire
from localnet.rpc.errors import invalid_params
from localnet.rpc.params import Params, as_pubkey
from localnet.rpc.view import SOLANA_VERSION, bank_of
from localnet.vm import SLOTS_PER_EPOCH, fee_of, unit_price

FEATURE_SET = 3_640_012_085
PRIORITIZATION_SLOTS_MAX = 150
PRIORITIZATION_ADDRESSES_MAX = 128


class SlotMethods:
    """The methods, each on the params of a request."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "getHealth": self.health,
            "getVersion": self.version,
            "getGenesisHash": self.genesis_hash,
            "getIdentity": self.identity,
            "getSlot": self.slot,
            "getSlotLeader": self.slot_leader,
            "getBlockHeight": self.block_height,
            "getTransactionCount": self.transaction_count,
            "getLatestBlockhash": self.latest_blockhash,
            "isBlockhashValid": self.is_blockhash_valid,
            "getFeeForMessage": self.fee_for_message,
            "getRecentPrioritizationFees": self.recent_prioritization_fees,
            "getEpochInfo": self.epoch_info,
            "getEpochSchedule": self.epoch_schedule,
            "getMinimumBalanceForRentExemption": self.minimum_balance,
        }

    def health(self, given: Any) -> str:
        """A node without peers is never behind them."""
        Params(given, required=0, allowed=0)
        return "ok"

    def version(self, given: Any) -> dict[str, Any]:
        """The validator that these answers follow."""
        Params(given, required=0, allowed=0)
        return {"feature-set": FEATURE_SET, "solana-core": SOLANA_VERSION}

    def genesis_hash(self, given: Any) -> str:
        """What tells this chain from every other."""
        Params(given, required=0, allowed=0)
        return self._chain.genesis_hash

    def identity(self, given: Any) -> dict[str, str]:
        """The node's key."""
        Params(given, required=0, allowed=0)
        return {"identity": str(self._chain.identity)}

    def slot(self, given: Any) -> int:
        """The newest slot at a commitment."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        return bank_of(self._chain, config).block.slot

    def slot_leader(self, given: Any) -> str:
        """There is one leader."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        bank_of(self._chain, config)
        return str(self._chain.identity)

    def block_height(self, given: Any) -> int:
        """How many blocks lie below the newest one at a commitment."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        return bank_of(self._chain, config).block.height

    def transaction_count(self, given: Any) -> int:
        """Transactions since genesis, failed ones too."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        return bank_of(self._chain, config).block.transactions_total

    def latest_blockhash(self, given: Any) -> dict[str, Any]:
        """What a new transaction should carry, and the last height it may land at."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        bank = bank_of(self._chain, config)
        return bank.context(
            {"blockhash": bank.block.blockhash_text, "lastValidBlockHeight": bank.block.height + BLOCKHASH_AGE_MAX}
        )

    def is_blockhash_valid(self, given: Any) -> dict[str, Any]:
        """Whether a transaction with that blockhash may still land."""
        params = Params(given, required=1, allowed=2)
        blockhash = params.pubkey(0)
        bank = bank_of(self._chain, params.config(1, "RpcContextConfig"))
        known = self._chain.ledger.height_of(blockhash)
        valid = known is not None and known <= bank.block.height <= known + BLOCKHASH_AGE_MAX
        return bank.context(valid)

    def fee_for_message(self, given: Any) -> dict[str, Any]:
        """The fee of a message, null once its blockhash is too old."""
        params = Params(given, required=1, allowed=2)
        message = _decode_message(params.text(0))
        bank = bank_of(self._chain, params.config(1, "RpcContextConfig"))
        known = self._chain.hash_is_valid(bytes(message.recent_blockhash), bank.block.height)
        return bank.context(sum(fee_of(message)) if known else None)

    def recent_prioritization_fees(self, given: Any) -> list[dict[str, int]]:
        """The lowest unit price that landed with all of these accounts, per recent block."""
        params = Params(given, required=0, allowed=1)
        texts = [] if params.raw(0) is None else params.list_of(0, at_most=PRIORITIZATION_ADDRESSES_MAX)
        wanted = {as_pubkey(text) for text in texts}
        fees = []
        for block in self._chain.ledger.blocks[-PRIORITIZATION_SLOTS_MAX:]:
            prices = [
                unit_price(executed.message)
                for executed in block.transactions
                if wanted <= {executed.footprint.keys[index] for index in executed.footprint.writable}
            ]
            fees.append({"prioritizationFee": min(prices, default=0), "slot": block.slot})
        return fees

    def epoch_info(self, given: Any) -> dict[str, Any]:
        """Where in which epoch the chain is."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        block = bank_of(self._chain, config).block
        return {
            "absoluteSlot": block.slot,
            "blockHeight": block.height,
            "epoch": block.slot // SLOTS_PER_EPOCH,
            "slotIndex": block.slot % SLOTS_PER_EPOCH,
            "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": block.transactions_total,
        }

    def epoch_schedule(self, given: Any) -> dict[str, Any]:
        """Epochs of one length from the first on."""
        Params(given, required=0, allowed=0)
        return {
            "firstNormalEpoch": 0,
            "firstNormalSlot": 0,
            "leaderScheduleSlotOffset": SLOTS_PER_EPOCH,
            "slotsPerEpoch": SLOTS_PER_EPOCH,
            "warmup": False,
        }

    def minimum_balance(self, given: Any) -> int:
        """The lamports that an account of that size must hold."""
        params = Params(given, required=1, allowed=2)
        size = params.u64(0)
        params.config(1, "CommitmentConfig").commitment()
        if size > 10 * 1024 * 1024:
            raise invalid_params(f"Invalid params: an account holds at most 10485760 bytes, not {size}.")
        return rent_exempt_minimum(size)


def _decode_message(text: str) -> Message | MessageV0:
    raw = decode_wire(text, "base64", what="solana_message::versions::VersionedMessage")
    try:
        return from_bytes_versioned(raw)
    except ValueError as error:
        raise invalid_params(f"failed to deserialize solana_message::versions::VersionedMessage: {error}") from error
