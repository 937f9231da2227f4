"""
What is decoded, in the edge format of `indexer.chain.value`, and the programs that a command line names.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from indexer.chain.idl import AccountType, EventType, InstructionType
from indexer.chain.program import Program
from indexer.chain.types import Defined, Field, Struct, resolve
from indexer.chain.value import JsonValue, json_encoder

Entry: TypeAlias = EventType | AccountType | InstructionType
ValuesEncoder: TypeAlias = Callable[[dict[str, Any]], JsonValue]


def values_encoder(entry: Entry) -> ValuesEncoder:
    """Return the function that brings the decoded values of one event, account or instruction into the edge format."""
    if isinstance(entry, InstructionType):
        return _fields_encoder(entry.fields)
    target = resolve(entry.type)
    assert isinstance(target, Defined), "an IDL's events and accounts are checked when it is loaded"
    # A tuple struct is decoded into a dict here, and into a list inside others: so not by its type.
    return _fields_encoder(entry.fields) if isinstance(target.definition().body, Struct) else json_encoder(target)


def event_encoders(program: Program) -> dict[str, ValuesEncoder]:
    """Return `values_encoder` of each event, by name."""
    return {name: values_encoder(entry) for name, entry in program.events.items()}


def account_encoders(program: Program) -> dict[str, ValuesEncoder]:
    """Return `values_encoder` of each account, by name."""
    return {name: values_encoder(entry) for name, entry in program.accounts.items()}


def instruction_encoders(program: Program) -> dict[str, ValuesEncoder]:
    """Return `values_encoder` of each instruction's arguments, by name."""
    return {name: values_encoder(entry) for name, entry in program.instructions.items()}


def _fields_encoder(fields: Sequence[Field]) -> ValuesEncoder:
    encoders = [(field.name, json_encoder(field.type)) for field in fields]
    return lambda values: {name: encode(values[name]) for name, encode in encoders}
