"""
The reader that one would write oneself for a few programs: a stack, base64 and `struct`, and no library.

It reads well-formed logs and events of fixed size, believes what it reads, and stops at the first surprise.
"""

import json
import struct
from base64 import b64decode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.inputs.made_transactions import IDS, PROGRAMS, canonical
from bench.readers.reading import LOGGED, Found, Logs, Reader, timed
from indexer.chain.types import Bool, Integer, Pubkey, Type

# Discriminator to name, layout and field names.
Layouts = dict[bytes, tuple[str, struct.Struct, tuple[str, ...]]]
Event = tuple[int, str, str, dict[str, Any]]


def _letter(type_: Type) -> str | None:
    match type_:
        case Pubkey():
            return "32s"
        case Integer(bits=64, signed=signed):
            return "q" if signed else "Q"
        case Bool():
            return "?"
        case _:
            return None


def _layouts(name: str) -> Layouts:
    layouts: Layouts = {}
    for event in PROGRAMS[name].events.values():
        letters = [_letter(field.type) for field in event.fields]
        if None not in letters:
            packed = struct.Struct("<" + "".join(filter(None, letters)))
            tag = sha256(f"event:{event.name}".encode()).digest()[:8]
            layouts[tag] = (event.name, packed, tuple(field.name for field in event.fields))
    return layouts


NAMES = {program_id: name for name, program_id in IDS.items()}
LAYOUTS = {IDS[name]: _layouts(name) for name in PROGRAMS}


def read_logs(logs: Sequence[Logs]) -> list[Event]:
    """Read lines, transaction by transaction."""
    events: list[Event] = []
    for place, _, lines in logs:
        read_lines(place, lines, events)
    return events


def read_bodies(path: Path) -> list[Event]:
    """Parse the JSON of each line of a file, and read the logs in it."""
    events: list[Event] = []
    with path.open("rb") as file:
        for place, line in enumerate(file):
            meta = json.loads(line)["meta"]
            if meta["err"] is None:
                read_lines(place, meta["logMessages"], events)
    return events


def read_lines(place: int, lines: list[str], events: list[Event]) -> None:
    """Append the events of one transaction."""
    stack: list[str] = []
    for line in lines:
        if line.startswith("Program data: "):
            layouts = LAYOUTS.get(stack[-1])
            if layouts is not None:
                payload = b64decode(line[14:])
                name, packed, fields = layouts[payload[:8]]
                values = packed.unpack_from(payload, 8)
                events.append((place, stack[-1], name, dict(zip(fields, values, strict=True))))
        elif line.startswith("Program log: "):
            continue
        elif " invoke [" in line:
            stack.append(line.split(" ", 2)[1])
        elif line.endswith(" success") or " failed" in line:
            stack.pop()


def found(events: list[Event]) -> Iterable[Found]:
    """Yield events in the common form."""
    for place, program_id, name, values in events:
        yield Found(place, NAMES[program_id], None, canonical(name, list(values.values())))


def read_positions(datas: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """Read `Position` accounts: an owner, a symbol of any length, and the rest."""
    rest = struct.Struct("<?QQQHHqB")
    tag = sha256(b"account:Position").digest()[:8]
    positions: list[tuple[Any, ...]] = []
    for data in datas:
        if data[:8] != tag:
            raise ValueError("not a Position")
        end = 44 + int.from_bytes(data[40:44], "little")
        positions.append((data[8:40], data[44:end].decode(), *rest.unpack_from(data, end)))
    return positions


def readers(logs: Sequence[Logs], path: Path) -> tuple[Reader, Reader]:
    """Return it as reader of lines, and of bodies."""
    return (
        Reader("hand-written loop", LOGGED, timed(lambda: read_logs(logs)), found),
        Reader("json.loads, hand-written loop", LOGGED, timed(lambda: read_bodies(path)), found),
    )
