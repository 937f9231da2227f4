"""128-bit arithmetic on a machine that has none: each operation of the support code against Python's integers."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from localnet.programs import build

U64, U128 = 2**64, 2**128
IDL = """{"metadata": {"name": "wide"}, "instructions": [], "accounts": [], "events": [], "types": [],
          "errors": [{"code": 6000, "name": "Wide", "msg": "wide"}]}"""
SOURCE = """
#include "anchor.h"
#include "borsh.h"
#include "wide.h"

static void put(BorshWriter *writer, const u128 *value, bool fits) {
    write_u64(writer, value->low);
    write_u64(writer, value->high);
    write_u64(writer, fits);
}

/* Two numbers of 128 bits and one of 64 in; every operation's result, and whether it fits, out. */
u64 entrypoint(u8 *input) {
    Context context;
    AccountInfo none[1];
    read_input(input, none, 1, &context);
    BorshReader reader = {context.data, context.data + context.data_len, false};
    u128 left, right, result, rest = {0, 0};
    left.low = read_u64(&reader);
    left.high = read_u64(&reader);
    right.low = read_u64(&reader);
    right.high = read_u64(&reader);
    u64 word = read_u64(&reader);
    u8 out[8 * 24];
    BorshWriter writer = {out, out + sizeof out, false};
    bool fits = add_wide(left, right, &result);
    put(&writer, &result, fits);
    fits = subtract_wide(left, right, &result);
    put(&writer, &result, fits);
    fits = multiply_wide(&left, word, &result);
    put(&writer, &result, fits);
    result = left; /* the quotient over the value, as the engine does it */
    divide_by_u64(&result, word, &result, &rest.low);
    put(&writer, &result, true);
    put(&writer, &rest, true);
    divide_wide(&left, &right, &result, &rest);
    put(&writer, &result, true);
    put(&writer, &rest, true);
    put(&writer, &left, is_less(left, right));
    Slice line = {out, sizeof out};
    sol_log_data(&line, 1);
    return writer.failed || reader.failed;
}
"""


class Machine:
    """A VM with the program above."""

    def __init__(self, elf: bytes) -> None:
        self.svm, self.payer, self.program_id = LiteSVM(), Keypair.from_seed(bytes([6] * 32)), Pubkey(bytes([7] * 32))
        self.svm.add_program(self.program_id, elf)
        self.svm.airdrop(self.payer.pubkey(), 10**12)

    def run(self, left: int, right: int, word: int) -> list[tuple[int, bool]]:
        """Return each operation's result, and whether it fits."""
        self.svm.expire_blockhash()
        data = left.to_bytes(16, "little") + right.to_bytes(16, "little") + word.to_bytes(8, "little")
        message = Message.new_with_blockhash(
            [Instruction(self.program_id, data, [])], self.payer.pubkey(), self.svm.latest_blockhash()
        )
        logs = self.svm.send_transaction(VersionedTransaction(message, [self.payer])).logs()  # type: ignore[union-attr]  # it never fails
        (line,) = [line for line in logs if line.startswith("Program data: ")]
        out = base64.b64decode(line.removeprefix("Program data: "))
        return [(int.from_bytes(out[at : at + 16], "little"), out[at + 16] == 1) for at in range(0, len(out), 24)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Machine:
    require("ziglang")
    source = tmp_path_factory.mktemp("wide") / "wide.c"
    source.write_text(SOURCE)
    return Machine(build.compile_program(source, IDL))


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Numbers of every length up to so many bits, and those next to a power of two."""
    edges = st.builds(lambda at, by: max(0, min(2**bits - 1, 2**at + by)), st.integers(0, bits), st.integers(-2, 2))
    lengths = st.integers(0, bits).flatmap(lambda n: st.integers(0, 2**n - 1))
    return st.one_of(edges, lengths)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(left=numbers(128), right=numbers(128), word=numbers(64))
@example(left=U128 - 1, right=U64, word=U64 - 1)
@example(left=U128 - 1, right=2**127 + 1, word=2**63)
@example(left=2**127, right=U128 - 1, word=1)
@example(left=(U64 - 2) * U64 + U64 - 1, right=(U64 - 1) * U64, word=U64 - 1)
@example(left=0x8000000000000000_00000000_00000003, right=1, word=0x2000000000000001)  # the estimate is two too large
def test_wide_arithmetic_is_pythons(machine: Machine, left: int, right: int, word: int) -> None:
    """Sums, differences, products, quotients and remainders are exact; what does not fit is said."""
    right, word = max(right, 1), max(word, 1)
    added, subtracted, multiplied, quotient, remainder, wide_quotient, wide_remainder, less = machine.run(
        left, right, word
    )
    assert added == ((left + right) % U128, left + right < U128)
    assert subtracted == ((left - right) % U128, left >= right)
    assert multiplied[1] == (left * word < U128)
    assert not multiplied[1] or multiplied[0] == left * word
    assert (quotient[0], remainder[0]) == divmod(left, word)
    assert (wide_quotient[0], wide_remainder[0]) == divmod(left, right)
    assert less == (left, left < right)
