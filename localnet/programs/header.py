"""
The C header that a program takes from its IDL.

IDL and program must agree on discriminators, error codes and texts, account order and flags, and sizes. They are
written down once, in the IDL; this module turns them into `idl.h`, and the program asserts its own layouts against the
sizes. It reads the few IDL keys it needs and is not an IDL reader: that is `indexer.chain`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from solders.pubkey import Pubkey

from indexer.errors import DataError

Json: TypeAlias = Mapping[str, Any]  # a JSON object: its values are what the IDL's author wrote

BYTES_OF = {"bool": 1, "u8": 1, "i8": 1, "u16": 2, "i16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8, "u128": 16,
            "i128": 16, "pubkey": 32}  # fmt: skip


def header_of(idl_text: str) -> str:
    """
    Return the text of `idl.h`: macros INSTRUCTION_*, ACCOUNT_*, EVENT_*, SIZE_*, *_ACCOUNTS, PROGRAM_ERRORS.

    Args:
        idl_text: an IDL in Anchor's format of 0.30 and later.

    Raises:
        DataError: a discriminator is not 8 bytes long; the programs here switch on a u64.
    """
    idl: Json = json.loads(idl_text)
    types = {entry["name"]: entry["type"] for entry in idl["types"]}
    lines = [
        f"/* Written by localnet.programs.build from the IDL of {idl['metadata']['name']}. */",
        "#pragma once",
        '#include "anchor_types.h"',
        "",
    ]
    for kind, entries in (
        ("INSTRUCTION", idl["instructions"]),
        ("ACCOUNT", idl["accounts"]),
        ("EVENT", idl["events"]),
    ):
        lines += [f"#define {kind}_{macro(e['name'])} {discriminator_literal(e)}" for e in entries]
    for entry in (*idl["accounts"], *idl["events"]):
        size = size_max(types[entry["name"]], types)
        if size is not None:
            lines.append(f"#define SIZE_{macro(entry['name'])} {8 + size}")
    lines += address_lines(idl)
    for instruction in idl["instructions"]:
        lines += account_lines(instruction)
    errors = [f"    X({macro(e['name'])}, {e['code']}, {text(e['name'])}, {text(e['msg'])})" for e in idl["errors"]]
    lines += ["", " \\\n".join(["#define PROGRAM_ERRORS(X)", *errors]), ""]
    return "\n".join(lines)


def macro(name: str) -> str:
    """Return a name in the case of C constants: `VaultCreated` and `vault_created` are VAULT_CREATED."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def text(value: str) -> str:
    """Return a C string literal. JSON escapes the two characters that C must have escaped, in the same way."""
    return json.dumps(value)


def discriminator_literal(entry: Json) -> str:
    """Return the discriminator as the u64 that the machine loads from its eight bytes."""
    value = bytes(entry["discriminator"])
    if len(value) != 8:
        raise DataError(f"{entry['name']} has a discriminator of {len(value)} bytes: programs here know only 8")
    return f"0x{int.from_bytes(value, 'little'):016x}ULL"


def size_max(kind: object, types: Json) -> int | None:
    """Return the largest borsh size of an IDL type in bytes, or None where it has no bound."""
    match kind:
        case str():
            return BYTES_OF.get(kind)
        case {"kind": "struct", "fields": fields}:
            sizes = [size_max(field["type"], types) for field in fields]
            known = [size for size in sizes if size is not None]
            return sum(known) if len(known) == len(sizes) else None
        case {"option": inner}:
            size = size_max(inner, types)
            return None if size is None else 1 + size
        case {"array": [inner, int(length)]}:
            size = size_max(inner, types)
            return None if size is None else size * length
        case {"defined": {"name": name}}:
            return size_max(types[name], types)
    return None


def address_lines(idl: Json) -> list[str]:
    """Return a constant for each account that can only have one address, such as the system program."""
    fixed = {a["name"]: a["address"] for i in idl["instructions"] for a in i["accounts"] if "address" in a}
    return [
        f"static const Pubkey ADDRESS_{macro(name)} __attribute__((unused)) = "
        f"{{{{{', '.join(str(byte) for byte in bytes(Pubkey.from_string(address)))}}}}};"
        for name, address in fixed.items()
    ]


def account_lines(instruction: Json) -> list[str]:
    """Return the indexes of an instruction's accounts, and their list with names, flags and fixed addresses."""
    prefix, accounts = macro(instruction["name"]), instruction["accounts"]
    rows = []
    for account in accounts:
        flags = [flag.upper() for flag in ("signer", "writable") if account.get(flag)]
        address = f"&ADDRESS_{macro(account['name'])}" if "address" in account else "NULL"
        rows.append(f"    {{{text(account['name'])}, {' | '.join(flags) or '0'}, {address}}},")
    indexes = ", ".join(f"{prefix}_{macro(account['name'])}" for account in accounts)
    return ["", f"enum {{ {indexes} }};", " \\\n".join([f"#define {prefix}_ACCOUNTS {{", *rows, "}"])]
