"""
What is written into Postgres together, and what came of it: values only. How it is written is in `writer.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from indexer.store.coverage import Proof
from indexer.store.typed import TypedTable

Commitment: TypeAlias = Literal["confirmed", "finalized"]

# The kind of problem whose ordinal is the version of a transaction that no node showed us; its row has no fee.
UNSUPPORTED_VERSION = "unsupported_version"


class Event(Protocol):
    """An event as `indexer.chain.events.Event` has it."""

    @property
    def program_id(self) -> bytes: ...
    @property
    def name(self) -> str: ...
    @property
    def signature(self) -> bytes: ...
    @property
    def kind(self) -> str: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def block_time(self) -> int | None: ...
    @property
    def values(self) -> Mapping[str, Any]: ...


class Problem(Protocol):
    """What could not be read, as `indexer.chain.events.Problem` has it."""

    @property
    def program_id(self) -> bytes: ...
    @property
    def subject(self) -> bytes: ...
    @property
    def kind(self) -> str: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def detail(self) -> str: ...
    @property
    def slot(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """
    One transaction.

    Args:
        signature: 64 bytes.
        block_time: unix seconds, None where the node does not know it.
        err: the RPC's TransactionError as JSON text, None where the transaction succeeded.
        fee: lamports; None where the transaction was not read, as its version is above what we can read.
        complete: whether its logs were all there, so that no event can be missing.
        mentions: ids of the indexed programs among its accounts.
        blockhash: of the block that its slot held just before it was read, base58; None where that is not known.
    """

    signature: bytes
    slot: int
    block_time: int | None
    err: str | None
    fee: int | None
    compute_units: int | None
    commitment: Commitment
    complete: bool
    mentions: tuple[bytes, ...]
    blockhash: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """
    What is written together.

    Args:
        finalized: signature -> slot of stored transactions now known to be finalized there; unknown ones are left out
            of the count in `Written.promoted`.
        frontiers: program id -> slot up to which, with this batch, every finalized transaction since the old frontier
            is stored. Never moves back.
        generation: of the registry that the batch was decoded with; None where nobody changes it.
        again: the transactions were read again with other IDLs. What is stored of them is replaced; one that is stored
            in another slot is left out, and a commitment stays what it is.
        columns: events by the batch, by program id and name, each with the table it goes into, packed by columns.py; of
            transactions in the batch, finalized, no identity twice.
        raw: signature -> the body that its transaction was read from, JSON. Those without any are not stored raw.
        coverage: ranges that, with this batch, are proven complete; a frontier follows where they reach it.
    """

    transactions: Sequence[TransactionRow] = ()
    events: Sequence[Event] = ()
    problems: Sequence[Problem] = ()
    finalized: Mapping[bytes, int] = field(default_factory=dict)
    frontiers: Mapping[bytes, int] = field(default_factory=dict)
    generation: int | None = None
    again: bool = False
    raw: Mapping[bytes, bytes] = field(default_factory=dict)
    coverage: Sequence[Proof] = field(default=(), kw_only=True)
    columns: Sequence["PackedEvents"] = ()


@dataclass(frozen=True, slots=True)
class PackedEvents:
    """Events of one type as a binary COPY: `count` rows in `chunks`; `slots` are those that occur."""

    table: TypedTable
    chunks: Sequence[bytes | memoryview]
    count: int
    slots: frozenset[int]
    escaped: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """
    What a batch changed; all zero where it was a replay.

    Args:
        transactions: inserted or changed.
        events: inserted.
        promoted: confirmed -> finalized by `Batch.finalized`.
        replaced: signatures that had been stored in another slot, or perhaps in another block of the same slot.
        refused: signatures whose stored row is finalized in another slot than the batch's confirmed one.
        escaped: strings that held a NUL; typed.py says how it is written.
    """

    transactions: int = 0
    events: int = 0
    promoted: int = 0
    replaced: tuple[bytes, ...] = ()
    refused: tuple[bytes, ...] = ()
    escaped: int = 0
