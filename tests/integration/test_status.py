"""`capstan status` and its neighbours: from the database alone, and in one sentence where it cannot."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from indexer.commands.status import as_object, lines_of
from indexer.store.coverage import Range
from indexer.store.database import Database, connect
from indexer.store.jobs import open_backfill
from indexer.store.registry import ensure_tables
from indexer.store.status import QUERIES, read_status
from tests.fixtures.chain import LocalnetThread, build_chain
from tests.fixtures.scripted_node import PROGRAM

ID = PROGRAM.program_id


def capstan(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "capstan", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


async def test_everything_that_stands_in_the_way_is_told(database: Database) -> None:
    """Frontier and lag, gaps, backfills, what could not be read, and each part's last error."""
    async with await connect(database.dsn) as connection:
        await ensure_tables(connection, PROGRAM)
        for statement in (
            "insert into capstan.coverage values (%(id)s, 0, 50, 'signatures'), (%(id)s, 61, 80, 'blocks')",
            "insert into capstan.frontiers values (%(id)s, 50)",
            (
                "insert into capstan.heartbeats (name, tip_slot, last_error, last_error_at) "
                "values ('indexer', 100, null, null), ('indexer/pubsub', null, 'it fell silent', now())"
            ),
            (
                "insert into capstan.problems values (%(id)s, '\\x01', 'unknown_discriminator', 0, 'x', 7, now()), "
                "(%(id)s, '\\x02', 'bad_payload', 0, 'x', 9, now())"
            ),
            (
                "insert into capstan.transactions (signature, slot, fee, commitment, complete) "
                "values (decode(repeat('01', 64), 'hex'), 5, 1, 'finalized', false)"
            ),
        ):
            await connection.execute(statement, {"id": ID})
        assert await open_backfill(connection, [ID], "signatures", Range(40, 70)) == 1
    found = read_status(database.dsn)
    assert [(p.name, p.frontier, p.lag_slots) for p in found.programs] == [("ephemeral_vault", 50, 50)]
    assert [tuple(gap) for gap in found.gaps] == [("ephemeral_vault", 51, 60), ("ephemeral_vault", 81, 100)]
    assert [(b.programs, b.from_slot, b.to_slot, b.jobs_open) for b in found.backfills] == [
        (["ephemeral_vault"], 51, 60, 0)
    ]
    said = capstan("status", "--json", DATABASE_URL=database.dsn)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert (told["incomplete_transactions"], told["unknown_discriminators"], told["undecodable"]) == (1, 1, 1)
    assert {part["name"]: part["last_error"] for part in told["parts"]} == {
        "indexer": None,
        "indexer/pubsub": "it fell silent",
    }
    lines = capstan("status", DATABASE_URL=database.dsn).stdout
    assert "gap: ephemeral_vault lacks slots 51 to 60" in lines
    assert "it fell silent" in lines


@pytest.mark.parametrize(
    ("stored", "tip_time", "seconds", "said"),
    [
        ({}, 1_000, 40.0, "about 40 s"),
        ({100: 900}, None, 40.0, "about 40 s"),
        ({100: 900}, 1_000, 100.0, "(100 s"),
        ({50: 800}, 1_000, 133.3, "about 133 s"),
        ({50: 800, 150: 990}, 1_000, 105.0, "about 105 s"),
        ({150: 950}, 1_000, 100.0, "about 100 s"),
        ({50: 1_000}, 1_000, 0.0, "about 0 s"),
        ({50: 1_100}, 1_000, 0.0, "about 0 s"),
        ({100: None, 50: 800}, 1_000, 133.3, "about 133 s"),
    ],
)
async def test_the_lag_in_seconds_is_by_the_chains_own_times(
    database: Database, stored: dict[int, int | None], tip_time: int | None, seconds: float, said: str
) -> None:
    """What is stored around the frontier says how long its slots took; without its own time it is "about"."""
    async with await connect(database.dsn) as connection:
        await ensure_tables(connection, PROGRAM)
        await connection.execute("insert into capstan.frontiers values (%s, 100)", (ID,))
        await connection.execute(
            "insert into capstan.heartbeats (name, tip_slot, tip_time) values ('indexer', 200, to_timestamp(%s))",
            (tip_time,),
        )
        for slot, time in stored.items():
            await connection.execute(
                "insert into capstan.transactions (signature, slot, block_time, fee, commitment, complete) "
                "values (%s, %s, to_timestamp(%s), 1, 'finalized', true)",
                (bytes([slot]) * 64, slot, time),
            )
    found = read_status(database.dsn)
    (program,) = as_object(found)["programs"]
    assert (program["lag_slots"], program["lag_s"]) == (100, seconds)
    assert program["lag_s_estimated"] is ("about" in said)
    assert said in lines_of(found)[0]


def test_counting_what_is_incomplete_looks_at_nothing_else(database: Database) -> None:
    """It is counted every half minute, beside everything that the indexer has to do: in an index of those few alone."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute(
            "insert into capstan.transactions (signature, slot, fee, commitment, complete) "
            "select decode(lpad(to_hex(i), 128, '0'), 'hex'), i, 1, 'finalized', i % 1000 <> 0 "
            "from generate_series(1, 20000) i"
        )
        connection.execute("analyze capstan.transactions")
        assert connection.execute(QUERIES["select_incomplete"]).fetchall() == [(20,)]
        plan = connection.execute("explain " + QUERIES["select_incomplete"]).fetchall()
    assert "transactions_incomplete" in str(plan)
    assert "Seq Scan" not in str(plan)


def test_a_database_that_nobody_indexed_is_told(empty_database: Database) -> None:
    """One sentence and the exit code of what may be better later."""
    said = capstan("status", DATABASE_URL=empty_database.dsn)
    assert said.returncode == 75
    assert "has not been indexed yet" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("backfill", "--from", "9", "--to", "5"), "lies above"),
        (("backfill", "--to", "99999999"), "not final yet"),
        (("verify", "--from", "-3"), "is no slot"),
        (("verify", "--program", "nobody"), "is none of"),
        (("repair", "--from", "99999999"), "not final yet"),
    ],
)
def test_a_range_that_is_none_is_one_sentence(
    empty_database: Database,
    start_localnet: Callable[..., LocalnetThread],
    tmp_path: Path,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    """Exit code 78, nothing to read but the reason."""
    localnet = start_localnet(build_chain(finalized_distance=1))
    environment = {"DATABASE_URL": empty_database.dsn, "CAPSTAN_RPC_URL": localnet.rpc_url, "HOME": str(tmp_path)}
    said = capstan(*arguments, **environment)
    assert said.returncode == 78, said.stderr
    assert sentence in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1


def test_verify_says_by_its_exit_code_whether_it_is_clean(
    empty_database: Database, start_localnet: Callable[..., LocalnetThread]
) -> None:
    """0 clean, 1 with a difference; what the difference is stands on stdout."""
    localnet = start_localnet(build_chain(finalized_distance=1))
    environment = {"DATABASE_URL": empty_database.dsn, "CAPSTAN_RPC_URL": localnet.rpc_url}
    assert capstan("backfill", **environment).returncode == 0
    assert capstan("verify", **environment).returncode == 0
    with psycopg.connect(empty_database.dsn) as connection:
        connection.execute(
            "insert into capstan.transactions (signature, slot, fee, commitment, complete) "
            "values (decode(repeat('01', 64), 'hex'), 0, 1, 'finalized', true)"
        )
        connection.execute(
            "insert into capstan.mentions (program_id, slot, signature) "
            "values (%s, 0, decode(repeat('01', 64), 'hex'))",
            (ID,),
        )
    said = capstan("verify", "--json", **environment)
    assert said.returncode == 1, said.stderr
    (difference,) = json.loads(said.stdout)["differences"]
    assert (difference["kind"], difference["slot"]) == ("extra", 0)
    assert capstan("repair", "--json", **environment).returncode == 0
    assert capstan("verify", **environment).returncode == 0
