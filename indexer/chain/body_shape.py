"""
What nearly every body of getTransaction looks like, for the parser that reads many of them.

Narrower than what `transaction.py` reads: `json` encoding, logs and inner instructions there, positions not negative,
numbers that fit a column. A body of another shape is not wrong, but needs a closer look than this.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

Number: TypeAlias = Annotated[int, Meta(ge=-(1 << 62), lt=1 << 62)]
Place: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]


class Header(msgspec.Struct, rename="camel", gc=False):
    num_required_signatures: Place
    num_readonly_signed_accounts: Place
    num_readonly_unsigned_accounts: Place


class Instruction(msgspec.Struct, rename="camel", gc=False):
    program_id_index: Place
    accounts: tuple[Place, ...]
    data: str
    stack_height: int | None = None


class Lookup(msgspec.Struct, rename="camel", gc=False):
    account_key: str
    writable_indexes: tuple[int, ...] = ()
    readonly_indexes: tuple[int, ...] = ()


class Message(msgspec.Struct, rename="camel", gc=False):
    account_keys: tuple[str, ...]
    header: Header
    instructions: tuple[Instruction, ...]
    address_table_lookups: tuple[Lookup, ...] | None = None


class Content(msgspec.Struct, gc=False):
    signatures: tuple[str, ...]
    message: Message


class Inner(msgspec.Struct, gc=False):
    index: Place
    instructions: tuple[Instruction, ...]


class Loaded(msgspec.Struct, gc=False):
    writable: tuple[str, ...] = ()
    readonly: tuple[str, ...] = ()


class Outcome(msgspec.Struct, rename="camel", gc=False):
    log_messages: tuple[str, ...]
    inner_instructions: tuple[Inner, ...]
    err: Any = None
    fee: Number = 0
    compute_units_consumed: Number | None = None
    loaded_addresses: Loaded | None = None


class Body(msgspec.Struct, rename="camel", gc=False):
    transaction: Content
    slot: Number
    meta: Outcome
    block_time: Number | None = None
    version: int | str | None = None


class ReplyBody(msgspec.Struct, gc=False):
    result: Body


class ReplyResult(msgspec.Struct, gc=False):
    result: msgspec.Raw


decode_body = msgspec.json.Decoder(Body).decode
decode_reply = msgspec.json.Decoder(ReplyBody).decode
decode_result = msgspec.json.Decoder(ReplyResult).decode
NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def all_keys(message: Message, loaded: Loaded | None) -> Sequence[str] | None:
    """Return the static and the loaded keys; None where the tables' keys are not all told."""
    lookups = message.address_table_lookups or ()
    writable, readonly = ((), ()) if loaded is None else (loaded.writable, loaded.readonly)
    expected = sum(len(t.writable_indexes) for t in lookups), sum(len(t.readonly_indexes) for t in lookups)
    return (*message.account_keys, *writable, *readonly) if expected == (len(writable), len(readonly)) else None


def is_possible(message: Message) -> bool:
    """Whether the header fits the keys."""
    header, count = message.header, len(message.account_keys)
    signers = header.num_required_signatures
    return (
        header.num_readonly_signed_accounts <= signers <= count
        and header.num_readonly_unsigned_accounts <= count - signers
    )
