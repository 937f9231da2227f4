"""The cleanup rule: what is due, what is not, and why; and that nothing else ever comes out of it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.rules.cleanup import (
    Candidate,
    Clean,
    Decision,
    Gone,
    Policy,
    Session,
    Skip,
    Unreadable,
    decide,
    intent_key,
    plan_cleanups,
)

VAULT = bytes(range(32))
PARENT = bytes(range(32, 64))
SESSION = Session(vault=VAULT, parent_wallet=PARENT, session_start=1_000, session_expiry=2_000, reward_lamports=10_000)
CANDIDATE = Candidate(VAULT, 1_000)

addresses = st.binary(min_size=32, max_size=32)
times = st.integers(-(2**63), 2**63 - 1)
sessions = st.builds(Session, addresses, addresses, times, times, st.integers(0, 10_000))


def decided(found: Session | Unreadable | None, *, clock: int = 2_000, min_reward: int = 0) -> Decision:
    return decide(CANDIDATE, found, clock_unix_s=clock, policy=Policy(min_reward_lamports=min_reward))


def test_a_session_is_due_in_the_second_of_its_expiry() -> None:
    """The program cleans at or after expiry, so the rule says yes at that very second and no in the one before."""
    assert isinstance(decided(SESSION, clock=2_000), Clean)
    assert isinstance(decided(SESSION, clock=1_999), Skip)


def test_a_vault_that_is_not_there_is_gone() -> None:
    """No account at the address means that somebody closed it, which is neither an error nor work."""
    assert decided(None) == Gone(CANDIDATE, "there is no vault at this address")


def test_a_new_session_in_the_same_vault_is_not_the_old_one() -> None:
    """An address can live again: the old session is gone even if the new one has expired too."""
    decision = decided(replace(SESSION, session_start=1_001), clock=10**6)
    assert isinstance(decision, Gone)
    assert "1001" in decision.reason


def test_a_reward_of_zero_is_cleaned_unless_the_operator_wants_more() -> None:
    """By default a revoked session is cleaned at our cost; with a minimum it is skipped, one lamport below it too."""
    revoked = replace(SESSION, reward_lamports=0)
    assert isinstance(decided(revoked), Clean)
    assert isinstance(decided(revoked, min_reward=1), Skip)
    assert isinstance(decided(SESSION, min_reward=10_000), Clean)
    assert isinstance(decided(SESSION, min_reward=10_001), Skip)


def test_an_unreadable_account_is_skipped_with_the_reason() -> None:
    """What the IDL cannot read is never acted on."""
    decision = decided(Unreadable("7 bytes too short"))
    assert isinstance(decision, Skip)
    assert "7 bytes too short" in decision.reason


def test_a_known_intent_is_not_planned_again() -> None:
    """One session, one intent: a session whose key exists is skipped as already intended."""
    key = intent_key(VAULT, 1_000)
    plan = plan_cleanups([(CANDIDATE, SESSION)], clock_unix_s=5_000, policy=Policy(), known_keys={key})
    assert plan == (Skip(CANDIDATE, "already intended"),)


@given(st.lists(sessions), times, st.integers(0, 20_000))
def test_nothing_early_nothing_below_the_minimum_nothing_twice(found: list[Session], clock: int, minimum: int) -> None:
    """Whatever comes in, what is cleaned has expired, pays enough, and is named once; every session gets one answer."""
    findings = [(Candidate(s.vault, s.session_start), s) for s in found + found]
    decisions = plan_cleanups(iter(findings), clock_unix_s=clock, policy=Policy(min_reward_lamports=minimum))
    cleaned = [d.session for d in decisions if isinstance(d, Clean)]
    assert all(s.session_expiry <= clock and s.reward_lamports >= minimum for s in cleaned)
    keys = [intent_key(s.vault, s.session_start) for s in cleaned]
    assert len(set(keys)) == len(keys)
    assert len(decisions) == len({(s.vault, s.session_start) for s in found})


@given(sessions, times, times, st.integers(0, 20_000))
def test_a_due_session_stays_due_while_the_clock_goes_on(
    session: Session, clock: int, later: int, minimum: int
) -> None:
    """The second question gets the answer of the first if only time has passed: no session is due and then not."""
    candidate, policy = Candidate(session.vault, session.session_start), Policy(min_reward_lamports=minimum)
    if isinstance(decide(candidate, session, clock_unix_s=clock, policy=policy), Clean):
        after = max(clock, later)
        assert isinstance(decide(candidate, session, clock_unix_s=after, policy=policy), Clean)


@given(sessions, times, st.integers(1, 10**6))
def test_the_same_skip_has_the_same_reason_a_second_later(session: Session, clock: int, later: int) -> None:
    """A reason without changing parts is recognised as the same one, so that a dashboard can count it."""
    candidate = Candidate(session.vault, session.session_start)
    first = decide(candidate, session, clock_unix_s=clock, policy=Policy(min_reward_lamports=5))
    second = decide(candidate, session, clock_unix_s=clock + later, policy=Policy(min_reward_lamports=5))
    if isinstance(first, Skip) and isinstance(second, Skip):
        assert first == second or "not expired" in first.reason


@given(addresses, addresses, times, times)
def test_keys_differ_where_vault_or_start_differ(one: bytes, other: bytes, start: int, later: int) -> None:
    """A key names exactly one (vault, session_start)."""
    same = (one, start) == (other, later)
    assert (intent_key(one, start) == intent_key(other, later)) is same
