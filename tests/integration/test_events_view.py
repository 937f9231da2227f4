"""The view `events`: every event as one JSON value, in the same format everywhere."""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.chain.value import to_json_value
from indexer.idls import home_programs
from indexer.registry import Registry, open_registry
from indexer.store.batch import Batch, Event, TransactionRow
from indexer.store.database import DASHBOARD_ROLE, INDEXER_ROLE, Database, connect
from indexer.store.lake import Lake
from indexer.store.reader import Reader
from indexer.store.writer import write_batch
from tests.fixtures.idl_values import random_fields
from tests.fixtures.vault_rows import VaultRows, load_vault_program

IDLS = Path(__file__).parents[1] / "fixtures" / "idls"
ALL_KINDS = [
    "u8", "i16", "u32", "u64", "i64", "u128", "i256", "f32", "f64", "bool", "string", "pubkey", "bytes",
    {"array": ["u8", 4]}, {"array": ["u16", 2]}, {"vec": "u8"}, {"vec": "string"}, {"vec": "pubkey"},
    {"option": "u64"}, {"option": "f64"}, {"option": "pubkey"}, {"option": "bytes"}, {"option": {"option": "bool"}},
    {"option": {"array": ["u8", 2]}}, {"coption": "u64"},
]  # fmt: skip


def odd_program() -> Program:
    """Return a program whose events have every kind of field, more of them than a function takes, or none."""
    many = [{"name": f"f{n}", "type": ALL_KINDS[n % len(ALL_KINDS)]} for n in range(3 * len(ALL_KINDS))]
    quoted = [{"name": "it's {0} 100%", "type": "string"}, {"name": "slot", "type": "u64"}]
    idl = {
        "metadata": {"name": "odd"},
        "instructions": [],
        "events": [{"name": name, "discriminator": [n] * 8} for n, name in enumerate(["Many", "Quo'ted", "Nothing"])],
        "types": [
            {"name": name, "type": {"kind": "struct", "fields": fields}}
            for name, fields in (("Many", many), ("Quo'ted", quoted), ("Nothing", []))
        ],
    }
    return Program.from_idl(load_idl(json.dumps(idl), source="odd.json"), bytes([9]) * 32)


def programs() -> list[Program]:
    """Return the home programs, those of the fixtures, and the odd one."""
    fixtures = [
        Program.from_idl(load_idl(path.read_bytes(), source=path.name), bytes([n + 1]) * 32)
        for n, path in enumerate(sorted(IDLS.glob("*.json")))
    ]
    return [*home_programs().values(), *fixtures, odd_program()]


def random_events(seed: int, *, each: int, slot: int = 5) -> tuple[list[TransactionRow], list[Event]]:
    """Return `each` events of every type, one a transaction."""
    rows, rng = VaultRows(load_vault_program(), seed), random.Random(seed)
    transactions: list[TransactionRow] = []
    events: list[Any] = []
    for program in programs():
        for name, type_ in program.events.items():
            for _ in range(each if type_.fields or name == "Nothing" else 0):
                row = rows.transaction(slot)
                transactions.append(row)
                event = rows.event(row, name, **random_fields(type_.fields, rng, odd_floats=True))
                events.append(event._replace(program_id=program.program_id))
    return transactions, events


async def store(database: Database, *batches: Batch) -> Registry:
    """Register every program and write the batches."""
    async with await connect(database.dsn) as owner:
        registry = await open_registry(owner, programs())
    async with await connect(database.for_role(INDEXER_ROLE)) as connection:
        for batch in batches:
            await write_batch(connection, batch, registry.tables)
    return registry


def expected(events: Sequence[Event]) -> dict[tuple[str, str], tuple[str, Any]]:
    """Return (signature, kind) -> (program.name, value at the edge)."""
    by_id = {program.program_id: program for program in programs()}
    found = {}
    for event in events:
        program = by_id[event.program_id]
        types = program.events[event.name].fields
        value = {field.name: to_json_value(field.type, event.values[field.name]) for field in types}
        found[str(Signature(event.signature)), event.kind] = (f"{program.name}.{event.name}", value)
    return found


def test_the_value_is_the_edge_format_of_every_event(database: Database, tmp_path: Path) -> None:
    """In PostgreSQL, in DuckDB from the hot tables, and in DuckDB from the lake; NaN, u64::MAX and all."""
    transactions, events = random_events(20, each=12)
    ids = {program.program_id for program in programs()}
    asyncio.run(store(database, Batch(transactions, events, frontiers=dict.fromkeys(ids, 10))))
    wanted = expected(events)
    query = "select signature, kind, program, name, value::varchar as value from events"
    with psycopg.connect(database.for_role(DASHBOARD_ROLE)) as connection:
        found = {(s, k): (f"{p}.{n}", _read(value)) for s, k, p, n, value in connection.execute(query)}
    assert found == wanted

    def by_reader() -> dict[tuple[str, str], tuple[str, Any]]:
        with Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:
            rows = reader.select(query).rows()
        return {(s, k): (f"{p}.{n}", _read(value)) for s, k, p, n, value in rows}

    assert by_reader() == wanted
    with Lake.open(database.for_role(INDEXER_ROLE), tmp_path / "lake") as lake:
        assert sum(lake.export().rows.values()) >= len(events)
    assert by_reader() == wanted


def test_commitment_and_order_of_columns(database: Database) -> None:
    """A confirmed event says so; what has no transaction any more was finalized."""
    rows = VaultRows(load_vault_program())
    commitments = ["confirmed", "finalized", "finalized"]
    confirmed, finalized, pruned = (rows.transaction(n, commitment=c) for n, c in enumerate(commitments))
    events = [rows.deposit(row, rows.key()) for row in (confirmed, finalized, pruned)]
    asyncio.run(store(database, Batch([confirmed, finalized, pruned], events)))
    columns = ["program", "name", "signature", "slot", "block_time", "kind", "ordinal", "commitment", "value"]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("delete from capstan.transactions where slot = 2")
        cursor = connection.execute("select * from capstan.events order by slot")
        assert [column.name for column in cursor.description or ()] == columns
        assert [row[7] for row in cursor] == commitments
    with Reader.open(database.for_role(DASHBOARD_ROLE)) as reader:
        frame = reader.select("select * from events order by slot")
        assert frame.columns == columns
        assert frame["commitment"].to_list() == commitments


def test_a_nul_stays_escaped(database: Database) -> None:
    """jsonb cannot hold it; the escape's own sign is shown once, as it was."""
    rows, program = VaultRows(load_vault_program()), odd_program()
    row = rows.transaction(1)
    values: dict[str, Any] = {"it's {0} 100%": "a\0b\u241b", "slot": 7}
    event = rows.event(row, "Quo'ted", **values)._replace(program_id=program.program_id)
    asyncio.run(store(database, Batch([row], [event])))
    with psycopg.connect(database.dsn) as connection:
        found = connection.execute("select value from events where name = 'Quo''ted'").fetchall()
    assert found == [({"it's {0} 100%": "a\u241b0b\u241b", "slot": "7"},)]


def test_a_filter_leaves_one_table(database: Database) -> None:
    """Program and name are constants of each branch: the planner drops the others."""
    rows = VaultRows(load_vault_program())
    row = rows.transaction(1)
    events = [rows.deposit(row, rows.key()), rows.created(row, rows.key(), 1, 2)]
    asyncio.run(store(database, Batch([row], events)))
    query = "explain select * from events where program = 'ephemeral_vault' and name = 'AutoDeposit'"
    with psycopg.connect(database.dsn) as connection:
        plan = "\n".join(row[0] for row in connection.execute(query))
    assert "event_auto_deposit" in plan
    assert "event_vault_created" not in plan


@pytest.mark.parametrize("size", [0, 1, 7, 8, 32, 33, 64])
def test_base58_of_any_bytes(database: Database, size: int) -> None:
    """The same text as everywhere else, leading zeros and all."""
    values = [bytes(size), b"\xff" * size, bytes(size // 2) + b"\x01" * (size - size // 2)]
    with psycopg.connect(database.dsn) as connection:
        found = [connection.execute("select capstan.base58(%s)", (value,)).fetchone() for value in values]
        assert connection.execute("select capstan.base58(null)").fetchone() == (None,)
    if size == 32:
        assert found == [(str(Pubkey(value)),) for value in values]
    if size == 64:
        assert found == [(str(Signature(value)),) for value in values]
    assert [_decode(row[0]) for row in found if row] == values


def _read(text: str) -> Any:
    """A large float may be written without an exponent; whole numbers of that size come as strings."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))


def _decode(text: str) -> bytes:
    number = 0
    for letter in text:
        number = number * 58 + "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".index(letter)
    return bytes(len(text) - len(text.lstrip("1"))) + number.to_bytes((number.bit_length() + 7) // 8, "big")
