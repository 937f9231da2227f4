"""The committed programs are what their sources give, on any machine; and what the build refuses, it explains."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import TransactionMetadata

from indexer.errors import DataError, SettingsError
from localnet.programs import PROGRAM_IDS, build, load_elf
from localnet.programs.linker import LinkError

ROOT = Path(build.__file__).parents[2]
EMPTY_IDL = """{"metadata": {"name": "tiny"}, "instructions": [], "accounts": [], "events": [], "types": [],
                "errors": [{"code": 6000, "name": "Tiny", "msg": "too \\"small\\""}]}"""


@pytest.fixture(autouse=True)
def compiler(require: Callable[[str], None]) -> None:
    require("ziglang")


@pytest.mark.parametrize("name", PROGRAM_IDS)
def test_the_committed_program_is_what_its_sources_give(name: str) -> None:
    """Building again gives the committed file byte for byte: run `python -m localnet.programs.build` after a change."""
    assert build.build(name) == load_elf(name)


@pytest.mark.parametrize("name", PROGRAM_IDS)
def test_the_folder_leaves_no_trace(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sources in other folders, under another file name, with other temporary files: the same bytes."""
    programs = Path(build.__file__).parent
    include = tmp_path / "somewhere else" / "headers"
    shutil.copytree(programs / "include", include)
    source = tmp_path / "renamed.c"
    shutil.copy(programs / name / f"{name}.c", source)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    idl = (files("indexer.idls") / f"{name}.json").read_text()
    built = build.compile_program(source, idl, include=include)
    assert built == load_elf(name)
    for trace in (b"/tmp", os.fsencode(tmp_path), b".c\0", b"zig", b"clang"):
        assert trace not in built


def test_check_compares_and_writes_nothing(tmp_path: Path) -> None:
    """`--check` from another folder: 0 where the committed files are current, 1 and their names where not."""
    copy = tmp_path / "project"
    for part in ("indexer", "localnet"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "localnet.programs.build", "--check"]

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)

    assert check().returncode == 0
    built = copy / "localnet/programs/ephemeral_vault/ephemeral_vault.so"
    built.write_bytes(b"stale")
    done = check()
    assert done.returncode == 1
    assert "ephemeral_vault" in done.stdout
    assert "differs from the committed file" in done.stdout
    assert built.read_bytes() == b"stale"


def test_an_unknown_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names what there is."""
    with pytest.raises(SystemExit):
        build.main(["nonesuch"])
    assert "ephemeral_vault" in capsys.readouterr().err


def test_a_missing_compiler_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without ziglang the build says what to install."""
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(SettingsError, match="ziglang"):
        build.compile_program(tmp_path / "x.c", EMPTY_IDL)


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("u64 entrypoint(u8 *input) { return missing; }", DataError, "missing"),
        ("u64 start(u8 *input) { return (u64)input; }", LinkError, "no global function 'entrypoint'"),
        ("static u64 calls; u64 entrypoint(u8 *input) { calls += *input; return calls; }", LinkError, "writable"),
        ("extern u64 puts(u8 *); u64 entrypoint(u8 *input) { return puts(input); }", LinkError, "'puts'"),
        (
            "extern void fill(u8 *); u64 entrypoint(u8 *i) { u8 b[5000]; fill(b); return b[*i]; }",
            DataError,
            "stack",
        ),
    ],
)
def test_what_cannot_be_a_program_is_refused(tmp_path: Path, code: str, error: type[Exception], says: str) -> None:
    """Mistakes that would crash or corrupt on chain fail the build, in words."""
    source = tmp_path / "tiny.c"
    source.write_text(f'#include "sbf.h"\n{code}\n')
    with pytest.raises(error, match=says):
        build.compile_program(source, EMPTY_IDL)


# A program that does 128-bit arithmetic and borsh on its instruction data, and logs what it got.
SUPPORT = """
#include "anchor.h"
#include "borsh.h"
#include "system.h"

u64 entrypoint(u8 *input) {
    Context context;
    AccountInfo none[1];
    read_input(input, none, 1, &context);
    BorshReader reader = {context.data, context.data + context.data_len, false};
    u64 left = read_u64(&reader), right = read_u64(&reader), bits = read_u64(&reader);
    if (reader.failed) return fail(ERROR_TINY);
    u128 product = multiply_u64(left, right);
    u8 result[64];
    BorshWriter writer = {result, result + 33, false};
    u64 shifted;
    u8 fits = shift_right_to_u64(product, bits, &shifted);
    write_u64(&writer, product.low);
    write_u64(&writer, product.high);
    write_u64(&writer, shifted);
    write_u8(&writer, fits);
    write_u64(&writer, rent_exempt_minimum(left & 0xffff));
    if (writer.failed) return 1;
    write_u8(&writer, 0);
    if (!writer.failed) return 2;
    Slice line = {result, 33};
    sol_log_data(&line, 1);
    return 0;
}
"""


class Machine:
    """A VM with the program above."""

    def __init__(self, elf: bytes) -> None:
        self.svm, self.payer, self.program_id = LiteSVM(), Keypair.from_seed(bytes([5] * 32)), Pubkey.new_unique()
        self.svm.add_program(self.program_id, elf)
        self.svm.airdrop(self.payer.pubkey(), 10**12)

    def run(self, data: bytes) -> list[str]:
        """Return the logs of one call."""
        self.svm.expire_blockhash()
        message = Message.new_with_blockhash(
            [Instruction(self.program_id, data, [])], self.payer.pubkey(), self.svm.latest_blockhash()
        )
        result = self.svm.send_transaction(VersionedTransaction(message, [self.payer]))
        return (result if isinstance(result, TransactionMetadata) else result.meta()).logs()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    source = tmp_path_factory.mktemp("support") / "support.c"
    source.write_text(SUPPORT)
    return Machine(build.compile_program(source, EMPTY_IDL))


U64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(left=U64, right=U64, bits=st.integers(0, 127))
def test_wide_arithmetic_is_exact(machine: Machine, left: int, right: int, bits: int) -> None:
    """The product has all its 128 bits, and a shift says whether what is left fits into 64."""
    logs = machine.run(b"".join(value.to_bytes(8, "little") for value in (left, right, bits)))
    (line,) = [line for line in logs if line.startswith("Program data: ")]
    result = base64.b64decode(line.removeprefix("Program data: "))
    shifted = left * right >> bits
    assert int.from_bytes(result[:16], "little") == left * right
    assert result[24] == (shifted < 2**64)
    if shifted < 2**64:
        assert int.from_bytes(result[16:24], "little") == shifted
    space = left & 0xFFFF
    assert int.from_bytes(result[25:33], "little") == machine.svm.minimum_balance_for_rent_exemption(space)


def test_a_reader_stops_at_the_end(machine: Machine) -> None:
    """Data a byte short is a failure, in Anchor's words, with the message's quotes as written in the IDL."""
    line = 'Program log: AnchorError occurred. Error Code: Tiny. Error Number: 6000. Error Message: too "small".'
    assert line in machine.run(bytes(23))
