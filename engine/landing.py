"""
What became of a signed transaction, judged from what one node says. Pure.

There are three ends, and each is final: finalised and successful, finalised and refused, or expired. Everything else is
"not yet". `confirmed` is no end: a fork may still take it back. Expired is the dangerous one, because after it a second
signature for the same intent may be made: it needs the finalised block height past the last valid one AND a signature
that the node does not know with its history searched.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """A signature that the node knows. `err` is the RPC's TransactionError as JSON text, None for success."""

    slot: int
    finalized: bool
    err: str | None


@dataclass(frozen=True, slots=True)
class View:
    """
    What one node knows of some signatures, and how far it is.

    `statuses` was read at or after the moment the node had finalised `finalized_block_height`; an entry is None where
    neither the recent statuses nor the history hold the signature.
    """

    finalized_block_height: int
    statuses: tuple[SignatureStatus | None, ...]


class Verdict(Enum):
    """What to do next about an attempt."""

    LANDED = "landed"  # final: our transaction did it
    FAILED = "failed"  # final: the chain ran it, refused it and kept the fee
    EXPIRED = "expired"  # final: it never landed and never can
    ABSENT = "absent"  # not seen: send the same bytes again
    PENDING = "pending"  # seen, not final: wait


def judge(last_valid_block_height: int, status: SignatureStatus | None, finalized_block_height: int) -> Verdict:
    """Return where an attempt stands. Both facts come from one `View`."""
    if status is not None:
        if not status.finalized:
            return Verdict.PENDING
        return Verdict.LANDED if status.err is None else Verdict.FAILED
    return Verdict.EXPIRED if finalized_block_height > last_valid_block_height else Verdict.ABSENT
