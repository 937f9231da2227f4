"""The IDL that a program has on chain: found, unpacked and refused, on a localnet that holds such an account."""

import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from indexer.errors import DataError, RetryableError, SettingsError
from indexer.idls import __file__ as idls_file
from indexer.sources.idl_account import COMPRESSED_BYTES_MAX, IDL_BYTES_MAX, fetch_idl
from indexer.sources.rpc import Rpc
from localnet.accounts import AccountState
from localnet.programs import PROGRAM_IDS
from tests.fixtures.chain import LocalnetThread, build_chain

PROGRAM = Pubkey(bytes(PROGRAM_IDS["ephemeral_vault"]))
# As Anchor derives it: from an address of the program's own, by a seed that everybody knows.
IDL_ADDRESS = Pubkey.create_with_seed(Pubkey.find_program_address([], PROGRAM)[0], "anchor:idl", PROGRAM)
HEAD = bytes.fromhex("184662bf3a907b9e") + bytes(32)
NEW = Path(idls_file).with_name("ephemeral_vault.json").read_bytes()
LEGACY = (Path(__file__).parents[1] / "fixtures" / "idls" / "market_legacy.json").read_bytes()


def idl_account(compressed: bytes, *, length: int | None = None) -> bytes:
    """Return an IDL account's data, with room behind the IDL as Anchor leaves it."""
    return HEAD + (len(compressed) if length is None else length).to_bytes(4, "little") + compressed + bytes(100)


@pytest.fixture(scope="module")
def chain() -> Iterator[LocalnetThread]:
    """A chain with the programs and, until a test says otherwise, no IDL."""
    running = LocalnetThread(build_chain())
    running.start()
    yield running
    running.stop()


def plant(chain: LocalnetThread, data: bytes | None, owner: Pubkey = PROGRAM) -> None:
    """Put `data` where the program's IDL is looked for."""
    state = None if data is None else AccountState(10**12, data, bytes(owner))

    def write() -> None:
        chain.chain.set_account(IDL_ADDRESS, state)
        # Written in the open slot: seen at confirmed two slots on.
        for _ in range(3):
            chain.chain.open_slot(chain.chain.slot + 1, chain.chain.unix_time)

    chain.call(write)


def fetch(chain: LocalnetThread, *arguments: str, program: object = PROGRAM) -> tuple[int, bytes, str]:
    """Run the command; return exit code, stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CAPSTAN_")}
    done = subprocess.run(
        [sys.executable, "-m", "capstan", "idl", "fetch", str(program), *arguments],
        env={**environment, "CAPSTAN_RPC_URL": chain.rpc_url},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"Warning" not in done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("text", [NEW, LEGACY], ids=["0.30+", "legacy"])
def test_an_idl_is_written_as_it_is(chain: LocalnetThread, text: bytes, tmp_path: Path) -> None:
    """To stdout or a file, either format; an address that is not the program's is pointed out."""
    plant(chain, idl_account(zlib.compress(text)))
    code, out, said = fetch(chain)
    assert (code, out) == (0, text)
    assert (said == "") == (text == NEW)
    path = tmp_path / "idl.json"
    code, out, said = fetch(chain, "-o", str(path))
    assert (code, out, path.read_bytes()) == (0, b"", text)
    assert (f"use it as {PROGRAM}={path}" in said) == (text == LEGACY)


@pytest.mark.parametrize(
    ("data", "owner", "sentence"),
    [
        (None, PROGRAM, f"has no IDL on chain: its account {IDL_ADDRESS} is not on"),
        (idl_account(zlib.compress(NEW)), Pubkey(bytes([5]) * 32), "it belongs to"),
        (b"", PROGRAM, "is not an IDL account"),
        (bytes(200), PROGRAM, "is not an IDL account"),
        (HEAD, PROGRAM, "is not an IDL account"),
        (idl_account(b"", length=1 << 31), PROGRAM, "which it cannot have"),
        (idl_account(bytes(COMPRESSED_BYTES_MAX + 1)), PROGRAM, "which it cannot have"),
        (idl_account(b"no zlib"), PROGRAM, "is not compressed with zlib"),
        (idl_account(zlib.compress(NEW)[:-20]), PROGRAM, "breaks off"),
        (idl_account(b""), PROGRAM, "breaks off"),
        (idl_account(zlib.compress(bytes(IDL_BYTES_MAX + 1))), PROGRAM, "is larger than"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
async def test_what_is_no_idl_account_is_refused(
    chain: LocalnetThread, data: bytes | None, owner: Pubkey, sentence: str
) -> None:
    """One sentence each, and never more memory than an IDL needs."""
    plant(chain, data, owner)
    async with Rpc(chain.rpc_url) as rpc:
        with pytest.raises(DataError, match=re.escape(sentence)):
            await fetch_idl(rpc, bytes(PROGRAM))


def test_an_account_that_holds_no_idl(chain: LocalnetThread) -> None:
    """Valid but for what is in it: nothing is written."""
    plant(chain, idl_account(zlib.compress(b"{}")))
    code, out, said = fetch(chain)
    assert (code, out) == (DataError.exit_code, b"")
    assert said.startswith(f"capstan: the IDL on chain of {PROGRAM} is not a valid IDL")
    assert said.count("\n") == 1


def test_no_such_program(chain: LocalnetThread) -> None:
    """Not on this chain, not a program, not an address."""
    nobody = Pubkey(bytes([9]) * 32)
    code, _, said = fetch(chain, program=nobody)
    assert (code, f"there is no account {nobody}" in said) == (SettingsError.exit_code, True)
    code, _, said = fetch(chain, program="SysvarC1ock11111111111111111111111111111111")
    assert (code, "not a program" in said) == (SettingsError.exit_code, True)
    code, _, said = fetch(chain, program="nobody")
    assert (code, "'nobody' is not a program's address" in said) == (SettingsError.exit_code, True)


def test_no_node_and_no_file(chain: LocalnetThread) -> None:
    """Said by the url, and by the file."""
    plant(chain, idl_account(zlib.compress(NEW)))
    code, _, said = fetch(chain, "--rpc", "http://127.0.0.1:1")
    assert (code, "cannot reach http://127.0.0.1:1" in said) == (RetryableError.exit_code, True)
    code, _, said = fetch(chain, "-o", "/proc/idl.json")
    assert (code, "/proc/idl.json cannot be written" in said) == (SettingsError.exit_code, True)
