"""
Files of transactions: one getTransaction body a line (NDJSON), plain or compressed with zstd, or standard input.

Lines are cut into batches, and nothing else is done to them. A file is told by its size and the hash of its beginning,
not by its name, so that a load goes on after a move, and begins anew when the file is another one.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from os import SEEK_CUR
from pathlib import Path
from typing import Any

import pyarrow as pa

from indexer.errors import SettingsError
from indexer.sources.base import BodyBatch, Place, Source

BATCH_BYTES = 24 << 20
LINE_BYTES_MAX = 256 << 20
HASHED_BYTES = 1 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def open_sources(arguments: list[str]) -> list[Source]:
    """
    Return the sources that `file:PATH` arguments name; `file:-` is standard input.

    Raises:
        SettingsError: another kind of source, or a file that cannot be read.
    """
    sources: list[Source] = []
    for argument in arguments:
        kind, separator, path = argument.partition(":")
        if kind != "file" or not separator or not path:
            raise SettingsError(
                f"--source {argument!r} is no source that can be read: write it as file:PATH, or file:-"
            )
        sources.append(StandardInput() if path == "-" else FileSource.open(Path(path)))
    return sources


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file, which may be read again from any place."""

    path: Path
    identity: str | None

    @classmethod
    def open(cls, path: Path) -> "FileSource":
        """Return the file at `path`. Raises SettingsError where it cannot be read."""
        try:
            with path.open("rb") as file:
                digest = hashlib.sha256(file.read(HASHED_BYTES)).hexdigest()[:32]
                return cls(path, f"{path.stat().st_size}-{digest}")
        except OSError as error:
            raise SettingsError(f"the file {path} cannot be read ({error.strerror}): check --source") from None

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def batches(self, place: Place) -> Iterator[BodyBatch]:
        """Give its lines from `place` on."""
        try:
            # Unbuffered, as what is read at a time is larger than any buffer.
            with self.path.open("rb", buffering=0) as file:
                yield from _batches(_lines_of(file, place.offset), place)
        except OSError as error:
            # What zstd finds wrong comes as an OSError too.
            raise SettingsError(
                f"the file {self.path} cannot be read to its end ({error}): repair or replace it"
            ) from None


class StandardInput:
    """What is piped into this process; read once."""

    name = "standard input"
    identity: str | None = None

    def batches(self, place: Place) -> Iterator[BodyBatch]:
        """Give its lines."""
        assert place == Place(), "what is piped cannot be read again"
        yield from _batches(_lines_of(sys.stdin.buffer, 0), place)


def _lines_of(file: Any, skip: int) -> Any:
    """Return a stream of the plain lines, behind the first `skip` bytes of them."""
    if file.seekable():
        magic = file.read(4)
        file.seek(0)
        if magic == ZSTD_MAGIC:
            stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
            while skip > 0 and (passed := stream.read(min(skip, BATCH_BYTES))):
                skip -= len(passed)
            return stream
        file.seek(skip)
    return file


def _batches(stream: Any, place: Place) -> Iterator[BodyBatch]:
    rest = b""
    while True:
        read = stream.read(BATCH_BYTES)
        if not read:
            break
        end = read.rfind(b"\n") + 1
        if not end:
            rest += read
            if len(rest) > LINE_BYTES_MAX:
                raise SettingsError(f"line {place.lines + 1:,} is longer than {LINE_BYTES_MAX:,} bytes: no body is")
            continue
        bodies = memoryview(read)[:end]
        if rest:
            bodies = memoryview(b"".join((rest, bodies)))
        rest = read[end:]
        if rest and stream.seekable():
            # Read again rather than put in front of the next batch, for which all of that would be copied.
            stream.seek(-len(rest), SEEK_CUR)
            rest = b""
        first = place.lines
        place = Place(place.offset + len(bodies), first + read.count(b"\n"))
        del read
        yield BodyBatch(bodies, first, place)
    if rest:
        yield BodyBatch(rest, place.lines, Place(place.offset + len(rest), place.lines + 1))
