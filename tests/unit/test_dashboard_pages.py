"""The pages without a browser: what they say for what the reader answers. The reader here is a small fake."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import source
from indexer.errors import DataError, RetryableError

APP = Path(source.__file__).with_name("app.py")
VAULT = "8vjbjPhoD2rav71J8mgbVxcYdbbqST78y2bzMPRqoGr9"
PARENT = "HCJaVaM9GEH4nYoX6UquxWXroXJyjSLp2LLKCa1gg5NJ"
SIGNATURE = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
START = 1_750_000_000
WHEN = dt.datetime.fromtimestamp(START, dt.UTC)
SESSION = {
    "vault": VAULT,
    "session_start": START,
    "session_expiry": START + 3_600,
    "parent": PARENT,
    "ephemeral_wallet": PARENT,
    "state": "cleaned",
    "max_deposit": 5_000_000_000,
    "deposited": 1_500_000_001,
    "spent": 20_000_000,
    "trades": 1,
}
FRESH: dict[str, Any] = {
    "newest_slot": 1_000,
    "tip_slot": 1_002,
    "frontier_slot": 990,
    "behind_s": 0.8,
    "beat_age_s": 0.4,
    "engine_lease_left_s": None,
    "last_error": None,
}


def event(name: str, after_s: int, amount: int | None, total: int | None) -> dict[str, Any]:
    """Return one row of a story."""
    when = WHEN + dt.timedelta(seconds=after_s)
    return {
        "name": name,
        "signature": SIGNATURE,
        "slot": 900 + after_s,
        "when": when,
        "amount": amount,
        "total": total,
        "actor": PARENT,
    }


class FakeReader:
    """Answers every query from a dictionary, and remembers with what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.programs = ["ephemeral_vault"]
        self.answers: dict[str, list[dict[str, Any]]] = {
            "freshness": [FRESH],
            "overview_counts": [
                {
                    "active": 3,
                    "expired": 1,
                    "revoked": 2,
                    "cleaned": 4_000,
                    "deposited": 12_345_000_000_001,
                    "fees": 7,
                    "cleanups": 4_000,
                    "rewards": 40_000_000,
                }
            ],
            "deposits_per_day": [
                {"day": dt.date(2026, 3, 1), "lamports": 10_000_000_000},
                {"day": dt.date(2026, 3, 4), "lamports": 2**70},
            ],
            "fees_per_day": [{"day": dt.date(2026, 3, 2), "lamports": 5}],
            "cleanups_per_day": [{"day": dt.date(2026, 3, 3), "rewarded": 8, "unrewarded": 1}],
            "recent_cleanups": [
                {
                    "vault": VAULT,
                    "session_start": None,
                    "cleaner": PARENT,
                    "reward": 10_000,
                    "signature": SIGNATURE,
                    "slot": 999,
                    "when": None,
                }
            ],
            "count_sessions": [{"n": 51}],
            "sessions": [SESSION],
            "session": [SESSION],
            "session_story": [
                event("VaultCreated", 0, 5_000_000_000, None),
                event("AutoDeposit", 10, 1_500_000_001, 1_500_000_001),
                event("TradeExecuted", 20, 20_000_000, 20_000_000),
                event("SomethingNew", 30, None, None),
                event("VaultCleaned", 3_700, 10_000, None),
            ],
        }

    def query(self, name: str, **params: Any) -> pl.DataFrame:
        """Return the rows prepared for that query."""
        if self.error is not None:
            raise self.error
        self.asked.append((name, params))
        return pl.DataFrame(self.answers[name], infer_schema_length=None, strict=False)

    def select(self, _text: str) -> pl.DataFrame:
        """Return the indexed programs."""
        if self.error is not None:
            raise self.error
        rows = [(name, PARENT, name, 990) for name in self.programs]
        return pl.DataFrame(rows, schema=["name", "program_id", "schema_name", "frontier_slot"], orient="row")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeReader]:
    """Put a fake reader behind the pages, with nothing cached from another test."""
    reader = FakeReader()
    st.cache_data.clear()
    st.cache_resource.clear()
    monkeypatch.setattr(source, "open_reader", lambda: reader)
    yield reader
    st.cache_data.clear()
    st.cache_resource.clear()


def opened(path: str = "", **query: str) -> AppTest:
    """Run a page as a visitor does, and return it without an exception."""
    app = AppTest.from_file(str(APP), default_timeout=20)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if path:
        app.switch_page(f"screens/{path}.py").run()
    assert not app.exception
    return app


def text_of(app: AppTest) -> str:
    """Return all HTML of a page."""
    return "\n".join(str(element.proto.body) for element in app.get("html"))


def test_overview_shows_amounts_to_the_lamport(fake: FakeReader) -> None:
    """No total is rounded, and counts have separators."""
    text = text_of(opened())
    assert "12,345<small>.000000001</small>" in text
    assert "0<small>.000000007</small>" in text
    assert "4,006" in text
    assert fake.asked[0][0] == "freshness"


@pytest.mark.usefixtures("fake")
def test_days_without_anything_are_drawn_as_such() -> None:
    """Four days from the first to the last, zeros in between, and an amount beyond any float kept whole."""
    daily = source.daily()
    assert daily.days == tuple(dt.date(2026, 3, day) for day in (1, 2, 3, 4))
    assert daily.deposited == (10_000_000_000, 0, 0, 2**70)
    assert daily.fees == (0, 5, 0, 0)
    assert daily.cleanups == (0, 0, 9, 0)
    assert daily.last(2).days == daily.days[2:]
    assert len(opened().get("plotly_chart")) == 4


@pytest.mark.parametrize(
    ("changed", "stale", "sentence"),
    [
        ({}, False, ""),
        ({"beat_age_s": 95.0}, True, "last reported 1 min 35 s ago"),
        ({"beat_age_s": None}, True, "has not reported yet"),
        ({"behind_s": 500.0}, False, ""),  # a quiet program: everything up to the chain's tip is proven
        ({"behind_s": 500.0, "frontier_slot": 2, "tip_slot": 10_002}, True, "8 min 20 s behind"),
    ],
)
def test_old_numbers_carry_a_warning(fake: FakeReader, changed: dict[str, Any], stale: bool, sentence: str) -> None:
    """Silence of the indexer and distance from the chain are told; a program nobody uses is neither."""
    fake.answers["freshness"] = [FRESH | changed]
    app = opened()
    assert source.freshness().stale is stale
    assert [sentence in warning.value for warning in app.warning] == ([True] if stale else [])


def test_an_empty_store_is_a_sentence_on_both_pages(fake: FakeReader) -> None:
    """Nothing is asked of views that may not exist yet."""
    fake.answers = {"freshness": [dict.fromkeys(FRESH)]}
    assert "Nothing indexed yet" in text_of(opened())
    assert "Nothing indexed yet" in text_of(opened("sessions"))


@pytest.mark.parametrize("page", ["", "sessions"])
def test_where_other_programs_are_indexed_the_pages_say_what_they_are_about(fake: FakeReader, page: str) -> None:
    """No view of sessions is asked, and the reader is sent to the page that shows any program."""
    fake.programs = ["drift"]
    assert "Session vaults are not indexed here" in text_of(opened(page))
    assert {name for name, _ in fake.asked} == {"freshness"}


@pytest.mark.parametrize("page", ["", "sessions"])
def test_an_error_of_the_store_is_its_sentence(fake: FakeReader, page: str) -> None:
    """One sentence, once, and its characters are not read as Markdown."""
    fake.error = RetryableError("the database *does not* answer: [see](http://x)")
    app = opened(page)
    assert [error.value for error in app.error] == ["The database \\*does not\\* answer\\: \\[see\\](http\\://x)"]


def test_filters_reach_the_query(fake: FakeReader) -> None:
    """State, text and parent arrive trimmed; pages are counted from what is left."""
    app = opened("sessions")
    app.text_input(key="q").set_value(f" {VAULT[:6]} ").run()
    app.text_input(key="parent").set_value(PARENT).run()
    wanted = {"state": None, "text": VAULT[:6], "parent": PARENT, "limit": 25, "offset": 0}
    assert fake.asked[-1] == ("sessions", wanted)
    assert app.caption[0].value == "51 sessions"


def test_a_story_tells_every_event(fake: FakeReader) -> None:
    """Known events by their names, an unknown one by its own, each linked; the cleanup says how late it was."""
    text = text_of(opened("sessions", session=f"{VAULT}.{START}"))
    for label in ("Session created", "Deposit", "Trade", "SomethingNew", "Vault cleaned up"):
        assert label in text
    assert text.count(f"https://explorer.solana.com/tx/{SIGNATURE}") == 5
    assert "1 min 40 s after expiry" in text
    assert ("session", {"vault": VAULT, "session_start": START}) in fake.asked


@pytest.mark.parametrize("named", ["", "x", f"{VAULT}", f"{VAULT}.1e3", f"<b>.{START}", f"{VAULT}.{'9' * 19}"])
def test_a_link_that_names_no_session_is_no_query(named: str) -> None:
    """Anybody can write a link."""
    assert source.parse_session_id(named) is None


def test_a_link_to_what_only_looks_like_an_address_is_answered(fake: FakeReader) -> None:
    """The store refuses it, and the page says that there is no such session."""
    st.cache_data.clear()
    original = fake.query

    def refuse(name: str, **params: Any) -> pl.DataFrame:
        if name == "session":
            raise DataError("vault='1111' is no pubkey")
        return original(name, **params)

    fake.query = refuse  # type: ignore[method-assign]  # one answer of the fake is an error here
    assert "No such session" in text_of(opened("sessions", session=f"{VAULT}.{START}"))


@pytest.mark.parametrize("seconds", [-(2**63), -1, 0, 2**63 - 1])
def test_a_time_no_calendar_has_is_still_a_time(seconds: int) -> None:
    """session_start is an i64 that anybody can write."""
    assert source.unix_time(seconds).tzinfo is dt.UTC
