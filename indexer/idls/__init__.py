"""
The IDLs of the home programs, indexed where nothing else is asked for, and how a command line names others.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from solders.pubkey import Pubkey

from indexer.chain.idl import Idl, load_idl
from indexer.chain.program import Program
from indexer.errors import SettingsError

HOME = ("ephemeral_vault", "collateral_vault", "liquidation_engine")


def home_programs() -> dict[bytes, Program]:
    """Return the home programs at their default ids, by id."""
    files = [resources.files("indexer.idls") / f"{name}.json" for name in HOME]
    programs = [Program.from_idl(load_idl(file.read_text("utf-8"), source=file.name)) for file in files]
    return {program.program_id: program for program in programs}


def named_programs(arguments: Sequence[str]) -> Mapping[bytes, Program]:
    """
    Return the programs that `[PROGRAM=]FILE` arguments name, by id; the home programs where there are none.

    Raises:
        SettingsError: a file cannot be read, a program id is none, or one is named twice.
        DataError: a file is not an IDL.
    """
    if not arguments:
        return home_programs()
    programs: dict[bytes, Program] = {}
    for argument in arguments:
        program = _named(argument)
        if program.program_id in programs:
            raise SettingsError(f"{Pubkey(program.program_id)} is named by two IDLs: give each program one")
        programs[program.program_id] = program
    return programs


class GivenIdl(NamedTuple):
    """
    An IDL that decodes payloads, which needs no address.

    Args:
        program: its `program_id` means nothing where `address` is None.
        address: the program's id, 32 bytes; None where nobody said.
    """

    program: Program
    address: bytes | None


def given_idls(arguments: Sequence[str]) -> list[GivenIdl]:
    """
    Return the IDLs that `[PROGRAM=]FILE` arguments name, addressed or not; the home programs where there are none.

    Raises:
        SettingsError: a file cannot be read, a program id is none, or one is named twice.
        DataError: a file is not an IDL.
    """
    if not arguments:
        return [GivenIdl(program, program_id) for program_id, program in home_programs().items()]
    given: list[GivenIdl] = []
    for argument in arguments:
        program_id, path = _parted(argument)
        idl = read_idl(path)
        if program_id is None and idl.address is None:
            given.append(GivenIdl(Program.from_idl(idl, bytes(32)), None))
            continue
        program = Program.from_idl(idl, program_id)
        if any(program.program_id == other.address for other in given):
            raise SettingsError(f"{Pubkey(program.program_id)} is named by two IDLs: give each program one")
        given.append(GivenIdl(program, program.program_id))
    return given


def read_idl(path: Path) -> Idl:
    """
    Return the IDL in a file.

    Raises:
        SettingsError: the file cannot be read.
        DataError: it is not an IDL.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the IDL {path} cannot be read ({error.strerror}): check the path") from None
    return load_idl(text, source=str(path))


def _named(argument: str) -> Program:
    program_id, path = _parted(argument)
    return Program.from_idl(read_idl(path), program_id)


def _parted(argument: str) -> tuple[bytes | None, Path]:
    """Return program id and file of `[PROGRAM=]FILE`; None where there is no program id."""
    address, separator, rest = argument.partition("=")
    return (_program_id(address, argument), Path(rest)) if separator else (None, Path(argument))


def _program_id(address: str, argument: str) -> bytes:
    try:
        return bytes(Pubkey.from_string(address))
    except ValueError:
        raise SettingsError(
            f"{address!r} in --idl {argument} is not a program id: write it as [PROGRAM=]FILE, PROGRAM in base58"
        ) from None
