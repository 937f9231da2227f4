"""What a person gets wrong is one sentence that says what was wrong and what to do, and a non-zero exit."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from solders.keypair import Keypair

from indexer.errors import DataError, RetryableError, SettingsError
from indexer.idls import __file__ as idls_file
from indexer.store.database import Database
from tests.fixtures.chain import LocalnetThread, build_chain

SETTINGS, DATA, RETRY = SettingsError.exit_code, DataError.exit_code, RetryableError.exit_code
IDL = Path(idls_file).with_name("ephemeral_vault.json")
NOBODY = "http://127.0.0.1:1"


def capstan(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command and return its exit code and its one sentence."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CAPSTAN_", "DATABASE_URL"))}
    done = subprocess.run(
        [sys.executable, "-m", "capstan", *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr, done.stderr
    assert said, f"exit {done.returncode} without a word"
    assert said[-1].startswith("capstan: "), done.stderr
    return done.returncode, said[-1].removeprefix("capstan: ")


@pytest.fixture(scope="module")
def quiet_chain() -> Iterator[LocalnetThread]:
    """A chain with the home program and no users."""
    running = LocalnetThread(build_chain(), slot_ms=50)
    running.start()
    yield running
    running.stop()


def test_an_unreachable_rpc(database: Database) -> None:
    """Told within seconds, with the address, and no table is made."""
    code, said = capstan("index", "--rpc", NOBODY, "--database-url", database.dsn)
    assert (code, said) == (RETRY, f"cannot reach {NOBODY} (ConnectError): start the node, or correct the RPC url")


def test_a_wrong_program_id(quiet_chain: LocalnetThread, database: Database) -> None:
    """A program that is not there would be indexed for ever, as nothing."""
    nobody = Keypair.from_seed(bytes([5]) * 32).pubkey()
    arguments = ["--rpc", quiet_chain.rpc_url, "--database-url", database.dsn, "--idl", f"{nobody}={IDL}"]
    code, said = capstan("index", *arguments)
    assert code == SETTINGS
    assert said.startswith(f"there is no account {nobody}")
    code, said = capstan("index", "--idl", f"no-id={IDL}")
    assert (code, said.startswith("'no-id' in --idl")) == (SETTINGS, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"broken\.json is not JSON: .+"),
        ("[]", r"broken\.json is not an IDL: \$ is not an object"),
        (
            '{"address":"11111111111111111111111111111111","metadata":{"name":"x"},"instructions":[{"name":7}]}',
            r"broken\.json .*\$\.instructions\[0\].*",
        ),
    ],
)
def test_a_broken_idl(tmp_path: Path, text: str, sentence: str) -> None:
    """Named with the path inside the JSON."""
    (tmp_path / "broken.json").write_text(text)
    code, said = capstan("index", "--rpc", NOBODY, "--idl", str(tmp_path / "broken.json"))
    assert code == DATA
    assert re.search(sentence, said), said


@pytest.mark.parametrize(
    "arguments",
    [
        ["localnet", "--no-traffic", "--ws-port", "0", "--rpc-port"],
        ["localnet", "--no-traffic", "--rpc-port", "0", "--ws-port"],
        ["dashboard", "--port"],
        ["demo", "--dashboard-port"],
    ],
    ids=["rpc", "pubsub", "dashboard", "demo"],
)
def test_a_port_in_use(arguments: list[str]) -> None:
    """Each command that listens says which port, at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = capstan(*arguments, str(port))
    assert code == SETTINGS
    assert str(port) in said


@pytest.mark.parametrize("command", ["index", "engine"])
def test_a_wrong_database_url(command: str, tmp_path: Path) -> None:
    """The url is shown, its password is not."""
    (tmp_path / "key.json").write_text(Keypair().to_json())
    environment = {
        "DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/db",
        "CAPSTAN_ENGINE_KEYPAIR": str(tmp_path / "key.json"),
    }
    code, said = capstan(command, **environment)
    assert code == SETTINGS
    assert said.startswith("DATABASE_URL postgresql://me:***@127.0.0.1:1/db: cannot be reached")
    assert "hunter2" not in said


def test_a_database_of_a_newer_version(quiet_chain: LocalnetThread, database: Database) -> None:
    """An older capstan must not write into tables that it does not know."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute(
            "insert into capstan.schema_migrations (version, name) select max(version) + 7, 'from the future' "
            "from capstan.schema_migrations"
        )
    code, said = capstan("index", "--rpc", quiet_chain.rpc_url, "--database-url", database.dsn)
    assert code == SETTINGS
    assert "upgrade" in said


@pytest.mark.parametrize("command", ["index", "demo"])
def test_a_folder_that_cannot_be_written(command: str) -> None:
    """Also for root, whom permission bits do not stop."""
    code, said = capstan(command, "--data-dir", "/proc/capstan")
    assert code == SETTINGS
    assert said.startswith("/proc/capstan cannot be written")


def test_another_chain(quiet_chain: LocalnetThread, database: Database, tmp_path: Path) -> None:
    """One database is one chain: what was indexed of the first is left alone."""
    arguments = ["--database-url", database.dsn, "--lake", str(tmp_path), "--catch-up"]
    first = [sys.executable, "-m", "capstan", "index", "--rpc", quiet_chain.rpc_url, *arguments]
    subprocess.run(first, check=True, capture_output=True, timeout=60)
    other = LocalnetThread(build_chain(seed=99), slot_ms=50)
    other.start()
    code, said = capstan("index", "--rpc", other.rpc_url, *arguments)
    other.stop()
    assert code == DATA
    assert "belongs to the chain with genesis hash" in said
