"""
Bodies of getTransaction, many at once, as columns: what each transaction says of itself, its logs, its CPI events.

For archives: one body a line, or a list of bodies. What is wanted is taken out while parsing, and nothing else is kept.
A body that is out of the ordinary (binary, cut or absent logs, keys not told) is `left` to `parse_transaction`, one by
one; so is every one that seems wrong, for the sentence that says why. What the logs hold is found in `batch.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from solders.pubkey import Pubkey
from solders.signature import Signature

from indexer.chain.base58_columns import decode_base58_columns
from indexer.chain.base64_columns import Arrow
from indexer.chain.body_lines import Bodies, BodyLines
from indexer.chain.body_shape import (
    NOT_READ,
    Outcome,
    all_keys,
    decode_body,
    decode_reply,
    decode_result,
    is_possible,
)
from indexer.chain.events import CPI_EVENT_TAG, CPI_ORDINAL_STRIDE, event_authority
from indexer.chain.log_columns import Ints
from indexer.chain.transaction import NO_SIGNATURE, Transaction, parse_transaction
from indexer.errors import DataError

_REPLY = b'{"jsonrpc"'
_SIGNATURE: pa.DataType = pa.binary(64)
TRANSACTION_SCHEMA = pa.schema(
    [
        ("signature", _SIGNATURE),
        ("slot", pa.int64()),
        ("block_time", pa.int64()),
        ("err", pa.string()),
        ("fee", pa.int64()),
        ("compute_units", pa.int64()),
        ("logs", pa.list_(pa.string())),
        ("line", pa.int64()),
    ]
)


class LineError(NamedTuple):
    """A body that is none: `line` counts from 0, `reason` is the message of `parse_transaction`'s DataError."""

    line: int
    reason: str


class Calls(NamedTuple):
    """
    Inner instructions that may be CPI events: of a wanted program, with its event authority as the one account.

    Args:
        rows: int64, (n_calls,): the transaction.
        programs: int64, (n_calls,): position in the wanted programs.
        ordinals: int64, (n_calls,): outer position * 65536 + flat inner position.
        payloads: binary, (n_calls,): what follows the tag.
    """

    rows: Ints
    programs: Ints
    ordinals: Ints
    payloads: Arrow


@dataclass(frozen=True)
class TransactionColumns:
    """
    Transactions in the order of their lines.

    Args:
        table: a row for each transaction, columns as in TRANSACTION_SCHEMA; they mean what the fields of `Transaction`
            mean. `line` is the number of the line, `err` JSON text.
        calls: CPI events, if their bytes are some; of succeeded transactions that are not `left`.
        left: by row, transactions that only reading them one by one does justice to.
        errors: lines that are no transaction, and are no row.
        programs: the wanted programs.
        bodies: what was read, for those who want to read a line again.
    """

    table: pa.RecordBatch
    calls: Calls
    left: dict[int, Transaction]
    errors: tuple[LineError, ...]
    programs: tuple[bytes, ...]
    bodies: BodyLines = field(repr=False)
    first_line: int = 0

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def transaction(self, row: int) -> Transaction:
        """Return the transaction of a row as `parse_transaction` reads it."""
        kept = self.left.get(row)
        return kept if kept is not None else _parse(self.bodies.body(self.table["line"][row].as_py() - self.first_line))


def read_bodies(bodies: Bodies, programs: Sequence[bytes] = (), *, first_line: int = 0) -> TransactionColumns:
    """
    Read what getTransaction returned, its results or the whole replies that hold them.

    Args:
        bodies: bytes with one body a line, or a list of bodies. Kept, not copied, by what is returned. `body_batches`
            cuts large files.
        programs: 32 bytes each: those whose CPI events are wanted.
        first_line: the number of the first line.

    Raises:
        DataError: more than 2 GiB of logs at once; cut the batch. A body that is wrong is one of the `errors`.
    """
    lines = BodyLines(bodies)
    reading = _read_all(lines, programs, _Doubts(frozenset(), frozenset()))
    doubts = reading.doubts()
    if doubts.lines or doubts.keys:
        # Found only when all keys, signatures and calls are looked at together; rare enough to begin again.
        reading = _read_all(lines, programs, doubts)
        assert not reading.doubts().lines, "what was doubtful is left"
    return reading.finished(lines, first_line)


class _Doubts(NamedTuple):
    """Lines that may be wrong, and keys that are none."""

    lines: frozenset[int]
    keys: frozenset[str]


def _read_all(lines: BodyLines, programs: Sequence[bytes], doubts: _Doubts) -> "_Reading":
    reading = _Reading(programs, doubts.keys)
    read, doubtful = reading.read, doubts.lines
    for line, body in enumerate(lines):
        if line in doubtful or not read(line, body):
            reading.leave(line, body)
    return reading


def _parse(body: bytes) -> Transaction:
    if body.startswith(_REPLY):
        with suppress(*NOT_READ):
            body = bytes(decode_result(body).result)
    return parse_transaction(body)


class _Reading:
    """What the bodies so far have given, column by column."""

    def __init__(self, programs: Sequence[bytes], bad_keys: frozenset[str]) -> None:
        self._bad_keys = bad_keys
        self._is_reply = False
        self._programs = tuple(programs)
        self._places = {str(Pubkey.from_bytes(program)): place for place, program in enumerate(programs)}
        self._authorities = [str(Pubkey.from_bytes(event_authority(program))) for program in programs]
        self._keys: set[str] = set()
        self._signatures: list[str] = []
        # line, slot, fee; block time, compute units, err
        self._numbers: list[int] = []
        self._options: list[Any] = []
        self._logs: list[str] = []
        self._log_counts: list[int] = []
        # row, program, ordinal, whether it is signed by the event authority
        self._calls: list[int] = []
        self._call_texts: list[str] = []
        self._left: dict[int, Transaction] = {}
        self._errors: list[LineError] = []

    def read(self, line: int, body: bytes | memoryview) -> bool:
        """Return False, and keep nothing, where the body is out of the ordinary, or perhaps wrong."""
        try:
            parsed = (
                decode_reply(body).result if self._is_reply and body[: len(_REPLY)] == _REPLY else decode_body(body)
            )
        except NOT_READ:
            if self._is_reply or body[: len(_REPLY)] != _REPLY:
                return False
            # One reply is seldom alone.
            self._is_reply = True
            return self.read(line, body)
        content, meta = parsed.transaction, parsed.meta
        message = content.message
        loaded = meta.loaded_addresses
        if message.address_table_lookups or (loaded is not None and (loaded.writable or loaded.readonly)):
            keys = all_keys(message, loaded)
        else:
            keys = message.account_keys
        if keys is None or (self._bad_keys and not self._bad_keys.isdisjoint(keys)):
            return False
        self._keys.update(keys)
        if not (content.signatures and meta.log_messages and is_possible(message)):
            return False
        count = len(keys)
        for instruction in message.instructions:
            if instruction.program_id_index >= count:
                return False
        if meta.inner_instructions and not self._read_inner(meta, keys):
            return False
        err = None if meta.err is None else msgspec.json.encode(meta.err).decode()
        self._append(content.signatures[0], (line, parsed.slot, meta.fee), meta.log_messages)
        self._options += (parsed.block_time, meta.compute_units_consumed, err)
        return True

    def _append(self, signature: str, numbers: tuple[int, int, int], logs: Sequence[str]) -> None:
        self._signatures.append(signature)
        self._numbers += numbers
        self._logs += logs
        self._log_counts.append(len(logs))

    def _read_inner(self, meta: Outcome, keys: Sequence[str]) -> bool:
        count, places, row = len(keys), self._places, len(self._signatures)
        calls: list[int] = []
        texts: list[str] = []
        for group in meta.inner_instructions:
            for position, instruction in enumerate(group.instructions):
                index = instruction.program_id_index
                if index >= count:
                    return False
                place = places.get(keys[index])
                if place is None or meta.err is not None:
                    continue
                accounts = instruction.accounts
                if accounts and max(accounts) >= count:
                    return False
                is_signed = len(accounts) == 1 and keys[accounts[0]] == self._authorities[place]
                calls += (row, place, group.index * CPI_ORDINAL_STRIDE + position, is_signed)
                texts.append(instruction.data)
        self._calls += calls
        self._call_texts += texts
        return True

    def leave(self, line: int, body: bytes | memoryview) -> None:
        """Keep the transaction as it is, or say why it is none."""
        try:
            tx = _parse(bytes(body))
            _check_bounds(tx)
        except DataError as error:
            self._errors.append(LineError(line, str(error)))
            return
        row = len(self._signatures)
        self._left[row] = tx
        self._append(str(Signature.from_bytes(tx.signature)), (line, tx.slot, tx.fee), tx.logs or ())
        self._options += (tx.block_time, tx.compute_units, tx.err)

    def doubts(self) -> _Doubts:
        """Return what may be wrong with the bodies that are not left: keys, signatures, instruction data."""
        self._decoded_signatures = decode_base58_columns(self._signatures)
        self._decoded_calls = decode_base58_columns(self._call_texts)
        values = self._decoded_signatures.values
        is_wrong = ~self._decoded_signatures.valid | np.asarray(pc.equal(values, pa.scalar(NO_SIGNATURE)))
        is_wrong |= np.asarray(pc.binary_length(values)) != len(NO_SIGNATURE)
        rows = set(np.flatnonzero(is_wrong).tolist())
        rows.update(self._calls[4 * at] for at in np.flatnonzero(~self._decoded_calls.valid).tolist())
        lines = frozenset(self._numbers[3 * row] for row in rows if row not in self._left)
        return _Doubts(lines, frozenset(key for key in self._keys if not _is_key(key)))

    def finished(self, lines: BodyLines, first_line: int) -> TransactionColumns:
        """Return the columns, once no line is doubtful."""
        numbers = np.array(self._numbers, np.int64).reshape(-1, 3).T
        columns = {
            "signature": self._signature_column(),
            "slot": pa.array(numbers[1]),
            "block_time": pa.array(self._options[0::3], pa.int64()),
            "err": pa.array(self._options[2::3], pa.string()),
            "fee": pa.array(numbers[2]),
            "compute_units": pa.array(self._options[1::3], pa.int64()),
            "logs": self._log_column(),
            "line": pa.array(numbers[0] + first_line),
        }
        errors = tuple(LineError(error.line + first_line, error.reason) for error in self._errors)
        table = pa.RecordBatch.from_arrays(list(columns.values()), schema=TRANSACTION_SCHEMA)
        return TransactionColumns(table, self._call_columns(), self._left, errors, self._programs, lines, first_line)

    def _signature_column(self) -> Arrow:
        decoded = self._decoded_signatures
        if decoded.valid.all():
            return decoded.values.cast(_SIGNATURE)
        # Those of lines that are left were decoded one by one.
        values = decoded.values.to_pylist()
        for row, tx in self._left.items():
            values[row] = tx.signature
        return pa.array(values, _SIGNATURE)

    def _log_column(self) -> Arrow:
        counts = np.array(self._log_counts, np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        is_null = np.zeros(len(counts), np.bool_)
        is_null[[row for row, tx in self._left.items() if tx.logs is None]] = True
        values = _strings(self._logs)
        mask: Arrow = pa.array(is_null) if is_null.any() else None
        column: Arrow = pa.ListArray
        return column.from_arrays(pa.array(offsets), values, mask=mask)

    def _call_columns(self) -> Calls:
        rows, programs, ordinals, signed = np.array(self._calls, np.int64).reshape(-1, 4).T
        values = self._decoded_calls.values
        tag: Any = CPI_EVENT_TAG
        is_tagged = np.asarray(pc.starts_with(values, tag))
        kept = np.flatnonzero((signed != 0) & is_tagged)
        payloads = pc.binary_slice(values.take(kept), len(CPI_EVENT_TAG), (1 << 31) - 1)
        found = Calls(rows[kept], programs[kept], ordinals[kept], payloads)
        more = [call for row, tx in self._left.items() for call in _calls_of(tx, row, self._programs)]
        if not more:
            return found
        left = np.array([call[:3] for call in more], np.int64).T
        order = np.argsort(np.concatenate([found.rows, left[0]]), kind="stable")
        joined = pa.concat_arrays([payloads, pa.array([call[3] for call in more], pa.binary())])
        columns = [np.concatenate([mine, its])[order] for mine, its in zip(found[:3], left, strict=True)]
        return Calls(columns[0], columns[1], columns[2], joined.take(order))


@lru_cache(maxsize=131_072)
def _is_key(text: str) -> bool:
    try:
        Pubkey.from_string(text)
    except ValueError:
        return False
    return True


def _check_bounds(tx: Transaction) -> None:
    numbers = [tx.slot, tx.fee, tx.block_time or 0, tx.compute_units or 0]
    numbers += [outer * CPI_ORDINAL_STRIDE for outer, _ in tx.inner or ()]
    for number in numbers:
        if not -(1 << 62) <= number < 1 << 62:
            raise DataError(f"a transaction with the number {str(number)[:40]} in it is none; a column cannot hold it")


def _calls_of(tx: Transaction, row: int, programs: Sequence[bytes]) -> Iterator[tuple[int, int, int, bytes]]:
    """Return row, program, ordinal and payload of the CPI events, as `extract_events` finds them."""
    if tx.err is not None:
        return
    for outer, group in tx.inner or ():
        for position, instruction in enumerate(group):
            if instruction.program_id not in programs:
                continue
            try:
                data, accounts = instruction.data, tx.accounts_of(instruction)
            except DataError:
                continue
            if data.startswith(CPI_EVENT_TAG) and accounts == (event_authority(instruction.program_id),):
                place = programs.index(instruction.program_id)
                yield row, place, outer * CPI_ORDINAL_STRIDE + position, data[len(CPI_EVENT_TAG) :]


def _strings(texts: list[str]) -> Arrow:
    array: Arrow = pa.array(texts, pa.string())
    if isinstance(array, pa.ChunkedArray):
        raise DataError("the logs of a batch have more than 2 GiB of text; cut the batch")
    return array
