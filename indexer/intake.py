"""
From a node's answers to rows: the one place where what bytes mean becomes what is written.

Pure: bodies in, a batch out. A body that cannot be read is a DataError, because then node and code disagree about the
format itself; an event inside it that cannot be read is a problem row, and everything around it goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from indexer.chain.events import Event, Problem, extract_events
from indexer.chain.program import Program
from indexer.chain.transaction import Transaction, parse_transaction
from indexer.errors import DataError
from indexer.registry import Registry
from indexer.sources.rpc import Caller
from indexer.store.batch import UNSUPPORTED_VERSION, Batch, Commitment, TransactionRow
from indexer.store.coverage import Proof

SLOT_MAX = 2**63 - 1
U64_MAX = 2**64 - 1
# The end of the year 9999.
UNIX_TIME_MAX = 253_402_300_799

Programs = Mapping[bytes, Program]
"""Programs by id. A `Registry` is one, and knows older versions too."""


class Unread(NamedTuple):
    """
    A finalized transaction of which the node gives no body, as its version is above what we ask for.

    Args:
        err: the TransactionError as JSON has it, None where it succeeded.
        block_time: unix seconds, None where the node does not know it.
        mentions: the indexed programs that list it; it may name more.
    """

    signature: bytes
    slot: int
    err: Any
    block_time: int | None
    version: int
    mentions: tuple[bytes, ...]


class Read(NamedTuple):
    """
    What some bodies say.

    Args:
        touched: accounts (32 bytes) that successful transactions could have changed -> newest slot.
        raw: signature -> the body itself.
        generation: of the registry that they were decoded with, None where that cannot change.
    """

    transactions: list[TransactionRow]
    events: list[Event]
    problems: list[Problem]
    touched: dict[bytes, int]
    raw: dict[bytes, bytes]
    generation: int | None = None

    def batch(
        self, *, finalized: Mapping[bytes, int], frontiers: Mapping[bytes, int], coverage: Sequence[Proof] = ()
    ) -> Batch:
        """Return everything read, together with what else belongs into the same database transaction."""
        return Batch(
            self.transactions,
            self.events,
            self.problems,
            finalized,
            frontiers,
            coverage=coverage,
            raw=self.raw,
            generation=self.generation,
        )


def read_bodies(
    bodies: Iterable[bytes],
    programs: Programs,
    commitment: Commitment,
    *,
    blockhashes: Mapping[int, str] = MappingProxyType({}),
) -> Read:
    """
    Read getTransaction bodies (JSON bytes).

    Args:
        programs: the indexed ones, by id. A transaction that mentions none of them is stored all the same. Of a
            Registry each transaction is decoded with the versions of its slot.
        blockhashes: slot -> blockhash (base58) of its block, asked before the bodies.

    Raises:
        DataError: a body is not what getTransaction answers.
    """
    registry = programs if isinstance(programs, Registry) else None
    read = Read([], [], [], {}, {}, registry.generation if registry else None)
    for body in bodies:
        transaction = parse_transaction(body)
        _check_ranges(transaction)
        read.raw[transaction.signature] = body
        extraction = extract_events(transaction, registry.at(transaction.slot) if registry else programs)
        blockhash = blockhashes.get(transaction.slot)
        read.transactions.append(_row(transaction, programs, commitment, blockhash, complete=extraction.complete))
        read.events.extend(extraction.events)
        read.problems.extend(extraction.problems)
        if transaction.err is None:
            for address in _writable(transaction):
                read.touched[address] = max(transaction.slot, read.touched.get(address, 0))
    return read


def read_answers(
    rpc: Caller,
    bodies: Iterable[bytes],
    programs: Programs,
    commitment: Commitment,
    *,
    blockhashes: Mapping[int, str] = MappingProxyType({}),
) -> Read:
    """
    Read bodies as `read_bodies`, that a node has just sent.

    Raises:
        RetryableError: one is not what getTransaction answers; another node may send what it is.
    """
    try:
        return read_bodies(bodies, programs, commitment, blockhashes=blockhashes)
    except DataError as error:
        raise rpc.distrust(f"{rpc.shown_url} sent what is {error}") from error


def keep_unread(read: Read, unread: Iterable[Unread], blockhashes: Mapping[int, str]) -> None:
    """Add what is known of transactions that cannot be read: a row each, not complete, and a problem a program."""
    for known in unread:
        err = None if known.err is None else msgspec.json.encode(known.err).decode()
        read.transactions.append(
            TransactionRow(
                signature=known.signature,
                slot=known.slot,
                block_time=known.block_time,
                err=err,
                fee=None,
                compute_units=None,
                commitment="finalized",
                complete=False,
                mentions=known.mentions,
                blockhash=blockhashes.get(known.slot),
            )
        )
        detail = (
            f"its version ({known.version}) cannot be read by this version of Capstan: a newer one asks for it again "
            "when it starts, and capstan repair does"
        )
        read.problems.extend(
            Problem(program_id, known.signature, UNSUPPORTED_VERSION, known.version, detail, known.slot)
            for program_id in known.mentions
        )


def _check_ranges(transaction: Transaction) -> None:
    time, units = transaction.block_time or 0, transaction.compute_units or 0
    if not (
        0 <= transaction.slot <= SLOT_MAX
        and 0 <= time <= UNIX_TIME_MAX
        and 0 <= transaction.fee <= U64_MAX
        and 0 <= units <= SLOT_MAX
    ):
        raise DataError(
            f"not a transaction: slot {transaction.slot}, time {time}, fee {transaction.fee} and compute units {units} "
            "cannot be"
        )


def _row(
    transaction: Transaction, programs: Programs, commitment: Commitment, blockhash: str | None, *, complete: bool
) -> TransactionRow:
    mentioned = tuple(key for key in dict.fromkeys(transaction.account_keys) if key in programs)
    return TransactionRow(
        signature=transaction.signature,
        slot=transaction.slot,
        block_time=transaction.block_time,
        err=transaction.err,
        fee=transaction.fee,
        compute_units=transaction.compute_units,
        commitment=commitment,
        complete=complete,
        mentions=mentioned,
        blockhash=blockhash,
    )


def _writable(transaction: Transaction) -> Sequence[bytes]:
    pairs = zip(transaction.account_keys, transaction.writable, strict=True)
    return [key for key, writable in pairs if writable]
