"""
The engine's key: read from one file, and never shown.

solders prints a Keypair with its secret in `repr`, and one log line or traceback with local variables would be enough
to lose it. So the rest of the engine sees a Signer, which can sign and has a public key, and nothing else.
"""

import json
from pathlib import Path

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from indexer.errors import SettingsError


class Signer:
    """Signs transactions that it also pays for. Its repr is its public key."""

    __slots__ = ("__keypair", "pubkey")

    def __init__(self, keypair: Keypair) -> None:
        self.__keypair = keypair
        self.pubkey = keypair.pubkey()

    def __repr__(self) -> str:
        return f"Signer({self.pubkey})"

    def __reduce__(self) -> str:
        raise TypeError("a Signer is not pickled: its secret stays in this process")

    def sign(self, instructions: list[Instruction], *, blockhash: Hash) -> VersionedTransaction:
        """Return a v0 transaction of `instructions`, paid for and signed by this key alone."""
        message = MessageV0.try_compile(Pubkey.from_bytes(bytes(self.pubkey)), instructions, [], blockhash)
        return VersionedTransaction(message, [self.__keypair])


def read_signer(path: Path) -> Signer:
    """
    Return the signer whose key is in a file of solana-keygen's format: a JSON list of 64 bytes.

    Raises:
        SettingsError: no such file, not readable, or not a keypair. The message never holds any of its content.
    """
    try:
        numbers = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read the engine's keypair {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise SettingsError(
            f"the engine's keypair {path} is not JSON: make one with `solana-keygen new --outfile {path}`"
        ) from None
    valid = isinstance(numbers, list) and len(numbers) == 64
    if not valid or not all(type(n) is int and 0 <= n <= 255 for n in numbers):
        raise SettingsError(f"the engine's keypair {path} is not a list of 64 bytes, as solana-keygen writes it")
    try:
        return Signer(Keypair.from_bytes(bytes(numbers)))
    except ValueError:
        raise SettingsError(
            f"the engine's keypair {path} is damaged: its public half is not that of its secret half"
        ) from None
