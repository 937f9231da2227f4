"""Spoilt payloads of large programs in batches: row by row what the single decoder says, values and refusals."""

import random
from collections.abc import Callable, Iterable

import pytest

from indexer.chain.codec import DecodeError
from indexer.chain.columns import Columns, RowError, to_values
from indexer.chain.idl import EventType, InstructionType
from indexer.chain.program import Program
from tests.fixtures.idl_values import PUBLIC_NAMES, public_program, random_fields
from tests.fixtures.mutations import mutated_bytes

SEED = 77
ENTRIES_MAX = 25
PAYLOAD_BYTES_MAX = 4_000
COPIES = 4

Said = dict[int, str]


def said_alone(payloads: list[bytes], decode: Callable[[bytes], Iterable[object]]) -> Said:
    """Return by row what the single decoder says; as text, as a NaN is not equal to itself."""
    said = {}
    for row, payload in enumerate(payloads):
        try:
            said[row] = repr(tuple(decode(payload))[:3])
        except DecodeError as error:
            said[row] = repr(RowError(row, error.kind, str(error)))
    return said


def said_together(columns: Columns, entries: dict[str, EventType | InstructionType]) -> Said:
    said = {error.row: repr(error) for error in columns.errors}
    for name, group in columns.groups.items():
        values = to_values(entries[name].fields, group.values)
        for row, value, trailing in zip(group.rows.tolist(), values, group.trailing.tolist(), strict=True):
            assert row not in said
            said[row] = repr((name, value, trailing))
    return said


def spoilt(program: Program, part: str, rng: random.Random) -> list[bytes]:
    """Return payloads of many kinds, valid and spoilt, in no order."""
    entries: list[EventType | InstructionType] = []
    entries += program.idl.events if part == "events" else program.idl.instructions
    encode = program.encode_event if part == "events" else program.encode_instruction
    payloads = []
    for entry in rng.sample(entries, min(len(entries), ENTRIES_MAX)):
        data = encode(entry.name, random_fields(entry.fields, rng))
        if len(data) <= PAYLOAD_BYTES_MAX:
            payloads += [data, *(mutated_bytes(data, rng) for _ in range(COPIES))]
    rng.shuffle(payloads)
    return payloads


@pytest.mark.parametrize("part", ["events", "instructions"])
@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_batch_says_what_each_payload_says_alone(name: str, part: str) -> None:
    """A bad payload changes nothing about its neighbours."""
    program = public_program(name)
    payloads = spoilt(program, part, random.Random(f"{SEED} {name} {part}"))
    if part == "events":
        alone = said_alone(payloads, program.decode_event)
        together = said_together(program.decode_events(payloads), dict(program.events))
    else:
        alone = said_alone(payloads, program.decode_instruction)
        together = said_together(program.decode_instructions(payloads), dict(program.instructions))
    assert {row: together[row] for row in sorted(together)} == alone
