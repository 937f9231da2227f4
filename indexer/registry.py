"""
The programs in memory, each by all versions of its IDL: what decodes a transaction depends on its slot.

A registry is a mapping from program id to the newest version of the program, so that who asks for nothing else need
not know of versions. It is filled from the tables (store/registry.py) and filled again when they have changed; `tables`
changes with it, in one step. What a version means for tables and columns is decided there, not here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

from indexer.chain.codec import DecodeError
from indexer.chain.program import Decoded, Program
from indexer.store.database import AsyncConnection
from indexer.store.registry import Registered, Version, ensure_tables, load_registered, select_generation
from indexer.store.typed import ProgramTables, version_index


class Registry(Mapping[bytes, Program]):
    """
    Programs by id, in all their versions.

    Attributes:
        generation: of the registry in the database; None where there is none, so that nothing can change.
        tables: where events and accounts go, by program id; always the same mapping, with other content after a reload.
    """

    def __init__(self, registered: Registered | None = None) -> None:
        self.generation: int | None = None
        self.tables: dict[bytes, ProgramTables] = {}
        self._versions: Mapping[bytes, tuple[Version, ...]] = {}
        self._newest: Mapping[bytes, Program] = {}
        self._from_slots: list[int] = []
        self._spans: list[Mapping[bytes, Program]] = [{}]
        if registered is not None:
            self._fill(registered.versions)
            self.generation = registered.generation
            self.tables.update(registered.tables)

    @classmethod
    def single(cls, programs: Mapping[bytes, Program]) -> Self:
        """Return a registry with one version of each program, valid for every slot."""
        registry = cls()
        registry._fill({program_id: (Version(0, program),) for program_id, program in programs.items()})
        return registry

    def __getitem__(self, program_id: bytes) -> Program:
        """Return the newest version of a program."""
        return self._newest[program_id]

    def __iter__(self) -> Iterator[bytes]:
        """Go through the program ids."""
        return iter(self._newest)

    def __len__(self) -> int:
        """Count the programs."""
        return len(self._newest)

    def at(self, slot: int) -> Mapping[bytes, Program]:
        """Return the programs as they were in a slot. Before its first version a program is read by the first."""
        if len(self._spans) == 1:
            return self._spans[0]
        return self._spans[version_index(self._from_slots, slot)]

    def split(self, slots: Sequence[int]) -> list[tuple[Mapping[bytes, Program], list[int]]]:
        """
        Return the versions that are needed for some transactions, each with the positions of those it is valid for.

        Args:
            slots: of the transactions, in any order.
        """
        if len(self._spans) == 1:
            return [(self._spans[0], list(range(len(slots))))] if slots else []
        positions: dict[int, list[int]] = {}
        for position, slot in enumerate(slots):
            positions.setdefault(version_index(self._from_slots, slot), []).append(position)
        return [(self._spans[index], found) for index, found in sorted(positions.items())]

    def versions(self, program_id: bytes) -> tuple[Version, ...]:
        """Return the versions of one program by from_slot."""
        return self._versions[program_id]

    async def reload(self, connection: AsyncConnection) -> bool:
        """
        Read the registry again if it has changed, and return whether it had.

        Raises:
            DataError: an IDL was added that this version of Capstan cannot read.
            RetryableError: the database does not answer.
        """
        if self.generation == await select_generation(connection):
            return False
        registered = await load_registered(connection, tuple(self))
        # No await from here on: nobody sees one half of it.
        self._fill(registered.versions)
        self.tables.update(registered.tables)
        self.generation = registered.generation
        return True

    def _fill(self, versions: Mapping[bytes, tuple[Version, ...]]) -> None:
        self._versions = versions
        self._newest = {program_id: found[-1].program for program_id, found in versions.items()}
        # A first version is valid from the beginning, whatever its from_slot says.
        starts = {version.from_slot for found in versions.values() for version in found[1:]}
        self._from_slots = sorted({0, *starts})
        self._spans = [
            {program_id: _valid(found, slot).program for program_id, found in versions.items()}
            for slot in self._from_slots
        ]


def _valid(versions: Sequence[Version], slot: int) -> Version:
    return versions[version_index([version.from_slot for version in versions], slot)]


async def open_registry(connection: AsyncConnection, programs: Iterable[Program]) -> Registry:
    """
    Register programs from slot 0 on, where they are not registered yet, and return them in all their versions.

    Args:
        connection: of the operator's own login: tables may have to be made.

    Raises:
        DataError: another IDL is registered for one of them.
    """
    program_ids = []
    for program in programs:
        await ensure_tables(connection, program)
        program_ids.append(program.program_id)
    return Registry(await load_registered(connection, program_ids))


def decode_account(
    programs: Mapping[bytes, Program], program_id: bytes, data: bytes, slot: int
) -> tuple[Decoded, int | None]:
    """
    Return what an account of the program says at `slot`, and a slot whose IDL read it (None where there is one IDL).

    An upgrade does not touch accounts: one that has not been written since is read by the IDL of its time, so where the
    version of the slot cannot, older ones are tried, newest first.

    Raises:
        DecodeError: no version can read it; it is what the version of the slot says.
    """
    if not isinstance(programs, Registry):
        return programs[program_id].decode_account(data), None
    versions = programs.versions(program_id)
    newest = version_index([version.from_slot for version in versions], slot)
    refused: DecodeError | None = None
    for version in reversed(versions[: newest + 1]):
        try:
            return version.program.decode_account(data), version.from_slot
        except DecodeError as error:
            refused = refused or error
    assert refused is not None, "there is at least one version"
    raise refused
