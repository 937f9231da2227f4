"""Large public programs, indexed from a file by their IDL alone: tables, values, the generic view and the page."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import streamlit as st
from solders.pubkey import Pubkey
from streamlit.testing.v1 import AppTest

from dashboard import source
from dashboard.settings import DashboardSettings
from indexer.chain.program import Program
from indexer.store.database import Database
from tests.fixtures.idl_values import PUBLIC, public_program
from tests.fixtures.made_bodies import MadeEvent, made_bodies

COUNT = 300
LAST_SLOT = 1_000 + COUNT
APP = Path(source.__file__).with_name("app.py")


@pytest.fixture
def fresh_pages(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point the pages at the test's own stores, with nothing cached from another test."""
    chosen = DashboardSettings(
        database_url=database.dsn, lake=tmp_path / "lake", explorer_url="https://explorer.solana.com/tx/{signature}"
    )
    for variable, value in chosen.to_environment().items():
        monkeypatch.setenv(variable, value)
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


def index_file(name: str, program: Program, database: Database, folder: Path) -> list[MadeEvent]:
    """Write made transactions into a file, index it as a user would, and return what must be found."""
    made = list(made_bodies(program, COUNT, seed=5))
    (folder / "transactions.ndjson").write_text("".join(body + "\n" for body, _ in made))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "capstan", "index", "--catch-up", "--json"),
            *("--source", f"file:{folder / 'transactions.ndjson'}", "--covers", f"0:{LAST_SLOT}"),
            *("--idl", f"{Pubkey(program.program_id)}={PUBLIC / name}.json"),
        ],
        env={**os.environ, "DATABASE_URL": database.dsn, "CAPSTAN_LAKE": str(folder / "lake")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["transactions"], said["events"], said["bad_lines"]) == (COUNT, COUNT, 0)
    return [event for _, event in made]


def read_value(text: str) -> Any:
    """Read jsonb's text. It writes a large float as an integer's digits; integers that large are strings."""

    def number(digits: str) -> int | float:
        return int(digits) if abs(int(digits)) < 2**53 else float(digits)

    return json.loads(text, parse_int=number)


@pytest.mark.usefixtures("fresh_pages")
@pytest.mark.parametrize("name", ["drift", "meteora_dlmm", "marginfi"])
def test_a_program_that_nobody_wrote_code_for_is_indexed_and_shown(
    name: str, database: Database, tmp_path: Path
) -> None:
    """Every event of the file is in its table, in the view `events` with its value, in the lake, and on the page."""
    program = public_program(name)
    made = index_file(name, program, database, tmp_path)
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute("select signature, kind, slot, name, value::text, program from events").fetchall()
    found = {signature: (kind, slot, event, read_value(value)) for signature, kind, slot, event, value, _ in rows}
    assert found == {m.signature: (m.kind, m.slot, m.name, m.value) for m in made}
    assert {row[5] for row in rows} == {program.name}
    asked = subprocess.run(
        [sys.executable, "-m", "capstan", "sql", "--json", "select name, count(*) as n from events group by name"],
        env={**os.environ, "DATABASE_URL": database.dsn, "CAPSTAN_LAKE": str(tmp_path / "lake")},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    counted = {row["name"]: row["n"] for row in map(json.loads, asked.stdout.splitlines())}
    assert counted == Counter(m.name for m in made)
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.run()
    app.switch_page("screens/programs.py").run()
    assert not app.exception
    assert [error.value for error in app.error] == []
    text = "\n".join(str(element.proto.body) for element in app.get("html"))
    assert program.name in text
    assert f"{COUNT:,}" in text
    assert all(event in text for event in program.events)
    assert len(app.get("plotly_chart")) >= 1
