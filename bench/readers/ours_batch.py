"""Capstan, a batch at a time: columns instead of objects."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.readers.checks import DifferenceError
from indexer.chain.columns import Columns


def position_rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """
    Yield decoded `Position` accounts as tuples, in the order in which they were given.

    Raises:
        DifferenceError: some could not be decoded, or are something else.
    """
    if columns.errors or set(columns.groups) != {"Position"}:
        raise DifferenceError(f"decode_accounts found {list(columns.groups)}, and errors: {columns.errors[:3]}")
    group = columns.groups["Position"]
    if group.rows.tolist() != list(range(len(group.rows))):
        raise DifferenceError("decode_accounts left accounts out, or has them in another order")
    yield from zip(*(_values(column) for column in group.values.columns), strict=True)


def _values(column: Any) -> Sequence[Any]:
    values: list[Any] = column.to_pylist()
    return values
