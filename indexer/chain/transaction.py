"""
A transaction as `getTransaction` returns it, with its keys in one list and its instructions as bytes.

`json` and `base64` encodings are read, of legacy, v0 and v1 transactions. The keys an instruction
refers to are the static ones, then those that lookup tables loaded: writable first. What the instructions and logs mean
is found out in `events.py`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import pybase64
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from indexer.chain.base58 import decode_base58
from indexer.chain.wire import V1_PREFIX, parse_v1
from indexer.errors import DataError

# What PubSub reports for transactions that are not there; no transaction has it.
NO_SIGNATURE = bytes(64)


class Instruction:
    """
    One instruction; of inner ones, the position in the flat list is their only sure order.

    `program_id` is None where the key came from a lookup table whose addresses the node did not tell. `accounts` are
    positions in the transaction's keys. `data` is decoded at first use: most instructions are other programs'.
    """

    __slots__ = ("_data", "accounts", "program_id", "stack_height")

    def __init__(
        self, program_id: bytes | None, accounts: bytes | tuple[int, ...], data: str | bytes, stack_height: int | None
    ) -> None:
        self.program_id = program_id
        self.accounts = accounts
        self.stack_height = stack_height
        self._data = data

    @property
    def data(self) -> bytes:
        """
        The instruction's data.

        Raises:
            DataError: what the node sent is not base58.
        """
        if isinstance(self._data, str):
            self._data = decode_base58(self._data)
        return self._data


class Transaction(msgspec.Struct, frozen=True, eq=False, gc=False):
    """
    Args:
        signature: 64 bytes, the first of the transaction's.
        block_time: unix seconds; None where the node does not know it.
        err: the TransactionError as JSON; None where the transaction succeeded, and where there is no `meta`.
        fee: lamports.
        compute_units: None where the node does not say.
        logs: None where the node has none.
        account_keys: 32 bytes each; static, loaded writable, loaded readonly.
        writable: one flag for each account key.
        signers: how many of the first keys signed.
        inner: (position of the outer instruction, its inner instructions flat, in the order they ran); None where the
            node did not record them, which is not the same as there being none.
        keys_complete: False where lookup tables were used and the node did not tell what they loaded.
        version: "legacy", "0", "1".
    """

    signature: bytes
    slot: int
    block_time: int | None
    err: str | None
    fee: int
    compute_units: int | None
    logs: tuple[str, ...] | None
    account_keys: tuple[bytes, ...]
    writable: tuple[bool, ...]
    signers: int
    instructions: tuple[Instruction, ...]
    inner: tuple[tuple[int, tuple[Instruction, ...]], ...] | None
    keys_complete: bool
    version: str

    def accounts_of(self, instruction: Instruction) -> tuple[bytes, ...]:
        """
        Return the keys of an instruction's accounts, in its order.

        Raises:
            DataError: it refers to a key that is not there.
        """
        try:
            return tuple(self.account_keys[index] for index in instruction.accounts)
        except IndexError:
            raise DataError(
                f"an instruction of {Signature.from_bytes(self.signature)} refers to account "
                f"{max(instruction.accounts)} of {len(self.account_keys)}"
            ) from None


class _Header(msgspec.Struct, rename="camel", gc=False):
    num_required_signatures: int
    num_readonly_signed_accounts: int
    num_readonly_unsigned_accounts: int


class _Instruction(msgspec.Struct, rename="camel", gc=False):
    program_id_index: int
    accounts: tuple[int, ...]
    data: str
    stack_height: int | None = None


class _Lookup(msgspec.Struct, rename="camel", gc=False):
    account_key: str
    writable_indexes: tuple[int, ...] = ()
    readonly_indexes: tuple[int, ...] = ()


class _Message(msgspec.Struct, rename="camel", gc=False):
    account_keys: tuple[str, ...]
    header: _Header
    instructions: tuple[_Instruction, ...]
    address_table_lookups: tuple[_Lookup, ...] | None = None


class _Content(msgspec.Struct, gc=False):
    signatures: tuple[str, ...]
    message: _Message


class _Inner(msgspec.Struct, gc=False):
    index: int
    instructions: tuple[_Instruction, ...]


class _Loaded(msgspec.Struct, gc=False):
    writable: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()


class _Meta(msgspec.Struct, rename="camel", gc=False):
    err: Any = None
    fee: int = 0
    compute_units_consumed: int | None = None
    log_messages: tuple[str, ...] | None = None
    inner_instructions: tuple[_Inner, ...] | None = None
    loaded_addresses: _Loaded | None = None


class _Body(msgspec.Struct, rename="camel", gc=False):
    # An object in `json` encoding, [data, encoding] in the binary ones.
    transaction: _Content | tuple[str, str]
    slot: int
    meta: _Meta | None = None
    block_time: int | None = None
    version: int | str | None = None


# Program index, account indexes, data, stack height.
_Raw: TypeAlias = tuple[int, bytes | tuple[int, ...], str | bytes, int | None]


class _Static(msgspec.Struct, gc=False):
    """What both encodings say, before the lookup tables' keys."""

    signature: bytes
    keys: tuple[bytes, ...]
    header: tuple[int, int, int]
    instructions: Sequence[_Raw]
    loaded_counts: tuple[int, int]
    version: str


_decode_body = msgspec.json.Decoder(_Body).decode


def parse_transaction(body: bytes | str | dict[str, Any]) -> Transaction:
    """
    Read the result of `getTransaction`.

    Args:
        body: the `result` object, as JSON or already decoded; in `json` or `base64` encoding.

    Raises:
        DataError: not such a result; with the path of what is wrong. `null` is not one either: whoever asked must ask
            again.
    """
    try:
        parsed = msgspec.convert(body, _Body) if isinstance(body, dict) else _decode_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"not a transaction as getTransaction returns it in json encoding: {error}") from None
    content = parsed.transaction
    static = _from_json(content, parsed) if isinstance(content, _Content) else _from_binary(*content)
    return _assembled(static, parsed)


def _from_json(content: _Content, body: _Body) -> _Static:
    message = content.message
    header = message.header
    if not content.signatures:
        raise DataError(f"a transaction of slot {body.slot} has no signature")
    lookups = message.address_table_lookups or ()
    return _Static(
        decode_signature(content.signatures[0]),
        tuple(map(_key, message.account_keys)),
        (
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
        ),
        [(i.program_id_index, i.accounts, i.data, i.stack_height) for i in message.instructions],
        (sum(len(t.writable_indexes) for t in lookups), sum(len(t.readonly_indexes) for t in lookups)),
        "legacy" if body.version is None else str(body.version),
    )


def _from_binary(text: str, encoding: str) -> _Static:
    raw = _decoded_text(text, encoding)
    if raw[:1] == bytes([V1_PREFIX]):
        return _from_v1(raw)
    try:
        transaction = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise DataError(
            f"a transaction in {encoding} is neither legacy, v0 nor v1 ({str(error)[:100]}); ask for json encoding"
        ) from None
    message = transaction.message
    header = message.header
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    if not transaction.signatures:
        raise DataError(f"a transaction in {encoding} has no signature")
    return _Static(
        bytes(transaction.signatures[0]),
        tuple(map(bytes, message.account_keys)),
        (
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
        ),
        [(i.program_id_index, bytes(i.accounts), bytes(i.data), None) for i in message.instructions],
        (sum(len(t.writable_indexes) for t in lookups), sum(len(t.readonly_indexes) for t in lookups)),
        "0" if isinstance(message, MessageV0) else "legacy",
    )


def _decoded_text(text: str, encoding: str) -> bytes:
    if encoding not in ("base64", "base58"):
        raise DataError(f"a transaction in {encoding[:30]!r} encoding cannot be read; ask for json")
    try:
        return pybase64.b64decode(text, validate=True) if encoding == "base64" else decode_base58(text)
    except ValueError as error:
        raise DataError(f"a transaction is not {encoding} ({str(error)[:100]}); ask for json encoding") from None


def _from_v1(raw: bytes) -> _Static:
    signatures, header, addresses, instructions = parse_v1(raw)
    calls = [(i.program, i.accounts, i.data, None) for i in instructions]
    return _Static(signatures[0], addresses, header, calls, (0, 0), "1")


def _assembled(static: _Static, body: _Body) -> Transaction:
    meta = body.meta
    writable_count, readonly_count = static.loaded_counts
    loaded = meta.loaded_addresses if meta is not None else None
    loaded_writable = tuple(map(_key, loaded.writable)) if loaded is not None else ()
    loaded_readonly = tuple(map(_key, loaded.readonly)) if loaded is not None else ()
    keys_complete = (len(loaded_writable), len(loaded_readonly)) == (writable_count, readonly_count)
    if not keys_complete:
        # Half of the loaded keys would put every later one in a wrong place.
        loaded_writable = loaded_readonly = ()
    keys = static.keys + loaded_writable + loaded_readonly
    groups = meta.inner_instructions if meta is not None else None
    return Transaction(
        signature=static.signature,
        slot=body.slot,
        block_time=body.block_time,
        err=None if meta is None or meta.err is None else msgspec.json.encode(meta.err).decode(),
        fee=meta.fee if meta is not None else 0,
        compute_units=meta.compute_units_consumed if meta is not None else None,
        logs=meta.log_messages if meta is not None else None,
        account_keys=keys,
        writable=_static_writable(static) + (True,) * len(loaded_writable) + (False,) * len(loaded_readonly),
        signers=static.header[0],
        instructions=tuple(_instruction(raw, keys, keys_complete) for raw in static.instructions),
        inner=None if groups is None else tuple((g.index, _inner(g, keys, keys_complete)) for g in groups),
        keys_complete=keys_complete,
        version=static.version,
    )


def _static_writable(static: _Static) -> tuple[bool, ...]:
    """The header counts: signers first, of them the last few readonly; then the others, of them the last few."""
    signers, readonly_signed, readonly_unsigned = static.header
    count = len(static.keys)
    if not 0 <= readonly_signed <= signers <= count or not 0 <= readonly_unsigned <= count - signers:
        raise DataError(f"a transaction with {count} keys has the impossible header {static.header}")
    return (
        (True,) * (signers - readonly_signed)
        + (False,) * readonly_signed
        + (True,) * (count - signers - readonly_unsigned)
        + (False,) * readonly_unsigned
    )


def _inner(group: _Inner, keys: tuple[bytes, ...], keys_complete: bool) -> tuple[Instruction, ...]:
    return tuple(
        _instruction((i.program_id_index, i.accounts, i.data, i.stack_height), keys, keys_complete)
        for i in group.instructions
    )


def _instruction(raw: _Raw, keys: tuple[bytes, ...], keys_complete: bool) -> Instruction:
    index, accounts, data, stack_height = raw
    count = len(keys)
    if index < 0 or any(account < 0 for account in accounts):
        raise DataError("an instruction refers to a key by a negative position")
    if index < count:
        program_id: bytes | None = keys[index]
    elif keys_complete:
        raise DataError(f"an instruction's program is key {index} of {count}")
    else:
        program_id = None
    return Instruction(program_id, accounts, data, stack_height)


@lru_cache(maxsize=131_072)
def _key(text: str) -> bytes:
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        raise DataError(f"{text[:60]!r} is not a public key") from None


def decode_signature(text: str) -> bytes:
    """
    Return the 64 bytes of a signature in base58.

    Raises:
        DataError: not a signature, or the all-ones one that stands for none.
    """
    try:
        signature = bytes(Signature.from_string(text))
    except ValueError:
        raise DataError(f"{text[:100]!r} is not a signature") from None
    if signature == NO_SIGNATURE:
        raise DataError("the signature of only ones stands for no transaction")
    return signature
