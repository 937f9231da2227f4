"""
From a node's answers to rows: the one place where what bytes mean becomes what is written.

Pure: bodies in, a batch out. A body that cannot be read is a DataError, because then node and code disagree about the
format itself; an event inside it that cannot be read is a problem row, and everything around it goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from indexer.chain.events import Event, Problem, extract_events
from indexer.chain.program import Program
from indexer.chain.transaction import Transaction, parse_transaction
from indexer.store.coverage import Proof
from indexer.store.writer import Batch, Commitment, TransactionRow

Programs = Mapping[bytes, Program]


class Read(NamedTuple):
    """What some bodies say. `touched` are the accounts (32 bytes) that successful ones could have changed."""

    transactions: list[TransactionRow]
    events: list[Event]
    problems: list[Problem]
    touched: dict[bytes, int]

    def batch(
        self, *, finalized: Mapping[bytes, int], frontiers: Mapping[bytes, int], coverage: Sequence[Proof] = ()
    ) -> Batch:
        """Return everything read, together with what else belongs into the same database transaction."""
        return Batch(self.transactions, self.events, self.problems, finalized, frontiers, coverage=coverage)


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
        programs: the indexed ones, by id. A transaction that mentions none of them is stored all the same.
        blockhashes: slot -> blockhash (base58) of its block, asked before the bodies.

    Raises:
        DataError: a body is not what getTransaction answers.
    """
    read = Read([], [], [], {})
    for body in bodies:
        transaction = parse_transaction(body)
        extraction = extract_events(transaction, programs)
        blockhash = blockhashes.get(transaction.slot)
        read.transactions.append(_row(transaction, programs, commitment, blockhash, complete=extraction.complete))
        read.events.extend(extraction.events)
        read.problems.extend(extraction.problems)
        if transaction.err is None:
            for address in _writable(transaction):
                read.touched[address] = max(transaction.slot, read.touched.get(address, 0))
    return read


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
