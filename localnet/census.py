"""
localnet's own count of what happened, read from the VM's logs and accounts.

It is what the indexer's tables are compared with, so it shares no code with the indexer: a small reading of the invoke
stack here, plain `struct` formats in `localnet.clients`. It knows only the home programs, and only what they really do;
hostile logs are the indexer's business.
"""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from solders.pubkey import Pubkey

from localnet.chain import Chain, Commitment
from localnet.clients import collateral_vault, ephemeral_vault, liquidation_engine
from localnet.ledger import Executed

DATA_PREFIX = "Program data: "
# What Anchor's `emit_cpi!` puts before an event, and what is one place in the ordinal of such an event.
CPI_TAG = bytes.fromhex("e445a52e51cb9a1d")
OUTER_STRIDE = 65_536

Value: TypeAlias = int | bool | bytes | str | list[bytes] | None
JsonValue: TypeAlias = str | bool | list[str] | None


class Client(Protocol):
    """What a module of `localnet.clients` offers to a reader."""

    PROGRAM_ID: Pubkey

    def parse_event(self, payload: bytes) -> tuple[str, Mapping[str, Value]] | None:
        """Return an event's name and fields."""

    def parse_account(self, data: bytes) -> tuple[str, Mapping[str, Value]] | None:
        """Return an account's name and fields."""


CLIENTS: Mapping[str, Client] = {
    "ephemeral_vault": ephemeral_vault,
    "collateral_vault": collateral_vault,
    "liquidation_engine": liquidation_engine,
}
"""The reader of each home program, by the program's name."""

HOME_PROGRAMS = frozenset(bytes(client.PROGRAM_ID) for client in CLIENTS.values())
NAME_BY_KEY = {bytes(client.PROGRAM_ID): name for name, client in CLIENTS.items()}
NAME_BY_ADDRESS = {str(client.PROGRAM_ID): name for name, client in CLIENTS.items()}


@dataclass(frozen=True, slots=True)
class CountedEvent:
    """
    One event as the VM printed it.

    Attributes:
        signature: of its transaction, base58.
        slot: of its transaction.
        kind: `log`, for an event from a `Program data:` line; `cpi`, for one from a call of the program by itself.
        ordinal: of a `log`, the n-th `Program data:` line of the transaction, counted over all programs from 0; of a
            `cpi`, the outer instruction's position * 65536 + the call's flat position under it.
        program: the home program's name.
        name: the event's name.
        values: its fields; a pubkey is 32 bytes.
    """

    signature: str
    slot: int
    kind: str
    ordinal: int
    program: str
    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class CountedAccount:
    """An account of a home program that exists: its address in base58, lamports, program, type and fields."""

    address: str
    lamports: int
    program: str
    name: str
    values: Mapping[str, Value]


class Census:
    """
    The home programs' transactions, events and accounts on one chain, at any commitment.

    Finalized blocks are read once; those above are read anew for every question, because a fork may replace them.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._blocks_read = 0
        self._transactions: list[Executed] = []
        self._events: list[CountedEvent] = []

    def transactions(self, commitment: Commitment) -> list[Executed]:
        """Return the landed transactions that name a home program, in the chain's order."""
        self._advance()
        return self._transactions + [one for one in self._unsettled(commitment) if names_home_program(one)]

    def events(self, commitment: Commitment) -> list[CountedEvent]:
        """Return the events of successful transactions in the chain's order."""
        self._advance()
        return self._events + [event for one in self._unsettled(commitment) for event in events_of(one)]

    def accounts(self, commitment: Commitment) -> list[CountedAccount]:
        """Return the home programs' accounts, by address."""
        counted = []
        for program, client in CLIENTS.items():
            for address, state in self._chain.accounts_of(client.PROGRAM_ID, commitment):
                parsed = client.parse_account(state.data)
                if parsed is not None:
                    text = str(Pubkey.from_bytes(address))
                    counted.append(CountedAccount(text, state.lamports, program, *parsed))
        return sorted(counted, key=lambda account: account.address)

    def _advance(self) -> None:
        """Read the blocks that were finalized since the last question."""
        blocks = self._chain.ledger.blocks
        finalized = self._chain.block_at("finalized").slot
        while self._blocks_read < len(blocks) and blocks[self._blocks_read].slot <= finalized:
            for executed in blocks[self._blocks_read].transactions:
                if names_home_program(executed):
                    self._transactions.append(executed)
                    self._events.extend(events_of(executed))
            self._blocks_read += 1

    def _unsettled(self, commitment: Commitment) -> Iterator[Executed]:
        slot_max = self._chain.block_at(commitment).slot
        for block in self._chain.ledger.blocks[self._blocks_read :]:
            if block.slot <= slot_max:
                yield from block.transactions


def names_home_program(executed: Executed) -> bool:
    """Say whether a transaction names a home program among its accounts."""
    return not HOME_PROGRAMS.isdisjoint(executed.footprint.keys)


def events_of(executed: Executed) -> list[CountedEvent]:
    """Return the home programs' events of a transaction; a failed one has none."""
    if executed.err is not None:
        return []
    text, slot = executed.signature_text, executed.slot
    return [*count_events(text, slot, executed.logs), *count_called_events(text, slot, executed)]


def data_lines(logs: Sequence[str]) -> Iterator[tuple[int, str, bytes]]:
    """Yield ordinal, program (base58) and payload of each `Program data:` line, up to where the logs were cut."""
    stack: list[str] = []
    ordinal = 0
    for line in logs:
        if line == "Log truncated":
            return
        if line.startswith(DATA_PREFIX):
            if stack:
                yield ordinal, stack[-1], _payload(line[len(DATA_PREFIX) :])
            ordinal += 1
            continue
        words = line.split(" ")
        if len(words) < 3 or words[0] != "Program":
            continue
        if words[2] == "invoke":
            stack.append(words[1])
        elif stack and stack[-1] == words[1] and (words[2] == "success" or words[2] == "failed:"):
            stack.pop()


def count_events(signature: str, slot: int, logs: Sequence[str]) -> list[CountedEvent]:
    """Return the home programs' events of one successful transaction, in order."""
    events = []
    for ordinal, address, payload in data_lines(logs):
        program = NAME_BY_ADDRESS.get(address)
        parsed = CLIENTS[program].parse_event(payload) if program is not None else None
        if program is not None and parsed is not None:
            events.append(CountedEvent(signature, slot, "log", ordinal, program, *parsed))
    return events


def count_called_events(signature: str, slot: int, executed: Executed) -> list[CountedEvent]:
    """Return the events for which a home program called itself, in order."""
    events = []
    keys = executed.footprint.keys
    for outer, called in executed.inner_instructions:
        for position, inner in enumerate(called):
            instruction = inner.instruction()
            program = NAME_BY_KEY.get(keys[instruction.program_id_index])
            data = bytes(instruction.data)
            if program is None or not data.startswith(CPI_TAG):
                continue
            parsed = CLIENTS[program].parse_event(data[len(CPI_TAG) :])
            if parsed is not None:
                ordinal = outer * OUTER_STRIDE + position
                events.append(CountedEvent(signature, slot, "cpi", ordinal, program, *parsed))
    return events


def json_values(values: Mapping[str, Value]) -> dict[str, JsonValue]:
    """Return fields as JSON can carry them exactly: integers as decimal strings, 32 bytes in base58."""
    return {name: _json_value(value) for name, value in values.items()}


def tally(events: Sequence[CountedEvent]) -> dict[str, int]:
    """Return how many events there are by "program.EventName", sorted by that name."""
    counted = Counter(f"{event.program}.{event.name}" for event in events)
    return dict(sorted(counted.items()))


def _json_value(value: Value) -> JsonValue:
    if isinstance(value, list):
        return [str(Pubkey.from_bytes(key)) for key in value]
    if isinstance(value, bytes):
        return str(Pubkey.from_bytes(value))
    return value if value is None or isinstance(value, bool | str) else str(value)


def _payload(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
