"""
Build the on-chain programs: `python -m localnet.programs.build [--check] [NAME...]`.

A program is a name in `PROGRAM_IDS`, `indexer/idls/NAME.json`, and `NAME/NAME.c`, which finds the support headers of
`include/` and the `idl.h` that is written here from its IDL. The built files are committed, so that nobody needs a
compiler to run localnet; this rebuilds them, and with `--check` compares instead of writing. The compiler is clang in
the `ziglang` wheel, a pinned development dependency; the same version gives the same bytes on every machine, in every
folder.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from indexer.errors import CapstanError, DataError, SettingsError
from localnet.programs import PROGRAM_IDS
from localnet.programs.header import header_of
from localnet.programs.linker import link

PROGRAMS = Path(__file__).parent
INCLUDE = PROGRAMS / "include"

COMPILER_FLAGS = (
    "-target", "bpfel-freestanding",
    "-mcpu=v2+allows_misaligned_mem_access",  # v3 has 32-bit jumps, which version 0 of SBF has not
    "-O2",  # without optimisation calls and stack frames exceed what the machine allows
    "-std=c11", "-ffreestanding", "-nostdinc", "-fno-builtin", "-fno-jump-tables",
    "-fno-asynchronous-unwind-tables", "-fno-sanitize=all", "-fno-stack-protector",
    "-mllvm", "-bpf-stack-size=4096",
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip


def compile_program(source: Path, idl_text: str, *, include: Path = INCLUDE) -> bytes:
    """
    Return the program's ELF file from its C source and its IDL. Neither path nor time leaves a trace in it.

    Args:
        source: one C file; it defines `entrypoint`.
        idl_text: the IDL that `idl.h` is written from.
        include: the folder of the support headers.

    Raises:
        SettingsError: the compiler is not installed.
        DataError: it refused the source; its own words are in the message. LinkError: see `link`.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise SettingsError("the compiler is missing: install ziglang as requirements-dev.lock names it")
    with tempfile.TemporaryDirectory(prefix="capstan-build-") as folder:
        work = Path(folder)
        (work / "idl.h").write_text(header_of(idl_text))
        obj = work / "program.o"
        command = [sys.executable, "-m", "ziglang", "cc", *COMPILER_FLAGS, "-I", folder, "-I", str(include),
                   "-c", str(source), "-o", str(obj)]  # fmt: skip
        # zig would otherwise fill a cache in the home folder.
        caches = {"ZIG_GLOBAL_CACHE_DIR": str(work / "global"), "ZIG_LOCAL_CACHE_DIR": str(work / "local")}
        done = subprocess.run(  # noqa: S603 - our own command line, and no shell
            command, env={**os.environ, **caches}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise DataError(f"{source.name} does not compile:\n{done.stderr.strip()}")
        return link(obj.read_bytes(), source=source.name)


def build(name: str) -> bytes:
    """Return the ELF file of a home program, built from the sources beside this module and the IDL of that name."""
    idl = files("indexer.idls") / f"{name}.json"
    return compile_program(PROGRAMS / name / f"{name}.c", idl.read_text())


def main(arguments: Sequence[str]) -> int:
    """Build, or check, all programs or those named; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m localnet.programs.build", description="Build the programs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="programs; all where none is named")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(PROGRAM_IDS)
    if unknown:
        parser.error(f"no program {', '.join(sorted(unknown))}: there are {', '.join(PROGRAM_IDS)}")
    stale = False
    for name in options.names or PROGRAM_IDS:
        path = PROGRAMS / name / f"{name}.so"
        built = build(name)
        if not options.check:
            path.write_bytes(built)
        differs = not path.exists() or path.read_bytes() != built
        stale = stale or differs
        sys.stdout.write(f"{name}: {len(built)} bytes{', differs from the committed file' if differs else ''}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CapstanError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
