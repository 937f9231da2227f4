"""
The peer in Python: anchorpy's EventParser and its account coder, used as its documentation shows.

It knows IDLs of before Anchor 0.30 only, and a parser reads one program. So that none runs in vain, each transaction is
given to the parsers of those programs alone that run in it.
"""

import importlib
import json
import warnings
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from solders.pubkey import Pubkey

from bench.inputs.made_transactions import IDS, PROGRAMS, canonical
from bench.readers.reading import LOGGED, TAKEN, Found, Logs, Reader, timed

# (place, program, event)
Parsed = list[tuple[int, str, Any]]


class Anchorpy:
    """Its coders and parsers for the home programs, by name."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # It and what it stands on use names that are deprecated in their own dependencies.
            warnings.simplefilter("ignore")
            anchorpy = importlib.import_module("anchorpy")
            folder = resources.files("indexer.idls") / "legacy"
            texts = {name: (folder / f"{name}.json").read_text("utf-8") for name in PROGRAMS}
            self.coders = {name: anchorpy.Coder(anchorpy.Idl.from_json(text)) for name, text in texts.items()}
            self.parsers = {
                name: anchorpy.EventParser(Pubkey.from_string(IDS[name]), coder) for name, coder in self.coders.items()
            }

    def read_logs(self, logs: Sequence[Logs]) -> Parsed:
        """Parse lines, transaction by transaction."""
        parsed: Parsed = []
        for place, called, lines in logs:
            for name in called:
                self._parse(place, name, lines, parsed)
        return parsed

    def read_bodies(self, path: Path) -> Parsed:
        """Parse the JSON of each line of a file, and then the logs in it."""
        parsed: Parsed = []
        with path.open("rb") as file:
            for place, line in enumerate(file):
                body = json.loads(line)
                if body["meta"]["err"] is not None:
                    continue
                keys = body["transaction"]["message"]["accountKeys"]
                for name, program_id in IDS.items():
                    if program_id in keys:
                        self._parse(place, name, body["meta"]["logMessages"], parsed)
        return parsed

    def read_accounts(self, datas: Sequence[bytes]) -> list[Any]:
        """Decode accounts of the liquidation engine."""
        decode = self.coders["liquidation_engine"].accounts.decode
        return [decode(data) for data in datas]

    def _parse(self, place: int, name: str, lines: list[str], parsed: Parsed) -> None:
        self.parsers[name].parse_logs(lines, lambda event: parsed.append((place, name, event)))


def found(parsed: Parsed) -> Iterable[Found]:
    """Yield what was parsed in the common form."""
    for place, program, event in parsed:
        fields = PROGRAMS[program].events[event.name].fields
        values = [plain(getattr(event.data, field.name)) for field in fields]
        yield Found(place, program, None, canonical(event.name, values))


def plain(value: Any) -> Any:
    """Return one of its objects as bytes where it stands for bytes."""
    if isinstance(value, Pubkey):
        return bytes(value)
    return bytes(value) if isinstance(value, list) else value


def readers(peer: Anchorpy, logs: Sequence[Logs], path: Path) -> tuple[Reader, Reader]:
    """Return it as reader of lines, and of bodies; both take a text for an event where its bytes look like one."""
    finds = LOGGED | TAKEN
    return (
        Reader("anchorpy EventParser", finds, timed(lambda: peer.read_logs(logs)), found, baseline=True),
        Reader("json.loads, anchorpy", finds, timed(lambda: peer.read_bodies(path)), found, baseline=True),
    )
