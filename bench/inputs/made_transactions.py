"""
Transactions of the home programs as a node returns them, made rather than executed, and what is to be read of them.

A seed and a number always give the same bytes. The chain that these come from does not exist: signatures are random,
and balances say nothing. Logs, keys and inner instructions are as a node tells them.
"""

import base64
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from solders.pubkey import Pubkey
from solders.signature import Signature

from bench.inputs.made_shapes import BUDGET, SHAPES, STRANGER, TOKEN, Call
from indexer.chain.events import CPI_EVENT_TAG, CPI_ORDINAL_STRIDE, event_authority
from indexer.chain.program import Program
from indexer.chain.types import Array, Bool, Field, Integer, String
from indexer.chain.types import Pubkey as PubkeyType
from indexer.chain.value import Value
from indexer.idls import home_programs
from localnet.rpc.encoding import base58

PROGRAMS: dict[str, Program] = {program.name: program for program in home_programs().values()}
IDS = {name: str(Pubkey(program.program_id)) for name, program in PROGRAMS.items()}
SYMBOLS = ("SOL", "BTC", "ETH")
START_TIME, START_SLOT = 1_750_000_000, 340_000_000
PEOPLE = 4_000
PACE = 25
"""Transactions in a slot."""

Way = Literal["top", "nested", "cpi", "quoted"]
"""Where an event is: a data line of a top-level call, of a call by another program, an inner instruction; or nowhere,
as only its bytes are in a text."""


class MadeEvent(NamedTuple):
    """What a reader of a transaction must find; of way "quoted", must not."""

    way: Way
    program: str
    ordinal: int
    text: str


class Made(NamedTuple):
    """
    One transaction.

    Args:
        body: the result of getTransaction, as JSON.
        called: the names of the home programs that run in it.
        events: in the order of their lines, then of their inner instructions; none where it failed.
    """

    body: bytes
    logs: list[str]
    failed: bool
    called: tuple[str, ...]
    events: tuple[MadeEvent, ...]


def canonical(name: str, values: list[Any]) -> str:
    """Return an event as text, the same in every language: numbers in decimal, bytes in hex, fields in IDL order."""
    return "|".join([name, *map(_canonical_value, values)])


def _canonical_value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.hex()
        case _:
            return str(value)


def make_transactions(count: int, *, seed: int = 1) -> Iterator[Made]:
    """Yield `count` transactions."""
    cast = _Cast(random.Random(seed))
    shapes, weights = [shape.calls for shape in SHAPES], [shape.per_mille for shape in SHAPES]
    for number in range(count):
        calls = cast.rng.choices(shapes, weights)[0]
        yield _Draft(cast, START_SLOT + number // PACE).make(calls)


def write_bodies(made: Sequence[Made], path: Path) -> None:
    """Write one body a line."""
    with path.open("wb") as file:
        file.writelines(one.body + b"\n" for one in made)


class _Cast:
    """Everybody who takes part, and the chances."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.people = [rng.randbytes(32) for _ in range(PEOPLE)]
        self.datas = [base58(rng.randbytes(size)) for size in (8, 16, 24) for _ in range(64)]

    def person(self) -> bytes:
        return self.rng.choice(self.people)

    def event(self, program: Program, name: str) -> tuple[bytes, str]:
        """Return an event's bytes and its canonical text."""
        fields = program.events[name].fields
        values = {field.name: self._value(field) for field in fields}
        return program.encode_event(name, values), canonical(name, list(values.values()))

    def _value(self, field: Field) -> Value:
        rng = self.rng
        match field.type:
            case PubkeyType():
                return self.person()
            case Bool():
                return rng.random() < 0.5
            case String():
                return rng.choice(SYMBOLS)
            case Array(_, int(length)):
                return rng.randbytes(length)
            case Integer(bits=16):
                return rng.randrange(1, 1000)
            case Integer(signed=True) if not field.name.startswith(("margin", "pnl")):
                return START_TIME + rng.randrange(10_000_000)
            case Integer(signed=True):
                return rng.randrange(-(10**12), 10**12)
            case _:
                # Now and then an amount that needs all 64 bits.
                return rng.randrange(2**63, 2**64) if rng.random() < 0.01 else rng.randrange(10**12)


class _Draft:
    """A transaction in the making; keys are numbered when all are known."""

    def __init__(self, cast: _Cast, slot: int) -> None:
        self._cast, self._slot = cast, slot
        self._payer = cast.person()
        self._writable: dict[bytes, None] = {}
        self._readonly: dict[bytes, None] = {}
        self._logs: list[str] = []
        self._outer: list[tuple[bytes, list[bytes], str]] = []
        self._inner: list[list[tuple[bytes, list[bytes], str, int]]] = []
        self._called: dict[str, None] = {}
        self._logged: list[MadeEvent] = []
        self._cpi: list[MadeEvent] = []
        self._data_lines = 0
        self._units = 600_000
        self._err: Any = None
        self._tokens = False

    def make(self, calls: tuple[Call, ...]) -> Made:
        if self._cast.rng.random() < 0.6:
            calls = (Call(BUDGET), Call(BUDGET), *calls)
        for call in calls:
            self._outer.append(self._instruction(call))
            self._inner.append([])
            self._run(call, 1)
            if self._err is not None:
                break
        events = () if self._err is not None else (*self._logged, *self._cpi)
        body = msgspec.json.encode(self._body())
        return Made(body, self._logs, self._err is not None, tuple(self._called), events)

    def _instruction(self, call: Call) -> tuple[bytes, list[bytes], str]:
        accounts = [self._payer, *(self._cast.person() for _ in range(self._cast.rng.randrange(1, 4)))]
        self._writable |= dict.fromkeys(accounts)
        program = _key(IDS.get(call.program, call.program))
        self._readonly[program] = None
        return program, accounts, self._cast.rng.choice(self._cast.datas)

    def _run(self, call: Call, depth: int) -> None:
        program = IDS.get(call.program, call.program)
        if call.program in PROGRAMS:
            self._called[call.program] = None
        self._tokens |= program == TOKEN
        logs = self._logs
        logs.append(f"Program {program} invoke [{depth}]")
        if call.instruction:
            logs.append(f"Program log: Instruction: {call.instruction}")
        logs += [f"Program log: {text}" for text in call.texts]
        for inner in call.calls:
            self._inner[-1].append((*self._instruction(inner), depth + 1))
            self._run(inner, depth + 1)
        if call.quoted:
            self._quote(call)
        for name in call.logs:
            self._print(call.program, name, "top" if depth == 1 else "nested")
        if call.forged is not None:
            self._forge(call.forged, depth)
        for name in call.cpis:
            self._emit_cpi(call.program, name, depth)
        self._end(call, program)

    def _end(self, call: Call, program: str) -> None:
        self._units -= call.units
        if call.fails:
            self._logs.append(
                "Program log: AnchorError occurred. Error Code: SessionExpired. Error Number: 6001. "
                "Error Message: The session has expired."
            )
            self._err = {"InstructionError": [len(self._outer) - 1, {"Custom": 6001}]}
        if program not in (BUDGET, "11111111111111111111111111111111"):
            self._logs.append(f"Program {program} consumed {call.units} of {self._units + call.units} compute units")
        end = "failed: custom program error: 0x1771" if call.fails else "success"
        self._logs.append(f"Program {program} {end}")

    def _data_line(self, payload: bytes) -> int:
        self._logs.append("Program data: " + base64.b64encode(payload).decode())
        self._data_lines += 1
        return self._data_lines - 1

    def _print(self, program: str, name: str, way: Way) -> None:
        payload, text = self._cast.event(PROGRAMS[program], name)
        self._logged.append(MadeEvent(way, program, self._data_line(payload), text))

    def _quote(self, call: Call) -> None:
        payload, text = self._cast.event(PROGRAMS[call.program], call.quoted)
        self._logs.append("Program log: " + base64.b64encode(payload).decode())
        self._logged.append(MadeEvent("quoted", call.program, -1, text))

    def _forge(self, forged: tuple[str, str], depth: int) -> None:
        program, name = forged
        payload, _ = self._cast.event(PROGRAMS[program], name)
        self._data_line(payload)
        self._call_itself(STRANGER, payload, depth)

    def _emit_cpi(self, program: str, name: str, depth: int) -> None:
        payload, text = self._cast.event(PROGRAMS[program], name)
        ordinal = (len(self._outer) - 1) * CPI_ORDINAL_STRIDE + len(self._inner[-1])
        self._call_itself(IDS[program], payload, depth)
        self._cpi.append(MadeEvent("cpi", program, ordinal, text))

    def _call_itself(self, program: str, payload: bytes, depth: int) -> None:
        key = _key(program)
        authority = event_authority(key)
        self._readonly[authority] = None
        self._inner[-1].append((key, [authority], base58(CPI_EVENT_TAG + payload), depth + 1))
        self._units -= 1_642
        self._logs += [
            f"Program {program} invoke [{depth + 1}]",
            f"Program {program} consumed 1642 of {self._units} compute units",
            f"Program {program} success",
        ]

    def _body(self) -> dict[str, Any]:
        rng = self._cast.rng
        self._writable.pop(self._payer, None)
        # A tenth has lookup tables, which hold everything writable but the payer.
        looked_up = rng.random() < 0.1
        loaded = list(self._writable) if looked_up else []
        static = [self._payer, *(() if looked_up else self._writable), *self._readonly]
        keys = static + loaded
        place = {key: index for index, key in enumerate(keys)}
        message: dict[str, Any] = {
            "accountKeys": [_text(key) for key in static],
            "header": {
                "numReadonlySignedAccounts": 0,
                "numReadonlyUnsignedAccounts": len(self._readonly),
                "numRequiredSignatures": 1,
            },
            "instructions": [
                {"accounts": [place[a] for a in accounts], "data": data, "programIdIndex": place[key], "stackHeight": 1}
                for key, accounts, data in self._outer
            ],
            "recentBlockhash": _text(self._cast.people[self._slot % PEOPLE]),
        }
        if looked_up:
            table = _text(self._cast.people[0])
            indexes = list(range(len(loaded)))
            message["addressTableLookups"] = [{"accountKey": table, "readonlyIndexes": [], "writableIndexes": indexes}]
        return {
            "blockTime": START_TIME + (self._slot - START_SLOT) * 2 // 5,
            "meta": self._meta(place, [_text(key) for key in loaded]),
            "slot": self._slot,
            "transaction": {"message": message, "signatures": [str(Signature(rng.randbytes(64)))]},
            "version": 0 if looked_up else "legacy",
        }

    def _meta(self, place: dict[bytes, int], loaded: list[str]) -> dict[str, Any]:
        balances = [self._cast.rng.randrange(10**10) for _ in place]
        tokens = [self._token_balance(index) for index in (1, 2)] if self._tokens else []
        return {
            "computeUnitsConsumed": 600_000 - self._units,
            "err": self._err,
            "fee": 5_000,
            "innerInstructions": [
                {
                    "index": index,
                    "instructions": [
                        {
                            "accounts": [place[account] for account in accounts],
                            "data": data,
                            "programIdIndex": place[key],
                            "stackHeight": height,
                        }
                        for key, accounts, data, height in group
                    ],
                }
                for index, group in enumerate(self._inner)
                if group
            ],
            "loadedAddresses": {"readonly": [], "writable": loaded},
            "logMessages": self._logs,
            "postBalances": [balances[0] - 5_000, *balances[1:]],
            "postTokenBalances": tokens,
            "preBalances": balances,
            "preTokenBalances": tokens,
            "rewards": [],
            "status": {"Ok": None} if self._err is None else {"Err": self._err},
        }

    def _token_balance(self, index: int) -> dict[str, Any]:
        amount = self._cast.rng.randrange(10**12)
        return {
            "accountIndex": index,
            "mint": _text(self._cast.people[1]),
            "owner": _text(self._payer),
            "programId": TOKEN,
            "uiTokenAmount": {
                "amount": str(amount),
                "decimals": 6,
                "uiAmount": amount / 1e6,
                "uiAmountString": str(amount / 1e6),
            },
        }


@lru_cache(maxsize=256)
def _key(text: str) -> bytes:
    return bytes(Pubkey.from_string(text))


@lru_cache(maxsize=2 * PEOPLE)
def _text(key: bytes) -> str:
    return str(Pubkey(key))
