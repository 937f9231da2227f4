"""docs/localnet.md against the code: every method, subscription, flag and fault is in its table, and no other."""

import inspect
import re
from pathlib import Path

import pytest

from localnet.__main__ import localnet
from localnet.chain import Chain
from localnet.control import ControlMethods
from localnet.pubsub import KINDS
from localnet.rpc import Dispatcher
from localnet.rpc.faults import Faults, FaultSettings
from localnet.steering import SteeringMethods

PAGE = (Path(__file__).parents[2] / "docs" / "localnet.md").read_text()


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, without its head."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"((?:^\|.*\n)+)", section, re.MULTILINE)
    assert rows is not None
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in rows[1].splitlines()[2:]]


def names(heading: str) -> list[str]:
    """Return every name in the first column, in order."""
    return [name for row in table(heading) for name in re.findall(r"`(?:--)?([^`]+)`", row[0])]


def control() -> set[str]:
    chain = Chain(seed=1, start_time=5)
    reading = ControlMethods(chain, stop_traffic=lambda: None)
    return {*reading.methods(), *SteeringMethods(chain, Faults(), slot_ms=400).methods()}


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("## Methods", Dispatcher(Chain(seed=1, start_time=5)).names()),
        ("## Subscriptions", {f"{kind}Subscribe" for kind in KINDS}),
        ("## Control", control()),
        ("### Faults", set(FaultSettings.__struct_fields__)),
        ("## Flags", {name.replace("_", "-") for name in inspect.signature(localnet).parameters} | {"no-traffic"}),
    ],
)
def test_the_table_names_all_there_is_and_no_more(heading: str, known: set[str]) -> None:
    """Once each."""
    listed = names(heading)
    assert sorted(listed) == sorted(known)


@pytest.mark.parametrize("heading", ["## Methods", "## Subscriptions"])
def test_every_method_says_what_it_does_and_where_it_differs(heading: str) -> None:
    """In alphabetical order, no cell empty."""
    listed = [name.lower() for name in names(heading)]
    assert listed == sorted(listed)
    assert all(len(row) == 3 and all(row) for row in table(heading))
