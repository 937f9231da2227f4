"""
The home programs as localnet runs them: C sources, and the SBF files built from them.

The files are committed, so running needs no compiler; `build.py` makes them. What a program's instructions, accounts
and events look like to a client is in `localnet.clients` and, for every other reader, in the program's IDL.
"""

from importlib.resources import files

from indexer.errors import DataError
from localnet.clients import collateral_vault, ephemeral_vault, liquidation_engine

PROGRAM_IDS: dict[str, bytes] = {
    "ephemeral_vault": bytes(ephemeral_vault.PROGRAM_ID),
    "collateral_vault": bytes(collateral_vault.PROGRAM_ID),
    "liquidation_engine": bytes(liquidation_engine.PROGRAM_ID),
}
"""Each home program's default address, 32 bytes, by the program's name."""


def load_elf(name: str) -> bytes:
    """
    Return the built program, ready for the VM.

    Raises:
        DataError: there is no such program, or its file is missing from the installation.
    """
    path = files(__name__) / name / f"{name}.so"
    if name not in PROGRAM_IDS or not path.is_file():
        raise DataError(f"no built program {name!r}: known are {', '.join(PROGRAM_IDS)}")
    return path.read_bytes()
