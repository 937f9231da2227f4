"""
Named queries: SQL is text in sql/, and this module only finds it.

A file holds queries under `-- name: x` lines. The comment lines below a name are the query's promise; a line
`-- params: vault pubkey, limit int` declares the parameters that a reader converts. The text goes to the database
unchanged: placeholders are the database's own (`%(slot)s` for Postgres, `$slot` for DuckDB).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, LiteralString, cast

NAME_LINE = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$")
PARAMS_LINE = re.compile(r"^-- params: (.+)$")


@dataclass(frozen=True)
class Query:
    """One named query. `params` maps a parameter to its declared type, in the order of the text."""

    name: str
    text: LiteralString
    promise: str
    params: tuple[tuple[str, str], ...]


class Queries(Mapping[str, LiteralString]):
    """The queries of one file of sql/queries/: `Queries("engine")["insert_intent"]` is SQL text."""

    def __init__(self, file: str) -> None:
        self._queries = _load(file)
        self._file = file

    def __getitem__(self, name: str) -> LiteralString:
        return self.query(name).text

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)

    def query(self, name: str) -> Query:
        """Return the query with its promise and parameters. KeyError names the file: it is our own bug."""
        try:
            return self._queries[name]
        except KeyError:
            raise KeyError(f"sql/queries/{self._file}.sql has no query {name!r}") from None


def load_queries(file: str) -> Queries:
    """Return the queries of sql/queries/`file`.sql."""
    return Queries(file)


@cache
def _load(file: str) -> dict[str, Query]:
    return parse_queries((resources.files("sql") / "queries" / f"{file}.sql").read_text("utf-8"), source=file)


def parse_queries(text: str, *, source: str) -> dict[str, Query]:
    """
    Split one file into its queries.

    Raises:
        ValueError: two queries of one name, or SQL before the first name. Both are our own bugs.
    """
    queries: dict[str, Query] = {}
    name: str | None = None
    lines: list[str] = []

    def close() -> None:
        if name is None:
            if any(line.strip() and not line.startswith("--") for line in lines):
                raise ValueError(f"sql/queries/{source}.sql has SQL before its first name")
            return
        if name in queries:
            raise ValueError(f"sql/queries/{source}.sql has two queries named {name!r}")
        queries[name] = _query(name, lines)

    for line in text.splitlines():
        matched = NAME_LINE.match(line)
        if matched:
            close()
            name, lines = matched[1], []
        else:
            lines.append(line)
    close()
    return queries


def _query(name: str, lines: list[str]) -> Query:
    params: list[tuple[str, str]] = []
    promise: list[str] = []
    body = list(lines)
    while body and (not body[0].strip() or body[0].startswith("--")):
        comment = body.pop(0)
        declared = PARAMS_LINE.match(comment)
        if declared:
            for part in declared[1].split(","):
                param, kind = part.split()
                params.append((param, kind))
        elif comment.strip():
            promise.append(comment.removeprefix("--").strip())
    # The text comes from our own files, which is what LiteralString stands for.
    text = "\n".join(body).strip().rstrip(";")
    return Query(name, cast("Any", text), " ".join(promise), tuple(params))
