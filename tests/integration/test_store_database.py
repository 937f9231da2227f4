"""Which PostgreSQL Capstan talks to, and what it says where it cannot."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from indexer.errors import SettingsError
from indexer.store import database as database_module
from indexer.store.database import (
    DASHBOARD_ROLE,
    INDEXER_ROLE,
    Database,
    check_server,
    mask_dsn,
    open_database,
    writable_folder,
)

SECRET = "hunter2"


def _postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A container may have nobody who collects orphans: then the dead keep their number.
    return ") Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_the_embedded_server_starts_is_shared_and_stops_with_its_last_user(short_tmp_path: Path) -> None:
    """Two openings are one server; it ends with the second, and its data are there at the next start."""
    with open_database(None, data_dir=short_tmp_path) as first:
        with open_database(None, data_dir=short_tmp_path) as second, psycopg.connect(second.dsn) as connection:
            connection.execute("create table kept (n integer)")
        pid = _postmaster_pid(short_tmp_path)
        assert first.embedded
        assert check_server(first.dsn) >= 180000
    assert not _is_running(pid)
    with open_database(None, data_dir=short_tmp_path) as again, psycopg.connect(again.dsn) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_a_killed_server_is_started_again(short_tmp_path: Path) -> None:
    """After kill -9 of the postmaster an opening gives a server that answers, not the dead one."""
    with open_database(None, data_dir=short_tmp_path):
        os.kill(_postmaster_pid(short_tmp_path), signal.SIGKILL)
        with open_database(None, data_dir=short_tmp_path) as again, psycopg.connect(again.dsn) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_pid_file_of_some_other_program_does_not_keep_the_server_down(short_tmp_path: Path) -> None:
    """After a crash of the machine the number in postmaster.pid may be anybody's."""
    with open_database(None, data_dir=short_tmp_path):
        lines = (short_tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()
    lines[0] = str(os.getpid())
    (short_tmp_path / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with open_database(None, data_dir=short_tmp_path) as again:
        assert check_server(again.dsn) >= 180000


def test_a_killed_holder_is_forgotten(short_tmp_path: Path) -> None:
    """A process that died without leaving does not keep the server running after the last living one left."""
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom indexer.store.database import open_database\n"
        "with open_database(None, data_dir=Path(sys.argv[1])):\n    print('open', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(short_tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"open\n" in iter(process.stdout.readline, b"")
        with open_database(None, data_dir=short_tmp_path):
            pid = _postmaster_pid(short_tmp_path)
            process.kill()
            process.wait()
    assert not _is_running(pid)


def test_sessions_of_a_role_have_its_rights_and_the_dashboards_only_read(database: Database) -> None:
    """The role is taken at connect; the dashboard cannot write what even its login could."""
    with psycopg.connect(database.for_role(INDEXER_ROLE)) as connection:
        assert connection.execute("select current_user").fetchone() == (INDEXER_ROLE,)
        assert connection.execute("show timezone").fetchone() == ("UTC",)
    with psycopg.connect(database.for_role(DASHBOARD_ROLE)) as connection:
        connection.execute("select * from capstan.transactions")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("delete from capstan.transactions")
    with psycopg.connect(database.for_role(DASHBOARD_ROLE)) as connection:
        connection.execute("set transaction read write")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from capstan.transactions")


def test_a_role_that_was_given_nothing_here_is_not_taken(empty_database: Database) -> None:
    """In a database without our grants the login's own rights stay, and the dashboard still only reads."""
    with psycopg.connect(empty_database.dsn) as connection:
        connection.execute("create schema capstan")
    with psycopg.connect(empty_database.for_role(DASHBOARD_ROLE)) as connection:
        assert connection.execute("select current_user").fetchone() != (DASHBOARD_ROLE,)
        assert connection.execute("show default_transaction_read_only").fetchone() == ("on",)


def _refused(dsn: str) -> str:
    with pytest.raises(SettingsError) as caught:
        check_server(dsn)
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgres//me:{SECRET}@host/db",
        f"mysql://me:{SECRET}@host/db",
        f"host=x pasword={SECRET}",
        f"password = '{SECRET} x' nonsense",
        f"postgresql://me:{SECRET}@host:5432/db?nonsense=1",
    ],
)
def test_an_unreadable_url_says_how_to_write_one(dsn: str) -> None:
    """What libpq cannot parse is told without the password that may be in it."""
    assert "postgresql://user:password@host:5432/database" in _refused(dsn)


def test_an_unreachable_server_is_one_sentence(unused_port: int) -> None:
    """Nobody listens: the message names the place and masks the password."""
    message = _refused(f"postgresql://me:{SECRET}@127.0.0.1:{unused_port}/db")
    assert f"postgresql://me:***@127.0.0.1:{unused_port}/db" in message
    assert "cannot be reached" in message


def test_a_missing_database_and_a_missing_user_are_told_apart(postgres_server: Database) -> None:
    """Each says what is missing."""
    assert "no such database" in _refused(make_conninfo(postgres_server.dsn, dbname="nowhere"))
    assert "no such user" in _refused(make_conninfo(postgres_server.dsn, user="nobody"))


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('connection failed: FATAL:  password authentication failed for user "me"', "refused user or password"),
        ("connection failed: fe_sendauth: no password supplied", "refused user or password"),
    ],
)
def test_a_refused_password_is_told(monkeypatch: pytest.MonkeyPatch, said: str, advice: str) -> None:
    """The embedded server trusts its folder's owner, so the refusal is played."""

    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError(said)

    monkeypatch.setattr(psycopg, "connect", refuse)
    assert advice in _refused(f"postgresql://me:{SECRET}@host/db")


def test_a_server_that_is_too_old_is_refused(postgres_server: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest PostgreSQL is stated, and checked before anything is made."""
    monkeypatch.setattr(database_module, "SERVER_VERSION_MIN", 999_999)
    assert "PostgreSQL 18 is too old" in _refused(postgres_server.dsn)


def test_a_masked_dsn_keeps_everything_but_the_password() -> None:
    """Url and keyword form, with and without a password."""
    assert mask_dsn(f"postgresql://me:{SECRET}@host:1/db") == "postgresql://me:***@host:1/db"
    assert mask_dsn(f"host=h user=me password={SECRET} dbname=d") == "postgresql://me:***@h/d"
    assert mask_dsn("postgresql://host/db") == "postgresql://host/db"
    assert SECRET not in repr(Database(f"postgresql://me:{SECRET}@host/db", 180000, embedded=False))


def test_a_folder_that_cannot_be_written_is_refused_also_for_root(tmp_path: Path) -> None:
    """Root passes permission checks, so the proof is writing: not under a file, and not in /proc."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "data", Path("/proc/capstan")):
        with pytest.raises(SettingsError, match=r"cannot be written .*: choose another folder"):
            writable_folder(path)
        with pytest.raises(SettingsError), open_database(None, data_dir=path):
            pass
    assert writable_folder(tmp_path / "new" / "folder").is_dir()
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_data_of_another_postgres_version_is_refused(short_tmp_path: Path) -> None:
    """The embedded server does not touch a folder that a different major version made."""
    (short_tmp_path / "postgres").mkdir()
    (short_tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    with (
        pytest.raises(SettingsError, match=r"holds data of PostgreSQL 16 and the embedded server is 18"),
        open_database(None, data_dir=short_tmp_path),
    ):
        pass


def test_a_first_start_that_was_killed_does_not_spoil_the_next(short_tmp_path: Path) -> None:
    """The cluster gets its name when it is whole; the half-made one is thrown away."""
    (short_tmp_path / "postgres.new").mkdir()
    (short_tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    started = time.monotonic()
    with open_database(None, data_dir=short_tmp_path) as database:
        assert check_server(database.dsn) >= 180000
    assert time.monotonic() - started < 60
