"""
The events of many transactions as columns, from both of Anchor's ways to emit them.

The same events, problems and gaps as `events.extract_events` finds in each transaction. Data lines and CPI events come
attributed from `log_columns.py` and `bodies.py`, and are decoded together, program by program. A transaction that may
be incomplete, or holds a line that is not base64, tells its problems through `extract_events` itself.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from indexer.chain.base64_columns import Arrow
from indexer.chain.bodies import TransactionColumns
from indexer.chain.columns import Columns, Group
from indexer.chain.events import CPI_PROBLEM_BASE, Extraction, Problem, extract_events
from indexer.chain.log_columns import UNKNOWN, Flags, Ints, LogColumns, scan_log_columns
from indexer.chain.program import Program
from indexer.errors import DataError

KINDS = ("log", "cpi")
_KIND = pa.dictionary(pa.int8(), pa.string())
IDENTITY_SCHEMA = pa.schema(
    [
        ("signature", pa.binary(64)),
        ("kind", _KIND),
        ("ordinal", pa.int64()),
        ("slot", pa.int64()),
        ("block_time", pa.int64()),
    ]
)


class EventColumns(NamedTuple):
    """
    All events of one name, by transaction; in each those of the logs first, then by ordinal.

    Args:
        rows: int64, (n,): the transaction of each.
        identity: n rows, columns as in IDENTITY_SCHEMA: signature and slot of the transaction, kind "log" or "cpi",
            ordinal as of `Event`, block_time in unix seconds or null.
        values: n rows, a column for each field, as `columns.arrow_schema` says. Apart from the identity, as a field may
            have the name of one of its columns.
    """

    rows: Ints
    identity: pa.RecordBatch
    values: pa.RecordBatch


class Extracted(NamedTuple):
    """
    What a batch of transactions holds.

    Args:
        events: by program id and name of the event; only those that occur.
        problems: what could not be read, in no order.
        complete: bool, (n_transactions,): False where events may be missing.
    """

    events: dict[tuple[bytes, str], EventColumns]
    problems: list[Problem]
    complete: Flags

    @property
    def event_count(self) -> int:
        """The number of events."""
        return sum(len(found.rows) for found in self.events.values())


class _Found(NamedTuple):
    """
    The payloads of one program, in the order of EventColumns.

    Args:
        kinds: int8, (n,): position in KINDS.
        fields: int64, (n,): fields on the data line; 1 for a call.
    """

    rows: Ints
    kinds: npt.NDArray[np.int8]
    ordinals: Ints
    fields: Ints
    payloads: Arrow


def extract_batch(transactions: TransactionColumns, programs: Mapping[bytes, Program]) -> Extracted:
    """
    Return the events of `programs` in all `transactions`. A failed transaction has none.

    Args:
        transactions: as `bodies.read_bodies` reads them for the same programs.
        programs: by program id, 32 bytes.
    """
    assert set(programs) == set(transactions.programs), "CPI events are looked for while bodies are read"
    table = transactions.table
    succeeded = np.asarray(table["err"].is_null())
    logs = scan_log_columns(table["logs"], transactions.programs)
    told = _told_singly(transactions, logs) & succeeded
    complete = np.ones(len(transactions), np.bool_)
    problems: list[Problem] = []
    for row in np.flatnonzero(told).tolist():
        single = _single(transactions, row, programs)
        problems += single.problems
        complete[row] = single.complete
    events: dict[tuple[bytes, str], EventColumns] = {}
    for place, program_id in enumerate(transactions.programs):
        found = _found(transactions, logs, place, succeeded)
        if len(found.rows) == 0:
            continue
        columns = programs[program_id].decode_events(found.payloads)
        problems += (problem for row, problem in _problems(program_id, table, found, columns) if not told[row])
        if columns.groups:
            named = _event_columns(table, found, columns.groups)
            events.update({(program_id, name): group for name, group in named})
    return Extracted(events, problems, complete)


def _single(transactions: TransactionColumns, row: int, programs: Mapping[bytes, Program]) -> Extraction:
    """Return what the transaction of a row holds, read by itself."""
    try:
        return extract_events(transactions.transaction(row), programs)
    except DataError as error:
        # Wrong where reading many at once does not look, as `parse_columns` says.
        signature, slot = (transactions.table[name][row].as_py() for name in ("signature", "slot"))
        mentioned = (
            p for p, is_there in zip(transactions.programs, transactions.mentions[:, row], strict=True) if is_there
        )
        problems = tuple(Problem(p, signature, "bad_body", 0, str(error), slot) for p in mentioned)
        return Extraction((), problems, complete=False)


def _told_singly(transactions: TransactionColumns, logs: LogColumns) -> Flags:
    """Return the transactions whose problems need all that the transaction says, such as its keys."""
    told = logs.truncated | logs.missing
    told[logs.rows[logs.programs == UNKNOWN]] = True
    told[[line.row for line in logs.bad]] = True
    told[list(transactions.left)] = True
    return told


def _found(transactions: TransactionColumns, logs: LogColumns, place: int, succeeded: Flags) -> _Found:
    calls = transactions.calls
    mine = np.flatnonzero((logs.programs == place) & succeeded[logs.rows])
    payloads = logs.payloads if len(mine) == len(logs.rows) else logs.payloads.take(mine)
    found = _Found(logs.rows[mine], np.zeros(len(mine), np.int8), logs.ordinals[mine], logs.fields[mine], payloads)
    called = np.flatnonzero(calls.programs == place)
    if len(called) == 0:
        return found
    rows = np.concatenate([found.rows, calls.rows[called]])
    kinds = np.concatenate([found.kinds, np.ones(len(called), np.int8)])
    ordinals = np.concatenate([found.ordinals, calls.ordinals[called]])
    fields = np.concatenate([found.fields, np.ones(len(called), np.int64)])
    payloads = pa.concat_arrays([found.payloads, calls.payloads.take(called)])
    # Both parts are in order already: sorting by the transaction alone keeps lines before calls.
    order = np.argsort(rows, kind="stable")
    return _Found(rows[order], kinds[order], ordinals[order], fields[order], payloads.take(order))


def _event_columns(
    table: pa.RecordBatch, found: _Found, groups: Mapping[str, Group]
) -> Iterator[tuple[str, EventColumns]]:
    """Return the events of each name; their identities are taken together, and shown in slices."""
    at = np.concatenate([group.rows for group in groups.values()])
    rows = found.rows[at]
    columns = [
        table["signature"].take(rows),
        pa.DictionaryArray.from_arrays(found.kinds[at], list(KINDS)),
        pa.array(found.ordinals[at]),
        table["slot"].take(rows),
        table["block_time"].take(rows),
    ]
    identity = pa.RecordBatch.from_arrays(columns, schema=IDENTITY_SCHEMA)
    first = 0
    for name, group in groups.items():
        end = first + len(group.rows)
        yield name, EventColumns(rows[first:end], identity[first:end], group.values)
        first = end


def _problems(
    program_id: bytes, table: pa.RecordBatch, found: _Found, columns: Columns
) -> Iterator[tuple[int, Problem]]:
    """Return what could not be decoded, and what was longer than expected, each with its transaction."""

    def problem(at: int, kind: str, detail: str) -> tuple[int, Problem]:
        row = int(found.rows[at])
        ordinal = int(found.ordinals[at]) + (CPI_PROBLEM_BASE if found.kinds[at] else 0)
        signature, slot = table["signature"][row].as_py(), table["slot"][row].as_py()
        return row, Problem(program_id, signature, kind, ordinal, detail, slot)

    for error in columns.errors:
        yield problem(error.row, error.kind, error.reason)
    for name, group in columns.groups.items():
        for at in np.flatnonzero(group.trailing).tolist():
            detail = f"{name} is {group.trailing[at]} bytes longer than the IDL says"
            yield problem(int(group.rows[at]), "trailing_bytes", detail)
        fields = found.fields[group.rows]
        for at in np.flatnonzero(fields > 1).tolist():
            detail = f"{fields[at] - 1} more fields on the data line of this event"
            yield problem(int(group.rows[at]), "extra_fields", detail)
