"""`capstan dashboard` before a page is shown: flags, environment, and what it refuses."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dashboard.__main__ import free_port, streamlit_arguments
from dashboard.settings import DashboardSettings, explorer_url_for, from_environment
from indexer.errors import SettingsError

SIGNATURE = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"


def settings(**changed: Any) -> DashboardSettings:
    """Return settings that are complete, with some of them changed."""
    return DashboardSettings(**({"explorer_url": explorer_url_for("http://127.0.0.1:8899")} | changed))


def test_settings_reach_the_pages_unchanged(tmp_path: Path) -> None:
    """What the command checked is what the pages read, every field of it."""
    told = settings(database_url="postgresql://u:secret@db/x", data_dir=tmp_path, lake=tmp_path / "elsewhere")
    assert from_environment(told.to_environment()) == told


def test_a_password_is_not_in_the_repr() -> None:
    """Settings end up in logs."""
    assert "secret" not in repr(settings(database_url="postgresql://u:secret@db/x"))


def test_the_default_link_looks_at_our_own_node() -> None:
    """The explorer is told which node to ask, the address written so that it stays one parameter."""
    link = settings().explorer_link(SIGNATURE)
    assert link == (
        f"https://explorer.solana.com/tx/{SIGNATURE}?cluster=custom&customUrl=http%3A%2F%2F127.0.0.1%3A8899"
    )


@pytest.mark.parametrize("url", ["javascript:alert('{signature}')", "https://explorer.example/tx/", "{signature}"])
def test_a_link_that_is_none_is_refused(url: str) -> None:
    """Every page would carry it, so it is told before the start."""
    with pytest.raises(SettingsError, match="explorer link"):
        settings(explorer_url=url)


def test_a_signature_cannot_leave_its_place_in_the_link() -> None:
    """Whatever stands where a signature belongs stays inside the path."""
    assert settings(explorer_url="https://x.example/{signature}").explorer_link("a/../b?c#d") == (
        "https://x.example/a%2F..%2Fb%3Fc%23d"
    )


def test_port_0_finds_a_free_one() -> None:
    """Scripts need no port of their own choosing."""
    assert free_port("127.0.0.1", 0) > 0


def test_an_address_that_is_not_ours_is_a_sentence() -> None:
    """An address of another machine is told as such; 192.0.2.1 is nobody's."""
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:8501"):
        free_port("192.0.2.1", 8501)


def test_the_server_is_told_to_ask_nobody_outside() -> None:
    """No statistics, no browser opened, and the address given: without it the server asks others for its own."""
    arguments = streamlit_arguments(host="127.0.0.1", port=1234)
    assert "--browser.gatherUsageStats=false" in arguments
    assert "--server.headless=true" in arguments
    assert "--server.address=127.0.0.1" in arguments


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    """The command itself, as a person starts it: one line on stderr, an exit code, no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "dashboard", "--port", str(port), "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert done.returncode == SettingsError.exit_code
    assert f"Port {port} on 127.0.0.1 is in use" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "url", ["https://rpc.example/v1/SECRET", "https://rpc.example/?api-key=SECRET", "https://me:SECRET@rpc.example"]
)
def test_the_default_link_never_carries_a_key(url: str) -> None:
    """Who reads the page would see the node's key in every link, and so would the explorer."""
    assert "SECRET" not in explorer_url_for(url)
    assert "rpc.example" not in explorer_url_for(url)
