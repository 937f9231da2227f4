"""The linker on objects made by hand: one object a rule, so that each rule can be broken alone."""

import struct
from dataclasses import dataclass, field

import pytest
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import TransactionMetadata

from localnet.programs.linker import PROGRAM_ADDRESS, LinkError, link

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
NOP = struct.pack("<BBhi", 0xBF, 0x11, 0, 0)  # r1 = r1
RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + EXIT
CALL = struct.pack("<BBhi", 0x85, 0x10, 0, -1)
LOAD64 = struct.pack("<BBhiBBhi", 0x18, 1, 0, 0, 0, 0, 0, 0)  # r1 = 0 as 64 bits
TEXT, RODATA, DATA = 1, 2, 3


@dataclass
class Object:
    """A relocatable object: code, constants, and a third section of any name; symbols and relocations by hand."""

    text: bytes = RETURN_0
    rodata: bytes = b""
    data: bytes = b""
    data_name: str = ".data.rel.ro"
    data_flags: int = 3
    data_type: int = 1
    symbols: list[tuple[str, int, int]] = field(default_factory=lambda: [("entrypoint", TEXT, 0)])
    """(name, section or 0, value)"""
    text_relocations: list[tuple[int, int, str]] = field(default_factory=list)
    """(offset, type, symbol)"""
    data_relocations: list[tuple[int, int, str]] = field(default_factory=list)
    machine: int = 247
    type: int = 1

    def elf(self) -> bytes:
        """Return the file."""
        order = [name for name, _, _ in self.symbols]

        def table(relocations: list[tuple[int, int, str]]) -> bytes:
            return b"".join(struct.pack("<QQ", at, order.index(n) + 1 << 32 | kind) for at, kind, n in relocations)

        strings, symbols = b"\0", bytes(24)
        for name, section, value in self.symbols:
            symbols += struct.pack("<IBBHQQ", len(strings), 0x10, 0, section, value, 0)
            strings += name.encode() + b"\0"
        sections = [
            ("", 0, 0, b"", 0, 0), (".text", 1, 6, self.text, 0, 0), (".rodata", 1, 2, self.rodata, 0, 0),
            (self.data_name, self.data_type, self.data_flags, self.data, 0, 0),
            (".rel.text", 9, 0, table(self.text_relocations), 6, TEXT),
            (".rel.data", 9, 0, table(self.data_relocations), 6, DATA),
            (".symtab", 2, 0, symbols, 7, 1), (".strtab", 3, 0, strings, 0, 0),
        ]  # fmt: skip
        names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections[1:]) + b".shstrtab\0"
        sections.append((".shstrtab", 3, 0, names, 0, 0))
        body, headers = bytes(64), b""
        for name, kind, flags, data, link_index, info in sections:
            name_at = names.index(name.encode() + b"\0")
            headers += struct.pack("<IIQQQQIIQQ", name_at, kind, flags, 0, len(body), len(data), link_index, info, 8, 0)
            body += data
        header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", self.type, self.machine, 1, 0, 0, len(body),
                             0, 64, 0, 0, 64, len(sections), len(sections) - 1)  # fmt: skip
        return header + body[64:] + headers


def sections_of(elf: bytes) -> dict[str, tuple[int, int, bytes]]:
    """Return address, offset and bytes of each section of a linked file."""
    headers_at, count, names_index = struct.unpack_from("<40xQ12xHH", elf)
    rows = [struct.unpack_from("<IIQQQQIIQQ", elf, headers_at + 64 * i) for i in range(count)]
    names = elf[rows[names_index][4] :]
    return {
        names[row[0] : names.index(b"\0", row[0])].decode(): (row[3], row[4], elf[row[4] : row[4] + row[5]])
        for row in rows
    }


def run(elf: bytes, data: bytes = b"") -> tuple[bool, list[str]]:
    """Return whether the program succeeds on the VM, and its logs."""
    svm, payer, program_id = LiteSVM(), Keypair.from_seed(bytes([6] * 32)), Pubkey.new_unique()
    svm.add_program(program_id, elf)
    svm.airdrop(payer.pubkey(), 10**9)
    message = Message.new_with_blockhash([Instruction(program_id, data, [])], payer.pubkey(), svm.latest_blockhash())
    result = svm.send_transaction(VersionedTransaction(message, [payer]))
    if isinstance(result, TransactionMetadata):
        return True, result.logs()
    return False, result.meta().logs()


def test_the_smallest_program_runs() -> None:
    """Two instructions become a file that the loader accepts, whose sections lie where their addresses say."""
    elf = link(Object().elf(), source="x")
    assert run(elf)[0]
    for address, offset, _ in sections_of(elf).values():
        assert address in (0, offset)
    (entry,) = struct.unpack_from("<Q", elf, 24)
    assert entry == sections_of(elf)[".text"][0]


def test_the_same_object_gives_the_same_file() -> None:
    """Neither time nor the name in error messages is in the output."""
    assert link(Object().elf(), source="a/b.o") == link(Object().elf(), source="c.o")


def test_the_entrypoint_need_not_come_first() -> None:
    """The file starts where the entrypoint is; another name can be asked for."""
    obj = Object(text=EXIT + RETURN_0, symbols=[("entrypoint", TEXT, 8), ("other", TEXT, 0)])
    elf = link(obj.elf(), source="x")
    assert struct.unpack_from("<Q", elf, 24)[0] == sections_of(elf)[".text"][0] + 8
    assert run(elf)[0]
    other = link(obj.elf(), source="x", entrypoint="other")
    assert struct.unpack_from("<Q", other, 24)[0] == sections_of(other)[".text"][0]


def test_calls_inside_the_program_are_relative() -> None:
    """A call counts instructions from the one after it, forwards and backwards; the program really arrives."""
    text = CALL + RETURN_0 + CALL + EXIT + NOP + EXIT
    obj = Object(
        text=text,
        symbols=[("entrypoint", TEXT, 0), ("middle", TEXT, 24), ("last", TEXT, 40)],
        text_relocations=[(0, 10, "middle"), (24, 10, "last")],
    )
    elf = link(obj.elf(), source="x")
    linked = sections_of(elf)[".text"][2]
    assert [struct.unpack_from("<i", linked, at + 4)[0] for at in (0, 24)] == [2, 1]
    assert run(elf)[0]
    back = Object(
        text=NOP + EXIT + CALL + RETURN_0,
        symbols=[("entrypoint", TEXT, 16), ("first", TEXT, 0)],
        text_relocations=[(16, 10, "first")],
    )
    elf = link(back.elf(), source="x")
    assert struct.unpack_from("<i", sections_of(elf)[".text"][2], 20)[0] == -3
    assert run(elf)[0]


def test_a_call_to_a_section_keeps_its_addend() -> None:
    """A static function is called by its section's symbol, the distance into it counted in instructions, less one."""
    call = struct.pack("<BBhi", 0x85, 0x10, 0, 2)  # the third instruction after the start of the section, plus one
    obj = Object(
        text=call + RETURN_0 + NOP + EXIT,
        symbols=[("entrypoint", TEXT, 0), (".text", TEXT, 0)],
        text_relocations=[(0, 10, ".text")],
    )
    assert struct.unpack_from("<i", sections_of(link(obj.elf(), source="x"))[".text"][2], 4)[0] == 2


def test_syscalls_are_left_to_the_loader() -> None:
    """A syscall becomes one dynamic symbol, whatever the number of its calls, and really logs."""
    size = struct.pack("<BBhi", 0xB7, 2, 0, 5)  # r2 = 5
    text = (LOAD64 + size + CALL) * 2 + RETURN_0
    obj = Object(
        text=text,
        rodata=b"hello",
        symbols=[("entrypoint", TEXT, 0), ("greeting", RODATA, 0), ("sol_log_", 0, 0)],
        text_relocations=[
            (0, 1, "greeting"),
            (24, 10, "sol_log_"),
            (32, 1, "greeting"),
            (56, 10, "sol_log_"),
        ],
    )
    elf = link(obj.elf(), source="x")
    sections = sections_of(elf)
    assert sections[".dynstr"][2] == b"\0sol_log_\0"
    assert len(sections[".dynsym"][2]) == 2 * 24
    assert len(sections[".rel.dyn"][2]) == 2 * 16
    succeeded, logs = run(elf)
    assert succeeded
    assert logs.count("Program log: hello") == 2


def test_constants_get_absolute_addresses() -> None:
    """A 64-bit load and a pointer in a table both hold where the loader will map the constant, addend included."""
    load = bytearray(LOAD64)
    struct.pack_into("<i", load, 4, 3)
    obj = Object(
        text=bytes(load) + RETURN_0,
        rodata=b"0123456789",
        data=struct.pack("<Q", 1),
        symbols=[("entrypoint", TEXT, 0), ("digits", RODATA, 2)],
        text_relocations=[(0, 1, "digits")],
        data_relocations=[(0, 2, "digits")],
    )
    sections = sections_of(link(obj.elf(), source="x"))
    low, high = struct.unpack_from("<I4xI", sections[".text"][2], 4)
    (pointer,) = struct.unpack_from("<Q", sections[".rodata"][2], 16)
    start = PROGRAM_ADDRESS + sections[".rodata"][0]
    assert high << 32 | low == start + 2 + 3
    assert pointer == start + 2 + 1


def test_a_planted_trap_becomes_abort() -> None:
    """Where LLVM says that code cannot be reached, the program aborts."""
    obj = Object(
        text=CALL + EXIT,
        symbols=[("entrypoint", TEXT, 0), ("__bpf_trap", 0, 0)],
        text_relocations=[(0, 10, "__bpf_trap")],
    )
    elf = link(obj.elf(), source="x")
    assert sections_of(elf)[".dynstr"][2] == b"\0abort\0"
    succeeded, logs = run(elf)
    assert not succeeded
    assert "SBF program panicked" in logs[-1]


def test_calls_by_register_name_it_where_the_machine_looks() -> None:
    """LLVM writes the register of callx as destination; the machine reads the immediate."""
    obj = Object(text=struct.pack("<BBhi", 0x8D, 3, 0, 0) + RETURN_0)
    linked = sections_of(link(obj.elf(), source="x"))[".text"][2]
    assert linked[:8] == struct.pack("<BBhi", 0x8D, 0, 0, 3)


def test_the_second_half_of_a_load_is_no_instruction() -> None:
    """What looks like a forbidden jump inside a 64-bit constant is left alone."""
    load = struct.pack("<BBhiBBhi", 0x18, 1, 0, 0x8D, 0, 0, 0, 0x06)
    obj = Object(text=load + RETURN_0)
    assert sections_of(link(obj.elf(), source="x"))[".text"][2][:16] == load


REFUSED: list[tuple[bytes, str]] = [
    (b"", "no 64-bit little-endian ELF"),
    (b"\x7fELF\x01\x01" + bytes(100), "no 64-bit little-endian ELF"),
    (Object(machine=62).elf(), "machine 62"),
    (Object(type=2).elf(), "type 2"),
    (Object(symbols=[("main", TEXT, 0)]).elf(), "no global function 'entrypoint'"),
    (Object(data=b"x", data_name=".data").elf(), "writable globals in .data"),
    (Object(data=b"x", data_name=".bss", data_type=8).elf(), "writable globals in .bss"),
    (
        Object(symbols=[("entrypoint", TEXT, 0), ("memcpy", 0, 0)], text_relocations=[(0, 10, "memcpy")]).elf(),
        "'memcpy', neither defined",
    ),
    (
        Object(
            text=LOAD64 + RETURN_0,
            symbols=[("entrypoint", TEXT, 0), ("sol_log_", 0, 0)],
            text_relocations=[(0, 1, "sol_log_")],
        ).elf(),
        "'sol_log_', neither defined",
    ),
    (
        Object(symbols=[("entrypoint", TEXT, 0), ("gone", DATA, 0)], data=b"x", data_flags=0, data_name=".debug",
               text_relocations=[(0, 1, "gone")]).elf(),
        "'gone' lies in a section",
    ),
    (Object(text_relocations=[(0, 3, "entrypoint")]).elf(), "relocation type 3"),
    (Object(text=struct.pack("<BBhi", 0x16, 0, 0, 0) + RETURN_0).elf(), "-mcpu=v2"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "says"), REFUSED)
def test_what_cannot_be_a_program_is_refused_in_words(obj: bytes, says: str) -> None:
    """Each refusal names the object and what is wrong with it."""
    with pytest.raises(LinkError, match=says) as raised:
        link(obj, source="bad.o")
    assert "bad.o" in str(raised.value) or "'gone'" in str(raised.value)
