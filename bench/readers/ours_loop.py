"""Capstan, one transaction and one event at a time."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.inputs.made_transactions import PROGRAMS, canonical
from bench.readers.reading import ALL, LOGGED, Found, Logs, Reader, timed
from indexer.chain.events import Event, extract_events
from indexer.chain.logs import scan_logs
from indexer.chain.program import Decoded
from indexer.chain.transaction import Transaction, parse_transaction

ENGINE = PROGRAMS["liquidation_engine"]
BY_ID = {program.program_id: program for program in PROGRAMS.values()}
# (place, program id, ordinal, event)
Scanned = list[tuple[int, bytes, int, Decoded]]


def read_logs(logs: Sequence[Logs]) -> Scanned:
    """Scan lines and decode each payload."""
    scanned: Scanned = []
    for place, _, lines in logs:
        for line in scan_logs(lines, programs=BY_ID).data:
            assert line.program_id is not None, "the made logs are whole"
            decoded = BY_ID[line.program_id].decode_event(line.payloads[0])
            scanned.append((place, line.program_id, line.ordinal, decoded))
    return scanned


def read_transactions(transactions: Sequence[Transaction]) -> list[tuple[Event, ...]]:
    """Extract from transactions that are parsed already."""
    return [extract_events(transaction, BY_ID).events for transaction in transactions]


def read_bodies(path: Path) -> list[tuple[Event, ...]]:
    """Parse each line of a file, and extract."""
    with path.open("rb") as file:
        return [extract_events(parse_transaction(line), BY_ID).events for line in file]


def found_scanned(scanned: Scanned) -> Iterable[Found]:
    """Yield what was scanned in the common form."""
    for place, program_id, ordinal, decoded in scanned:
        yield Found(place, BY_ID[program_id].name, ordinal, canonical(decoded.name, list(decoded.values.values())))


def found_extracted(extracted: list[tuple[Event, ...]]) -> Iterable[Found]:
    """Yield what was extracted in the common form."""
    for place, events in enumerate(extracted):
        for event in events:
            text = canonical(event.name, list(event.values.values()))
            yield Found(place, BY_ID[event.program_id].name, event.ordinal, text)


def readers(logs: Sequence[Logs], transactions: Sequence[Transaction], path: Path) -> tuple[Reader, Reader, Reader]:
    """Return it as reader of lines, of parsed transactions, and of bodies."""
    return (
        Reader(
            "Capstan, a loop: scan_logs, decode_event", LOGGED, timed(lambda: read_logs(logs)), found_scanned, target=15
        ),
        Reader("Capstan, a loop: extract_events", ALL, timed(lambda: read_transactions(transactions)), found_extracted),
        Reader(
            "Capstan, a loop: parse_transaction, extract_events", ALL, timed(lambda: read_bodies(path)), found_extracted
        ),
    )
