"""
From the compiler's eBPF object to a program that Solana's loader runs.

clang and zig emit eBPF objects, but no linker they ship can link them, and Solana's own toolchain is a large download.
What is missing is small. A program here is one object without writable data, so every address is known at link
time: this module lays out code and constants, resolves all references, and leaves for the loader only the calls of
syscalls, whose names the loader hashes itself. The result is a version 0 SBF file. Compiling is `build.py`'s job.

Source: the loader of solana-sbpf (`elf.rs`), and LLVM's eBPF relocation numbers.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from indexer.errors import DataError

PROGRAM_ADDRESS = 0x1_0000_0000
"""Where the loader maps the file: an address is this plus the file offset."""

MACHINE_BPF = 247
TYPE_RELOCATABLE, TYPE_SHARED = 1, 3
SECTION_PROGBITS, SECTION_SYMTAB, SECTION_STRTAB, SECTION_NOBITS = 1, 2, 3, 8
SECTION_DYNAMIC, SECTION_REL, SECTION_DYNSYM = 6, 9, 11
FLAG_WRITE, FLAG_ALLOC, FLAG_EXECUTE = 1, 2, 4

TAG_END, TAG_STRTAB, TAG_SYMTAB, TAG_STRINGS_SIZE, TAG_SYMBOL_ENTRY = 0, 5, 6, 10, 11
TAG_REL, TAG_REL_SIZE, TAG_REL_ENTRY = 17, 18, 19

RELOCATE_LOAD64, RELOCATE_ABSOLUTE64, RELOCATE_CALL = 1, 2, 10
OPCODE_LOAD64, OPCODE_CALL_REGISTER, CLASS_JUMP32 = 0x18, 0x8D, 6

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT_BYTES = 56  # there are no segments, but the loader wants their size right
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQ")
DYNAMIC_TAG = struct.Struct("<QQ")
INSTRUCTION_BYTES = 8

# LLVM from 21 on plants calls of this where code cannot be reached; Solana's name for it is abort.
SYSCALL_BY_SYMBOL = {"__bpf_trap": "abort"}
SYSCALLS = {
    "abort", "sol_panic_", "sol_log_", "sol_log_64_", "sol_log_compute_units_", "sol_log_pubkey", "sol_log_data",
    "sol_create_program_address", "sol_try_find_program_address", "sol_sha256", "sol_keccak256",
    "sol_secp256k1_recover", "sol_get_clock_sysvar", "sol_get_epoch_schedule_sysvar", "sol_get_rent_sysvar",
    "sol_get_last_restart_slot", "sol_get_sysvar", "sol_memcpy_", "sol_memmove_", "sol_memcmp_", "sol_memset_",
    "sol_invoke_signed_c", "sol_set_return_data", "sol_get_return_data", "sol_get_processed_sibling_instruction",
    "sol_get_stack_height",
}  # fmt: skip


class LinkError(DataError):
    """The object cannot become a program; the message names the symbol or section, and what to change."""


@dataclass(frozen=True)
class Symbol:
    """A name in the object. `section` is 0 where the object only uses it."""

    name: str
    is_global: bool
    section: int
    value: int


@dataclass
class Section:
    """A section of the object. `address` is its file offset in the program, or None where it is left out."""

    name: str
    type: int
    flags: int
    link: int
    info: int
    alignment: int
    size: int
    data: bytes
    address: int | None = None


@dataclass
class Image:
    """The program as it grows: its bytes from file offset 0, and the section headers that describe them."""

    data: bytearray = field(default_factory=lambda: bytearray(HEADER.size))
    headers: list[bytes] = field(default_factory=lambda: [bytes(SECTION.size)])
    names: bytearray = field(default_factory=lambda: bytearray(1))

    def append(self, data: bytes | bytearray) -> tuple[int, int]:
        """Append the bytes at the next aligned offset; return their span."""
        start = self.pad(INSTRUCTION_BYTES)
        self.data.extend(data)
        return start, len(self.data)

    def pad(self, alignment: int) -> int:
        """Fill with zeros up to the alignment; return the offset reached."""
        self.data.extend(bytes(-len(self.data) % alignment))
        return len(self.data)

    def describe(
        self, name: str, kind: int, *, span: tuple[int, int], flags: int = 0, link: int = 0, entry_size: int = 0
    ) -> int:
        """Add a header for the bytes from span[0] up to span[1]; return the section's index."""
        start, end = span
        address = start if flags & FLAG_ALLOC else 0
        header = SECTION.pack(
            len(self.names), kind, flags, address, start, end - start, link, 0, INSTRUCTION_BYTES, entry_size
        )
        self.names.extend(name.encode() + b"\0")
        self.headers.append(header)
        return len(self.headers) - 1


def link(obj: bytes, *, source: str, entrypoint: str = "entrypoint") -> bytes:
    """
    Return the program's ELF file. The same object gives the same bytes.

    Args:
        obj: a little-endian eBPF relocatable ELF, compiled with -mcpu=v2.
        source: what to call the object in an error.
        entrypoint: the global function the runtime calls.

    Raises:
        LinkError: not such an object, a reference to a name that is neither defined nor a syscall, writable data, or
            an instruction or relocation that version 0 does not know.
    """
    sections, symbols = read_object(obj, source=source)
    image = Image()
    placed = place_sections(image, sections, source=source)
    defined = {symbol.name: address_of(symbol, sections) for symbol in symbols if symbol.is_global and symbol.section}
    entry_address = defined.get(entrypoint)
    if entry_address is None:
        raise LinkError(f"{source} has no global function {entrypoint!r}: define it, it is where the program starts")
    syscalls = relocate(image, sections, symbols, source=source)
    adapt_instructions(image, *placed[".text"], source=source)

    image.describe(".text", SECTION_PROGBITS, span=placed[".text"], flags=FLAG_ALLOC | FLAG_EXECUTE)
    if placed[".rodata"][0] < placed[".rodata"][1]:  # an empty one would share its address with the next section
        image.describe(".rodata", SECTION_PROGBITS, span=placed[".rodata"], flags=FLAG_ALLOC)
    if syscalls:
        append_dynamic(image, syscalls)
    names_index = image.describe(".shstrtab", SECTION_STRTAB, span=image.append(image.names + b".shstrtab\0"))
    headers_at, _ = image.append(b"".join(image.headers))
    HEADER.pack_into(
        image.data, 0, b"\x7fELF\x02\x01\x01", TYPE_SHARED, MACHINE_BPF, 1, entry_address, HEADER.size, headers_at, 0,
        HEADER.size, SEGMENT_BYTES, 0, SECTION.size, len(image.headers), names_index,
    )  # fmt: skip
    return bytes(image.data)


def read_object(obj: bytes, *, source: str) -> tuple[list[Section], list[Symbol]]:
    """Return the object's sections and symbols, in their own order: relocations count both by index."""
    if obj[:6] != b"\x7fELF\x02\x01" or len(obj) < HEADER.size:
        raise LinkError(f"{source} is no 64-bit little-endian ELF object: compile it with -target bpfel")
    header = HEADER.unpack_from(obj)
    if (header[1], header[2]) != (TYPE_RELOCATABLE, MACHINE_BPF):
        raise LinkError(
            f"{source} is ELF type {header[1]} for machine {header[2]}, not an eBPF object: compile with -c"
        )
    headers_at, count, names_index = header[6], header[12], header[13]
    raw = [SECTION.unpack_from(obj, headers_at + SECTION.size * index) for index in range(count)]
    bodies = [b"" if row[1] == SECTION_NOBITS else obj[row[4] : row[4] + row[5]] for row in raw]
    sections = [
        Section(text_at(bodies[names_index], row[0]), row[1], row[2], row[6], row[7], max(1, row[8]), row[5], body)
        for row, body in zip(raw, bodies, strict=True)
    ]
    symbols = []
    for section in sections:
        if section.type == SECTION_SYMTAB:
            for name, info, _, index, value, _ in SYMBOL.iter_unpack(section.data):
                symbols.append(Symbol(text_at(sections[section.link].data, name), info >> 4 != 0, index, value))
    return sections, symbols


def text_at(table: bytes, offset: int) -> str:
    """Return the zero-terminated name at the offset of a string table."""
    return table[offset : table.index(b"\0", offset)].decode()


def place_sections(image: Image, sections: list[Section], *, source: str) -> dict[str, tuple[int, int]]:
    """
    Copy code, then constants, to the image and fix their addresses; return (start, end) of each.

    The loader of version 0 maps the file as it is: a section's address must equal its offset.
    """
    placed = {}
    for output in (".text", ".rodata"):
        start = image.pad(16)
        for section in sections:
            if output_of(section, source=source) == output:
                section.address = image.pad(max(INSTRUCTION_BYTES, section.alignment))
                image.data.extend(section.data)
        placed[output] = (start, image.pad(INSTRUCTION_BYTES))
    return placed


def output_of(section: Section, *, source: str) -> str | None:
    """Return which part of the program a section belongs to, or None for what the loader has no use for."""
    if not section.flags & FLAG_ALLOC or section.size == 0 or section.name.startswith(".eh_frame"):
        return None
    if section.type not in (SECTION_PROGBITS, SECTION_NOBITS):
        return None
    if section.flags & FLAG_EXECUTE:
        return ".text"
    # Constants holding addresses are "writable until relocated" to a compiler; here they are relocated already.
    if section.type == SECTION_NOBITS or (section.flags & FLAG_WRITE and not section.name.startswith(".data.rel.ro")):
        raise LinkError(f"{source} has writable globals in {section.name}: a program has none, make them const")
    return ".rodata"


def address_of(symbol: Symbol, sections: list[Section]) -> int:
    """Return the file offset of a symbol that the object defines."""
    address = sections[symbol.section].address if symbol.section < len(sections) else None
    if address is None:
        raise LinkError(f"{symbol.name!r} lies in a section that is not part of a program: make it code or const data")
    return address + symbol.value


def relocate(image: Image, sections: list[Section], symbols: list[Symbol], *, source: str) -> list[tuple[int, str]]:
    """Resolve every reference in the image; return the (file offset, name) of each syscall left to the loader."""
    syscalls = []
    for at, kind, symbol in references(sections, symbols):
        if not symbol.section:
            name = SYSCALL_BY_SYMBOL.get(symbol.name, symbol.name)
            if kind != RELOCATE_CALL or name not in SYSCALLS:
                raise LinkError(f"{source} refers to {symbol.name!r}, neither defined in it nor a syscall: define it")
            struct.pack_into("<i", image.data, at + 4, -1)
            syscalls.append((at, name))
            continue
        address = address_of(symbol, sections)
        if kind == RELOCATE_CALL:
            # The addend, and the distance written back, count instructions from the one after the call.
            (addend,) = struct.unpack_from("<i", image.data, at + 4)
            target = address + (addend + 1) * INSTRUCTION_BYTES
            struct.pack_into("<i", image.data, at + 4, (target - at) // INSTRUCTION_BYTES - 1)
        elif kind == RELOCATE_LOAD64:
            (low,) = struct.unpack_from("<I", image.data, at + 4)
            (high,) = struct.unpack_from("<I", image.data, at + 12)
            value = PROGRAM_ADDRESS + address + (high << 32 | low)
            struct.pack_into("<I", image.data, at + 4, value & 0xFFFFFFFF)
            struct.pack_into("<I", image.data, at + 12, value >> 32)
        elif kind == RELOCATE_ABSOLUTE64:
            (addend,) = struct.unpack_from("<Q", image.data, at)
            struct.pack_into("<Q", image.data, at, PROGRAM_ADDRESS + address + addend)
        else:
            raise LinkError(f"{source} refers to {symbol.name!r} by relocation type {kind}: version 0 has no such one")
    return syscalls


def references(sections: list[Section], symbols: list[Symbol]) -> Iterator[tuple[int, int, Symbol]]:
    """Yield (file offset, relocation type, symbol) of every reference inside what was placed."""
    for section in sections:
        address = sections[section.info].address if section.type == SECTION_REL else None
        if address is not None:
            for offset, info in RELOCATION.iter_unpack(section.data):
                yield address + offset, info & 0xFFFFFFFF, symbols[info >> 32]


def adapt_instructions(image: Image, start: int, end: int, *, source: str) -> None:
    """Rewrite what LLVM and the version 0 machine encode differently, and refuse what the machine does not know."""
    at = start
    while at < end:
        opcode, registers = image.data[at], image.data[at + 1]
        if opcode == OPCODE_CALL_REGISTER and registers & 15:
            # LLVM names the register in the destination field, the machine reads it from the immediate.
            struct.pack_into("<BBhi", image.data, at, OPCODE_CALL_REGISTER, 0, 0, registers & 15)
        elif opcode & 7 == CLASS_JUMP32:
            raise LinkError(f"{source} has a 32-bit jump at code offset {at - start:#x}: compile with -mcpu=v2")
        at += 2 * INSTRUCTION_BYTES if opcode == OPCODE_LOAD64 else INSTRUCTION_BYTES


def append_dynamic(image: Image, syscalls: list[tuple[int, str]]) -> None:
    """Append the tables by which the loader finds the syscalls: their names, symbols, and the calls of each."""
    names = list(dict.fromkeys(name for _, name in syscalls))
    strings, symbols = bytearray(1), bytearray(SYMBOL.size)
    for name in names:
        symbols.extend(SYMBOL.pack(len(strings), 0x10, 0, 0, 0, 0))  # global, of no type, defined elsewhere
        strings.extend(name.encode() + b"\0")
    calls = b"".join(RELOCATION.pack(at, (names.index(name) + 1) << 32 | RELOCATE_CALL) for at, name in syscalls)

    symbols_span, strings_span, calls_span = (image.append(table) for table in (symbols, strings, calls))
    strings_index = len(image.headers) + 1
    symbols_index = image.describe(
        ".dynsym", SECTION_DYNSYM, span=symbols_span, flags=FLAG_ALLOC, link=strings_index, entry_size=SYMBOL.size
    )
    image.describe(".dynstr", SECTION_STRTAB, span=strings_span, flags=FLAG_ALLOC)
    image.describe(
        ".rel.dyn", SECTION_REL, span=calls_span, flags=FLAG_ALLOC, link=symbols_index, entry_size=RELOCATION.size
    )
    tags = (
        (TAG_REL, calls_span[0]), (TAG_REL_SIZE, len(calls)), (TAG_REL_ENTRY, RELOCATION.size),
        (TAG_SYMTAB, symbols_span[0]), (TAG_SYMBOL_ENTRY, SYMBOL.size),
        (TAG_STRTAB, strings_span[0]), (TAG_STRINGS_SIZE, len(strings)), (TAG_END, 0),
    )  # fmt: skip
    tags_span = image.append(b"".join(DYNAMIC_TAG.pack(tag, value) for tag, value in tags))
    image.describe(
        ".dynamic", SECTION_DYNAMIC, span=tags_span, flags=FLAG_ALLOC, link=strings_index,
        entry_size=DYNAMIC_TAG.size,
    )  # fmt: skip
