"""
Agreement with anchorpy on the legacy IDLs of large programs: what we write it reads as the same values.

It names things its own way, so values are compared without names: fields in their order. `test_events_peer.py` compares
the names, and the logs.
"""

import dataclasses
import importlib
import json
import random
import warnings
from typing import Any

import pytest
from solders.pubkey import Pubkey

from indexer.chain.program import Program
from indexer.chain.types import Array, COption, Defined, Enum, Fields, Option, Struct, Type, Vec, fields_of, resolve
from tests.fixtures.idl_values import PUBLIC_NAMES, public_idl, public_program, random_fields

SEED = 21
LEGACY = tuple(name for name in PUBLIC_NAMES if public_idl(name).legacy)
# It does not take two fields of one name.
REFUSED = {"drift": "Field name duplicated: 'padding'", "kvault": "Field name duplicated: 'reserve_liquidity_padding'"}


def coder_of(program: Program) -> Any:
    """Return anchorpy's coder; accounts in camelCase are given to it as the chain knows them."""
    document = json.loads(program.idl.text)
    for account in document.get("accounts", []):
        account["name"] = account["name"][0].upper() + account["name"][1:]
    with warnings.catch_warnings():
        # It and what it stands on use names that are deprecated in their own dependencies.
        warnings.simplefilter("ignore")
        anchorpy = importlib.import_module("anchorpy")
        return anchorpy.Coder(anchorpy.Idl.from_json(json.dumps(document)))


@pytest.mark.parametrize("name", LEGACY)
def test_anchorpy_reads_what_we_write(name: str) -> None:
    """Every event, account and instruction of the IDL."""
    program, rng = public_program(name), random.Random(f"{SEED} {name}")
    if name in REFUSED:
        with pytest.raises(TypeError, match=REFUSED[name]):
            coder_of(program)
        return
    coder, idl = coder_of(program), program.idl
    for items, encode, read in (
        (idl.events, program.encode_event, lambda data: coder.events.parse(data).data),
        (idl.accounts, program.encode_account, coder.accounts.decode),
        (idl.instructions, program.encode_instruction, lambda data: coder.instruction.parse(data).data),
    ):
        for item in items:
            values = random_fields(item.fields, rng)
            assert theirs(read(encode(item.name, values))) == of_fields(item.fields, values), item.name


def theirs(value: Any) -> Any:
    """Return anchorpy's objects without their names: a struct is a list, an enum its variant and a list."""
    if isinstance(value, Pubkey):
        return list(bytes(value))
    if isinstance(value, bytes | list | tuple):
        return [theirs(item) for item in value]
    if dataclasses.is_dataclass(value):
        return [theirs(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        return [theirs(inner) for key, inner in value.items() if key != "_io"]
    if hasattr(value, "__attrs_attrs__"):
        inside = [theirs(getattr(value, attribute.name)) for attribute in value.__attrs_attrs__]
        is_tuple = [attribute.name for attribute in value.__attrs_attrs__] == ["tuple_data"]
        return type(value).__name__, inside[0] if is_tuple else inside
    return value


def ours(type_: Type, value: Any) -> Any:
    match type_:
        case Option(inner) | COption(inner):
            return None if value is None else ours(inner, value)
        case Vec(element) | Array(element, _):
            return [ours(element, item) for item in value]
        case Defined():
            return _of_defined(type_, value)
        case _:
            return list(value) if isinstance(value, bytes) else value


def of_fields(fields: Fields, values: Any) -> list[Any]:
    listed = values if isinstance(values, list) else [values[field.name] for field in fields_of(fields)]
    return [ours(field.type, value) for field, value in zip(fields_of(fields), listed, strict=True)]


def _of_defined(type_: Defined, value: Any) -> Any:
    target = resolve(type_)
    assert isinstance(target, Defined), "no legacy IDL here has an alias"
    body = target.definition().body
    if isinstance(body, Struct):
        return of_fields(body.fields, value)
    assert isinstance(body, Enum), "resolve follows aliases"
    ((name, inside),) = value.items()
    return name, of_fields(next(v.fields for v in body.variants if v.name == name), inside)
