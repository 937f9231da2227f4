"""Payloads of large programs, spoilt: another value or our own refusal, never anything else, and never much memory."""

import random
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from indexer.chain.codec import DecodeError
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.chain.value import to_json_value
from tests.fixtures.idl_values import PUBLIC_NAMES, public_program, random_fields
from tests.fixtures.mutations import LENGTHS, mutated_bytes

SEED = 4_294_967_295
KINDS = {
    "unknown_discriminator",
    "ambiguous_discriminator",
    "short_payload",
    "invalid_value",
    "too_deep",
}
# Larger accounts are the same structs, only more of them.
PAYLOAD_BYTES_MAX = 4_000
MUTATIONS = 6


def payloads(program: Program, rng: random.Random) -> Iterator[tuple[Callable[[bytes], object], bytes]]:
    """Yield every event, account and instruction that is not too large, each with what decodes it."""
    idl = program.idl
    for items, encode, decode in (
        (idl.events, program.encode_event, program.decode_event),
        (idl.accounts, program.encode_account, program.decode_account),
        (idl.instructions, program.encode_instruction, program.decode_instruction),
    ):
        for item in items:
            data = encode(item.name, random_fields(item.fields, rng)) if item.fields else item.discriminator
            if len(data) <= PAYLOAD_BYTES_MAX:
                yield decode, data


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_spoilt_payloads_are_read_or_refused(name: str) -> None:
    """Every event, account and instruction, cut, grown, flipped and lied about."""
    program, rng = public_program(name), random.Random(f"{SEED} {name}")
    refused = 0
    for decode, data in payloads(program, rng):
        for _ in range(MUTATIONS):
            spoilt = mutated_bytes(data, rng)
            try:
                decode(spoilt)
            except DecodeError as error:
                refused += 1
                assert error.kind in KINDS  # noqa: PT017 - both outcomes are right, and one has a condition
                assert "\n" not in str(error)  # noqa: PT017
    assert refused > 0


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_what_a_spoilt_payload_says_is_written_as_the_same_bytes(name: str) -> None:
    """Reading is strict, so whatever it accepts has only these bytes; and it has a form at the edge."""
    program, rng = public_program(name), random.Random(f"{SEED} {name} again")
    for event in program.idl.events:
        data = program.encode_event(event.name, random_fields(event.fields, rng))
        for _ in range(MUTATIONS):
            spoilt = data[:8] + mutated_bytes(data[8:], rng)
            try:
                found, values, trailing = program.decode_event(spoilt)
            except DecodeError:
                continue
            for field in program.events[found].fields:
                to_json_value(field.type, values[field.name])
            again = program.encode_event(found, values)
            # A NaN keeps its bits in Python, but not through the conversion to a float of four bytes.
            assert again == spoilt[: len(spoilt) - trailing] or "nan" in repr(values)


def test_noise_behind_every_discriminator() -> None:
    """Random bytes, and nothing but the largest length there is."""
    rng = random.Random(SEED)
    for name in PUBLIC_NAMES:
        program = public_program(name)
        for event in program.idl.events:
            for noise in (rng.randbytes(rng.randrange(400)), LENGTHS[0] * 20, bytes(300), b"\x01" * 300):
                try:
                    program.decode_event(event.discriminator + noise)
                except DecodeError as error:
                    assert error.kind in KINDS  # noqa: PT017 - both outcomes are right, and one has a condition


ELEMENTS = (
    '"u8"',
    '"bool"',
    '"u64"',
    '"u128"',
    '"string"',
    '"bytes"',
    '"pubkey"',
    '{"option":"u8"}',
    '{"vec":"u8"}',
    '{"array":["u8",0]}',
    '{"tuple":[]}',
    '{"defined":{"name":"Nothing"}}',
    '{"defined":{"name":"Side"}}',
    '{"coption":"u64"}',
)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x7FFF_FFFF, 1_000_000])
def test_a_count_that_the_payload_does_not_pay_for_costs_nothing(element: str, length: int) -> None:
    """A vec that says it has four billion elements, in forty bytes, takes no memory before it is refused."""
    text = (
        '{"metadata":{"name":"p"},"instructions":[],"events":[{"name":"E","discriminator":[7]}],"types":['
        '{"name":"E","type":{"kind":"struct","fields":[{"name":"f","type":{"vec":' + element + "}}]}},"
        '{"name":"Nothing","type":{"kind":"struct","fields":[]}},'
        '{"name":"Side","type":{"kind":"enum","variants":[{"name":"Bid"},{"name":"Ask"}]}}]}'
    )
    program = Program.from_idl(load_idl(text, source="p"), bytes(32))
    payload = b"\x07" + length.to_bytes(4, "little") + bytes(35)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            program.decode_event(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
