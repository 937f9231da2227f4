"""
What nearly every body of getTransaction says, for many at once, as Arrow columns.

DuckDB is the parser here, and nothing else of it is used: it reads JSON straight into columns, checks UTF-8, and lets
other threads run meanwhile. A body that is another shape, or no JSON, gives nulls; what that means, and who reads such
a body instead, is decided in `bodies.py`.
"""

import json
from functools import lru_cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from indexer.chain.base64_columns import Arrow

_PLACE = "UTINYINT"  # no transaction has more than 256 keys
_TEXTS = ["VARCHAR"]
_SHAPE = {
    "slot": "BIGINT",
    "blockTime": "BIGINT",
    "meta": {
        "err": "JSON",
        "fee": "BIGINT",
        "computeUnitsConsumed": "BIGINT",
        "logMessages": _TEXTS,
        "innerInstructions": [
            {"index": _PLACE, "instructions": [{"programIdIndex": _PLACE, "accounts": [_PLACE], "data": "VARCHAR"}]}
        ],
        "loadedAddresses": {"writable": _TEXTS, "readonly": _TEXTS},
    },
    "transaction": {
        "signatures": _TEXTS,
        # Few have lookups: as lists of structs, those that have none would cost as much.
        "message": {"accountKeys": _TEXTS, "addressTableLookups": "JSON"},
    },
}
# Where each column is.
_PATHS = {
    "slot": "slot",
    "block_time": "blockTime",
    "err": "meta.err",
    "fee": "meta.fee",
    "compute_units": "meta.computeUnitsConsumed",
    "logs": "meta.logMessages",
    "inner": "meta.innerInstructions",
    "writable": "meta.loadedAddresses.writable",
    "readonly": "meta.loadedAddresses.readonly",
    "signatures": "transaction.signatures",
    "keys": "transaction.message.accountKeys",
    "lookups": "transaction.message.addressTableLookups",
}
_READ = f"json_transform(line, '{json.dumps(_SHAPE)}')"


def parse_columns(lines: Arrow) -> dict[str, Arrow]:
    """
    Return the columns named as in _PATHS, (n_lines,), null where a body does not have what belongs there.

    More is let pass than by `parse_transaction`, where no node differs: numbers written as texts, as true, or with a
    fraction, and texts written as something else; a block time or compute units that are no numbers, or that no column
    holds, are null. Headers and outer instructions, which no column needs, may be anything.

    Args:
        lines: large_string, (n_lines,): JSON, not necessarily valid.

    Raises:
        pa.ArrowInvalid: more than 2 GiB of texts in one column.
    """
    cursor = _parser().cursor()
    try:
        cursor.register("lines", pa.table({"line": lines}))
        try:
            found = _bodies(cursor, _READ, len(lines))
        except (duckdb.InvalidInputException, UnicodeDecodeError):
            # A line is no JSON, or no text at all. Asked line by line, which takes longer, that is a null.
            found = _bodies(cursor, f"try({_READ})", len(lines))
    finally:
        cursor.close()
    return {name: pc.struct_field(found, path.split(".")) for name, path in _PATHS.items()}


def _bodies(cursor: duckdb.DuckDBPyConnection, expression: str, count: int) -> Arrow:
    # All rows in one piece. The fields are taken out afterwards: planning that would take longer than doing it.
    query = f"SELECT {expression} AS body FROM lines"  # noqa: S608 - of the constants above
    column = cursor.sql(query).to_arrow_table(max(count, 1)).column("body")
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    # In memory, and shut off from files and network. Each caller's thread does its own work.
    off = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    return duckdb.connect(":memory:", config={"threads": 1, **off})
