"""Files of transactions go into either store, once, whatever is wrong with a line or kills the load."""

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pytest
from solders.hash import Hash

from indexer import archive
from indexer.archive import Archive, Covers, Loaded
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import SettingsError
from indexer.load import read_request
from indexer.registry import open_registry
from indexer.sources import files
from indexer.sources.base import Place
from indexer.sources.files import FileSource, open_sources
from indexer.store import lake_load
from indexer.store.audit import Stored, read_lake, read_postgres
from indexer.store.database import INDEXER_ROLE, Database, connect, open_pool
from indexer.store.duck import attach_lake, open_duckdb
from indexer.store.lake import Lake
from indexer.store.raw import iterate_bodies
from indexer.store.registry import add_version
from tests.fixtures.scripted_node import PROGRAM, Entry

PROGRAMS: Mapping[bytes, Program] = {PROGRAM.program_id: PROGRAM}
GENESIS = str(Hash(bytes(range(32))))


def bodies(count: int) -> list[bytes]:
    """Return bodies of transactions with one event each, three in a slot."""
    made = [Entry(n, 10 + n // 3, amount=n).body(PROGRAM) for n in range(1, count + 1)]
    return [httpx.Response(200, json=body).content for body in made]


def write_lines(path: Path, lines: list[bytes], *, compressed: bool = False) -> Path:
    """Write lines, with zstd where asked for, in several frames as tools that append do."""
    half = len(lines) // 2
    parts = [b"".join(line + b"\n" for line in some) for some in (lines[:half], lines[half:])]
    path.write_bytes(
        b"".join(pa.compress(p, codec="zstd", asbytes=True) for p in parts) if compressed else b"".join(parts)
    )
    return path


def load(
    database: Database, sources: list[str], lake_path: Path | None = None, covers: str | None = None
) -> tuple[Loaded, Archive]:
    """Load into Postgres, or where `lake_path` is given into the lake alone."""

    async def main() -> tuple[Loaded, Archive]:
        async with await connect(database.dsn) as owner:
            registry = await open_registry(owner, [PROGRAM])
        async with open_pool(database.for_role(INDEXER_ROLE)) as pool:
            opened = Archive(pool, registry, None if covers is None else Covers.read(covers))
            if lake_path is None:
                return await opened.to_postgres(open_sources(sources)), opened
            with Lake.open(database.for_role(INDEXER_ROLE), lake_path, bulk=True) as lake:
                return await opened.to_lake(open_sources(sources), lake), opened

    return asyncio.run(main())


def amounts(stored: Stored) -> list[int]:
    return sorted(int(event.values["amount"]) for event in stored.events.values())


def in_lake(database: Database) -> list[int]:
    return amounts(read_lake(database.dsn))


def in_postgres(database: Database) -> list[int]:
    return amounts(read_postgres(database.dsn))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("to_lake", [False, True])
def test_a_file_is_loaded_whole(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool, to_lake: bool
) -> None:
    """Plain or compressed, over many batches, into either store; bodies too; and again it is known."""
    monkeypatch.setattr(files, "BATCH_BYTES", 40_000)
    lines = bodies(300)
    path = write_lines(tmp_path / "some.ndjson", lines, compressed=compressed)
    lake_path = tmp_path / "lake" if to_lake else None
    loaded, _ = load(database, [f"file:{path}"], lake_path, "0:1000")
    assert (loaded.transactions, loaded.events, loaded.bad_lines) == (300, 300, 0)
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        lake.export()
    assert in_lake(database) == list(range(1, 301))
    assert in_postgres(database) == ([] if to_lake else list(range(1, 301)))
    kept = {
        row.body
        for rows in iterate_bodies(database.for_role(INDEXER_ROLE), PROGRAM.program_id, 0, 10**6)
        for row in rows
    }
    assert kept == set(lines)
    again, _ = load(database, [f"file:{path}"], lake_path, "0:1000")
    assert again.transactions == 0, "it was read before"
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select slot from capstan.frontiers").fetchone() == (1000,)


def held_by_lake(database: Database) -> list[Any]:
    """Return rows, distinct signatures and the sum of slots of each kind of table."""
    tables = ("ephemeral_vault.event_auto_deposit", "ephemeral_vault.raw_transactions", "capstan.transactions")
    with open_duckdb() as duck:
        attach_lake(duck, database.dsn, None, read_only=True)
        return [
            duck.execute(f"select sum(1), count(distinct signature), sum(slot) from lake.{table}").fetchone()
            for table in tables
        ]


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_whatever_comes_again_in_whatever_order_is_in_the_lake_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """In the same lake transaction, in a later one, by a load that begins anew, and by another file."""
    monkeypatch.setattr(files, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(archive, "LAKE_BYTES", 35_000)
    monkeypatch.setattr(lake_load, "BODIES_BYTES", 15_000)
    lines = bodies(150)
    wanted = [(150, 150, sum(10 + n // 3 for n in range(1, 151)))] * 3
    if order == "falling":
        lines.reverse()
    elif order == "shuffled":
        random.Random(5).shuffle(lines)
    path = write_lines(tmp_path / "some.ndjson", [*lines, *lines[100:], *lines[:20]])
    load(database, [f"file:{path}"], tmp_path / "lake", "0:1000")
    assert held_by_lake(database) == wanted
    with psycopg.connect(database.dsn) as connection:
        connection.execute("update capstan.files set done = false, bytes_read = 0, lines_read = 0")
    other = write_lines(tmp_path / "other.ndjson", lines[40:60])
    load(database, [f"file:{path}", f"file:{other}"], tmp_path / "lake", "0:1000")
    assert held_by_lake(database) == wanted
    assert in_lake(database) == list(range(1, 151))


def test_both_ways_into_the_lake_give_the_same(database: Database, tmp_path: Path) -> None:
    """Through Postgres and straight: the same events, transactions and bodies."""
    lines = bodies(100)
    path = write_lines(tmp_path / "some.ndjson", lines)
    load(database, [f"file:{path}"], tmp_path / "lake", "0:1000")
    straight = read_lake(database.dsn)
    query = "select signature, slot, epoch(block_time), err, fee, compute_units, complete from {} order by signature"
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        cold = lake._duck.execute(query.format("lake.capstan.transactions")).fetchall()
        with psycopg.connect(database.dsn) as connection:
            connection.execute(
                "update capstan.files set target = 'postgres', done = false, bytes_read = 0, lines_read = 0"
            )
        load(database, [f"file:{path}"])
        hot = lake._duck.execute(query.format("hot.capstan.transactions")).fetchall()
        assert [(*row[:4], int(row[4]), *row[5:]) for row in hot] == [(*row[:4], int(row[4]), *row[5:]) for row in cold]
        assert lake.export().late == 100
    assert read_lake(database.dsn) == straight
    assert in_postgres(database) == in_lake(database)


@pytest.mark.parametrize("to_lake", [False, True])
def test_bad_lines_are_counted_and_everything_around_them_goes_on(
    database: Database, tmp_path: Path, to_lake: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Told with line number and reason; repeated transactions count once."""
    good = bodies(20)
    lines = [*good[:5], b"not json", b"", b"null", *good[5:], good[3], b'{"slot": "x"}', b"\xff\xfe"]
    path = write_lines(tmp_path / "some.ndjson", lines)
    loaded, _ = load(database, [f"file:{path}"], tmp_path / "lake" if to_lake else None, "0:1000")
    assert (loaded.transactions, loaded.bad_lines) == (20, 5)
    assert (in_lake if to_lake else in_postgres)(database) == list(range(1, 21))
    said = capfd.readouterr().out
    assert "line=6" in said.replace(" ", "")
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select lines_read, bad_lines, done from capstan.files").fetchone() == (26, 5, True)


@pytest.mark.parametrize("to_lake", [False, True])
def test_numbers_that_no_chain_has_make_a_line_bad(database: Database, tmp_path: Path, to_lake: bool) -> None:
    """They would fit a column while reading, and no table: the line goes, and a good one of its signature stays."""
    lines = bodies(9)
    wrong: list[bytes] = []
    for place, value in (("slot", -1), ("blockTime", 1 << 50), ("blockTime", -5), ("fee", -1)):
        body = json.loads(lines[len(wrong)])
        (body["meta"] if place == "fee" else body)[place] = value
        wrong.append(json.dumps(body).encode())
    path = write_lines(tmp_path / "some.ndjson", [*wrong, *lines])
    loaded, _ = load(database, [f"file:{path}"], tmp_path / "lake" if to_lake else None, "0:1000")
    assert (loaded.transactions, loaded.bad_lines) == (9, 4)
    assert (in_lake if to_lake else in_postgres)(database) == list(range(1, 10))


def test_a_file_of_bad_lines_alone_leaves_an_empty_lake(database: Database, tmp_path: Path) -> None:
    """There is nothing to write, and that is no error."""
    path = write_lines(tmp_path / "some.ndjson", [b"not json", b"{}"])
    loaded, _ = load(database, [f"file:{path}"], tmp_path / "lake", "0:1000")
    assert (loaded.transactions, loaded.bad_lines) == (0, 2)
    assert in_lake(database) == []
    assert not list((tmp_path / "lake").rglob("*.parquet"))


def test_a_file_without_covers_moves_no_frontier(database: Database, tmp_path: Path) -> None:
    """What a file has is stored; that it has everything only the operator can say."""
    path = write_lines(tmp_path / "some.ndjson", bodies(5))
    load(database, [f"file:{path}"])
    assert in_postgres(database) == [1, 2, 3, 4, 5]
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select count(*) from capstan.frontiers").fetchone() == (0,)


def refused(database: Database, arguments: list[Any], tmp_path: Path) -> str:
    with pytest.raises(SettingsError) as error:
        load(database, *arguments)
    assert tmp_path
    return str(error.value)


def test_a_load_of_the_lake_alone_hides_nothing(database: Database, tmp_path: Path) -> None:
    """It is refused where slots would be passed that are only in Postgres, not loaded, or somebody else's."""
    first = f"file:{write_lines(tmp_path / 'first', bodies(30)[:15])}"
    second = f"file:{write_lines(tmp_path / 'second', bodies(30)[15:])}"
    lake = tmp_path / "lake"
    load(database, [first])
    assert "PostgreSQL holds 15 transactions" in refused(database, [[second], lake, "0:1000"], tmp_path)
    load(database, [first], None, "0:14")
    with Lake.open(database.for_role(INDEXER_ROLE), lake) as opened:
        opened.export(14)
    assert "load what lies between first" in refused(database, [[second], lake, "900:1000"], tmp_path)
    with psycopg.connect(database.dsn) as connection:
        connection.execute(
            "insert into capstan.programs (program_id, name, schema_name, idl, idl_sha256) "
            "values (%s, 'b', 'b', '', %s)",
            (bytes(32), bytes(32)),
        )
    assert "this database indexes b as well" in refused(database, [[second], lake, "15:1000"], tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rpc:x"], "no source that can be read"),
        (["file:"], "no source that can be read"),
        (["file:/nowhere/at all"], "cannot be read"),
        (["file:/tmp"], "cannot be read"),
    ],
)
def test_sources_that_cannot_be_are_refused(arguments: list[str], said: str) -> None:
    """Before anything is opened."""
    with pytest.raises(SettingsError, match=said):
        open_sources(arguments)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"covers": "5:1"}, "no range of slots"),
        ({"covers": "x"}, "no range of slots"),
        ({"genesis": "nonsense"}, "neither a genesis hash nor one of"),
        ({"lake_only": True}, "say with --covers"),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path: Path, flags: dict[str, Any], said: str) -> None:
    """In a sentence that says which."""
    path = write_lines(tmp_path / "some", [])
    given: dict[str, Any] = {"covers": None, "genesis": None, "lake_only": False} | flags
    with pytest.raises(SettingsError, match=said):
        read_request([f"file:{path}"], **given)
    with pytest.raises(SettingsError, match="are about files"):
        read_request([], **{**given, "lake_only": True})


def test_a_broken_compressed_file_says_so(database: Database, tmp_path: Path) -> None:
    """What was read before the break is stored; the rest is an error, not an end."""
    path = write_lines(tmp_path / "some.zst", bodies(50), compressed=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes(20))
    with pytest.raises(SettingsError, match="cannot be read to its end"):
        load(database, [f"file:{path}"])


@pytest.mark.parametrize("cut", [1, 100, 39_999, 40_000, 40_001])
def test_batches_never_cut_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """Whatever the size of a read; and every place a batch names is one to go on from."""
    lines = bodies(40)
    path = write_lines(tmp_path / "some", [*lines[:-1]])
    path.write_bytes(path.read_bytes() + lines[-1])  # the last one without its line end
    monkeypatch.setattr(files, "BATCH_BYTES", cut)
    source = FileSource.open(path)
    found = list(source.batches(Place()))
    assert b"".join(batch.bodies for batch in found) == path.read_bytes()
    assert sum(len(bytes(batch.bodies).splitlines()) for batch in found) == 40
    for at, batch in enumerate(found[:-1]):
        assert [bytes(later.bodies) for later in source.batches(batch.next)] == [
            bytes(later.bodies) for later in found[at + 1 :]
        ]
        assert batch.first_line == sum(len(bytes(earlier.bodies).splitlines()) for earlier in found[:at])


def test_the_command_loads_from_a_pipe_without_any_node(database: Database, tmp_path: Path) -> None:
    """`--source file:-`; the chain is told once, another one is refused, and none at all is warned of."""
    idl = tmp_path / "idl.json"
    idl.write_text(PROGRAM.idl.text)
    lines = b"".join(line + b"\n" for line in bodies(25))

    def run(*flags: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "capstan", "index", "--source", "file:-", "--idl", str(idl), "--json", *flags],
            env={**os.environ, "DATABASE_URL": database.dsn, "CAPSTAN_LAKE": str(tmp_path / "lake")},
            input=lines,
            capture_output=True,
            timeout=100,
            check=False,
        )

    warned = run()
    assert warned.returncode == 0, warned.stderr
    assert b"name it with --genesis" in warned.stderr
    done = run("--covers", "0:100", "--genesis", GENESIS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["transactions"] == 25
    assert in_lake(database) == list(range(1, 26))
    other = run("--genesis", "devnet")
    assert b"belongs to the chain with genesis hash" in other.stderr


def bytes_read(database: Database) -> int:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("select coalesce(max(bytes_read), 0) from capstan.files").fetchone()
    return int(row[0]) if row else 0


def upgraded() -> Program:
    """Return the program as an upgrade left it: its deposits say one thing more."""
    idl = json.loads(PROGRAM.idl.text)
    deposit = next(type_ for type_ in idl["types"] if type_["name"] == "AutoDeposit")
    deposit["type"]["fields"].append({"name": "extra", "type": "u8"})
    return Program.from_idl(load_idl(json.dumps(idl), source="upgraded.json"))


@pytest.mark.parametrize("to_lake", [False, True])
def test_a_file_over_an_upgrade_is_read_by_the_versions_of_its_slots(
    database: Database, tmp_path: Path, to_lake: bool
) -> None:
    """In one batch of lines: old events without the new field, new ones with it."""
    newer = upgraded()
    lines = bodies(60)
    for n in range(30, 61):
        body = json.loads(lines[n - 1])
        values = {"vault": bytes(32), "amount": n, "total_deposited": n, "extra": n}
        payload = base64.b64encode(newer.encode_event("AutoDeposit", values)).decode()
        body["meta"]["logMessages"][1] = f"Program data: {payload}"
        lines[n - 1] = json.dumps(body).encode()
    first_new = json.loads(lines[29])["slot"]

    async def register() -> None:
        async with await connect(database.dsn) as owner:
            await open_registry(owner, [PROGRAM])
            await add_version(owner, newer, first_new)

    asyncio.run(register())
    path = write_lines(tmp_path / "some.ndjson", lines)
    loaded, _ = load(database, [f"file:{path}"], tmp_path / "lake" if to_lake else None, "0:1000")
    stored = read_lake(database.dsn) if to_lake else read_postgres(database.dsn)
    assert loaded.bad_lines == 0
    assert amounts(stored) == list(range(1, 61))
    extras = {int(event.values["amount"]): event.values["extra"] for event in stored.events.values()}
    assert extras == {n: None if n < 30 else str(n) for n in range(1, 61)}


LOADER = """
import sys
from pathlib import Path
from indexer import archive
from indexer.sources import files
files.BATCH_BYTES = 20_000
archive.LAKE_BYTES = 50_000
sys.argv[0] = "capstan"
from capstan.__main__ import main
main()
"""


@pytest.mark.timeout(170)
@pytest.mark.parametrize("flag", ["--lake-only", "--catch-up"])
def test_a_killed_load_goes_on_without_loss_or_doubles(database: Database, tmp_path: Path, flag: str) -> None:
    """kill -9 at seeded moments; the last run ends the file."""
    idl = tmp_path / "idl.json"
    idl.write_text(PROGRAM.idl.text)
    path = write_lines(tmp_path / "some.ndjson", bodies(600))
    command = [
        *(sys.executable, "-c", LOADER, "index", "--source", f"file:{path}", "--idl", str(idl), flag),
        *("--covers", "0:1000", "--genesis", GENESIS),
    ]
    environment = {**os.environ, "DATABASE_URL": database.dsn, "CAPSTAN_LAKE": str(tmp_path / "lake")}
    moments = random.Random(11)
    for _ in range(4):
        seen = bytes_read(database)
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and bytes_read(database) == seen:
                time.sleep(0.01)
            time.sleep(moments.random() * 0.15)
            process.kill()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert in_lake(database) == list(range(1, 601))
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("select transactions, done from capstan.files").fetchone() == (600, True)
