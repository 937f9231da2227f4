"""
The IDLs of the home programs, indexed where nothing else is asked for, and how a command line names others.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from solders.pubkey import Pubkey

from indexer.chain.idl import load_idl
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


def _named(argument: str) -> Program:
    address, separator, rest = argument.partition("=")
    path = Path(rest if separator else argument)
    program_id = _program_id(address, argument) if separator else None
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the IDL {path} cannot be read ({error.strerror}): check --idl") from None
    return Program.from_idl(load_idl(text, source=str(path)), program_id)


def _program_id(address: str, argument: str) -> bytes:
    try:
        return bytes(Pubkey.from_string(address))
    except ValueError:
        raise SettingsError(
            f"{address!r} in --idl {argument} is not a program id: write it as [PROGRAM=]FILE, PROGRAM in base58"
        ) from None
