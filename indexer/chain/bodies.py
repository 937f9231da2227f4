"""
Bodies of getTransaction, many at once, as columns: what each transaction says of itself, its logs, its CPI events.

For archives: one body a line, or a list of bodies. What is wanted is taken out by `body_columns.py`; here it is looked
through, column by column, for what cannot be right. A body that is out of the ordinary (binary, cut or absent logs,
keys not told) is `left` to `parse_transaction`, one by one; so is every one that seems wrong, for the sentence that
says why. What the logs hold is found in `batch.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from solders.pubkey import Pubkey

from indexer.chain.base58_columns import are_keys, decode_base58_columns
from indexer.chain.base64_columns import Arrow
from indexer.chain.body_columns import parse_columns
from indexer.chain.body_lines import Bodies, BodyLines
from indexer.chain.events import CPI_EVENT_TAG, CPI_ORDINAL_STRIDE, event_authority
from indexer.chain.log_columns import Flags, Ints
from indexer.chain.transaction import NO_SIGNATURE, Transaction, parse_transaction
from indexer.errors import DataError

_SIGNATURE: pa.DataType = pa.binary(64)
# No number of a chain is as large, and some arithmetic is left to do with them.
_NUMBER_MAX = 1 << 62
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

    They are in the order of their transactions, and there of their ordinals.

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
        mentions: bool, (n_programs, n_rows): whether a wanted program is among the keys, static or loaded.
        left: by row, transactions that only reading them one by one does justice to.
        errors: lines that are no transaction, and are no row.
        programs: the wanted programs.
        bodies: what was read, for those who want to read a line again.
    """

    table: pa.RecordBatch
    calls: Calls
    mentions: Flags
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
        return kept if kept is not None else parse_transaction(self.bodies.body(self._line(row)))

    def _line(self, row: int) -> int:
        return int(self.table["line"][row].as_py()) - self.first_line

    def texts(self) -> Arrow:
        """Return each row's body, (n_rows,) of binary: the result alone where the line was a whole reply."""
        return self.bodies.column(self.table["line"].to_numpy() - self.first_line)


def read_bodies(bodies: Bodies, programs: Sequence[bytes] = (), *, first_line: int = 0) -> TransactionColumns:
    """
    Read what getTransaction returned, its results or the whole replies that hold them.

    Much of the work is done without Python's lock: two threads read two batches in little more time than one.

    Args:
        bodies: bytes with one body a line, or a list of bodies. Kept, not copied, by what is returned. `body_batches`
            cuts large files.
        programs: 32 bytes each: those whose CPI events are wanted.
        first_line: the number of the first line.

    Raises:
        DataError: more than 2 GiB of logs at once; cut the batch. A body that is wrong is one of the `errors`.
    """
    lines = BodyLines(bodies)
    try:
        reading = _Reading(parse_columns(lines.texts()), tuple(programs))
    except pa.ArrowInvalid as error:
        raise DataError(f"the bodies of a batch do not fit its columns: {str(error)[:100]}; cut the batch") from None
    return reading.finished(lines, first_line)


class _Lists(NamedTuple):
    """A list column: the values of row i are values[offsets[i]:offsets[i + 1]]; none where the row is null."""

    offsets: Ints
    values: Arrow

    @classmethod
    def of(cls, column: Arrow) -> "_Lists":
        offsets = np.frombuffer(column.buffers()[1], np.int32)[: len(column) + 1] if len(column) else np.zeros(1, "<i4")
        return cls(offsets.astype(np.int64), column.values)

    @property
    def counts(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def rows(self) -> Ints:
        """The row of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def rows_with(self, places: Flags) -> Ints:
        """Return the rows of the values at which `places` is set."""
        rows: Ints = np.searchsorted(self.offsets, np.flatnonzero(places), "right") - 1
        return rows


class _Keys:
    """The keys of all transactions: static, loaded writable, loaded readonly; and which of them are looked for."""

    def __init__(self, columns: Mapping[str, Arrow], wanted: Sequence[bytes]) -> None:
        self._parts = [_Lists.of(columns[name]) for name in ("keys", "writable", "readonly")]
        texts = pa.array([str(Pubkey(key)) for key in wanted], pa.string())
        self._codes = [_filled(pc.index_in(part.values, value_set=texts), -1) for part in self._parts]
        self.counts = sum((part.counts for part in self._parts), np.zeros(len(columns["keys"]), np.int64))
        promised = _promised(columns["lookups"])
        self.told = (promised[0] == self._parts[1].counts) & (promised[1] == self._parts[2].counts)

    def rows_with_strangers(self) -> Ints:
        """Return the transactions in which a text is no key."""
        return np.concatenate([part.rows_with(~are_keys(part.values)) for part in self._parts])

    def codes_at(self, rows: Ints, places: Ints) -> Ints:
        """Return which wanted key is at each place of its transaction's keys; -1 where none of them is."""
        codes = np.full(len(rows), -1, np.int64)
        first = np.zeros(len(rows), np.int64)
        for part, known in zip(self._parts, self._codes, strict=True):
            inside = places - first
            counts = part.counts[rows]
            here = np.flatnonzero((inside >= 0) & (inside < counts))
            codes[here] = known[part.offsets[rows[here]] + inside[here]]
            first = first + counts
        return codes

    def mentions(self, count: int) -> Flags:
        """Return, for each of the first `count` wanted keys, which transactions have it."""
        flags = np.zeros((count, len(self.counts)), np.bool_)
        for part, codes in zip(self._parts, self._codes, strict=True):
            places = (codes >= 0) & (codes < count)
            flags[codes[places], part.rows_with(places)] = True
        return flags


class _Lookup(msgspec.Struct, rename="camel", gc=False):
    writable_indexes: tuple[int, ...] = ()
    readonly_indexes: tuple[int, ...] = ()


_decode_lookups = msgspec.json.Decoder(tuple[_Lookup, ...]).decode


def _promised(lookups: Arrow) -> Ints:
    """Return how many writable and readonly keys each transaction loads, (2, n_rows); -1 where that cannot be read."""
    counts = np.zeros((2, len(lookups)), np.int64)
    none: Any = "[]"
    rows = np.flatnonzero(np.asarray(pc.fill_null(pc.not_equal(lookups, none), False)))
    for row, text in zip(rows.tolist(), lookups.take(pa.array(rows)).to_pylist(), strict=True):
        try:
            tables = _decode_lookups(text)
        except (msgspec.DecodeError, RecursionError):
            counts[:, row] = -1
            continue
        counts[:, row] = sum(len(t.writable_indexes) for t in tables), sum(len(t.readonly_indexes) for t in tables)
    return counts


class _Reading:
    """All lines: their columns, the calls in them, and which of them are left to be read singly."""

    def __init__(self, columns: Mapping[str, Arrow], programs: tuple[bytes, ...]) -> None:
        self._columns = columns
        self._programs = programs
        self._keys = _Keys(columns, [*programs, *map(event_authority, programs)])
        # A row here is a line.
        self._is_left = np.zeros(len(columns["slot"]), np.bool_)
        self._look_at_columns()
        self._look_at_keys()
        self._signatures = self._read_signatures()
        self._calls = self._read_calls()

    def _leave(self, lines: Ints | Flags) -> None:
        self._is_left[lines] = True

    def _look_at_columns(self) -> None:
        for name in ("slot", "fee", "logs", "inner", "signatures", "keys"):
            self._leave(_nulls(self._columns[name]))
        for name in ("slot", "fee", "block_time", "compute_units"):
            numbers = _filled(self._columns[name], 0)
            self._leave((numbers >= _NUMBER_MAX) | (numbers < -_NUMBER_MAX))
        for name in ("logs", "signatures"):
            texts = _Lists.of(self._columns[name])
            self._leave(texts.counts == 0)
            self._leave(texts.rows_with(_nulls(texts.values)))

    def _look_at_keys(self) -> None:
        self._leave(~self._keys.told)
        self._leave(self._keys.rows_with_strangers())

    def _read_signatures(self) -> Arrow:
        listed = _Lists.of(self._columns["signatures"])
        first = pa.array(listed.offsets[:-1], mask=listed.counts == 0)
        decoded = decode_base58_columns(pc.fill_null(listed.values.take(first), ""))
        is_wrong = ~decoded.valid | np.asarray(pc.equal(decoded.values, pa.scalar(NO_SIGNATURE)))
        is_wrong |= np.asarray(pc.binary_length(decoded.values)) != len(NO_SIGNATURE)
        self._leave(is_wrong)
        return decoded.values

    def _read_calls(self) -> Calls:
        """Return the calls of wanted programs by themselves; a row is a line."""
        groups = _Lists.of(self._columns["inner"])
        indexes, listed = _field(groups.values, "index"), _field(groups.values, "instructions")
        self._leave(groups.rows_with(_nulls(indexes) | _nulls(listed)))
        calls = _Lists.of(listed)
        group = calls.rows
        rows = groups.rows[group]
        programs, data = _field(calls.values, "programIdIndex"), _field(calls.values, "data")
        accounts = _field(calls.values, "accounts")
        self._leave(rows[_nulls(programs) | _nulls(data) | _nulls(accounts)])
        places = _Lists.of(accounts)
        self._leave(rows[places.rows_with(_nulls(places.values))])
        program = _filled(programs, 0)
        self._leave(rows[program >= self._keys.counts[rows]])
        codes = self._keys.codes_at(rows, program)
        count = len(self._programs)
        # A failed transaction changed nothing.
        is_wanted = (codes >= 0) & (codes < count) & _nulls(self._columns["err"])[rows]
        wanted = np.flatnonzero(is_wanted & ~self._is_left[rows])
        decoded = decode_base58_columns(pc.fill_null(data.take(wanted), ""))
        rows, codes = rows[wanted], codes[wanted]
        self._leave(rows[~decoded.valid])
        self._leave(rows[self._out_of_range(places, wanted, rows)])
        # One more, for calls that name no account at the end of all.
        account = np.append(_filled(places.values, 0), 0)[places.offsets[wanted]]
        is_signed = (places.counts[wanted] == 1) & (self._keys.codes_at(rows, account) == codes + count)
        tag: Any = CPI_EVENT_TAG
        kept = np.flatnonzero(is_signed & np.asarray(pc.starts_with(decoded.values, tag)) & ~self._is_left[rows])
        payloads = pc.binary_slice(decoded.values.take(kept), len(CPI_EVENT_TAG), (1 << 31) - 1)
        position = wanted - calls.offsets[group[wanted]]
        ordinals = _filled(indexes, 0)[group[wanted]] * CPI_ORDINAL_STRIDE + position
        return Calls(rows[kept], codes[kept], ordinals[kept], payloads)

    def _out_of_range(self, places: _Lists, calls: Ints, rows: Ints) -> Flags:
        """Return which of the calls name an account that its transaction does not have."""
        counts = places.counts[calls]
        owner = np.repeat(np.arange(len(calls)), counts)
        starts = np.repeat(places.offsets[calls] - (np.cumsum(counts) - counts), counts)
        accounts = _filled(places.values, 0)[starts + np.arange(len(owner))]
        beyond = np.zeros(len(calls), np.bool_)
        beyond[owner[accounts >= self._keys.counts[rows[owner]]]] = True
        return beyond

    def finished(self, lines: BodyLines, first_line: int) -> TransactionColumns:
        """Read what is left singly, and put it where it belongs."""
        singles: dict[int, Transaction] = {}
        errors: list[LineError] = []
        for line in np.flatnonzero(self._is_left).tolist():
            try:
                singles[line] = _checked(parse_transaction(lines.body(line)))
            except DataError as error:
                errors.append(LineError(line + first_line, str(error)))
        is_row = np.ones(len(self._is_left), np.bool_)
        is_row[[error.line - first_line for error in errors]] = False
        # From lines to rows.
        row_of = np.cumsum(is_row) - 1
        left = {int(row_of[line]): tx for line, tx in singles.items()}
        mentions = self._keys.mentions(len(self._programs))
        for place, program in enumerate(self._programs):
            mentions[place, list(singles)] = [program in tx.account_keys for tx in singles.values()]
        calls = self._calls
        calls = calls._replace(rows=row_of[calls.rows])
        return TransactionColumns(
            self._table(singles, first_line),
            _with_singles(calls, left, self._programs),
            mentions[:, is_row],
            left,
            tuple(errors),
            self._programs,
            lines,
            first_line,
        )

    def _table(self, singles: Mapping[int, Transaction], first_line: int) -> pa.RecordBatch:
        """Return these lines' transactions: from the columns, and those that were read singly."""
        columns = self._columns
        is_read = ~self._is_left
        numbers = np.arange(len(is_read)) + first_line
        arrays: list[Arrow] = [
            self._signatures,
            *(columns[field.name] for field in TRANSACTION_SCHEMA if field.name in columns),
        ]
        read = [*arrays, pa.array(numbers)]
        if not is_read.all():
            mask: Arrow = pa.array(is_read)
            read = [array.filter(mask) for array in read]
        cast = [array.cast(field.type) for array, field in zip(read, TRANSACTION_SCHEMA, strict=True)]
        table = pa.RecordBatch.from_arrays(cast, schema=TRANSACTION_SCHEMA)
        if not singles:
            return table
        rows = [_row(tx, line + first_line) for line, tx in singles.items()]
        added = pa.RecordBatch.from_pylist(rows, schema=TRANSACTION_SCHEMA)
        both = pa.Table.from_batches([table, added]).combine_chunks().to_batches()[0]
        order: Arrow = pa.array(np.argsort(np.concatenate([np.flatnonzero(is_read), list(singles)]), kind="stable"))
        return both.take(order)


def _row(tx: Transaction, line: int) -> dict[str, Any]:
    return {
        "signature": tx.signature,
        "slot": tx.slot,
        "block_time": tx.block_time,
        "err": tx.err,
        "fee": tx.fee,
        "compute_units": tx.compute_units,
        "logs": tx.logs,
        "line": line,
    }


def _with_singles(found: Calls, left: Mapping[int, Transaction], programs: Sequence[bytes]) -> Calls:
    """Return all calls, in the order of their transactions and ordinals."""
    more = [call for row, tx in left.items() for call in _calls_of(tx, row, programs)]
    if more:
        columns = [np.concatenate(pair) for pair in zip(found[:3], np.array([c[:3] for c in more]).T, strict=True)]
        payloads = pa.concat_arrays([found.payloads, pa.array([call[3] for call in more], pa.binary())])
        found = Calls(columns[0], columns[1], columns[2], payloads)
    # A node lists them in order; only a body that was put together by hand may not.
    order = np.lexsort((found.ordinals, found.rows))
    if (order == np.arange(len(order))).all():
        return found
    payloads = found.payloads.take(pa.array(order))
    return Calls(found.rows[order], found.programs[order], found.ordinals[order], payloads)


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


def _checked(tx: Transaction) -> Transaction:
    numbers = [tx.slot, tx.fee, tx.block_time or 0, tx.compute_units or 0]
    numbers += [outer * CPI_ORDINAL_STRIDE for outer, _ in tx.inner or ()]
    for number in numbers:
        if not -_NUMBER_MAX <= number < _NUMBER_MAX:
            raise DataError(f"a transaction with the number {str(number)[:40]} in it is none; a column cannot hold it")
    return tx


def _field(structs: Arrow, name: str) -> Arrow:
    """Return a field of each struct, null where the struct itself is."""
    return pc.struct_field(structs, name)


def _nulls(array: Arrow) -> Flags:
    return np.asarray(array.is_null()) if array.null_count else np.zeros(len(array), np.bool_)


def _filled(array: Arrow, value: int) -> Ints:
    filled: npt.NDArray[Any] = np.asarray(pc.fill_null(array, value) if array.null_count else array)
    return filled.astype(np.int64)
