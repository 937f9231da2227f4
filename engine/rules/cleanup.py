"""
When an expired session vault is to be cleaned up, and why not.

Closing an expired vault returns the user's remaining lamports to the user. Anyone may do it and earns a small reward,
so others compete for it: a vault that is gone is an ordinary answer here. The rule is asked twice, once to decide and
once more on fresh state directly before each signature, and it answers the same way both times. It ends where
something has to be fetched, stored or signed.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from solders.pubkey import Pubkey

RULE = "cleanup_vault"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that the tables show as expired: a vault's address (32 bytes) and when its session began (unix s)."""

    vault: bytes
    session_start: int


@dataclass(frozen=True, slots=True)
class Session:
    """
    A session as the chain has it now. Addresses are 32 bytes, times unix seconds on the cluster's clock.

    `reward_lamports` is what the program pays for cleaning: min(10_000, lamports above the rent-exempt minimum).
    """

    vault: bytes
    parent_wallet: bytes
    session_start: int
    session_expiry: int
    reward_lamports: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The address holds an account of the program that its IDL cannot read."""

    detail: str


@dataclass(frozen=True, slots=True)
class Policy:
    """
    What the operator wants beyond the program's own rules.

    After a revoke a vault's reward is 0, and cleaning it costs the fee. `min_reward_lamports` 0 cleans those too: their
    rent goes back to the user, which is what a cleanup service is for. An operator who only wants what pays sets it
    above the fee.
    """

    min_reward_lamports: int = 0


@dataclass(frozen=True, slots=True)
class Clean:
    """Act: clean up `session`."""

    session: Session
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Nothing left to do: the session is not on the chain (any more)."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Do not act now. `reason` has no changing parts, so that a repeated skip is recognised as the same one."""

    candidate: Candidate
    reason: str


Decision = Clean | Gone | Skip


def intent_key(vault: bytes, session_start: int) -> str:
    """Return the key that makes one session one intent. A vault's address can live again, the pair cannot."""
    return f"{RULE}:{Pubkey(vault)}:{session_start}"


def decide(candidate: Candidate, found: Session | Unreadable | None, *, clock_unix_s: int, policy: Policy) -> Decision:
    """
    Return what to do about one session, given what is at its address now.

    Args:
        candidate: the session that was meant.
        found: what the chain holds at the vault's address; None where there is no such vault.
        clock_unix_s: the Clock sysvar's unix timestamp, read together with `found`.
        policy: the operator's wishes.

    Source: the program's `cleanup_vault`: at or after expiry, by anyone.
    """
    match found:
        case None:
            return Gone(candidate, "there is no vault at this address")
        case Unreadable(detail):
            return Skip(candidate, f"the account cannot be read: {detail}")
        case Session(session_start=start) if start != candidate.session_start:
            return Gone(candidate, f"the vault holds another session, begun at {start}")
        case Session(session_expiry=expiry) if clock_unix_s < expiry:
            return Skip(candidate, f"not expired: the session ends at {expiry} on the cluster's clock")
        case Session(reward_lamports=reward) if reward < policy.min_reward_lamports:
            return Skip(
                candidate,
                f"the reward of {reward} lamports is below the wanted minimum of {policy.min_reward_lamports}",
            )
        case Session(session_expiry=expiry, reward_lamports=reward):
            return Clean(found, f"expired at {expiry}; the reward is {reward} lamports")


def plan_cleanups(
    findings: Iterable[tuple[Candidate, Session | Unreadable | None]],
    *,
    clock_unix_s: int,
    policy: Policy,
    known_keys: Set[str] = frozenset(),
) -> tuple[Decision, ...]:
    """
    Return one decision for each session, in order; a session that is named twice is decided once.

    Args:
        findings: sessions that look expired, each with what is at its address now.
        clock_unix_s: the Clock sysvar's unix timestamp, read together with the findings.
        policy: the operator's wishes.
        known_keys: keys of intents that exist already; their sessions are skipped.
    """
    decisions: list[Decision] = []
    seen: set[str] = set()
    for candidate, found in findings:
        key = intent_key(candidate.vault, candidate.session_start)
        if key in seen:
            continue
        seen.add(key)
        if key in known_keys:
            decisions.append(Skip(candidate, "already intended"))
        else:
            decisions.append(decide(candidate, found, clock_unix_s=clock_unix_s, policy=policy))
    return tuple(decisions)
