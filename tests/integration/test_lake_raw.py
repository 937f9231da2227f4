"""Raw bodies reach the lake with their transactions, and are read from both stores as one."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import DataError
from indexer.store.batch import Batch
from indexer.store.database import INDEXER_ROLE, Database, connect
from indexer.store.duck import attach_lake, open_duckdb
from indexer.store.lake import Lake
from indexer.store.raw import RawBody, compress_body, decompress_body, iterate_bodies
from indexer.store.registry import ensure_tables
from indexer.store.writer import write_batch
from tests.fixtures.vault_rows import START_UNIX_S, VaultRows, load_vault_program

PROGRAM = load_vault_program()
ID = PROGRAM.program_id


def write(database: Database, *batches: Batch) -> None:
    """Write batches as the indexer would."""

    async def main() -> None:
        async with await connect(database.for_role(INDEXER_ROLE)) as connection:
            tables = {ID: await ensure_tables(connection, PROGRAM)}
            for batch in batches:
                await write_batch(connection, batch, tables)

    asyncio.run(main())


def in_lake(database: Database, query: str) -> Sequence[Any]:
    """Return what a reader of the lake sees."""
    with open_duckdb() as duck:
        attach_lake(duck, database.dsn, None, read_only=True)
        return duck.execute(query).fetchall()


def body_of(slot: int, note: str = "") -> bytes:
    """Return a body that knows its slot."""
    return json.dumps({"slot": slot, "note": note, "logs": ["Program log: x"] * 20}).encode()


def with_bodies(batch: Batch) -> Batch:
    """Return the batch with a body for each transaction."""
    return replace(batch, raw={row.signature: body_of(row.slot) for row in batch.transactions})


def read(database: Database, first: int = 0, last: int = 2**60, **options: Any) -> list[RawBody]:
    """Return all bodies, after checking that each is one."""
    found = [
        row for rows in iterate_bodies(database.for_role(INDEXER_ROLE), ID, first, last, **options) for row in rows
    ]
    assert len({row.signature for row in found}) == len(found), "a body came twice"
    return sorted(found, key=lambda row: row.slot)


@given(st.binary())
def test_a_body_comes_back_from_its_compressed_form(body: bytes) -> None:
    """Of any length, the empty one too."""
    assert decompress_body(compress_body(body)) == body


@pytest.mark.parametrize("size", [255, 256, 257, 65_791, 65_792, 1 << 20])
def test_a_long_body_comes_back_too(size: int) -> None:
    """Around the lengths at which compressed forms change."""
    body = b"ab" * (size // 2) + b"c" * (size % 2)
    assert decompress_body(compress_body(body)) == body


@pytest.mark.parametrize("data", [b"", b"{}", b"\x28\xb5\x2f\xfd\x00\x00\x00", b"\x28\xb5\x2f\xfd\x20\x05rubbish"])
def test_what_is_no_compressed_body_is_said(data: bytes) -> None:
    """A DataError, never bytes that look like a body."""
    with pytest.raises(DataError, match="a stored body"):
        decompress_body(data)


def test_bodies_are_read_from_lake_and_hot_rows_once(database: Database, tmp_path: Path) -> None:
    """Before there is a lake, with half of them in it, and with all; also of a part of the slots."""
    whole = with_bodies(VaultRows(PROGRAM).batch(range(1, 401)))
    write(database, replace(whole, frontiers={ID: 200}))
    slots = list(range(1, 401))
    assert [row.slot for row in read(database)] == slots
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        exported = lake.export()
        assert exported.rows["ephemeral_vault", "raw_transactions"] == 200
        with psycopg.connect(database.dsn) as connection:
            connection.execute("delete from capstan.raw_transactions where slot <= 150")
        for batch_rows in (7, 100, 1000):
            found = read(database, batch_rows=batch_rows)
            assert [row.slot for row in found] == slots
        assert all(row.body == body_of(row.slot) and row.block_time == START_UNIX_S + row.slot for row in found)
        assert {row.signature for row in found} == {row.signature for row in whole.transactions}
        assert [row.slot for row in read(database, 190, 210)] == list(range(190, 211))
        write(database, Batch(frontiers={ID: 400}))
        lake.export()
    assert [row.slot for row in read(database)] == slots


def test_confirmed_bodies_are_told_apart(database: Database) -> None:
    """Whoever decodes them again writes them as what they are."""
    rows = VaultRows(PROGRAM)
    sure, unsure = rows.transaction(3), rows.transaction(4, commitment="confirmed")
    write(database, with_bodies(Batch([sure, unsure])))
    assert [row.finalized for row in read(database)] == [True, False]


def test_a_late_body_replaces_the_one_in_the_lake(database: Database, tmp_path: Path) -> None:
    """One whose logs were cut is replaced by the whole one; before that export, too, only the new one is read."""
    rows = VaultRows(PROGRAM)
    cut, stays, late = rows.transaction(5, complete=False), rows.transaction(6), rows.transaction(7)
    write(database, with_bodies(Batch([cut, stays], frontiers={ID: 100})))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
        whole = Batch(
            [replace(cut, complete=True), late], raw={cut.signature: body_of(5, "whole"), late.signature: b"{}"}
        )
        write(database, whole)
        expected = [body_of(5, "whole"), body_of(6), b"{}"]
        assert [row.body for row in read(database)] == expected
        assert lake.export().late == 2
    found = in_lake(database, "select body from lake.ephemeral_vault.raw_transactions order by slot")
    assert [row[0] for row in found] == expected
    assert [row.body for row in read(database)] == expected


def test_a_late_transaction_without_a_body_keeps_the_one_in_the_lake(database: Database, tmp_path: Path) -> None:
    """Nothing is deleted there that the hot side cannot give back."""
    rows = VaultRows(PROGRAM)
    row = rows.transaction(5, complete=False)
    write(database, with_bodies(Batch([row], frontiers={ID: 100})))
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
        write(database, Batch([replace(row, complete=True)]))
        assert lake.export().late == 1
    assert [found.body for found in read(database)] == [body_of(5)]


@pytest.mark.timeout(170)
def test_bodies_are_read_once_while_they_move_to_the_lake(database: Database, tmp_path: Path) -> None:
    """A walk beside an exporter misses none and gives none twice."""
    total = 200
    write(database, with_bodies(VaultRows(PROGRAM).batch(range(1, total + 1), frontier=False)))
    stop = threading.Event()

    def export() -> None:
        try:
            with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake", merge_every=5) as lake:
                for frontier in range(20, total + 1, 20):
                    write(database, Batch(frontiers={ID: frontier}))
                    lake.export()
        finally:
            stop.set()

    thread = threading.Thread(target=export)
    thread.start()
    walks = 0
    try:
        while not stop.is_set():
            assert [row.slot for row in read(database, batch_rows=50)] == list(range(1, total + 1))
            walks += 1
    finally:
        thread.join()
    assert walks > 0


def test_a_program_that_is_not_here_is_said(database: Database) -> None:
    """Rather than no bodies."""
    with pytest.raises(DataError, match="is not indexed in this database"):
        list(iterate_bodies(database.for_role(INDEXER_ROLE), bytes(32), 0, 1))
