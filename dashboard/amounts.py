"""
Chain values as text for people: SOL, addresses, times, distances.

Amounts arrive as integer lamports and become text without ever being a float. Plotly receives the same integers and
gets its labels from here. Nothing in this module knows Streamlit.
"""

import datetime as dt

LAMPORTS_PER_SOL = 1_000_000_000


def split_sol(lamports: int) -> tuple[str, str]:
    """Return the whole SOL with thousands separators, and the exact decimals without trailing zeros (may be empty)."""
    whole, rest = divmod(abs(lamports), LAMPORTS_PER_SOL)
    sign = "-" if lamports < 0 else ""
    return f"{sign}{whole:,}", f"{rest:09d}".rstrip("0")


def sol_text(lamports: int) -> str:
    """Return lamports as SOL, exactly: `1_500_000_000` is `1.5`."""
    whole, decimals = split_sol(lamports)
    return f"{whole}.{decimals}" if decimals else whole


def short_address(address: str) -> str:
    """Return the first and last characters of an address or signature: enough to tell two apart on a page."""
    return address if len(address) <= 11 else f"{address[:4]}…{address[-4:]}"


def utc_text(when: dt.datetime | None) -> str:
    """Return a time as `2026-03-01 12:00:05`, UTC; a dash where there is none."""
    return "–" if when is None else when.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration_text(seconds: float) -> str:
    """Return a length of time in the one or two units a reader needs: `0.8 s`, `3 min`, `5 h 10 min`, `3 d 4 h`."""
    if abs(seconds) < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    sign, left = ("-" if seconds < 0 else ""), round(abs(seconds))
    if left < 60:
        return f"{sign}{left} s"
    if left < 3_600:
        minutes, rest = divmod(left, 60)
        return f"{sign}{minutes} min" + (f" {rest} s" if rest and minutes < 10 else "")
    if left < 86_400:
        hours, rest = divmod(left // 60, 60)
        return f"{sign}{hours} h" + (f" {rest} min" if rest else "")
    days, rest = divmod(left // 3_600, 24)
    return f"{sign}{days} d" + (f" {rest} h" if rest and days < 10 else "")


def sol_ticks(largest: int) -> tuple[list[int], list[str]]:
    """
    Return axis ticks for amounts from 0 to `largest`.

    Args:
        largest: lamports, 0 or above.

    Returns:
        Three to six positions in lamports, and their labels in SOL; steps are 1, 2 or 5 times a power of ten.
    """
    if largest <= 0:
        return [0], ["0"]
    power = 10 ** max(len(str(largest)) - 2, 0)
    steps = [power * factor for factor in (1, 2, 5, 10, 20, 50)]
    step = next(s for s in steps if largest / s <= 5)
    ticks = list(range(0, largest + 1, step))
    return ticks, [sol_text(tick) for tick in ticks]
