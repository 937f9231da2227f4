"""IDLs of large programs, spoilt: a program or one sentence, and soon."""

import json
import random
from typing import Any

import pytest

from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.errors import CapstanError
from tests.fixtures.idl_values import PUBLIC, PUBLIC_NAMES
from tests.fixtures.mutations import LEAVES, mutated_json

SEED = 30
MUTATIONS = 12
# The whole of a large IDL a dozen times would be slow; a slice of it has every kind of entry.
ENTRIES_MAX = 25


def slice_of(name: str) -> dict[str, Any]:
    """Return an IDL with its first entries only, and all of its types."""
    document: dict[str, Any] = json.loads((PUBLIC / f"{name}.json").read_text())
    for part in ("instructions", "accounts", "events", "errors"):
        document[part] = document.get(part, [])[:ENTRIES_MAX]
    return document


def compiled(document: object) -> Program | None:
    """Return the program, or None where it is refused with one sentence."""
    try:
        return Program.from_idl(load_idl(json.dumps(document), source="the IDL"), bytes(32))
    except CapstanError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right, and one has a condition
        assert len(str(error)) < 1_000  # noqa: PT017
        return None


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_spoilt_idl_is_a_program_or_one_sentence(name: str) -> None:
    """Parts deleted, doubled, swapped, of the wrong kind, nested deeply, with numbers that nothing can hold."""
    document, rng = slice_of(name), random.Random(f"{SEED} {name}")
    assert compiled(document) is not None
    for _ in range(MUTATIONS):
        program = compiled(mutated_json(document, rng))
        if program is not None:
            assert len(program.events) == len(program.idl.events)


@pytest.mark.parametrize("leaf", range(len(LEAVES)))
def test_anything_may_stand_where_a_type_does(leaf: int) -> None:
    """In the field of an event, the argument of an instruction, and the value of an alias."""
    kind = {"kind": "struct", "fields": [{"name": "f", "type": LEAVES[leaf]}]}
    for event, alias in ((kind, "u8"), ({"kind": "struct", "fields": ["u8"]}, LEAVES[leaf])):
        compiled(
            {
                "metadata": {"name": "p"},
                "instructions": [{"name": "i", "args": [{"name": "a", "type": LEAVES[leaf]}]}],
                "events": [{"name": "E"}],
                "types": [{"name": "E", "type": event}, {"name": "A", "type": {"kind": "type", "alias": alias}}],
            }
        )
