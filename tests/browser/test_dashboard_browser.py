"""The dashboard in Chromium, over a real Postgres and a real lake: what a reader sees, and what must never happen."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dashboard.amounts import short_address, sol_text
from indexer.store.database import Database
from tests.browser.conftest import Stage, Visit, address, fill, key, life, lives, serving

pytestmark = pytest.mark.browser
OpenWindow = Callable[..., Visit]


def totals(stage: Stage) -> dict[str, int]:
    """Add up what was put in."""
    return {
        "deposited": sum(one.total("AutoDeposit", "amount") for one in stage.lives),
        "fees": sum(one.total("TradeExecuted", "fee_paid") for one in stage.lives),
        "cleanups": sum(one.cleaned for one in stage.lives),
    }


def test_the_overview_tells_what_was_put_in(served: str, stage: Stage, visit: OpenWindow) -> None:
    """Hot and cold rows together, each once, to the last lamport; every chart drawn; nobody outside was asked."""
    window = visit(served, scheme="dark")
    page = window.go()
    put_in = totals(stage)
    row = page.locator(".cap-kpis").inner_text()
    assert f"\n{len(stage.lives)}\n" in row
    assert sol_text(put_in["deposited"]) in row
    assert sol_text(put_in["fees"]) in row
    assert f"\n{put_in['cleanups']}\n" in row
    assert "2 active" in row
    assert "3 awaiting cleanup" in row
    assert page.locator(".js-plotly-plot").count() == 4
    assert page.get_by_role("status").inner_text().startswith("Live")
    window.clean()


def test_links_lead_to_the_transaction_and_the_session(served: str, stage: Stage, visit: OpenWindow) -> None:
    """The newest cleanup links to its own transaction in the explorer, safely, and to its own session here."""
    window = visit(served)
    page = window.go()
    newest = max((one for one in stage.lives if one.cleaned), key=lambda one: one.start + one.happened[-1][0])
    first = page.get_by_role("table", name="Recent cleanups").locator("tbody tr").first
    explorer = first.locator("a[target=_blank]")
    signature = newest.signature(len(newest.happened) - 1)
    assert explorer.get_attribute("href") == (
        f"https://explorer.solana.com/tx/{signature}?cluster=custom&customUrl=http%3A%2F%2F127.0.0.1%3A8899"
    )
    assert "noopener" in (explorer.get_attribute("rel") or "")
    first.locator("a:not([target])").click()
    page.wait_for_url(f"**/sessions?session={newest.id}")
    window.settle()
    assert address(newest.vault) in page.locator(".cap-head").inner_text()
    window.clean()


def test_a_click_on_a_row_opens_its_story_and_back_returns(served: str, stage: Stage, visit: OpenWindow) -> None:
    """The story holds every event in its order, with the amounts that were put in; the list comes back as it was."""
    window = visit(served)
    page = window.go("sessions?state=Cleaned")
    box = page.get_by_test_id("stDataFrame").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 200, box["y"] + 55)
    page.wait_for_url(re.compile("session="))
    page.get_by_role("table", name="Events of this session").wait_for()
    window.settle()
    opened = next(one for one in stage.lives if one.id in page.url)
    rows = page.get_by_role("table", name="Events of this session").locator("tbody tr").all_inner_texts()
    assert len(rows) == len(opened.happened)
    assert "Session created" in rows[0]
    assert "Vault cleaned up" in rows[-1]
    assert sol_text(opened.total("AutoDeposit", "amount")) in page.locator(".cap-kpis").inner_text()
    links = page.get_by_role("table", name="Events of this session").locator("a")
    assert [opened.signature(n) in (links.nth(n).get_attribute("href") or "") for n in range(len(rows))] == [
        True
    ] * len(rows)
    page.get_by_role("button", name="All sessions").click()
    page.wait_for_url(lambda url: "session=" not in url)
    window.settle()
    assert page.get_by_test_id("stDataFrame").count() == 1
    window.clean()


def test_filters_leave_what_they_name(served: str, stage: Stage, visit: OpenWindow) -> None:
    """By state, by the beginning of an address, by parent: the count is that of what was put in."""
    window = visit(served)
    page = window.go("sessions")
    caption = page.get_by_test_id("stCaptionContainer").first
    assert caption.inner_text() == f"{len(stage.lives)} sessions"
    page.get_by_test_id("stButtonGroup").get_by_role("radio", name="Awaiting cleanup").click()
    page.get_by_text("3 sessions", exact=True).wait_for()
    page.goto(f"{served}/sessions?parent={address(key('parent', 1))}")
    window.settle()
    expected = sum(one.parent == key("parent", 1) for one in stage.lives)
    assert caption.inner_text() == f"{expected} sessions"
    wanted = stage.lives[7]
    search = page.get_by_role("searchbox", name="Search")
    page.goto(f"{served}/sessions")
    window.settle()
    search.fill(address(wanted.vault)[:8])
    search.press("Enter")
    page.get_by_text("1 session", exact=True).wait_for()
    window.clean()


@pytest.mark.parametrize("path", ["", "sessions", "story"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(
    served: str, stage: Stage, visit: OpenWindow, path: str, scheme: str
) -> None:
    """390 pixels hold every page in both looks."""
    window = visit(served, scheme=scheme, width=390, height=844)
    window.go(f"sessions?session={stage.lives[2].id}" if path == "story" else path)
    assert window.overflow() <= 0
    window.clean()


def test_hostile_links_are_answered_calmly(served: str, stage: Stage, visit: OpenWindow) -> None:
    """Whatever stands in the address: no traceback, no markup of the attacker's, an answer in a sentence."""
    window = visit(served)
    page = window.page
    vault = address(stage.lives[0].vault)
    for session in (
        "<img src=x onerror=document.title='owned'>",
        "'; drop table sessions --",
        f"{vault}.99999999999999999999",
        f"{vault}.-1",
        "1111111111111111111111111111111111111111111.5",
        "A" * 5_000,
    ):
        page.goto(f"{served}/sessions?session=" + session.replace("<", "%3C").replace("#", "%23").replace("'", "%27"))
        window.settle()
        assert page.get_by_text("No such session").is_visible()
        assert "owned" not in page.title()
    for query in (
        "q=0OIl%3Cscript%3E",
        "parent=%27%20or%201%3D1",
        "state=nonsense",
        "page=-5",
        "q=%00",
        "q=" + "1" * 90,
    ):
        page.goto(f"{served}/sessions?{query}")
        window.settle()
        assert page.get_by_role("heading", name="Sessions").is_visible()
    page.goto(f"{served}/?window=%3Cb%3E")
    window.settle()
    assert page.locator(".js-plotly-plot").count() == 4
    window.clean()


def test_an_empty_database_is_a_sentence(database: Database, tmp_path: Path, visit: OpenWindow) -> None:
    """Before the first transaction, and without any lake, both pages say so."""
    with serving(database.dsn, tmp_path / "lake", tmp_path / "away") as url:
        window = visit(url)
        for path in ("", "sessions"):
            page = window.go(path)
            assert page.get_by_text("Nothing indexed yet").is_visible()
        window.clean()


def test_a_database_without_any_tables_is_a_sentence(
    empty_database: Database, tmp_path: Path, visit: OpenWindow
) -> None:
    """A database that nothing has migrated yet is not a traceback."""
    with serving(empty_database.dsn, tmp_path / "lake", tmp_path / "away") as url:
        window = visit(url)
        for path in ("", "sessions"):
            page = window.go(path)
            assert "Nothing has been indexed in this database yet" in page.get_by_test_id("stAlert").first.inner_text()
        window.clean()


def test_a_database_that_is_down_is_a_sentence_without_its_password(tmp_path: Path, visit: OpenWindow) -> None:
    """Nobody listens on port 9: the page says what is wrong and keeps the secret."""
    with serving("postgresql://who:hunter2@127.0.0.1:9/none", tmp_path / "lake", tmp_path / "away") as url:
        window = visit(url)
        for path in ("", "sessions"):
            page = window.go(path)
            said = page.locator("body").inner_text()
            assert "cannot be reached" in said
            assert "hunter2" not in said
            assert "Traceback" not in said
        window.clean()


def test_a_silent_indexer_is_a_warning(database: Database, tmp_path: Path, visit: OpenWindow) -> None:
    """Ten minutes without a report: the page warns, and still shows what it has."""
    now = 1_750_000_000
    fill(database.dsn, lives(now)[:5], now, beaten_s_ago=600)
    with serving(database.dsn, tmp_path / "lake", tmp_path / "away") as url:
        page = visit(url).go()
        assert "last reported 10 min" in page.get_by_test_id("stAlert").first.inner_text()
        assert page.get_by_role("status").inner_text().startswith("Stale")
        assert (
            short_address(address(lives(now)[0].vault))
            in page.get_by_role("table", name="Recent cleanups").inner_text()
        )


def test_numbers_are_renewed_without_a_click(served: str, stage: Stage, visit: OpenWindow) -> None:
    """A session that is indexed while the page is open appears on it."""
    page = visit(served).go()
    assert page.locator(".cap-kpi .value").first.inner_text() == str(len(stage.lives))
    fill(stage.dsn, [life(100, start=stage.now - 5, duration=3_600, trades=0, ends="open")], stage.now)
    page.wait_for_function(
        "n => document.querySelector('.cap-kpi .value').innerText === n",
        arg=str(len(stage.lives) + 1),
        timeout=20_000,
    )
