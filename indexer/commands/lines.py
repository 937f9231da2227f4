"""
The loop of a command that answers each line of stdin with a line on stdout.

Whatever has arrived is answered before more is waited for: a client may hold both pipes open and ask line by line, and
a file is answered in large pieces. What a line means is the business of the function that answers it.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterator

from indexer.errors import SettingsError

CHUNK_BYTES = 1 << 18


def answer_lines(answer: Callable[[bytes], bytes]) -> None:
    """
    Write `answer(line)` for each line of stdin, in order; the last one needs no line end.

    A reader that goes away is an ordinary end.

    Args:
        answer: takes a line without its end, which may be any bytes; returns one without a line end; never raises.

    Raises:
        SettingsError: stdin cannot be read, or stdout not written.
    """
    # What was imported stays; the collector need not look through it again and again.
    gc.freeze()
    if sys.stdin is None or sys.stdout is None:
        raise SettingsError("stdin or stdout is closed: this command reads lines from one and answers on the other")
    for lines in _batches(sys.stdin.fileno()):
        try:
            sys.stdout.buffer.write(b"\n".join([*map(answer, lines), b""]))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Python flushes once more when it ends; that must have somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SettingsError(f"stdout cannot be written ({error.strerror}): see where it leads") from None


def _batches(source: int) -> Iterator[list[bytes]]:
    """Yield the lines that have arrived, without their ends; a batch is never empty."""
    # Pieces of a line that is longer than a chunk are put together once, at its end.
    begun: list[bytes] = []
    while chunk := _read(source):
        whole, end, rest = chunk.rpartition(b"\n")
        if end:
            yield b"".join([*begun, whole]).split(b"\n")
            begun.clear()
        if rest:
            begun.append(rest)
    if begun:
        yield [b"".join(begun)]


def _read(source: int) -> bytes:
    try:
        return os.read(source, CHUNK_BYTES)
    except OSError as error:
        raise SettingsError(f"stdin cannot be read ({error.strerror}): see where it comes from") from None
