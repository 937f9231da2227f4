"""
The bytes of a v1 transaction, which solders does not read.

Legacy and v0 begin with the number of their signatures, v1 with its version, 0x81, which no such number can be. The
layout, without any padding, is

    0x81, header (3 x u8), config mask (u32), blockhash (32), instruction count (u8), address count (u8),
    addresses (32 each), config values (4 bytes for each bit of the mask that is set),
    for each instruction: program index (u8), account count (u8), data length (u16),
    for each instruction: account indexes (u8 each), data,
    signatures (64 each, as many as the header says)

Read here is what a node returns, which validators have found valid; so the limits that they put on counts and sizes,
and may raise, are not repeated. What the bytes mean is put together in `transaction.py`.

Source: SIMD-0385, "Transaction V1 Format".
"""

import struct
from typing import NamedTuple

from indexer.errors import DataError

V1_PREFIX = 0x81
_FIXED = struct.Struct("<4BI32s2B")
_INSTRUCTION = struct.Struct("<2BH")
_CONFIG_VALUE_BYTES = 4
_ADDRESS_BYTES = 32
_SIGNATURE_BYTES = 64
# The priority fee is eight bytes, so it has two bits, which are set together.
_PRIORITY_FEE_BITS = 0b11


class V1Instruction(NamedTuple):
    """`program` and `accounts` are positions in the transaction's addresses."""

    program: int
    accounts: bytes
    data: bytes


class V1Transaction(NamedTuple):
    """
    What the bytes say.

    Args:
        signatures: 64 bytes each, one for each signer.
        header: how many sign, how many of those are readonly, how many of the others are.
        addresses: 32 bytes each; v1 has no lookup tables, so these are all.
    """

    signatures: tuple[bytes, ...]
    header: tuple[int, int, int]
    addresses: tuple[bytes, ...]
    instructions: tuple[V1Instruction, ...]


def parse_v1(raw: bytes) -> V1Transaction:
    """
    Read a v1 transaction.

    Args:
        raw: all of it, version byte and signatures included.

    Raises:
        DataError: it does not have the layout: too short, too long, counts or positions that contradict each other.
    """
    reader = _Reader(raw)
    prefix, *header, mask, _blockhash, instruction_count, address_count = reader.unpack(_FIXED, "the header")
    if prefix != V1_PREFIX:
        raise DataError(f"a v1 transaction starts with {V1_PREFIX:#x}, not {prefix:#x}")
    if mask & _PRIORITY_FEE_BITS not in (0, _PRIORITY_FEE_BITS):
        raise DataError(f"the config mask {mask:#x} of a v1 transaction has half of a priority fee")
    signers, readonly_signed, readonly_unsigned = header
    # The fee payer is a signer and writable.
    if readonly_signed >= signers or signers + readonly_unsigned > address_count:
        raise DataError(f"a v1 transaction with {address_count} addresses has the impossible header {tuple(header)}")
    addresses = reader.split(address_count, _ADDRESS_BYTES, "the addresses")
    reader.take(mask.bit_count() * _CONFIG_VALUE_BYTES, "the config values")
    shapes = [reader.unpack(_INSTRUCTION, "the instruction headers") for _ in range(instruction_count)]
    instructions = tuple(_instruction(reader, shape, address_count) for shape in shapes)
    signatures = reader.split(signers, _SIGNATURE_BYTES, "the signatures")
    if reader.left:
        raise DataError(f"a v1 transaction has {reader.left} bytes behind its signatures")
    return V1Transaction(signatures, (signers, readonly_signed, readonly_unsigned), addresses, instructions)


def _instruction(reader: "_Reader", shape: tuple[int, ...], address_count: int) -> V1Instruction:
    program, account_count, data_length = shape
    accounts = reader.take(account_count, "an instruction's accounts")
    data = reader.take(data_length, "an instruction's data")
    farthest = max(program, *accounts) if accounts else program
    if farthest >= address_count:
        raise DataError(f"an instruction of a v1 transaction refers to address {farthest} of {address_count}")
    return V1Instruction(program, accounts, data)


class _Reader:
    """Takes bytes from the front; what is missing is named."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._raw) - self._position

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise DataError(f"a v1 transaction ends within {what}: {count} bytes needed, {self.left} left")
        start = self._position
        self._position += count
        return self._raw[start : self._position]

    def split(self, count: int, size: int, what: str) -> tuple[bytes, ...]:
        taken = self.take(count * size, what)
        return tuple(taken[start : start + size] for start in range(0, len(taken), size))

    def unpack(self, packed: struct.Struct, what: str) -> tuple[int, ...]:
        return packed.unpack(self.take(packed.size, what))
