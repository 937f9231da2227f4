"""
The events of a transaction, from both of Anchor's ways to emit them, and what could not be read.

`emit!` prints a data line, which counts for the program that ran when it was printed. `emit_cpi!` calls the program
itself; such a call counts only where program, tag and event authority are all right, as anyone may call anything. A
failed transaction changed nothing, so it has no events. A transaction whose logs are cut or absent is not complete, and
says so; what is missing is recovered elsewhere.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from indexer.chain.codec import DecodeError
from indexer.chain.logs import BadLine, DataLine, scan_logs
from indexer.chain.pda import find_pda
from indexer.chain.program import Program
from indexer.chain.transaction import Instruction, Transaction
from indexer.chain.value import Value
from indexer.errors import DataError

# The first eight bytes of sha256("anchor:event"), as Anchor writes them: little-endian.
CPI_EVENT_TAG = bytes.fromhex("e445a52e51cb9a1d")
_as_tuple = tuple.__new__

# An outer instruction's position times this, plus the flat position of the inner one.
CPI_ORDINAL_STRIDE = 65_536
# Problems of inner instructions are numbered from here, so that none shares its place with one of a data line.
CPI_PROBLEM_BASE = 1 << 32

EventKind = Literal["log", "cpi"]


class Event(NamedTuple):
    """
    One event. (signature, kind, ordinal) is its identity, the same from every source and at every reading.

    Args:
        ordinal: kind "log": number of the data line; kind "cpi": outer position * 65536 + flat inner position.
        block_time: unix seconds, or None.
    """

    program_id: bytes
    name: str
    signature: bytes
    kind: EventKind
    ordinal: int
    slot: int
    block_time: int | None
    values: dict[str, Value]


class Problem(NamedTuple):
    """
    Something that was there and could not be read.

    Args:
        subject: the signature.
        kind: unknown_discriminator, ambiguous_discriminator, short_payload, invalid_value, too_deep, trailing_bytes,
            extra_fields, bad_base64, unattributed, bad_instruction, bad_body, truncated, no_logs,
            no_inner_instructions, unknown_keys.
        ordinal: as the event's would be, for inner instructions plus CPI_PROBLEM_BASE; 0 where the whole
            transaction is meant.
    """

    program_id: bytes
    subject: bytes
    kind: str
    ordinal: int
    detail: str
    slot: int


class Extraction(NamedTuple):
    """`complete` is False where events may be missing: there may be more than were found."""

    events: tuple[Event, ...]
    problems: tuple[Problem, ...]
    complete: bool


def extract_events(tx: Transaction, programs: Mapping[bytes, Program]) -> Extraction:
    """
    Return the events of `programs` in `tx`: those of the logs in their order, then those of inner instructions.

    Never raises on what a chain, or a node, may contain: what cannot be read is a `Problem`, and the rest goes on.

    Args:
        programs: by program id, 32 bytes.
    """
    if tx.err is not None:
        return Extraction((), (), complete=True)
    found = _Found(tx, programs)
    found.read_logs()
    found.read_inner_instructions()
    return Extraction(tuple(found.events), tuple(found.problems), found.complete)


@lru_cache(maxsize=4096)
def event_authority(program_id: bytes) -> bytes:
    """Return the address whose signature proves that a program's event instruction comes from the program itself."""
    return find_pda([b"__event_authority"], program_id)[0]


def _place(kind: EventKind, ordinal: int) -> int:
    """Return the ordinal of a problem."""
    return ordinal if kind == "log" else CPI_PROBLEM_BASE + ordinal


class _Found:
    """What one transaction has given so far."""

    __slots__ = ("_programs", "_tx", "complete", "events", "problems")

    def __init__(self, tx: Transaction, programs: Mapping[bytes, Program]) -> None:
        self._tx = tx
        self._programs = programs
        self.events: list[Event] = []
        self.problems: list[Problem] = []
        self.complete = True

    def read_logs(self) -> None:
        scan = scan_logs(self._tx.logs, programs=self._programs)
        for line in scan.data:
            self._read_line(line)
        for bad in scan.bad:
            self._read_bad(bad)
        if scan.missing or (not self._tx.logs and self._runs_program()):
            self._incomplete("no_logs", "the node has no logs of this transaction")
        if scan.truncated:
            self._incomplete("truncated", "the logs are cut; what was logged after that is not known")

    def read_inner_instructions(self) -> None:
        tx = self._tx
        if tx.inner is None:
            self._incomplete("no_inner_instructions", "the node did not record inner instructions")
        if not tx.keys_complete:
            self._incomplete("unknown_keys", "the node did not tell which keys the lookup tables loaded")
        for outer, instructions in tx.inner or ():
            for position, instruction in enumerate(instructions):
                program = self._programs.get(instruction.program_id or b"")
                if program is not None:
                    self._read_inner(program, instruction, outer * CPI_ORDINAL_STRIDE + position)

    def _read_line(self, line: DataLine) -> None:
        if line.program_id is None:
            self._incomplete("unattributed", "the logs do not tell which program printed a data line", line.ordinal)
            return
        program = self._programs[line.program_id]
        # Anchor prints one field; of a program that prints more, the first is where an event would be.
        payload = line.payloads[0] if line.payloads else b""
        read = self._decode(program, payload, "log", line.ordinal)
        if read and len(line.payloads) > 1:
            detail = f"{len(line.payloads) - 1} more fields on the data line of this event"
            self._problem(program.program_id, "extra_fields", line.ordinal, detail)

    def _read_bad(self, bad: BadLine) -> None:
        self.complete = False
        for program_id in self._mentioned() if bad.program_id is None else (bad.program_id,):
            self._problem(program_id, "bad_base64", bad.ordinal, bad.reason)

    def _read_inner(self, program: Program, instruction: Instruction, ordinal: int) -> None:
        try:
            data = instruction.data
            if not data.startswith(CPI_EVENT_TAG):
                return
            accounts = self._tx.accounts_of(instruction)
        except DataError as error:
            self._problem(program.program_id, "bad_instruction", CPI_PROBLEM_BASE + ordinal, str(error))
            self.complete = False
            return
        if accounts != (event_authority(program.program_id),):
            # Anyone may call with the tag; only the program can sign for its event authority.
            return
        self._decode(program, data[len(CPI_EVENT_TAG) :], "cpi", ordinal)

    def _decode(self, program: Program, payload: bytes, kind: EventKind, ordinal: int) -> bool:
        tx = self._tx
        try:
            decoded = program.decode_event(payload)
        except DecodeError as error:
            self._problem(program.program_id, error.kind, _place(kind, ordinal), str(error))
            return False
        name, values = decoded.name, decoded.values
        event = (program.program_id, name, tx.signature, kind, ordinal, tx.slot, tx.block_time, values)
        # What Event(...) does, without what naming the arguments costs.
        self.events.append(_as_tuple(Event, event))
        if decoded.trailing:
            detail = f"{name} is {decoded.trailing} bytes longer than the IDL says"
            self._problem(program.program_id, "trailing_bytes", _place(kind, ordinal), detail)
        return True

    def _incomplete(self, kind: str, detail: str, ordinal: int = 0) -> None:
        self.complete = False
        for program_id in self._mentioned():
            self._problem(program_id, kind, ordinal, detail)

    def _runs_program(self) -> bool:
        inner = (instruction for _, group in self._tx.inner or () for instruction in group)
        return any(i.program_id in self._programs for i in (*self._tx.instructions, *inner) if i.program_id)

    def _mentioned(self) -> Iterator[bytes]:
        keys = set(self._tx.account_keys)
        # Where keys are unknown, any program may be among them.
        return (p for p in self._programs if p in keys or not self._tx.keys_complete)

    def _problem(self, program_id: bytes, kind: str, ordinal: int, detail: str) -> None:
        self.problems.append(Problem(program_id, self._tx.signature, kind, ordinal, detail, self._tx.slot))
