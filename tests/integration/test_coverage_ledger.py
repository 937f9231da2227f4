"""The coverage ledger: ranges that never overlap, and a frontier that follows the unbroken run."""

import asyncio
import itertools
import random
from importlib import resources

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.store.batch import Batch
from indexer.store.coverage import (
    Means,
    Proof,
    Proven,
    Range,
    join_ranges,
    select_coverage,
    select_uncovered,
    start_history,
)
from indexer.store.database import INDEXER_ROLE, AsyncConnection, Database, connect
from indexer.store.holds import select_frontier
from indexer.store.writer import write_batch

ID = bytes([9]) * 32
MEANS: tuple[Means, ...] = ("signatures", "blocks", "file")


async def proven(connection: AsyncConnection, *spans: tuple[int, int, Means]) -> None:
    for first, last, means in spans:
        await write_batch(connection, Batch(coverage=[Proof(ID, first, last, means)]), {})


@pytest.fixture
def role(database: Database) -> str:
    return database.for_role(INDEXER_ROLE)


async def test_the_frontier_is_the_end_of_the_unbroken_run(role: str) -> None:
    """An island proves nothing about what is below it; once the gap closes, the frontier is at its end."""
    async with await connect(role) as connection:
        await proven(connection, (100, 200, "blocks"))
        assert await select_frontier(connection, ID) is None
        await proven(connection, (0, 50, "signatures"))
        assert await select_frontier(connection, ID) == 50
        assert await select_uncovered(connection, ID, 0, 250, with_backfills=True) == [Range(51, 99), Range(201, 250)]
        await proven(connection, (40, 120, "signatures"))
        assert await select_frontier(connection, ID) == 200
        assert await select_coverage(connection, ID) == [Proven(0, 99, "signatures"), Proven(100, 200, "blocks")]


async def test_proving_again_changes_nothing(role: str) -> None:
    """What is in the ledger stays as it is, also the time at which it was proven."""
    async with await connect(role) as connection:
        await proven(connection, (0, 10, "signatures"), (11, 20, "blocks"))
        query = "select c::text from capstan.coverage c union all select f::text from capstan.frontiers f"
        before = await (await connection.execute(query)).fetchall()
        await proven(connection, (0, 10, "signatures"), (5, 15, "file"), (0, 20, "blocks"))
        assert await (await connection.execute(query)).fetchall() == before


async def test_history_may_start_later(role: str) -> None:
    """Where the operator said so, the frontier needs nothing below."""
    async with await connect(role) as connection:
        await proven(connection, (100, 200, "signatures"))
        await start_history(connection, ID, 100)
        assert await select_frontier(connection, ID) == 200
        await start_history(connection, ID, 150)
        await proven(connection, (201, 210, "signatures"))
        assert await select_frontier(connection, ID) == 210


async def test_a_failing_finish_takes_the_proof_with_it(role: str) -> None:
    """Rows, proof and whatever else belongs together are committed together."""

    async def fail(_: AsyncConnection) -> None:
        raise RuntimeError("the lease is lost")

    async with await connect(role) as connection:
        with pytest.raises(RuntimeError):
            await write_batch(connection, Batch(coverage=[Proof(ID, 0, 9, "signatures")]), {}, finish=fail)
        assert await select_coverage(connection, ID) == []


async def test_writers_at_the_same_time_prove_everything(role: str) -> None:
    """Forty pieces in any order by four writers at once become one range and one frontier."""
    pieces = [(n * 10, n * 10 + 9) for n in range(40)]
    random.Random(5).shuffle(pieces)

    async def write(own: list[tuple[int, int]]) -> None:
        async with await connect(role) as connection:
            for first, last in own:
                await proven(connection, (first, last, "signatures"))

    await asyncio.gather(*(write(pieces[n::4]) for n in range(4)))
    async with await connect(role) as connection:
        assert await select_coverage(connection, ID) == [Proven(0, 399, "signatures")]
        assert await select_frontier(connection, ID) == 399


def test_what_an_earlier_version_proved_is_kept(database: Database) -> None:
    """A frontier that stood before there was a ledger becomes its first range."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute("drop table capstan.jobs, capstan.backfills, capstan.coverage, capstan.history_starts")
        connection.execute("alter table capstan.transactions drop column blockhash")
        connection.execute("insert into capstan.frontiers (program_id, slot) values (%s, 77)", (ID,))
        text = (resources.files("sql") / "migrations" / "0003_coverage.sql").read_text()
        connection.execute(text)
        rows = connection.execute("select from_slot, to_slot, means from capstan.coverage").fetchall()
    assert rows == [(0, 77, "signatures")]


SPANS = st.tuples(st.integers(0, 40), st.integers(0, 12), st.sampled_from(MEANS))


@given(st.lists(SPANS, max_size=12))
def test_joined_ranges_cover_what_was_added_and_no_more(spans: list[tuple[int, int, Means]]) -> None:
    """Every slot keeps the means that proved it first; neighbours of one means are one range."""
    expected: dict[int, str] = {}
    known: list[Proven] = []
    for first, length, means in spans:
        added = Proven(first, first + length, means)
        near = [p for p in known if p.from_slot <= added.to_slot + 1 and p.to_slot >= added.from_slot - 1]
        known = sorted([p for p in known if p not in near] + join_ranges(near, added))
        for slot in range(added.from_slot, added.to_slot + 1):
            expected.setdefault(slot, means)
    assert {slot: p.means for p in known for slot in range(p.from_slot, p.to_slot + 1)} == expected
    assert sum(p.to_slot - p.from_slot + 1 for p in known) == len(expected)
    assert all(a.to_slot + 1 < b.from_slot or a.means != b.means for a, b in itertools.pairwise(known))
