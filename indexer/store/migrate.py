"""
Migrations: the database is brought to the version of this code when a process starts, never back.

Under an advisory lock, so that processes that start together wait for each other; one transaction for all of it, so
that a failure leaves what was there. Roles belong to the whole server, not to one database: they are made where we are
let, and missing ones are said and lived without. Typed tables are not migrations; typed.py makes them from IDLs.
"""

import re
import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

import psycopg
import structlog
from psycopg import sql

from indexer.errors import RetryableError, SettingsError
from indexer.store.database import (
    CONNECT_TIMEOUT_S,
    DASHBOARD_ROLE,
    ENGINE_ROLE,
    INDEXER_ROLE,
    first_line,
    mask_dsn,
)

# Any fixed number will do, as long as nobody else's migration uses it in the same database.
MIGRATION_LOCK = 0x0CA9_57A4
ROLES = (INDEXER_ROLE, ENGINE_ROLE, DASHBOARD_ROLE)
ROLE_TRIES_MAX = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Migration:
    """One file of sql/migrations/: `0001_chain.sql` is version 1."""

    version: int
    name: str
    text: str


@cache
def load_migrations() -> tuple[Migration, ...]:
    """Return all migrations in order; their versions are 1, 2, 3, ... without a gap."""
    found = []
    for file in (resources.files("sql") / "migrations").iterdir():
        matched = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if matched:
            found.append(Migration(int(matched[1]), matched[2], file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    assert [migration.version for migration in found] == list(range(1, len(found) + 1)), "migrations have a gap"
    return tuple(found)


def migrate(dsn: str) -> int:
    """
    Bring the database to this code's version and return that version.

    Args:
        dsn: the operator's own login, not one of our roles: it makes schemas and grants.

    Raises:
        SettingsError: the database is newer than this code, or does not let this login do it.
        RetryableError: the database went away.
    """
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as connection:
            # A lock of the session, not of a transaction: whoever waited must begin after the other has committed.
            connection.execute("select pg_advisory_lock(%s)", (MIGRATION_LOCK,))
            with connection.transaction():
                version = _migrate_forward(connection)
            # Also where nothing changed: a database restored on another server finds no roles there.
            _set_up_roles(connection)
            return version
    except psycopg.OperationalError as error:
        raise RetryableError(f"{mask_dsn(dsn)} does not answer: {first_line(error)}") from error
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise SettingsError(
            f"{mask_dsn(dsn)} cannot be migrated ({first_line(error)}): let this login create schemas in the database"
        ) from None


def select_version(dsn: str) -> int | None:
    """Return the version that the database is at; None where it has never been migrated. Changes nothing."""
    with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        return _version(connection)


def _version(connection: psycopg.Connection[Any]) -> int | None:
    row = connection.execute("select to_regclass('capstan.schema_migrations') is not null").fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute("select coalesce(max(version), 0) from capstan.schema_migrations").fetchone()
    return int(row[0]) if row else None


def _migrate_forward(connection: psycopg.Connection[Any]) -> int:
    migrations = load_migrations()
    known = migrations[-1].version
    current = _version(connection)
    if current is None:
        current = 0
        connection.execute("create schema if not exists capstan")
        connection.execute(
            "create table capstan.schema_migrations (version integer primary key, name text not null, "
            "applied_at timestamptz not null default clock_timestamp())"
        )
    if current > known:
        raise SettingsError(
            f"database is at version {current}, this capstan knows {known}: upgrade capstan or choose another database"
        )
    for migration in migrations[current:]:
        connection.execute(cast("Any", migration.text))
        connection.execute(
            "insert into capstan.schema_migrations (version, name) values (%s, %s)",
            (migration.version, migration.name),
        )
    return known


# What each role may do. The indexer makes the typed schemas and the lake's catalog, so it may create in the database.
GRANTS = (
    "grant usage on schema capstan, engine to {everyone}",
    "grant select on all tables in schema capstan, engine to {everyone}",
    "grant insert, update, delete on all tables in schema capstan to {indexer}",
    "revoke insert, update, delete on capstan.schema_migrations from {indexer}",
    "grant execute on function capstan.ensure_partitions(text[], text[], bigint[]) to {indexer}",
    "grant execute on function capstan.drop_partition(text, text, bigint) to {indexer}",
    "grant insert, update, delete on all tables in schema engine to {engine}",
    "grant usage on all sequences in schema engine to {engine}",
    # One row a running part, and the engine is one.
    "grant insert, update on capstan.heartbeats to {engine}",
    "grant create on database {database} to {indexer}",
)


def _set_up_roles(connection: psycopg.Connection[Any]) -> None:
    """
    Make the roles and give them their rights; go on without where the database does not let us.

    Roles and memberships are rows that every database of the server shares, outside our lock: two migrations of two
    databases may collide on them, and then the later one tries again.
    """
    names = {
        "indexer": sql.Identifier(INDEXER_ROLE),
        "engine": sql.Identifier(ENGINE_ROLE),
        "dashboard": sql.Identifier(DASHBOARD_ROLE),
        "everyone": sql.SQL(", ").join(map(sql.Identifier, ROLES)),
        "database": sql.Identifier(connection.info.dbname),
    }
    for attempt in range(ROLE_TRIES_MAX):
        try:
            with connection.transaction():
                for role in ROLES:
                    _make_role(connection, role)
                for grant in GRANTS:
                    connection.execute(sql.SQL(grant).format(**names))
        except psycopg.errors.InsufficientPrivilege as error:
            log.warning(
                "this database lets us make no roles: every part of Capstan has the rights of its login",
                reason=first_line(error),
            )
            return
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation, psycopg.errors.InternalError_):
            # "tuple concurrently updated" is an internal error to PostgreSQL.
            if attempt == ROLE_TRIES_MAX - 1:
                raise
            time.sleep(0.05 * (attempt + 1))
        else:
            return


def _make_role(connection: psycopg.Connection[Any], role: str) -> None:
    name = sql.Identifier(role)
    if connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone() is None:
        connection.execute(sql.SQL("create role {} nologin").format(name))
    row = connection.execute("select pg_has_role(current_user, %s, 'MEMBER')", (role,)).fetchone()
    if row is None or not row[0]:
        connection.execute(sql.SQL("grant {} to current_user").format(name))
