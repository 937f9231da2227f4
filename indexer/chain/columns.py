"""
Many payloads of one program at once: Arrow columns, a group for each kind of event, account or instruction.

For whole histories: what `Program.decode_event` says of each payload, this says of all of them, with array operations
instead of a loop. Both agree to the byte; a payload that is found bad here is given to the single decoder, which says
why. What the columns look like is in `arrays/arrow.py`. Reading and writing them anywhere is not done here.

Types that contain themselves, and types of thousands of parts, are read in a loop, value by value, and become JSON
text; their neighbours are columns as ever.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from indexer.chain.arrays.arrow import arrow_schema, arrow_type
from indexer.chain.arrays.lanes import Batch, Data, Ints, TooManyDeadError, array_over
from indexer.chain.arrays.payloads import Finder, Payloads, by_number, bytes_of
from indexer.chain.arrays.plan import Plan, compile_plan
from indexer.chain.arrays.values import to_values
from indexer.chain.codec import DecodeError
from indexer.chain.layout import Compiler
from indexer.chain.types import Defined

__all__ = [
    "BatchDecoder",
    "Columns",
    "Group",
    "Layout",
    "Payloads",
    "RowError",
    "arrow_schema",
    "arrow_type",
    "to_values",
]


class RowError(NamedTuple):
    """A payload that could not be decoded: `kind` and `reason`, the message, are those of its DecodeError."""

    row: int
    kind: str
    reason: str


@dataclass(frozen=True, eq=False)
class Group:
    """
    The payloads of one event, account or instruction.

    Args:
        rows: int64, (n,), which of the payloads given each is, ascending.
        values: n rows, a column for each field as `arrow_schema` says.
        trailing: int64, (n,), bytes behind the last field.
    """

    rows: Ints
    values: pa.RecordBatch
    trailing: Ints


@dataclass(frozen=True, eq=False)
class Columns:
    """
    What a batch of payloads says.

    Args:
        groups: by the name of the event, account or instruction; only those that occur.
        errors: what could not be decoded, by row.
    """

    groups: Mapping[str, Group]
    errors: tuple[RowError, ...]


class Layout(NamedTuple):
    """One discriminator's name and type."""

    name: str
    discriminator: bytes
    type: Defined


class BatchDecoder:
    """
    Decodes batches of a program's events, of its accounts, or of its instructions.

    Args:
        layouts: all there are.
        compiler: the one that has compiled their types.
        decode: the single decoder: the error of a bad payload is what it raises.
    """

    def __init__(self, layouts: Sequence[Layout], compiler: Compiler, decode: Callable[[bytes], object]) -> None:
        self._layouts = layouts
        self._compiler = compiler
        self._decode = decode
        self._finder = Finder([layout.discriminator for layout in layouts])
        self._plans: dict[int, Plan] = {}

    def decode(self, payloads: Payloads) -> Columns:
        """
        Return the columns of `payloads`.

        Args:
            payloads: binary, large_binary or fixed_size_binary, or bytes; no nulls, less than 2 GiB together.

        Raises:
            DataError: the payloads are not that. A bad payload is no exception but an error of its row.
        """
        data, bounds = bytes_of(payloads)
        starts, ends = bounds[:-1], bounds[1:]
        found = self._finder.find(data, starts, ends)
        groups: dict[str, Group] = {}
        bad = [np.flatnonzero(found < 0)]
        for number, rows in by_number(found):
            group = self._group(number, data, rows, starts[rows], ends[rows])
            if len(group.rows):
                groups[self._layouts[number].name] = group
            if len(group.rows) < len(rows):
                bad.append(np.setdiff1d(rows, group.rows, assume_unique=True))
        errors = [
            self._error(int(row), data[starts[row] : ends[row]].tobytes()) for row in np.sort(np.concatenate(bad))
        ]
        return Columns(MappingProxyType(groups), tuple(errors))

    def _group(self, number: int, data: Data, rows: Ints, starts: Ints, ends: Ints) -> Group:
        plan = self._plans.get(number)
        layout = self._layouts[number]
        if plan is None:
            plan = self._plans[number] = compile_plan(self._compiler, layout.type)
        while True:
            batch = Batch(data, starts, ends)
            try:
                arrays, behind = plan.read(batch, starts + len(layout.discriminator))
                break
            except TooManyDeadError:
                # Each time at another place of the layout, so this ends.
                alive = batch.alive(None)
                rows, starts, ends = rows[alive], starts[alive], ends[alive]
        # By way of a struct: only that knows how many rows there are without any column.
        struct = array_over(plan.struct, len(rows), children=arrays)
        values = pa.RecordBatch.from_struct_array(struct)
        trailing = ends - behind
        if not batch.has_dead:
            return Group(rows, values, trailing)
        alive = batch.alive(None)
        return Group(rows[alive], values.filter(pa.array(alive)), trailing[alive])

    def _error(self, row: int, payload: bytes) -> RowError:
        try:
            self._decode(payload)
        except DecodeError as error:
            return RowError(row, error.kind, str(error))
        raise AssertionError(f"the payload {payload[:64].hex()} is decoded alone but not in a batch")
