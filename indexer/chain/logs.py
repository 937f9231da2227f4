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
# Strings that begin alike are neighbours in order: two comparisons find them, and copy nothing.
_DATA, _BEHIND_DATA = "Program data:", "Program data;"
_ONE_SPACE, _BEHIND_SPACE = "Program data: ", "Program data:!"
_LOG, _BEHIND_LOG = "Program log:", "Program log;"
_PROGRAM = "Program "
_TEXT_AT = len(_DATA) + 1
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
    places = [place for place, line in enumerate(logs) if _DATA <= line < _BEHIND_DATA]
    truncated = TRUNCATED in logs
    if not places:
        return _NOTHING_CUT if truncated else _NOTHING
    owners = None if truncated else _owners_backward(logs, places)
    if owners is None:
        owners = _owners_forward(logs)
    data: list[DataLine] = []
    bad: list[BadLine] = []
    for ordinal, name in enumerate(owners):
        running = None if name is None else program_of(name)
        if programs is None or running is None or running in programs:
            line = logs[places[ordinal]]
            payloads = payloads_of(line)
            if payloads is None:
                bad.append(BadLine(ordinal, running, bad_base64(line)))
            else:
                data.append(_as_tuple(DataLine, (ordinal, running, payloads)))
    return _as_tuple(LogScan, (tuple(data), truncated, False, tuple(bad)))


def _owners_backward(  # noqa: PLR0912 - one loop, as calling a function for each line costs more than reading it
    logs: Sequence[str], places: Sequence[int]
) -> list[str | None] | None:
    """
    Return who printed each data line, None for nobody; None where that needs more than the lines just before each.

    After an opening line its name is on top, as deep as it says. So what matters to a data line is only what lies
    behind the last call that is still open: as long as all calls in between are closed under their names, at depths
    that fit, nothing that came before can change the answer.
    """
    owners: list[str | None] = []
    owner: str | None = None
    known, known_depth = -1, 0
    steps = _steps
    for place in places:
        # Names whose opening lines are to be found; how deep the stack must be at this line, -1 for any depth.
        closed: list[str] = []
        depth = -1
        for at in range(place - 1, -1, -1):
            line = logs[at]
            step = steps.get(line)
            if step is None:
                if _LOG <= line < _BEHIND_LOG:
                    continue
                if at == known and not closed:
                    # The line before: where no call is left open since, its owner runs again.
                    if depth not in (-1, known_depth):
                        return None
                    break
                step = _new_step(line)
                if step is None:
                    continue
            opened, name = step
            if not opened:
                closed.append(name)
                depth += depth >= 0
            elif depth not in (-1, opened):
                return None
            elif not closed:
                owner, known_depth = name, opened
                break
            elif closed.pop() != name:
                return None
            else:
                depth = opened - 1
        else:
            # At the beginning nobody runs.
            if closed or depth > 0:
                return None
            owner, known_depth = None, 0
        known = place
        owners.append(owner)
    return owners


def _owners_forward(logs: Sequence[str]) -> list[str | None]:
    """Return who printed each data line before the cut, whatever lines are missing, or too many."""
    owners: list[str | None] = []
    stack: list[str | None] = []
    for line in logs:
        step = _steps.get(line)
        if step is None:
            if line.startswith(_DATA):
                owners.append(stack[-1] if stack else None)
                continue
            if line == TRUNCATED:
                break
            step = _new_step(line)
            if step is None:
                continue
        depth, name = step
        if depth:
            _push(name, depth, stack)
        else:
            _pop(name, stack)
    return owners


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
        if _ONE_SPACE < line < _BEHIND_SPACE:
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
_NOTHING = LogScan((), truncated=False, missing=False, bad=())
_NOTHING_CUT = LogScan((), truncated=True, missing=False, bad=())
