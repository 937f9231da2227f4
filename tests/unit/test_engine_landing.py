"""What became of a transaction: the only way to "expired" needs both conditions, and "final" needs finality."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.landing import SignatureStatus, Verdict, judge

heights = st.integers(0, 2**40)
statuses = st.none() | st.builds(SignatureStatus, heights, st.booleans(), st.none() | st.just('{"a":1}'))


@pytest.mark.parametrize(
    ("status", "finalized_height", "expected"),
    [
        (None, 100, Verdict.ABSENT),
        (None, 101, Verdict.EXPIRED),
        (SignatureStatus(5, finalized=False, err=None), 101, Verdict.PENDING),
        (SignatureStatus(5, finalized=False, err='"x"'), 101, Verdict.PENDING),
        (SignatureStatus(5, finalized=True, err=None), 50, Verdict.LANDED),
        (SignatureStatus(5, finalized=True, err='"x"'), 50, Verdict.FAILED),
    ],
)
def test_each_end_is_told_from_not_yet(
    status: SignatureStatus | None, finalized_height: int, expected: Verdict
) -> None:
    """With 100 as the last valid block height, 100 itself may still hold the transaction; 101 finalised may not."""
    assert judge(100, status, finalized_height) is expected


@given(heights, statuses, heights)
def test_a_second_signature_is_only_allowed_by_both_conditions(
    last_valid: int, status: SignatureStatus | None, height: int
) -> None:
    """Expired means: the node does not know the signature, and its finalised height is past the last valid one."""
    expired = judge(last_valid, status, height) is Verdict.EXPIRED
    assert expired == (status is None and height > last_valid)


@given(heights, statuses, heights)
def test_what_is_not_finalised_is_never_an_end(last_valid: int, status: SignatureStatus | None, height: int) -> None:
    """A fork may take back what is only confirmed, success and failure alike."""
    verdict = judge(last_valid, status, height)
    if status is not None and not status.finalized:
        assert verdict is Verdict.PENDING
