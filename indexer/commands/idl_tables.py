"""
An IDL, and what differs between two, as tables for a person and as JSON for a program.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexer.chain.idl import Idl, InstructionAccount
from indexer.chain.idl_diff import Change, is_readable
from indexer.chain.type_text import definition_text, type_text
from indexer.chain.types import Field

# Where nobody looks at it in a terminal, nothing is cut or wrapped.
WIDTH_PIPED = 400


def open_console() -> Console:
    """Return the console on stdout; without a terminal it is as wide as any table."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_PIPED
    return console


def idl_json(idl: Idl) -> dict[str, Any]:
    """Return what `capstan idl show --json` prints."""
    bodies = {entry.type.name for entries in (idl.events, idl.accounts) for entry in entries}
    return {
        "name": idl.name,
        "address": idl.address,
        "format": "legacy" if idl.legacy else "0.30+",
        "instructions": [
            {
                "name": instruction.name,
                "discriminator": instruction.discriminator.hex(),
                "args": _fields_json(instruction.fields),
                "accounts": [_account_json(account) for account in instruction.accounts],
            }
            for instruction in idl.instructions
        ],
        **{
            part: [
                {
                    "name": entry.name,
                    "discriminator": entry.discriminator.hex(),
                    "fields": _fields_json(entry.fields),
                    "definition": definition_text(idl.types[entry.type.name]),
                }
                for entry in entries
            ]
            for part, entries in (("events", idl.events), ("accounts", idl.accounts))
        },
        "types": [
            {"name": name, "definition": definition_text(definition)}
            for name, definition in idl.types.items()
            if name not in bodies
        ],
        "errors": [{"code": error.code, "name": error.name, "message": error.message} for error in idl.errors],
        "conflicts": list(idl.conflicts),
    }


def idl_tables(idl: Idl) -> RenderableType:
    """Return what `capstan idl show` prints."""
    bodies = {entry.type.name for entries in (idl.events, idl.accounts) for entry in entries}
    where = idl.address or "without an address: name it as PROGRAM=FILE"
    head = _text(f"{idl.name}  {where}  ({'legacy' if idl.legacy else '0.30+'} format)", "bold")
    parts: list[RenderableType] = [head]
    parts += _table(
        "instructions",
        ("name", "discriminator", "arguments", "accounts"),
        (
            (i.name, i.discriminator.hex(), _fields_lines(i.fields), "\n".join(map(_account_line, i.accounts)))
            for i in idl.instructions
        ),
    )
    for part, entries in (("events", idl.events), ("accounts", idl.accounts)):
        rows = (
            (e.name, e.discriminator.hex(), _fields_lines(e.fields) or definition_text(idl.types[e.type.name]))
            for e in entries
        )
        parts += _table(part, ("name", "discriminator", "fields"), rows)
    types = ((name, definition_text(d)) for name, d in idl.types.items() if name not in bodies)
    parts += _table("types", ("name", "definition"), types)
    parts += _table("errors", ("code", "name", "message"), ((str(e.code), e.name, e.message or "") for e in idl.errors))
    parts += _table("conflicts", ("bytes that two entries could mean",), ((conflict,) for conflict in idl.conflicts))
    return Group(*parts)


def diff_json(old: Idl, new: Idl, changes: Sequence[Change]) -> dict[str, Any]:
    """Return what `capstan idl diff --json` prints."""
    return {
        "readable": is_readable(changes),
        **{
            part: [{"name": name, "readable": readable, "in_new": in_new} for name, readable, in_new in rows]
            for part, rows in _verdicts(old, new, changes).items()
        },
        "changes": [change._asdict() for change in changes],
    }


def diff_tables(old: Idl, new: Idl, changes: Sequence[Change]) -> RenderableType:
    """Return what `capstan idl diff` prints."""
    parts: list[RenderableType] = []
    for part, rows in _verdicts(old, new, changes).items():
        parts += _table(
            f"{part} of {old.source}", ("name", "older data is readable"), ((name, _yes(ok)) for name, ok, _ in rows)
        )
    rows_ = ((c.path, c.kind.replace("_", " "), c.detail, _yes(c.readable)) for c in changes)
    parts += _table("changes", ("where", "what", "", "readable"), rows_)
    last = (
        "data written under {} stays readable with {}"
        if is_readable(changes)
        else "not all data written under {} is readable with {}"
    )
    parts.append(_text(("nothing differs; " if not changes else "") + last.format(old.source, new.source), "bold"))
    return Group(*parts)


def _verdicts(old: Idl, new: Idl, changes: Sequence[Change]) -> dict[str, list[tuple[str, bool, bool]]]:
    """For each part the entries of the older IDL: name, whether its data stays readable, whether the name is kept."""
    verdicts = {}
    for part in ("events", "accounts", "instructions"):
        kept = {entry.name for entry in getattr(new, part)}
        names = [entry.name for entry in getattr(old, part)]
        verdicts[part] = [(name, is_readable(changes, f"{part}.{name}"), name in kept) for name in names]
    return verdicts


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[RenderableType]:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_header=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return [Text(), _text(title, "bold"), table] if table.row_count else []


def _text(text: str, style: str = "") -> Text:
    """Names come from strangers: what would steer the terminal is shown as an escape."""
    return Text("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text), style=style)


def _yes(readable: bool) -> str:
    return "yes" if readable else "NO"


def _fields_json(fields: Sequence[Field]) -> list[dict[str, str]]:
    return [{"name": field.name, "type": type_text(field.type)} for field in fields]


def _fields_lines(fields: Sequence[Field]) -> str:
    return "\n".join(f"{field.name}: {type_text(field.type)}" for field in fields)


def _account_json(account: InstructionAccount) -> dict[str, Any]:
    return {
        "name": account.name,
        "writable": account.writable,
        "signer": account.signer,
        "optional": account.optional,
        "address": account.address,
    }


def _account_line(account: InstructionAccount) -> str:
    marks = [word for word in ("writable", "signer", "optional") if getattr(account, word)]
    marks += [account.address] if account.address else []
    return f"{account.name} ({', '.join(marks)})" if marks else account.name
