"""
Methods that run something: send, simulate, airdrop.

A transaction that is sent runs at once in the open slot, and is seen once that slot is produced. One that may not land
is dropped without a word after preflight, as on a validator: the sender finds out by asking for its status.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from solders.transaction import SanitizeError, VersionedTransaction

from localnet.accounts import State
from localnet.chain import BLOCKHASH_AGE_MAX, Chain
from localnet.ledger import NO_FOOTPRINT, Executed, Footprint
from localnet.rpc.bodies import inner_json
from localnet.rpc.encoding import AccountView, base64_text, decode_wire
from localnet.rpc.errors import (
    INTERNAL_ERROR,
    PREFLIGHT_FAILURE,
    SIGNATURE_FAILURE,
    RpcError,
    error_text,
    invalid_params,
)
from localnet.rpc.params import COMMITMENTS, Config, Params, as_pubkey, wrong_type
from localnet.rpc.view import bank_of
from localnet.vm import Simulated

WireEncoding = Literal["base58", "base64"]
WIRE_ENCODINGS: tuple[WireEncoding, ...] = ("base58", "base64")


class SendingMethods:
    """The methods, each on the params of a request."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "sendTransaction": self.send,
            "simulateTransaction": self.simulate,
            "requestAirdrop": self.airdrop,
        }

    def send(self, given: Any) -> str:
        """Run a transaction and return its signature, whatever came of it."""
        params = Params(given, required=1, allowed=2)
        config = params.config(1, "RpcSendTransactionConfig")
        transaction = _decode(params.text(0), config)
        skip_preflight = config.flag("skipPreflight")
        config.choice("preflightCommitment", COMMITMENTS, "finalized")
        config.u64("maxRetries")
        bank_of(self._chain, config)
        _sanitize(transaction)
        genuine = all(transaction.verify_with_results())
        if not skip_preflight:
            self._preflight(transaction, genuine=genuine)
        if genuine:
            self._chain.execute(transaction, verified=True)
        return str(transaction.signatures[0])

    def simulate(self, given: Any) -> dict[str, Any]:
        """Say what would come of a transaction."""
        params = Params(given, required=1, allowed=2)
        config = params.config(1, "RpcSimulateTransactionConfig")
        transaction = _decode(params.text(0), config)
        check, replace = config.flag("sigVerify"), config.flag("replaceRecentBlockhash")
        if check and replace:
            raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
        bank = bank_of(self._chain, config)
        _sanitize(transaction)
        if check and not all(transaction.verify_with_results()):
            raise _bad_signature()
        simulated, named = self._simulated(transaction, any_blockhash=replace)
        value = _outcome(transaction, simulated, named, inner=config.flag("innerInstructions"))
        wanted = config.mapping("accounts")
        if wanted is not None:
            value["accounts"] = self._accounts_after(wanted, simulated, named)
        if replace:
            value["replacementBlockhash"] = {
                "blockhash": bank.block.blockhash_text,
                "lastValidBlockHeight": bank.block.height + BLOCKHASH_AGE_MAX,
            }
        return bank.context(value)

    def airdrop(self, given: Any) -> str:
        """Send lamports from the faucet."""
        params = Params(given, required=2, allowed=3)
        address, lamports = params.pubkey(0), params.u64(1)
        params.config(2, "RpcRequestAirdropConfig").commitment()
        executed = self._chain.airdrop(address, lamports)
        if executed.err is not None:
            raise RpcError(INTERNAL_ERROR, f"the faucet cannot send that: {error_text(executed.err)}")
        return executed.signature_text

    def _preflight(self, transaction: VersionedTransaction, *, genuine: bool) -> None:
        if not genuine:
            raise _bad_signature()
        simulated, named = self._simulated(transaction, any_blockhash=False)
        if simulated.err is not None:
            data = _outcome(transaction, simulated, named, inner=False)
            raise RpcError(PREFLIGHT_FAILURE, f"Transaction simulation failed: {error_text(simulated.err)}", data)

    def _simulated(
        self, transaction: VersionedTransaction, *, any_blockhash: bool
    ) -> tuple[Simulated, Footprint | None]:
        named = self._chain.admit(transaction, verified=True, any_blockhash=any_blockhash)
        if not isinstance(named, Footprint):
            return Simulated(named, None, {}), None
        return self._chain.simulate(transaction, named), named

    def _accounts_after(
        self, wanted: Config, simulated: Simulated, named: Footprint | None
    ) -> list[dict[str, Any] | None]:
        given = wanted.raw("addresses")
        if not isinstance(given, list):
            raise wrong_type(given, "a sequence")
        addresses = [as_pubkey(text) for text in given]
        most = 0 if named is None else len(named.keys)
        if named is not None and len(addresses) > most:
            raise invalid_params(f"Too many accounts provided; max {most}")
        view = AccountView(self._chain, wanted, default="base64")
        if view.encoding in ("base58", "binary"):
            raise invalid_params("base58 encoding not supported")
        if simulated.err is not None:
            return [None for _ in addresses]
        states: Sequence[State] = [
            simulated.accounts[address] if address in simulated.accounts else self._chain.account_at(address)
            for address in addresses
        ]
        return [view.optional_body(state, "processed") for state in states]


def _outcome(
    transaction: VersionedTransaction, simulated: Simulated, named: Footprint | None, *, inner: bool
) -> dict[str, Any]:
    """Return the body of a simulation, also the `data` of a failed preflight."""
    as_executed = Executed(
        transaction, slot=0, landed=False, err=simulated.err, meta=simulated.meta, footprint=named or NO_FOOTPRINT
    )
    returned = as_executed.return_data
    return {
        "accounts": None,
        "err": simulated.err,
        "innerInstructions": inner_json(as_executed, parsed=True) if inner else None,
        "logs": as_executed.logs,
        "replacementBlockhash": None,
        "returnData": None
        if returned is None
        else {"data": [base64_text(returned[1]), "base64"], "programId": returned[0]},
        "unitsConsumed": as_executed.compute_units,
    }


def _decode(text: str, config: Config) -> VersionedTransaction:
    raw = decode_wire(text, config.choice("encoding", WIRE_ENCODINGS, "base58"))
    try:
        return VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise invalid_params(
            f"failed to deserialize solana_transaction::versioned::VersionedTransaction: {error}"
        ) from error


def _sanitize(transaction: VersionedTransaction) -> None:
    try:
        transaction.sanitize()
    except SanitizeError as error:
        raise invalid_params(f"invalid transaction: {error_text('SanitizeFailure')}") from error


def _bad_signature() -> RpcError:
    return RpcError(SIGNATURE_FAILURE, "Transaction signature verification failure")
