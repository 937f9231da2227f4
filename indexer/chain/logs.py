"""
Which program printed which data line of a transaction.

A log entry is one element of the list that the RPC returns, whatever it contains: programs print newlines and
look-alikes of the runtime's own lines, but the runtime always puts "Program log: " or "Program data: " in front of what
they print. So an entry means something only as a whole, and only by how it begins. Nothing a list of strings contains
makes this module raise. What the data means is decoded in `events.py`.

An ordinal is the number of the data line within the transaction, from 0, over all programs: the same for everybody who
sees the same logs. After the first `Log truncated` nothing is numbered or attributed, as the lines that say who runs
may be among the missing.
"""

from collections.abc import Container, Sequence
from functools import lru_cache
from typing import NamedTuple

import pybase64
from solders.pubkey import Pubkey

TRUNCATED = "Log truncated"
_DATA = "Program data:"
_LOG = "Program log:"
_PROGRAM = "Program "
_INVOKE = " invoke ["
# The runtime nests calls nine deep at most; a forged depth must not make us build a tower of unknowns.
_STACK_DEPTH_MAX = 99


class DataLine(NamedTuple):
    """
    One `Program data:` line.

    Args:
        program_id: 32 bytes; None where the logs do not tell who printed it.
        payloads: its fields. Anchor prints an event as the only field; programs may print several at once.
    """

    ordinal: int
    program_id: bytes | None
    payloads: tuple[bytes, ...]


class BadLine(NamedTuple):
    """A data line that is not base64, which the runtime never prints: somebody on the way changed it."""

    ordinal: int
    program_id: bytes | None
    reason: str


class LogScan(NamedTuple):
    """
    What the logs of one transaction hold.

    Args:
        truncated: the runtime stopped logging; what was found is from before that.
        missing: there are no logs at all, which is not the same as logs without data.
    """

    data: tuple[DataLine, ...]
    truncated: bool
    missing: bool
    bad: tuple[BadLine, ...]


def scan_logs(logs: Sequence[str] | None, *, programs: Container[bytes] | None = None) -> LogScan:
    """
    Attribute every data line to the program that was running when it was printed.

    Args:
        logs: `logMessages` of a transaction; None where the node has none.
        programs: leave out the lines of all other programs, and spare decoding them; they are counted all the same.
            Lines whose program is not known stay. None for all lines.
    """
    if logs is None:
        return LogScan((), truncated=False, missing=True, bad=())
    stack: list[str | None] = []
    data: list[DataLine] = []
    bad: list[BadLine] = []
    ordinal = 0
    truncated = False
    for line in logs:
        if line.startswith(_LOG) or not line.startswith(_PROGRAM):
            if line == TRUNCATED:
                truncated = True
                break
            continue
        if not line.startswith(_DATA):
            _follow(line, stack)
            continue
        running = _program_id(stack[-1]) if stack else None
        if programs is None or running is None or running in programs:
            payloads = _payloads(line)
            if payloads is None:
                bad.append(BadLine(ordinal, running, f"the data line is not base64: {line[len(_DATA) :][:80]!r}"))
            else:
                data.append(DataLine(ordinal, running, payloads))
        ordinal += 1
    return LogScan(tuple(data), truncated, missing=False, bad=tuple(bad))


def _follow(line: str, stack: list[str | None]) -> None:
    """Keep `stack`, the programs that run, outermost first, in step with a line of the runtime; ignore all others."""
    name, _, rest = line[len(_PROGRAM) :].partition(" ")
    if rest.startswith("invoke ["):
        depth = rest[8:-1]
        if rest.endswith("]") and depth.isascii() and depth.isdecimal() and len(depth) <= 2 and depth.strip("0"):
            _push(name, int(depth), stack)
    elif rest in ("success", "failed") or rest.startswith(("failed:", "failed ")):
        # "Program failed to complete: ..." names nobody; the line that does follows it.
        _pop(name, stack)


def _push(name: str, depth: int, stack: list[str | None]) -> None:
    """The depth is the runtime's own count: it mends a stack whose closing or opening lines are missing."""
    del stack[depth - 1 :]
    while len(stack) < min(depth - 1, _STACK_DEPTH_MAX):
        stack.append(None)
    stack.append(name)


def _pop(name: str, stack: list[str | None]) -> None:
    """A program that ends takes along whatever it had called; one that was not running ends nothing."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] == name:
            del stack[index:]
            return


@lru_cache(maxsize=65_536)
def _program_id(name: str | None) -> bytes | None:
    if name is None or not 32 <= len(name) <= 44:
        return None
    try:
        return bytes(Pubkey.from_string(name))
    except ValueError:
        return None


def _payloads(line: str) -> tuple[bytes, ...] | None:
    try:
        return tuple(pybase64.b64decode(text, validate=True) for text in line[len(_DATA) :].split())
    except ValueError:
        return None
