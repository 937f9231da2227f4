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
from typing import NamedTuple, TypeAlias

import pybase64
from solders.pubkey import Pubkey

TRUNCATED = "Log truncated"
_DATA = "Program data:"
_LOG = "Program log:"
_PROGRAM = "Program "
_TEXT_AT = len(_DATA) + 1
_HEAD_LENGTH = len("Program log:")
# The runtime nests calls nine deep at most; a forged depth must not make us build a tower of unknowns.
_STACK_DEPTH_MAX = 99
# Opening and closing lines repeat; each is read once. A stream of ever new ones must not fill the memory.
_STEPS_MAX = 65_536

# What a line of the runtime does to the stack: (depth, name) opens a call, (0, name) closes one.
Step: TypeAlias = tuple[int, str]


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


def scan_logs(  # noqa: PLR0912 - one loop over all lines, as calling a function for each costs more than reading it
    logs: Sequence[str] | None, *, programs: Container[bytes] | None = None
) -> LogScan:
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
    steps = _steps
    for line in logs:
        step = steps.get(line)
        if step is None:
            # One slice tells most lines apart; this loop is what reading a transaction costs.
            head = line[:_HEAD_LENGTH]
            if head == _LOG:
                continue
            if head == "Program data" and line.startswith(_DATA):
                running = program_of(stack[-1]) if stack else None
                if programs is None or running is None or running in programs:
                    payloads = payloads_of(line)
                    if payloads is None:
                        bad.append(BadLine(ordinal, running, bad_base64(line)))
                    else:
                        data.append(_as_tuple(DataLine, (ordinal, running, payloads)))
                ordinal += 1
                continue
            if line == TRUNCATED:
                return LogScan(tuple(data), truncated=True, missing=False, bad=tuple(bad))
            step = _new_step(line)
            if step is None:
                continue
        depth, name = step
        if depth:
            if depth == len(stack) + 1:
                stack.append(name)
            else:
                _push(name, depth, stack)
        elif stack and stack[-1] == name:
            del stack[-1]
        else:
            _pop(name, stack)
    return LogScan(tuple(data), truncated=False, missing=False, bad=tuple(bad))


def step_of(line: str) -> Step | None:
    """Return what a line does to the stack of running programs; None for nothing, as most lines."""
    if not line.startswith(_PROGRAM) or line.startswith((_LOG, _DATA)):
        return None
    name, _, rest = line[len(_PROGRAM) :].partition(" ")
    if rest.startswith("invoke ["):
        depth = rest[8:-1]
        if rest.endswith("]") and depth.isascii() and depth.isdecimal() and len(depth) <= 2 and depth.strip("0"):
            return int(depth), name
    elif rest in ("success", "failed") or rest.startswith(("failed:", "failed ")):
        # "Program failed to complete: ..." names nobody; the line that does follows it.
        return 0, name
    return None


@lru_cache(maxsize=65_536)
def program_of(name: str | None) -> bytes | None:
    """Return the 32 bytes of the program that a line of the runtime names; None where that is no key."""
    if name is None or not 32 <= len(name) <= 44:
        return None
    try:
        return bytes(Pubkey.from_string(name))
    except ValueError:
        return None


def payloads_of(line: str) -> tuple[bytes, ...] | None:
    """Return the fields of a data line; None where one is not base64."""
    try:
        # Nearly always one field behind one space; where that is not so, this is refused.
        if line[_TEXT_AT - 1 : _TEXT_AT] == " " and len(line) > _TEXT_AT:
            return (_decode_base64(line[_TEXT_AT:], None, True),)
    except ValueError:
        pass
    try:
        return tuple([_decode_base64(text, None, True) for text in line[len(_DATA) :].split()])
    except ValueError:
        return None


def bad_base64(line: str) -> str:
    """Return the reason of a `BadLine`."""
    return f"the data line is not base64: {line[len(_DATA) :][:80]!r}"


def _new_step(line: str) -> Step | None:
    step = step_of(line)
    if step is not None:
        if len(_steps) >= _STEPS_MAX:
            _steps.clear()
        _steps[line] = step
    return step


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


_steps: dict[str, Step] = {}
_decode_base64 = pybase64.b64decode
# What a NamedTuple's own constructor does, without what naming the arguments costs.
_as_tuple = tuple.__new__
