# ruff: noqa: INP001 - a script among pictures, not a package
"""
Take the pictures of the README from a running dashboard.

    python docs/pictures/take.py http://127.0.0.1:8501

It looks at the pages as a reader does, in the machine's Chromium, and writes `overview.png`, `sessions.png` and
`story.png`; with --all also the light look and the phone. It starts nothing itself.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SETTLED_MS_MAX = 60_000
SETTLED = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const busy = '[data-stale=true], [data-testid=stSkeleton], [data-testid=stAppSkeleton], [data-testid=stSpinner]';
  return app
    && app.dataset.testConnectionState === 'CONNECTED'
    && app.dataset.testScriptState === 'notRunning'
    && document.querySelector('[data-testid=stMainBlockContainer] [data-testid=stElementContainer]')
    && !document.querySelector(busy)
    && [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every((chart) => chart.querySelector('.main-svg'));
}"""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture: its file, the page, and whose eyes see it."""

    file: str
    path: str
    scheme: str = "dark"
    width: int = 1440
    height: int = 1000
    opens_story: bool = False


SHOTS = (
    Shot(file="overview.png", path=""),
    Shot(file="sessions.png", path="sessions"),
    Shot(file="story.png", path="sessions?state=Cleaned", opens_story=True),
)
MORE_SHOTS = (
    Shot(file="overview-light.png", path="", scheme="light"),
    Shot(file="sessions-light.png", path="sessions", scheme="light"),
    Shot(file="story-light.png", path="sessions?state=Cleaned", scheme="light", opens_story=True),
    Shot(file="overview-phone.png", path="", scheme="light", width=390, height=844),
    Shot(file="sessions-phone.png", path="sessions", width=390, height=844),
    Shot(file="story-phone.png", path="sessions?state=Cleaned", width=390, height=844, opens_story=True),
)


def settle(page: Page) -> None:
    """Wait until the page has stopped changing; RuntimeError where it shows a traceback."""
    page.wait_for_function(SETTLED, timeout=SETTLED_MS_MAX)
    page.evaluate("document.fonts.ready")
    if page.get_by_test_id("stException").count():
        raise RuntimeError(f"{page.url} shows an error: {page.get_by_test_id('stException').first.inner_text()}")


def take(browser: Browser, base_url: str, shot: Shot, folder: Path) -> Path:
    """Take one picture of a whole page and return its file."""
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme="dark" if shot.scheme == "dark" else "light",
        reduced_motion="reduce",
        timezone_id="UTC",
        locale="en-GB",
    )
    try:
        page = context.new_page()
        page.goto(f"{base_url.rstrip('/')}/{shot.path}")
        settle(page)
        if shot.opens_story:
            box = page.get_by_test_id("stDataFrame").first.bounding_box()
            if box is None:
                raise RuntimeError(f"{page.url} shows no sessions to open.")
            page.mouse.click(box["x"] + 200, box["y"] + 55)
            page.wait_for_url("**/sessions?**session=*")
            settle(page)
        # Streamlit scrolls inside its own element, so the window must be as high as the page.
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": shot.width, "height": max(shot.height, int(height))})
        page.wait_for_timeout(700)
        settle(page)
        file = folder / shot.file
        page.screenshot(path=file, animations="disabled")
        return file
    finally:
        context.close()


def main(
    base_url: Annotated[str, typer.Argument(help="The dashboard, such as http://127.0.0.1:8501")],
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")] = Path(__file__).parent,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also light and phone.")] = False,
) -> None:
    """Take the pictures of a running dashboard."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome-stable"))), None)
    if chromium is None:
        raise typer.BadParameter("no Chromium on the PATH; on Debian: apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGUMENTS))
        for shot in (*SHOTS, *MORE_SHOTS) if everything else SHOTS:
            typer.echo(take(browser, base_url, shot, out))
        browser.close()


if __name__ == "__main__":
    typer.run(main)
