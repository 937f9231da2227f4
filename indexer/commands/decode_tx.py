"""
`capstan decode-tx`: transactions, a line each, to their events and instructions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer
from solders.signature import Signature

from indexer.chain.codec import DecodeError
from indexer.chain.events import (
    CPI_EVENT_TAG,
    CPI_ORDINAL_STRIDE,
    CPI_PROBLEM_BASE,
    Event,
    Problem,
    event_authority,
    extract_events,
)
from indexer.chain.logs import TRUNCATED
from indexer.chain.program import Program
from indexer.chain.transaction import NO_SIGNATURE, Instruction, Transaction, decode_signature, parse_transaction
from indexer.chain.value import base58_pubkey
from indexer.commands.edge import event_encoders, instruction_encoders
from indexer.commands.lines import answer_lines
from indexer.console import reported
from indexer.errors import DataError
from indexer.idls import named_programs

# Problems of the whole transaction: they have no place in it.
_WHOLE = frozenset({"truncated", "no_logs", "no_inner_instructions", "unknown_keys"})


class _Envelope(msgspec.Struct, gc=False):
    """The members by which the shapes of a line are told apart."""

    transaction: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    logs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Logs(msgspec.Struct, gc=False):
    logs: tuple[str, ...] | None
    signature: str | None = None
    err: Any = None


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_logs = msgspec.json.Decoder(_Logs).decode
_write_line = msgspec.json.Encoder().encode


class _UnreadableLineError(Exception):
    """Why a line holds no transaction: `kind` is bad_line, not_found or rpc_error."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class TransactionDecoder:
    """Answers lines that hold a transaction with what `programs` did in it."""

    def __init__(self, programs: Mapping[bytes, Program]) -> None:
        self._programs = programs
        self._events = {key: event_encoders(program) for key, program in programs.items()}
        self._args = {key: instruction_encoders(program) for key, program in programs.items()}

    def answer(self, line: bytes) -> bytes:
        """Return the answer to one line, as JSON; a line without a transaction has only errors. Never raises."""
        try:
            tx = self._transaction(line)
        except _UnreadableLineError as error:
            return _write_line(_unread(error.kind, str(error)))
        except (DataError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _write_line(_unread("bad_line", str(error)))
        extraction = extract_events(tx, self._programs)
        errors = [_problem(problem) for problem in extraction.problems]
        return _write_line(
            {
                "signature": None if tx.signature == NO_SIGNATURE else str(Signature(tx.signature)),
                "err": None if tx.err is None else msgspec.Raw(tx.err.encode()),
                "events": [self._event(event) for event in extraction.events],
                "instructions": list(self._instructions(tx, errors)),
                "truncated": TRUNCATED in (tx.logs or ()),
                "errors": errors,
            }
        )

    def _event(self, event: Event) -> dict[str, Any]:
        return {
            "program": base58_pubkey(event.program_id),
            "name": event.name,
            "source": event.kind,
            "ordinal": event.ordinal,
            "value": self._events[event.program_id][event.name](event.values),
        }

    def _instructions(self, tx: Transaction, errors: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the instructions of our programs, and append those that cannot be read to `errors`."""
        told = {(error["source"], error["ordinal"]) for error in errors if error["kind"] == "bad_instruction"}
        for outer, inner, instruction in _placed(tx):
            program = self._programs.get(instruction.program_id or b"")
            if program is None:
                continue
            try:
                read = self._instruction(program, tx, instruction)
            except DataError as error:
                # The search for events has come across the same bytes and said so.
                if inner is None or ("cpi", outer * CPI_ORDINAL_STRIDE + inner) not in told:
                    kind = error.kind if isinstance(error, DecodeError) else "bad_instruction"
                    place = {"outer": outer, "inner": inner}
                    errors.append(_error(kind, str(error), program.program_id, "instruction") | place)
                continue
            if read is not None:
                name, rest = read
                head = {"program": base58_pubkey(program.program_id), "name": name, "outer": outer, "inner": inner}
                yield head | rest

    def _transaction(self, line: bytes) -> Transaction:
        shape = _read_envelope(line)
        if shape.transaction is not msgspec.UNSET:
            return parse_transaction(line)
        if shape.result is not msgspec.UNSET and bytes(shape.result) != b"null":
            return parse_transaction(bytes(shape.result))
        if shape.logs is not msgspec.UNSET:
            return self._from_logs(_read_logs(line))
        if shape.error is not msgspec.UNSET:
            raise _UnreadableLineError("rpc_error", f"the node refused: {bytes(shape.error).decode()[:300]}")
        if shape.result is not msgspec.UNSET:
            raise _UnreadableLineError("not_found", "the result is null: the node does not have this transaction")
        raise _UnreadableLineError(
            "bad_line", "the line has none of transaction, result and logs: it must be what getTransaction returns"
        )

    def _from_logs(self, given: _Logs) -> Transaction:
        """Take logs for a transaction in which any of the programs may have run, and none by `emit_cpi!`."""
        return Transaction(
            signature=NO_SIGNATURE if given.signature is None else decode_signature(given.signature),
            slot=0,
            block_time=None,
            err=None if given.err is None else msgspec.json.encode(given.err).decode(),
            fee=0,
            compute_units=None,
            logs=given.logs,
            account_keys=tuple(self._programs),
            writable=(False,) * len(self._programs),
            signers=0,
            instructions=(),
            inner=(),
            keys_complete=True,
            version="legacy",
        )

    def _instruction(
        self, program: Program, tx: Transaction, instruction: Instruction
    ) -> tuple[str, dict[str, Any]] | None:
        """
        Return the name and what goes with it; None for an event that a program told itself.

        Raises:
            DataError: the node sent no valid data or accounts.
            DecodeError: the IDL does not describe it.
        """
        data, accounts = instruction.data, tx.accounts_of(instruction)
        if data.startswith(CPI_EVENT_TAG) and accounts == (event_authority(program.program_id),):
            return None
        read = program.decode_instruction(data, accounts)
        named = {name: None if key is None else base58_pubkey(key) for name, key in read.accounts.items()}
        rest = {
            "args": self._args[program.program_id][read.name](read.values),
            "accounts": named,
            "remaining": [base58_pubkey(key) for key in read.remaining],
        }
        return read.name, rest | ({"trailing": read.trailing} if read.trailing else {})


def _placed(tx: Transaction) -> Iterator[tuple[int, int | None, Instruction]]:
    """Yield every instruction with its outer and flat inner position, an outer one before its inner ones."""
    inner: dict[int, list[tuple[int, Instruction]]] = {}
    for outer, group in tx.inner or ():
        inner.setdefault(outer, []).extend(enumerate(group))
    for outer, instruction in enumerate(tx.instructions):
        yield outer, None, instruction
        yield from ((outer, position, one) for position, one in inner.pop(outer, ()))
    for outer, group_ in inner.items():
        yield from ((outer, position, one) for position, one in group_)


def _problem(problem: Problem) -> dict[str, Any]:
    """A problem's place says which list it would have stood in, so that it can be looked up there."""
    if problem.kind in _WHOLE:
        return _error(problem.kind, problem.detail, problem.program_id)
    by_cpi = problem.ordinal >= CPI_PROBLEM_BASE
    ordinal = problem.ordinal - CPI_PROBLEM_BASE if by_cpi else problem.ordinal
    return _error(problem.kind, problem.detail, problem.program_id, "cpi" if by_cpi else "log", ordinal)


def _error(
    kind: str, reason: str, program_id: bytes | None, source: str | None = None, ordinal: int | None = None
) -> dict[str, Any]:
    program = None if program_id is None else base58_pubkey(program_id)
    return {"kind": kind, "reason": reason, "program": program, "source": source, "ordinal": ordinal}


def _unread(kind: str, reason: str) -> dict[str, Any]:
    nothing: dict[str, Sequence[Any]] = {"events": [], "instructions": []}
    return {"signature": None, "err": None, **nothing, "truncated": False, "errors": [_error(kind, reason, None)]}


def decode_tx(
    *,
    idl: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PROGRAM=]FILE",
            help="An Anchor IDL, either format; repeat for more. PROGRAM, its address in base58, where the file has "
            "none, or to use another. Default: the home programs.",
        ),
    ] = None,
) -> None:
    """
    Decode transactions: what programs logged and were asked, out of getTransaction's answers.

    Reads a transaction on each line of stdin: the result of getTransaction (encoding json or base64), a whole
    JSON-RPC reply, or {"logs": [...]} alone, perhaps with "signature" and "err". Answers each, in order, with
    {"signature", "err", "events", "instructions", "truncated", "errors"}.

    Example: capstan decode-tx --idl target/idl/my_program.json < transactions.ndjson
    """
    with reported():
        answer_lines(TransactionDecoder(named_programs(idl or [])).answer)
