"""
The registry in PostgreSQL: each program's IDLs by the slot from which they are valid, and the tables they need.

Whatever changes here is one transaction: the IDL, the tables and columns it brings, the view over all events, and a
new generation. It waits for the batches that are being written and they for it, so that nothing decoded with the older
registry is committed after it; a batch that comes too late is decoded again (writer.py). The tables are made by
tables.py.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from indexer.chain.idl import load_idl
from indexer.chain.idl_diff import diff_idls
from indexer.chain.program import Program
from indexer.errors import DataError
from indexer.store.database import AsyncConnection, transaction
from indexer.store.queries import load_queries
from indexer.store.tables import evolve_tables, group_versions, lock_tables, make_schema, select_tables
from indexer.store.typed import ProgramTables, escape_text, plan_tables, unescape_text

QUERIES = load_queries("registry")

SLOT_MAX = 2**63 - 1


class Version(NamedTuple):
    """A program by one of its IDLs, valid from that slot up to the next version's."""

    from_slot: int
    program: Program


class Registered(NamedTuple):
    """
    The registry as it was at one moment.

    Args:
        generation: grows with every change.
        versions: program id -> its versions by from_slot.
        tables: program id -> where its events and accounts go.
    """

    generation: int
    versions: Mapping[bytes, tuple[Version, ...]]
    tables: Mapping[bytes, ProgramTables]


class Added(NamedTuple):
    """
    What `add_version` did.

    Args:
        replaced: another IDL had been valid from the same slot.
        known: this very IDL had been; nothing was changed.
        changes: one sentence for each table or column that was made.
        to_slot: the last slot for which the version is valid, None where no later version follows.
        stored: transactions of the program in that range that had been decoded with another IDL.
    """

    from_slot: int
    to_slot: int | None
    replaced: bool
    known: bool
    changes: tuple[str, ...]
    stored: int


async def ensure_tables(connection: AsyncConnection, program: Program) -> ProgramTables:
    """
    Register `program` from slot 0 on, unless its IDL is registered already, and return the tables of all its versions.

    An IDL that decodes as the newest registered one does (other docs, other instructions) takes its place.

    Raises:
        DataError: another IDL is registered for the program.
        RetryableError: the server went away, or a table was busy for too long.
    """
    async with transaction(connection):
        await lock_tables(connection)
        text, digest = _stored_text(program)
        versions = await _select_versions(connection, program.program_id)
        if not versions:
            await connection.execute(QUERIES["lock_registry"])
            schema = await make_schema(connection, program)
            await _store_version(connection, program, schema, 0, newest=True)
            versions = [_Stored(0, text, digest)]
            await connection.execute(QUERIES["raise_generation"])
        elif all(version.digest != digest for version in versions):
            newest = versions[-1]
            difference = _difference(_compile(program.program_id, newest), program)
            if difference is not None:
                raise DataError(_refusal(program, difference))
            schema, _ = await _select_program(connection, program.program_id)
            await connection.execute(QUERIES["lock_registry"])
            await _store_version(connection, program, schema, newest.from_slot, newest=True)
            versions[-1] = _Stored(newest.from_slot, text, digest)
            await connection.execute(QUERIES["raise_generation"])
        compiled = [
            Version(v.from_slot, program if v.digest == digest else _compile(program.program_id, v)) for v in versions
        ]
        schema, _ = await _select_program(connection, program.program_id)
        tables, _ = await evolve_tables(connection, schema, compiled)
    return tables


async def add_version(connection: AsyncConnection, program: Program, from_slot: int) -> Added:
    """
    Register the IDL of `program` as valid from `from_slot` on, up to the next version that is there.

    Args:
        connection: of the operator's own login, not in a transaction.

    Raises:
        RetryableError: the server went away, or a table was busy for too long; nothing was changed.
    """
    async with transaction(connection):
        await lock_tables(connection)
        await connection.execute(QUERIES["lock_registry"])
        text, digest = _stored_text(program)
        versions = await _select_versions(connection, program.program_id)
        at = [version for version in versions if version.from_slot == from_slot]
        later = [version.from_slot for version in versions if version.from_slot > from_slot]
        to_slot = min(later) - 1 if later else None
        if at and at[0].digest == digest:
            return Added(from_slot, to_slot, replaced=False, known=True, changes=(), stored=0)
        if versions:
            schema, _ = await _select_program(connection, program.program_id)
        else:
            schema = await make_schema(connection, program)
        await _store_version(connection, program, schema, from_slot, newest=not later)
        versions = sorted([*(v for v in versions if v not in at), _Stored(from_slot, text, digest)])
        compiled = [
            Version(v.from_slot, program if v.from_slot == from_slot else _compile(program.program_id, v))
            for v in versions
        ]
        _, changes = await evolve_tables(connection, schema, compiled, renewed=from_slot)
        await connection.execute(QUERIES["raise_generation"])
        parameters = {
            "program_id": program.program_id,
            "from_slot": from_slot,
            "to_slot": SLOT_MAX if to_slot is None else to_slot,
        }
        row = await (await connection.execute(QUERIES["count_transactions"], parameters)).fetchone()
    return Added(from_slot, to_slot, bool(at), known=False, changes=tuple(changes), stored=int(row[0]) if row else 0)


async def select_generation(connection: AsyncConnection) -> int:
    """Return the registry's generation: another one than before means that something has changed."""
    async with transaction(connection):
        return await _generation(connection)


async def load_registered(connection: AsyncConnection, program_ids: Collection[bytes] | None = None) -> Registered:
    """
    Return the registry: of these programs, or of all.

    Raises:
        DataError: a stored IDL cannot be read by this version of Capstan.
    """
    versions: dict[bytes, list[Version]] = {}
    tables: dict[bytes, ProgramTables] = {}
    schemas: dict[bytes, str] = {}
    async with transaction(connection):
        await connection.execute("set transaction isolation level repeatable read")
        generation = await _generation(connection)
        wanted = None if program_ids is None else list(program_ids)
        cursor = await connection.execute(QUERIES["select_all_idls"], {"program_ids": wanted})
        for program_id, schema, from_slot, text in await cursor.fetchall():
            stored = _Stored(int(from_slot), str(text), b"")
            schemas[bytes(program_id)] = str(schema)
            compiled = _compile(bytes(program_id), stored)
            versions.setdefault(bytes(program_id), []).append(Version(stored.from_slot, compiled))
        for program_id, schema in schemas.items():
            known = await select_tables(connection, schema)
            tables[program_id] = group_versions(program_id, schema, versions[program_id], known)
    return Registered(generation, {key: tuple(value) for key, value in versions.items()}, tables)


class StoredCount(NamedTuple):
    """Transactions of a program in PostgreSQL, and how many of them have no raw body there."""

    transactions: int
    without_body: int


async def count_stored(connection: AsyncConnection, program_id: bytes, from_slot: int, to_slot: int) -> StoredCount:
    """Count a program's transactions in a range of slots; those that only the lake still has are not among them."""
    parameters = {"program_id": program_id, "from_slot": from_slot, "to_slot": to_slot}
    async with transaction(connection):
        row = await (await connection.execute(QUERIES["count_bodies"], parameters)).fetchone()
    assert row is not None, "a count"
    return StoredCount(int(row[0]), int(row[1]))


async def select_tip(connection: AsyncConnection, program_id: bytes) -> int | None:
    """Return the newest slot that is known of, from the chain or of the program's rows; None where there is none."""
    async with transaction(connection):
        row = await (await connection.execute(QUERIES["select_tip"], {"program_id": program_id})).fetchone()
    return None if row is None or row[0] is None else int(row[0])


# --- IDLs ------------------------------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    from_slot: int
    text: str  # escaped
    digest: bytes


def _stored_text(program: Program) -> tuple[str, bytes]:
    text = escape_text(program.idl.text)
    return text, hashlib.sha256(text.encode()).digest()


def _compile(program_id: bytes, stored: _Stored) -> Program:
    source = f"the registered IDL from slot {stored.from_slot} on"
    return Program.from_idl(load_idl(unescape_text(stored.text), source=source), program_id)


def _difference(registered: Program, program: Program) -> str | None:
    """What makes the two decode events or accounts otherwise, or into other columns; None where nothing does."""
    for change in diff_idls(registered.idl, program.idl):
        if change.path.startswith(("events.", "accounts.")):
            return f"{change.path} {change.detail}"
    if plan_tables(registered, "any") != plan_tables(program, "any"):
        return "its tables have other columns"
    return None


def _refusal(program: Program, difference: str) -> str:
    source = program.idl.source
    return (
        f"the IDL {source} of {program.name} is not the registered one ({difference}): run `capstan idl add {source} "
        "--from-slot SLOT` with the first slot in which the upgraded program ran, or index with the registered IDL"
    )


async def _generation(connection: AsyncConnection) -> int:
    row = await (await connection.execute(QUERIES["select_generation"])).fetchone()
    assert row is not None, "the migration made it"
    return int(row[0])


async def _select_versions(connection: AsyncConnection, program_id: bytes) -> list[_Stored]:
    cursor = await connection.execute(QUERIES["select_idls"], {"program_id": program_id})
    return [_Stored(int(slot), str(text), bytes(digest)) for slot, text, digest in await cursor.fetchall()]


async def _select_program(connection: AsyncConnection, program_id: bytes) -> tuple[str, bytes]:
    row = await (await connection.execute(QUERIES["select_program"], {"program_id": program_id})).fetchone()
    assert row is not None, "who has versions is registered"
    return str(row[0]), bytes(row[1])


async def _store_version(
    connection: AsyncConnection, program: Program, schema: str, from_slot: int, *, newest: bool
) -> None:
    text, digest = _stored_text(program)
    parameters = {
        "program_id": program.program_id,
        "name": program.name,
        "schema_name": schema,
        "idl": text,
        "idl_sha256": digest,
        "from_slot": from_slot,
    }
    if newest:
        await connection.execute(QUERIES["upsert_program"], parameters)
    await connection.execute(QUERIES["upsert_idl"], parameters)
