"""Amounts, times and links as the dashboard writes them."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.amounts import (
    LAMPORTS_PER_SOL,
    duration_text,
    short_address,
    sol_text,
    sol_ticks,
    utc_text,
)

U64_MAX = 2**64 - 1


@pytest.mark.parametrize(
    ("lamports", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (10_000, "0.00001"),
        (1_500_000_000, "1.5"),
        (1_234_567_000_000_001, "1,234,567.000000001"),
        (U64_MAX, "18,446,744,073.709551615"),
        (-2_500_000_000, "-2.5"),
    ],
)
def test_lamports_are_written_exactly(lamports: int, text: str) -> None:
    """Nine decimals are kept, zeros at the end are not, and nothing passes through a float."""
    assert sol_text(lamports) == text


@given(st.integers(min_value=-(2**80), max_value=2**80))
def test_an_amount_can_be_read_back(lamports: int) -> None:
    """The text holds the whole amount, whatever its size."""
    whole, _, decimals = sol_text(lamports).replace(",", "").lstrip("-").partition(".")
    read = int(whole) * LAMPORTS_PER_SOL + int(decimals.ljust(9, "0"))
    assert read == abs(lamports)
    assert sol_text(lamports).startswith("-") == (lamports < 0)


@given(st.integers(min_value=0, max_value=2**70))
def test_an_axis_has_a_handful_of_ticks(largest: int) -> None:
    """From dust to more than there is: the axis starts at 0, ends below the largest value, and stays readable."""
    ticks, labels = sol_ticks(largest)
    assert ticks[0] == 0
    assert ticks[-1] <= largest
    assert len(ticks) == len(labels) <= 6
    assert labels == [sol_text(tick) for tick in ticks]
    assert largest < 10 or len(ticks) >= 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.84, "0.8 s"),
        (42, "42 s"),
        (59.7, "1 min"),
        (95, "1 min 35 s"),
        (3_600, "1 h"),
        (18_600, "5 h 10 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
        (-12, "-12 s"),
    ],
)
def test_a_duration_has_one_or_two_units(seconds: float, text: str) -> None:
    """A reader gets the size of it, not every second."""
    assert duration_text(seconds) == text


def test_times_are_utc_whatever_zone_they_come_in() -> None:
    """A time from another zone is moved, not relabelled; none at all is a dash."""
    there = dt.datetime(2026, 3, 1, 13, 0, 5, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert utc_text(there) == "2026-03-01 12:00:05"
    assert utc_text(None) == "–"


def test_a_short_address_keeps_both_ends() -> None:
    """What is already short stays whole."""
    assert short_address("EpheVau1t1111111111111111111111111111111111") == "Ephe…1111"
    assert short_address("Ephe") == "Ephe"
