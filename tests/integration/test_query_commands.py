"""`capstan sql` and `capstan export` over a chain of all three programs, half of it exported to the lake."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from indexer.store.database import open_database

pytestmark = pytest.mark.xdist_group("query commands")  # one chain and one database for all of them

COMMAND = [sys.executable, "-m", "capstan"]
VIEWS = (
    "sessions", "delegations", "vault_transactions", "cleanup_events", "session_metrics", "vaults", "transactions",
    "balance_snapshots", "liquidations", "insurance_fund_history",
)  # fmt: skip


class House:
    """An indexed database, and the commands that ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
        environment["CAPSTAN_DATA_DIR"] = str(self.folder)
        return subprocess.run(
            [*COMMAND, *arguments],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return what `capstan sql --json` prints."""
        done = self.run("sql", "--json", query)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """Index a small history once."""
    chain = subprocess.Popen(
        [
            *(*COMMAND, "localnet", "--json", "--rate", "0", "--rpc-port", "0", "--ws-port", "0", "--seed", "3"),
            *("--transactions", "2500", "--slot-ms", "50", "--finalized-distance", "1"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="capstan-") as name:
        Path(name).chmod(0o755)
        house = House(Path(name))
        # Held open, so that no command has to start the server and stop it.
        with open_database(None, data_dir=house.folder):
            _index(house, chain)
            yield house


def _index(house: House, chain: subprocess.Popen[str]) -> None:
    try:
        assert chain.stdout is not None
        ready = json.loads(chain.stdout.readline())
        done = house.run("index", "--catch-up", "--rpc", ready["rpc_url"])
        assert done.returncode == 0, done.stderr
    finally:
        chain.send_signal(signal.SIGTERM)
        chain.communicate(timeout=30)


def test_every_name_that_is_promised_is_there_and_has_rows(house: House) -> None:
    """The views of all three programs answer."""
    counted = house.rows(" union all ".join(f"select '{view}' as view, count(*) as n from {view}" for view in VIEWS))
    assert {row["view"] for row in counted if row["n"] > 0} == set(VIEWS)


def test_a_vaults_snapshots_end_in_what_its_account_holds(house: House) -> None:
    """The running sum over events is the balance on chain, for every vault."""
    query = (
        "select v.vault, v.total_balance as held, coalesce(b.total_balance, 0) as summed from vaults v left join "
        "(from balance_snapshots qualify row_number() over (partition by vault order by slot desc) = 1) b using (vault)"
        " where v.closed_slot is null"
    )
    rows = house.rows(query)
    assert len(rows) > 10
    assert [row for row in rows if int(row["held"]) != int(row["summed"])] == []


def test_bad_debt_is_joined_to_its_own_liquidation(house: House) -> None:
    """Exactly the liquidations with bad debt show what was covered."""
    rows = house.rows("select bad_debt, covered, fund_balance from liquidations")
    assert any(row["bad_debt"] != "0" for row in rows)
    assert all((row["bad_debt"] != "0") == (row["fund_balance"] is not None) for row in rows)
    (total,) = house.rows("select sum(amount) as n from insurance_fund_history where cause = 'bad_debt'")
    assert int(total["n"]) == sum(int(row["covered"]) for row in rows)


def test_wide_integers_are_strings_keys_base58_and_times_iso(house: House) -> None:
    """A row leaves in the house's one format."""
    (row,) = house.rows("select vault, max_deposit, created_slot, created_at, created_signature from sessions limit 1")
    assert 32 <= len(row["vault"]) <= 44
    assert isinstance(row["max_deposit"], str)
    assert isinstance(row["created_slot"], int)
    assert row["created_at"].endswith("Z")
    assert 86 <= len(row["created_signature"]) <= 88


def test_csv_and_parquet_hold_the_same_rows(house: House, tmp_path: Path) -> None:
    """Both files of one table agree, and a range of slots takes both its ends."""
    slots = [row["created_slot"] for row in house.rows("select created_slot from sessions order by created_slot")]
    first, last = slots[3], slots[-4]
    bounds = ("--from", str(first), "--to", str(last))
    for file_format in ("csv", "parquet"):
        target = str(tmp_path / f"sessions.{file_format}")
        done = house.run("export", "--table", "sessions", "--format", file_format, "-o", target, *bounds, "--json")
        assert done.returncode == 0, done.stderr
        wanted = sum(first <= slot <= last for slot in slots)
        assert json.loads(done.stdout) == {"table": "sessions", "file": target, "rows": wanted}
    with (tmp_path / "sessions.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    frame = pl.read_parquet(tmp_path / "sessions.parquet")
    assert [row["vault"] for row in read] == frame["vault"].to_list()
    assert [int(row["deposited"]) for row in read] == [int(value) for value in frame["deposited"]]
    assert not list(tmp_path.glob("*.partial"))


def test_days_bound_an_export_too(house: House, tmp_path: Path) -> None:
    """Two days written apart are the rows of both."""
    days = [row["day"] for row in house.rows("select day from session_metrics where deposits > 0 order by day")][:2]
    both = house.rows(f"select count(*) as n from vault_events where block_time::date in ('{days[0]}', '{days[1]}')")
    total = 0
    for day in days:
        arguments = ("--table", "vault_events", "--from", day, "--to", day, "-o", str(tmp_path / f"{day}.parquet"))
        assert house.run("export", *arguments).returncode == 0
        total += pl.read_parquet(tmp_path / f"{day}.parquet").height
    assert total == both[0]["n"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sql", "selec 1"), "syntax error"),
        (("sql", "select * from nothing_here"), "does not exist"),
        (("sql", "create table x (a int)"), "one SELECT is expected"),
        (("sql", "select 1; select 2"), "one SELECT is expected"),
        (("sql", "select 1", "--json", "--csv"), "exclude each other"),
        (("export", "--table", "nothing_here"), "there is no table or view"),
        (("export", "--table", "session_metrics", "--from", "5"), "has no column for --from 5, a slot"),
        (("export", "--table", "sessions", "--from", "yesterday"), "neither a slot nor a day"),
        (("export", "--table", "sessions", "--to", "2026-02-30"), "not a day of the calendar"),
        (("export", "--table", "sessions", "-o", "-"), "parquet is written to a file"),
        (("export", "--table", "sessions", "-o", "/nowhere/at/all.parquet"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(house: House, arguments: tuple[str, ...], sentence: str) -> None:
    """No traceback, and the reason is named."""
    done = house.run(*arguments)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
