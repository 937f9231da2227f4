"""
Transactions and blocks as JSON, in the encodings that Solana offers.

`jsonParsed` names every account and program, but takes only memos apart: instructions of other programs come as a
validator shows those of programs it does not know.
"""

from typing import Any, Literal

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey

from localnet.ledger import Block, Executed, TokenBalance
from localnet.rpc.encoding import base58, base64_text, key_text, ui_amount
from localnet.rpc.errors import unsupported_version

TransactionEncoding = Literal["json", "jsonParsed", "base58", "base64", "binary"]
TRANSACTION_ENCODINGS: tuple[TransactionEncoding, ...] = ("binary", "base64", "base58", "json", "jsonParsed")
Details = Literal["full", "signatures", "none", "accounts"]
DETAILS: tuple[Details, ...] = ("full", "signatures", "none", "accounts")

MEMO_PROGRAMS = frozenset(
    bytes(Pubkey.from_string(text))
    for text in ("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr", "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo")
)


def status_json(err: Any) -> dict[str, Any]:
    """Return the old form of a transaction's outcome."""
    return {"Ok": None} if err is None else {"Err": err}


def memo_of(executed: Executed) -> str | None:
    """Return the memos of a transaction as getSignaturesForAddress shows them, None where it has none."""
    keys = executed.footprint.keys
    if MEMO_PROGRAMS.isdisjoint(keys):
        return None
    memos = []
    for instruction in executed.message.instructions:
        if keys[instruction.program_id_index] in MEMO_PROGRAMS:
            data = bytes(instruction.data)
            memos.append(f"[{len(data)}] {data.decode('utf-8', 'replace')}")
    return "; ".join(memos) or None


class TransactionView:
    """How a client wants transactions: encoding, and the highest version that it can read (None: legacy only)."""

    def __init__(self, encoding: TransactionEncoding, version_max: int | None) -> None:
        self.encoding = encoding
        self.version_max = version_max

    def body(self, executed: Executed) -> dict[str, Any]:
        """
        Return `transaction`, `meta` and, to clients that know versions, `version`.

        Raises:
            RpcError: the transaction is of a higher version.
        """
        version = self._version(executed)
        body: dict[str, Any] = {"meta": self._meta(executed), "transaction": self._transaction(executed)}
        if self.version_max is not None:
            body["version"] = version
        return body

    def accounts_body(self, executed: Executed) -> dict[str, Any]:
        """Return the short form: who was touched, and what it cost."""
        version = self._version(executed)
        meta = {
            name: value
            for name, value in self._meta(executed).items()
            if name in {"err", "fee", "postBalances", "postTokenBalances", "preBalances", "preTokenBalances", "status"}
        }
        short = {"accountKeys": _parsed_keys(executed), "signatures": _signatures(executed)}
        body: dict[str, Any] = {"meta": meta, "transaction": short}
        if self.version_max is not None:
            body["version"] = version
        return body

    def _version(self, executed: Executed) -> int | str:
        if not isinstance(executed.message, MessageV0):
            return "legacy"
        if self.version_max is None:
            raise unsupported_version(0)
        return 0

    def _transaction(self, executed: Executed) -> Any:
        raw = bytes(executed.transaction) if self.encoding in ("base64", "base58", "binary") else b""
        match self.encoding:
            case "base64":
                return [base64_text(raw), "base64"]
            case "base58":
                return [base58(raw), "base58"]
            case "binary":
                return base58(raw)
            case "jsonParsed":
                return {"message": _parsed_message(executed), "signatures": _signatures(executed)}
            case _:
                return {"message": _message(executed.message), "signatures": _signatures(executed)}

    def _meta(self, executed: Executed) -> dict[str, Any]:
        parsed = self.encoding == "jsonParsed"
        keys = executed.footprint.keys
        static, loaded = executed.footprint.static, executed.footprint.loaded_writable
        meta: dict[str, Any] = {
            "computeUnitsConsumed": executed.compute_units,
            "err": executed.err,
            "fee": executed.fee,
            "innerInstructions": inner_json(executed, parsed=parsed),
            "logMessages": executed.shown_logs,
            "postBalances": executed.post_balances,
            "postTokenBalances": [_token_balance(balance) for balance in executed.post_token_balances],
            "preBalances": executed.pre_balances,
            "preTokenBalances": [_token_balance(balance) for balance in executed.pre_token_balances],
            "rewards": [],
            "status": status_json(executed.err),
        }
        if not parsed:
            meta["loadedAddresses"] = {
                "readonly": [key_text(key) for key in keys[static + loaded :]],
                "writable": [key_text(key) for key in keys[static : static + loaded]],
            }
        returned = executed.return_data
        if returned is not None:
            meta["returnData"] = {"data": [base64_text(returned[1]), "base64"], "programId": returned[0]}
        return meta


def inner_json(executed: Executed, *, parsed: bool = False) -> list[dict[str, Any]]:
    """Return the inner instructions, grouped under the outer ones."""
    groups = []
    for outer, inner in executed.inner_instructions:
        instructions = []
        for called in inner:
            compiled = called.instruction()
            height = called.stack_height()  # type: ignore[attr-defined]  # missing in the library's stubs
            instructions.append(_instruction(executed, compiled, height, parsed=parsed))
        groups.append({"index": outer, "instructions": instructions})
    return groups


def block_json(block: Block, previous: Block, view: TransactionView, details: Details, *, rewards: bool) -> Any:
    """
    Return a block's JSON.

    Args:
        previous: the block below.
        rewards: whether the client wants the (always empty) list of rewards.
    """
    body: dict[str, Any] = {
        "blockHeight": block.height,
        "blockTime": block.unix_time,
        "blockhash": block.blockhash_text,
        "parentSlot": block.parent_slot,
        "previousBlockhash": previous.blockhash_text,
    }
    match details:
        case "full":
            body["transactions"] = [view.body(executed) for executed in block.transactions]
        case "accounts":
            body["transactions"] = [view.accounts_body(executed) for executed in block.transactions]
        case "signatures":
            body["signatures"] = [executed.signature_text for executed in block.transactions]
        case "none":
            pass
    if rewards:
        body["rewards"] = []
    return body


def _signatures(executed: Executed) -> list[str]:
    return [str(signature) for signature in executed.transaction.signatures]


def _message(message: Message | MessageV0) -> dict[str, Any]:
    header = message.header
    body: dict[str, Any] = {
        "accountKeys": [str(key) for key in message.account_keys],
        "header": {
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
            "numRequiredSignatures": header.num_required_signatures,
        },
        "instructions": [_compiled(instruction, 1) for instruction in message.instructions],
        "recentBlockhash": str(message.recent_blockhash),
    }
    if isinstance(message, MessageV0):
        body["addressTableLookups"] = _lookups(message)
    return body


def _lookups(message: MessageV0) -> list[dict[str, Any]]:
    return [
        {
            "accountKey": str(lookup.account_key),
            "readonlyIndexes": list(lookup.readonly_indexes),
            "writableIndexes": list(lookup.writable_indexes),
        }
        for lookup in message.address_table_lookups
    ]


def _compiled(instruction: Any, height: int) -> dict[str, Any]:
    return {
        "accounts": list(instruction.accounts),
        "data": base58(bytes(instruction.data)),
        "programIdIndex": instruction.program_id_index,
        "stackHeight": height,
    }


def _instruction(executed: Executed, instruction: Any, height: int, *, parsed: bool) -> dict[str, Any]:
    if not parsed:
        return _compiled(instruction, height)
    keys = executed.footprint.keys
    program = keys[instruction.program_id_index]
    data = bytes(instruction.data)
    if program in MEMO_PROGRAMS:
        text = data.decode("utf-8", "replace")
        return {"parsed": text, "program": "spl-memo", "programId": key_text(program), "stackHeight": height}
    return {
        "accounts": [key_text(keys[index]) for index in instruction.accounts],
        "data": base58(data),
        "programId": key_text(program),
        "stackHeight": height,
    }


def _parsed_keys(executed: Executed) -> list[dict[str, Any]]:
    named = executed.footprint
    signers = executed.message.header.num_required_signatures
    writable = set(named.writable)
    return [
        {
            "pubkey": key_text(key),
            "signer": index < signers,
            "source": "transaction" if index < named.static else "lookupTable",
            "writable": index in writable,
        }
        for index, key in enumerate(named.keys)
    ]


def _parsed_message(executed: Executed) -> dict[str, Any]:
    message = executed.message
    body: dict[str, Any] = {
        "accountKeys": _parsed_keys(executed),
        "instructions": [_instruction(executed, called, 1, parsed=True) for called in message.instructions],
        "recentBlockhash": str(message.recent_blockhash),
    }
    if isinstance(message, MessageV0):
        body["addressTableLookups"] = _lookups(message)
    return body


def _token_balance(balance: TokenBalance) -> dict[str, Any]:
    return {
        "accountIndex": balance.account_index,
        "mint": key_text(balance.mint),
        "owner": key_text(balance.owner),
        "programId": key_text(balance.program),
        "uiTokenAmount": ui_amount(balance.amount, balance.decimals),
    }
