"""
The peer in JavaScript: @coral-xyz/anchor, in one process of Node that times itself.

It is installed as the tests install it, from their lock. Its parser follows a program that is called at the top and
does not recognise one that another program calls, whose events it therefore misses. Its coder of accounts misses
nothing.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from bench.inputs.made_transactions import IDS, Way
from bench.readers.reading import Found, Reader, Took
from indexer.chain.types import Bool, Field, Integer, Pubkey

SCRIPT = Path(__file__).with_name("anchor.mjs")


class Node:
    """The process; ends with the `with` block."""

    def __init__(self, packages: Path, bodies: Path, scratch: Path) -> None:
        self._idls = {name: str(resources.files("indexer.idls") / f"{name}.json") for name in IDS}
        self._scratch = scratch
        self._process = subprocess.Popen(
            # What it keeps in memory is more than Node takes by itself on a small machine.
            ["node", "--max-old-space-size=6144", str(SCRIPT), str(packages), str(bodies), *self._idls.values()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions: dict[str, str] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, command: str) -> tuple[Took, None]:
        """Let it read once; returns how long that took by its own clocks. What it found stays there."""
        return Took(**self._ask(command)), None

    def found(self) -> Iterable[Found]:
        """Yield what the last run found."""
        self._ask(f"found {self._scratch}")
        with self._scratch.open("rb") as file:
            for line in file:
                place, program, text = json.loads(line)
                yield Found(place, program, None, text)

    def load(self, program: str, account: str, datas: Sequence[bytes]) -> None:
        """Put the data of accounts of one type into its memory, for `run("accounts")`; all are equally long."""
        self._scratch.write_bytes(b"".join(datas))
        self._ask(f"load {self._idls[program]} {account} {len(datas[0])} {self._scratch}")

    def found_accounts(self, fields: Sequence[Field]) -> Iterator[list[Any]]:
        """Yield the values of each account that the last run found."""
        self._ask(f"found {self._scratch}")
        with self._scratch.open("rb") as file:
            for line in file:
                yield [_value(field, text) for field, text in zip(fields, json.loads(line), strict=True)]

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"node ended with {self._process.wait(30)}; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _value(field: Field, text: str) -> Any:
    """Return what it has written as text."""
    match field.type:
        case Pubkey():
            return bytes.fromhex(text)
        case Bool():
            return {"false": False, "true": True}[text]
        case Integer():
            return int(text)
        case _:
            return text


def readers(node: Node) -> tuple[Reader, Reader]:
    """Return it as reader of lines, and of bodies."""
    finds: frozenset[Way] = frozenset({"top", "quoted"})
    return (
        Reader("@coral-xyz/anchor EventParser", finds, lambda: node.run("logs"), lambda _: node.found()),
        Reader("JSON.parse, @coral-xyz/anchor", finds, lambda: node.run("bodies"), lambda _: node.found()),
    )
