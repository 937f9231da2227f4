"""
A batch of lines read into columns: transactions, their bodies, whom they mention, and the events in them.

What stores a batch begins here, whatever store it is: nothing is made of single rows. A signature that comes twice in
a batch counts once, where it came first. Reading is done by `indexer.chain`; putting batches after one another, and
into a store, is done in `archive.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from indexer.chain.batch import EventColumns, Extracted, extract_batch
from indexer.chain.bodies import LineError, read_bodies
from indexer.chain.events import Problem
from indexer.chain.program import Program
from indexer.registry import Registry
from indexer.sources.base import BodyBatch, Place
from indexer.store.typed import ProgramTables, TypedTable

Flags: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
# pyarrow's annotations tell arrays of every type apart; which type it is, is said where it is made.
Array: TypeAlias = Any

# What numbers are below. A time that is later is none that Postgres or DuckDB could show.
LIMITS = {"slot": 1 << 62, "fee": 1 << 62, "compute_units": 1 << 62, "block_time": 1 << 43}
KEPT_COLUMNS = ("signature", "slot", "block_time", "err", "fee", "compute_units")


class Found(NamedTuple):
    """The events of one type that one version of a program's IDL reads, and that version."""

    name: str
    program: Program
    events: EventColumns

    def table(self, tables: Mapping[bytes, ProgramTables]) -> TypedTable:
        """Return where they go: one version has one table."""
        slot = self.events.identity.column("slot")[0].as_py()
        table = tables[self.program.program_id].event_table(self.name, slot)
        assert table is not None, "every version of a registered IDL has its tables"
        return table


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A batch of lines, read; no signature twice.

    Args:
        table: n rows, in the order of their lines: signature (64 bytes), slot, block_time (unix seconds), err (JSON
            text), fee, compute_units, complete.
        bodies: binary, (n,): the transaction as JSON, without the reply it may have come in.
        mentions: by program id, for every program of the registry: bool, (n,), whether the transaction mentions it.
        events: of these transactions; none without any.
        problems: what could not be read of them.
        errors: the lines that are no transaction.
        generation: of the registry that read them.
        next: where the source goes on.
    """

    table: pa.RecordBatch
    bodies: Array
    mentions: Mapping[bytes, Flags]
    events: list[Found]
    problems: list[Problem]
    errors: tuple[LineError, ...]
    generation: int | None
    next: Place

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def signatures(self) -> Array:
        """The column of signatures."""
        return self.table.column("signature")

    def shares_any(self, other: "Prepared") -> bool:
        """Return whether a transaction of this batch is in the other, too."""
        mine, its = _comparable(self.signatures), _comparable(other.signatures)
        # Nearly always no: the first eight bytes say so in a fifth of the time.
        may_share = np.isin(mine.view(np.int64)[::8], its.view(np.int64)[::8]).any()
        return bool(may_share and np.isin(mine, its).any())


def prepare(batch: BodyBatch, registry: Registry) -> Prepared:
    """Read a batch of lines, each by the IDLs of its slot."""
    generation = registry.generation
    read = read_bodies(batch.bodies, list(registry), first_line=batch.first_line)
    impossible = _impossible(read.table)
    possible = np.setdiff1d(np.arange(len(read)), list(impossible))
    kept = possible[_first_rows(read.table.column("signature").take(possible))]
    is_whole = len(kept) == len(read)
    slots = read.table.column("slot").to_numpy()
    complete = np.ones(len(read), np.bool_)
    events: list[Found] = []
    problems: list[Problem] = []
    for programs, positions in registry.split(slots[kept].tolist()):
        rows = kept[positions]
        extracted = extract_batch(read, programs)
        complete[rows] = extracted.complete[rows]
        events += _found(extracted, programs, None if len(rows) == len(read) else rows)
        occurring = set(slots[rows].tolist()) if extracted.problems else set()
        problems += [problem for problem in extracted.problems if problem.slot in occurring]
    # Copied in any case: as long as a column of it lives, everything lives that was parsed with it.
    table = read.table.select(list(KEPT_COLUMNS)).take(kept)
    table = table.append_column("complete", pa.array(complete[kept]))
    texts = read.texts()
    bodies = texts if is_whole else texts.take(pa.array(kept))
    mentions = {key: flags[kept] for key, flags in zip(read.programs, read.mentions, strict=True)}
    errors = (*read.errors, *impossible.values())
    return Prepared(table, bodies, mentions, events, problems, errors, generation, batch.next)


def _impossible(table: pa.RecordBatch) -> dict[int, LineError]:
    """Return the rows with a number that no chain has, and no table takes: they are no transactions."""
    errors: dict[int, LineError] = {}
    for name, limit in LIMITS.items():
        values: Array = table.column(name)
        numbers = values.fill_null(0).to_numpy()
        for row in np.flatnonzero((numbers < 0) | (numbers >= limit)).tolist():
            reason = f"a transaction whose {name} is {values[row]} is none: it is at least 0, and below {limit:,}"
            errors[row] = LineError(table.column("line")[row].as_py(), reason)
    return errors


def _first_rows(signatures: Array) -> Ints:
    """Return the rows whose signature did not come before."""
    values = _comparable(signatures)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_first = np.ones(len(values), np.bool_)
    is_first[order[1:][ordered[1:] == ordered[:-1]]] = False
    return np.flatnonzero(is_first)


def _comparable(signatures: Array) -> npt.NDArray[np.bytes_]:
    # All are equally long, so that it does not matter that zeros at the end are not compared.
    return np.frombuffer(signatures.buffers()[1], "S64", len(signatures), signatures.offset * 64)


def _found(extracted: Extracted, programs: Mapping[bytes, Program], rows: Ints | None) -> Iterator[Found]:
    """The events in these rows, or in all."""
    for (program_id, name), found in extracted.events.items():
        events = found
        if rows is not None:
            places = np.flatnonzero(np.isin(found.rows, rows))
            events = EventColumns(found.rows[places], found.identity.take(places), found.values.take(places))
        if len(events.rows):
            yield Found(name, programs[program_id], events)
