"""Verify and repair: every way in which a store can differ from the chain is named, and put right."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import stamina

from indexer.errors import RetryableError
from indexer.frontier import Frontier
from indexer.intake import read_bodies
from indexer.sources.rpc import Rpc
from indexer.store.audit import read_lake, read_postgres
from indexer.store.coverage import Means, Range
from indexer.store.database import INDEXER_ROLE, Database, open_pool, session
from indexer.store.database import connect as connect_to
from indexer.store.lake import Lake
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch
from indexer.verify import Verifier
from tests.fixtures.scripted_node import PROGRAM, Entry, ScriptedNode

PROGRAMS = {PROGRAM.program_id: PROGRAM}
SPAN = Range(0, 40)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


@asynccontextmanager
async def verifier(database: Database, node: ScriptedNode) -> AsyncIterator[Verifier]:
    """Give a verifier over a store that has everything the node had until now."""
    async with await connect_to(database.dsn) as owner:
        tables = {PROGRAM.program_id: await ensure_tables(owner, PROGRAM)}
    async with (
        open_pool(database.for_role(INDEXER_ROLE)) as pool,
        Rpc("http://node:1", transport=httpx.MockTransport(node)) as rpc,
    ):
        await Frontier(rpc, pool, PROGRAMS, tables).advance()
        yield Verifier(rpc, pool, PROGRAMS, tables, database.for_role(INDEXER_ROLE))


def chain() -> ScriptedNode:
    failed = {"InstructionError": [0, {"Custom": 1}]}
    entries = [Entry(n, 2 * n, amount=n, err=failed if n == 5 else None) for n in range(1, 20)]
    return ScriptedNode(entries, finalized_slot=40, skipped=set(range(1, 38, 2)))


async def spoil(database: Database, it: Verifier) -> None:
    """Make one difference of each kind."""
    extra = httpx.Response(200, json=Entry(77, 20, amount=777).body(PROGRAM)).content
    async with session(it.pool) as connection:
        await write_batch(
            connection, read_bodies([extra], PROGRAMS, "finalized").batch(finalized={}, frontiers={}), it.tables
        )
    with psycopg.connect(database.dsn) as connection_:
        for statement in (
            "delete from capstan.transactions where slot = 6",
            "delete from capstan.mentions where slot = 6",
            "delete from ephemeral_vault.event_auto_deposit where slot = 6",
            "update capstan.transactions set slot = 9 where slot = 8",
            "update capstan.mentions set slot = 9 where slot = 8",
            "update ephemeral_vault.event_auto_deposit set slot = 9 where slot = 8",
            "update capstan.transactions set err = null where slot = 10",
            "update capstan.transactions set commitment = 'confirmed' where slot = 12",
        ):
            connection_.execute(statement)


@pytest.mark.parametrize("means", ["signatures", "blocks"])
async def test_every_kind_of_difference_is_found_and_put_right(database: Database, means: Means) -> None:
    """Missing, extra, other slot, other outcome, not final: named down to the signature, and gone after a repair."""
    node = chain()
    async with verifier(database, node) as it:
        clean = await it.verify(SPAN, means)
        assert (clean.is_clean, clean.checked) == (True, 19)
        right = read_postgres(database.dsn)
        await spoil(database, it)
        found = await it.verify(SPAN, means)
        assert sorted((d.kind, d.slot) for d in found.differences if d.kind != "extra") == [
            ("missing", 6),
            ("not_finalized", 12),
            ("other_err", 10),
            ("other_slot", 8),
        ]
        assert {d.slot for d in found.differences if d.kind == "extra"} >= {20}
        repaired = await it.verify(SPAN, means, repair=True)
        assert repaired.fetched >= 4
        assert (await it.verify(SPAN, means)).is_clean
        stored = read_postgres(database.dsn)
        assert stored.events == right.events
        assert {s: (t.slot, t.failed, t.finalized) for s, t in stored.transactions.items()} == {
            s: (t.slot, t.failed, t.finalized) for s, t in right.transactions.items()
        }


async def test_a_row_that_the_node_still_knows_is_not_removed(database: Database) -> None:
    """Without a second answer nothing is taken out: the listing alone may be at fault."""
    node = chain()
    async with verifier(database, node) as it:
        node.odd["getSignaturesForAddress"] = []
        found = await it.verify(SPAN, "signatures")
        assert {d.kind for d in found.differences} == {"extra"}
        with pytest.raises(RetryableError, match="nothing is removed"):
            await it.verify(SPAN, "signatures", repair=True)
        assert len(read_postgres(database.dsn).transactions) == 19


async def test_the_lake_is_held_against_postgres(database: Database, tmp_path: Path) -> None:
    """Rows that the lake lacks or has twice are counted, and written again by the next export."""
    async with verifier(database, chain()) as it:
        role = database.for_role(INDEXER_ROLE)

        def export() -> None:
            with Lake.open(role, tmp_path / "lake") as lake:
                lake.export()

        def spoil_lake() -> None:
            with Lake.open(role, tmp_path / "lake") as lake:
                table = "lake.ephemeral_vault.event_auto_deposit"
                lake._duck.execute(f"DELETE FROM {table} WHERE slot = 4")
                lake._duck.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE slot = 14")

        await asyncio.to_thread(export)
        assert (await it.verify(SPAN, "signatures")).is_clean
        await asyncio.to_thread(spoil_lake)
        found = await it.verify(SPAN, "signatures")
        (count,) = [count for count in found.lake if not count.is_clean]
        assert (count.lacking, count.doubled, count.surplus) == (1, 1, 0)
        await it.verify(SPAN, "signatures", repair=True)
        await asyncio.to_thread(export)
        assert (await it.verify(SPAN, "signatures")).is_clean
        assert read_lake(database.dsn).events == read_postgres(database.dsn).events


async def test_what_was_taken_out_of_postgres_is_looked_for_in_the_lake(database: Database, tmp_path: Path) -> None:
    """Old rows that only the lake has are not missing."""
    async with verifier(database, chain()) as it:

        def export() -> None:
            with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
                lake.export()

        await asyncio.to_thread(export)
        with psycopg.connect(database.dsn) as connection:
            connection.execute("delete from capstan.transactions where slot < 20")
            connection.execute("delete from capstan.mentions where slot < 20")
            connection.execute("delete from ephemeral_vault.event_auto_deposit where slot < 20")
        report = await it.verify(SPAN, "signatures")
        assert report.differences == []
        assert report.is_clean
