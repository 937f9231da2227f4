"""The bytes of v1 transactions: everything in its place, and everything else refused with what is wrong."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from indexer.chain.wire import V1Instruction, parse_v1
from indexer.errors import DataError

PAYER, READER, WRITTEN, PROGRAM = (bytes([n]) * 32 for n in (1, 2, 3, 4))
SIGNATURES = (bytes([0xAA]) * 64, bytes([0xBB]) * 64)
# The payer and a readonly signer; a written account and the program.
HEADER = (2, 1, 1)
FEE, UNITS = 0b11, 0b100


def v1(**changes: Any) -> bytes:
    """Write a transaction of two instructions, field by field as SIMD-0385 lists them."""
    parts: dict[str, bytes] = {
        "version": b"\x81",
        "header": bytes(HEADER),
        "mask": struct.pack("<I", FEE | UNITS),
        "lifetime": bytes([9]) * 32,
        "instructions": b"\x02",
        "count": b"\x04",
        "addresses": PAYER + READER + WRITTEN + PROGRAM,
        "config": struct.pack("<QI", 5_000, 200_000),
        "headers": struct.pack("<BBH", 3, 3, 2) + struct.pack("<BBH", 3, 0, 0),
        "payloads": b"\x00\x02\x01" + b"\xde\xad",
        "signatures": b"".join(SIGNATURES),
        "behind": b"",
    }
    assert changes.keys() <= parts.keys()
    return b"".join((parts | changes).values())


def test_every_part_is_in_its_place() -> None:
    """Signatures come last; config values lie between the addresses and the instructions."""
    signatures, header, addresses, instructions = parse_v1(v1())
    assert signatures == SIGNATURES
    assert header == HEADER
    assert addresses == (PAYER, READER, WRITTEN, PROGRAM)
    assert instructions == (V1Instruction(3, b"\x00\x02\x01", b"\xde\xad"), V1Instruction(3, b"", b""))


@pytest.mark.parametrize(
    ("mask", "values"), [(0, 0), (0b11, 2), (0b100, 1), (0b11111, 5), (0b1000, 1), (0b11 | 1 << 31, 3)]
)
def test_each_bit_of_the_mask_has_four_bytes(mask: int, values: int) -> None:
    """Also one that has no meaning yet: how long its value is, the format says already."""
    raw = v1(mask=struct.pack("<I", mask), config=bytes(4 * values))
    assert parse_v1(raw).addresses == (PAYER, READER, WRITTEN, PROGRAM)


def test_a_transaction_of_the_smallest_size() -> None:
    """One signer, no instruction."""
    raw = v1(header=b"\x01\0\0", mask=bytes(4), instructions=b"\0", count=b"\1", addresses=PAYER, config=b"")
    raw = raw.replace(struct.pack("<BBH", 3, 3, 2) + struct.pack("<BBH", 3, 0, 0) + b"\x00\x02\x01\xde\xad", b"")
    signatures, header, addresses, instructions = parse_v1(raw[:-64])
    assert (signatures, header, addresses, instructions) == (SIGNATURES[:1], (1, 0, 0), (PAYER,), ())


WRONG: dict[str, tuple[bytes, str]] = {
    "another version": (v1(version=b"\x82"), "starts with 0x81, not 0x82"),
    "nothing": (b"", "ends within the header: 42 bytes needed, 0 left"),
    "half a priority fee": (v1(mask=struct.pack("<I", 0b10)), "has half of a priority fee"),
    "no signer": (v1(header=b"\0\0\0"), "impossible header"),
    "a readonly payer": (v1(header=b"\x02\x02\0"), "impossible header"),
    "more accounts in the header than addresses": (v1(header=b"\x02\x01\x03"), "impossible header"),
    "an account beyond the addresses": (v1(payloads=b"\x00\x04\x01\xde\xad"), "refers to address 4 of 4"),
    "a program beyond the addresses": (
        v1(headers=struct.pack("<BBH", 4, 3, 2) + struct.pack("<BBH", 3, 0, 0)),
        "refers to address 4 of 4",
    ),
    "a byte behind": (v1(behind=b"\0"), "has 1 bytes behind its signatures"),
    "a signature too few": (v1(signatures=SIGNATURES[0]), "ends within the signatures: 128 bytes needed, 64 left"),
    "data that is not there": (
        v1(headers=struct.pack("<BBH", 3, 3, 0xFFFF) + struct.pack("<BBH", 3, 0, 0)),
        "ends within an instruction's data: 65535 bytes needed",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_have_the_layout_is_refused(what: str) -> None:
    """One sentence with the numbers that do not fit."""
    raw, sentence = WRONG[what]
    with pytest.raises(DataError, match=sentence):
        parse_v1(raw)


def test_no_prefix_is_a_transaction() -> None:
    """Cut anywhere, it is refused, never read as a shorter one."""
    raw = v1()
    for length in range(len(raw)):
        with pytest.raises(DataError, match="ends within"):
            parse_v1(raw[:length])


@pytest.fixture
def spoil() -> Callable[[int, int], bytes]:
    """Return what sets one byte of a transaction."""
    raw = v1()
    return lambda position, value: raw[:position] + bytes([value]) + raw[position + 1 :]


def test_any_byte_may_be_any_other(spoil: Callable[[int, int], bytes]) -> None:
    """A changed byte gives another transaction or a refusal, and nothing else."""
    refused = 0
    for position in range(len(v1())):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            try:
                parse_v1(spoil(position, value))
            except DataError:
                refused += 1
    assert refused > 40
