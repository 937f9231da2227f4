"""What every group of methods stands on: the chain as one commitment shows it, and the context of an answer."""

from typing import Any, NamedTuple

from localnet.chain import Chain, Commitment
from localnet.ledger import Block
from localnet.rpc.errors import invalid_params, min_context_slot_not_reached
from localnet.rpc.params import Config

SOLANA_VERSION = "2.3.0"
"""The validator version whose answers these are."""


class Bank(NamedTuple):
    """A commitment and the newest block that is there at it."""

    commitment: Commitment
    block: Block

    def context(self, value: Any) -> dict[str, Any]:
        """Return an answer with the slot that it holds for."""
        return {"context": {"apiVersion": SOLANA_VERSION, "slot": self.block.slot}, "value": value}


def bank_of(chain: Chain, config: Config) -> Bank:
    """
    Return what the client's commitment shows.

    Raises:
        RpcError: it is behind the slot that the client insists on.
    """
    commitment = config.commitment()
    block = chain.block_at(commitment)
    wanted = config.u64("minContextSlot")
    if wanted is not None and block.slot < wanted:
        raise min_context_slot_not_reached(block.slot)
    return Bank(commitment, block)


def history_bank_of(chain: Chain, config: Config) -> Bank:
    """
    Return what the client's commitment shows, where only confirmed blocks count as history.

    Raises:
        RpcError: `processed` was asked for; or as `bank_of`.
    """
    bank = bank_of(chain, config)
    if bank.commitment == "processed":
        raise invalid_params("Method does not support commitment below `confirmed`")
    return bank
