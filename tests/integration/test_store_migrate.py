"""A database is brought to the code's version, by many at once if need be, and never back."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from indexer.errors import SettingsError
from indexer.store.database import DASHBOARD_ROLE, ENGINE_ROLE, INDEXER_ROLE, Database
from indexer.store.migrate import load_migrations, migrate, select_version


def test_an_empty_database_is_migrated_and_a_second_time_changes_nothing(empty_database: Database) -> None:
    """The version is that of the newest file, each file is applied once."""
    assert select_version(empty_database.dsn) is None
    newest = load_migrations()[-1].version
    assert migrate(empty_database.dsn) == newest
    assert migrate(empty_database.dsn) == newest
    assert select_version(empty_database.dsn) == newest
    with psycopg.connect(empty_database.dsn) as connection:
        rows = connection.execute("select version, name from capstan.schema_migrations order by 1").fetchall()
    assert rows == [(migration.version, migration.name) for migration in load_migrations()]


def test_processes_that_start_together_migrate_once(empty_database: Database) -> None:
    """The others wait for the first, and all see the result."""
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(migrate, [empty_database.dsn] * 6))
    assert set(versions) == {load_migrations()[-1].version}


def test_a_newer_database_is_refused(database: Database) -> None:
    """The message says both versions and what to do, and nothing is touched."""
    known = load_migrations()[-1].version
    with psycopg.connect(database.dsn) as connection:
        connection.execute("insert into capstan.schema_migrations (version, name) values (%s, 'later')", [known + 1])
    expected = f"is at version {known + 1}, this capstan knows {known}: upgrade capstan or choose another database"
    with pytest.raises(SettingsError, match=expected):
        migrate(database.dsn)


def test_a_failing_migration_leaves_what_was_there(empty_database: Database) -> None:
    """All of it is one transaction: something in the way of the second file takes the first back too."""
    with psycopg.connect(empty_database.dsn) as connection:
        connection.execute("create schema engine")
    with pytest.raises(psycopg.errors.DuplicateSchema):
        migrate(empty_database.dsn)
    assert select_version(empty_database.dsn) is None


def test_each_role_writes_its_own_tables_only(database: Database) -> None:
    """One writer a table is enforced by GRANT."""
    may = {
        (INDEXER_ROLE, "capstan.transactions"): True,
        (INDEXER_ROLE, "capstan.late_transactions"): True,
        (INDEXER_ROLE, "engine.intents"): False,
        (ENGINE_ROLE, "engine.intents"): True,
        (ENGINE_ROLE, "capstan.transactions"): False,
        (ENGINE_ROLE, "capstan.heartbeats"): True,
        (DASHBOARD_ROLE, "engine.intents"): False,
        (DASHBOARD_ROLE, "capstan.heartbeats"): False,
    }
    with psycopg.connect(database.dsn) as connection:
        for (role, table), expected in may.items():
            row = connection.execute("select has_table_privilege(%s, %s, 'insert')", (role, table)).fetchone()
            assert row == (expected,), (role, table)
            row = connection.execute("select has_table_privilege(%s, %s, 'select')", (role, table)).fetchone()
            assert row == (True,), (role, table)


def test_a_login_that_may_make_no_roles_goes_on_with_its_own_rights(
    postgres_server: Database, empty_database: Database
) -> None:
    """A managed database may refuse roles; everything works, under the login."""
    name = "login_" + str(make_conninfo(empty_database.dsn)).split("test_")[1][:12]
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute(f"create role {name} login")
        connection.execute(f"grant create on database {connection.info.dbname} to {name}")
    dsn = make_conninfo(empty_database.dsn, user=name)
    try:
        assert migrate(dsn) == load_migrations()[-1].version
        limited = Database(dsn, postgres_server.server_version, embedded=False)
        with psycopg.connect(limited.for_role(INDEXER_ROLE)) as connection:
            assert connection.execute("select current_user").fetchone() == (name,)
            connection.execute("insert into capstan.chain (genesis_hash) values ('x')")
    finally:
        with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
            connection.execute(f"drop owned by {name} cascade")
            connection.execute(f"drop role {name}")


def test_a_login_without_rights_is_one_sentence(empty_database: Database) -> None:
    """Who may not create schemas is told so."""
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        name = f"bare_{connection.info.dbname[-12:]}"
        connection.execute(f"create role {name} login")
    try:
        with pytest.raises(SettingsError, match="let this login create schemas"):
            migrate(make_conninfo(empty_database.dsn, user=name))
    finally:
        with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
            connection.execute(f"drop role {name}")
