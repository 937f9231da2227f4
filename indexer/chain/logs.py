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

import msgspec
import pybase64
from solders.pubkey import Pubkey

TRUNCATED = "Log truncated"
# Strings that begin alike are neighbours in order: two comparisons find them, and copy nothing.
_DATA, _BEHIND_DATA = "Program data:", "Program data;"
_ONE_SPACE = "Program data: "
_LOG, _BEHIND_LOG = "Program log:", "Program log;"
_PROGRAM = "Program "
# The runtime nests calls nine deep at most; a forged depth must not make us build a tower of unknowns.
_STACK_DEPTH_MAX = 99
# Opening and closing lines repeat; each is read once. A stream of ever new ones must not fill the memory.
_STEPS_MAX = 65_536

# What a line of the runtime does to the stack: (depth, name) opens a call, (0, name) closes one.
Step: TypeAlias = tuple[int, str]
# The same with the program's 32 bytes, None where the name is no key.
_KeyStep: TypeAlias = tuple[int, str, bytes | None]
_NOBODY: _KeyStep = (0, "", None)


# Structs cost a third of what a NamedTuple costs to make; none holds anything that could lead back to itself, so the
# collector need not look at them.
class DataLine(msgspec.Struct, frozen=True, gc=False):
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


class LogScan(msgspec.Struct, frozen=True, gc=False):
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
    truncated = TRUNCATED in logs
    owners = _owners_forward(logs) if truncated else None
    data: list[DataLine] = []
    bad: list[BadLine] = []
    ordinal, known, running = -1, -1, _NOBODY
    for line in logs:
        if _DATA <= line < _BEHIND_DATA:
            ordinal += 1
            if owners is None:
                # Asking where it is costs less than counting all lines, most of which are others.
                place = logs.index(line, known + 1)
                step = _running_at(logs, place, known, running)
                if step is None:
                    owners = _owners_forward(logs)
                else:
                    known, running = place, step
            if owners is None:
                program_id = running[2]
            elif ordinal < len(owners):
                program_id = owners[ordinal]
            else:
                break
            if programs is None or program_id is None or program_id in programs:
                payloads = payloads_of(line)
                if payloads is None:
                    bad.append(BadLine(ordinal, program_id, bad_base64(line)))
                else:
                    data.append(DataLine(ordinal, program_id, payloads))
    return LogScan(tuple(data), truncated, False, tuple(bad))


def _running_at(logs: Sequence[str], place: int, known: int, running: _KeyStep) -> _KeyStep | None:
    """
    Return what opened the call that runs at the line `place`; None where that needs more than the lines just before.

    After an opening line its name is on top, as deep as it says. So what matters is only what lies behind the last
    call that is still open: as long as all calls in between are closed under their names, at depths that fit, nothing
    that came before can change the answer.

    Args:
        known: place of the data line before, -1 for the beginning; `running` is what was returned for it.
    """
    # Names whose opening lines are to be found; how deep the stack must be at this line, -1 for any depth.
    closed: list[str] = []
    depth = -1
    at = place
    while at:
        at -= 1
        if at == known and not closed:
            break
        line = logs[at]
        if _LOG <= line < _BEHIND_LOG:
            continue
        step = _steps.get(line) or _new_step(line)
        if step is None:
            continue
        opened, name, _ = step
        if opened:
            if 0 <= depth != opened:
                return None
            if not closed:
                return step
            if closed.pop() != name:
                return None
            depth = opened - 1
        else:
            closed.append(name)
            if depth >= 0:
                depth += 1
    # No call was left open since: whoever ran there runs again.
    return running if not closed and depth in (-1, running[0]) else None


def _owners_forward(logs: Sequence[str]) -> list[bytes | None]:
    """Return who printed each data line before the cut, whatever lines are missing, or too many."""
    owners: list[bytes | None] = []
    stack: list[_KeyStep] = []
    for line in logs:
        if line.startswith(_DATA):
            owners.append(stack[-1][2] if stack else None)
        elif line == TRUNCATED:
            break
        else:
            step = _steps.get(line) or _new_step(line)
            if step is not None and step[0]:
                _push(step, stack)
            elif step is not None:
                _pop(step[1], stack)
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
        # Nearly always one field behind one space; where that is not so, this is refused, or empty.
        payload = _decode_base64(line.removeprefix(_ONE_SPACE), None, True)
        if payload:
            return (payload,)
    except ValueError:
        pass
    try:
        return tuple([_decode_base64(text, None, True) for text in line[len(_DATA) :].split()])
    except ValueError:
        return None


def bad_base64(line: str) -> str:
    """Return the reason of a `BadLine`."""
    return f"the data line is not base64: {line[len(_DATA) :][:80]!r}"


def _new_step(line: str) -> _KeyStep | None:
    step = step_of(line)
    if step is None:
        return None
    if len(_steps) >= _STEPS_MAX:
        _steps.clear()
    _steps[line] = known = (*step, program_of(step[1]))
    return known


def _push(step: _KeyStep, stack: list[_KeyStep]) -> None:
    """The depth is the runtime's own count: it mends a stack whose closing or opening lines are missing."""
    depth = step[0]
    del stack[depth - 1 :]
    while len(stack) < min(depth - 1, _STACK_DEPTH_MAX):
        stack.append(_NOBODY)
    stack.append(step)


def _pop(name: str, stack: list[_KeyStep]) -> None:
    """A program that ends takes along whatever it had called; one that was not running ends nothing."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index][0] and stack[index][1] == name:
            del stack[index:]
            return


_steps: dict[str, _KeyStep] = {}
_decode_base64 = pybase64.b64decode
