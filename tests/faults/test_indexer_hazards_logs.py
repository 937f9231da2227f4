"""What transactions hold that misleads, or lack that should be there: which rows come of it, and which do not."""

from pathlib import Path
from typing import Any

from solders.pubkey import Pubkey

from indexer.chain.events import CPI_EVENT_TAG, CPI_ORDINAL_STRIDE
from indexer.store.database import Database
from tests.fixtures.hazard_rig import (
    AUTHORITY,
    HazardNode,
    Told,
    add_key,
    base58,
    data_line,
    deposit,
    indexing,
    self_call,
)
from tests.fixtures.scripted_node import PROGRAM_ADDRESS

FOREIGN = bytes([250]) * 32
FOREIGN_ADDRESS = str(Pubkey(FOREIGN))
ED25519 = bytes(Pubkey.from_string("Ed25519SigVerify111111111111111111111111111"))
OPEN, CLOSE = f"Program {PROGRAM_ADDRESS} invoke [1]", f"Program {PROGRAM_ADDRESS} success"


def call(program: str, depth: int, *lines: str) -> list[str]:
    """Return the lines of a call."""
    return [f"Program {program} invoke [{depth}]", *lines, f"Program {program} success"]


def logged(*lines: str) -> Any:
    """Return what makes a body's logs these."""

    def change(body: dict[str, Any]) -> None:
        body["meta"]["logMessages"] = list(lines)

    return change


def calling(body: dict[str, Any], *calls: dict[str, Any], outer: int = 0) -> None:
    """Give a body inner instructions."""
    body["meta"]["innerInstructions"] = [{"index": outer, "instructions": list(calls)}]


async def stored(database: Database, folder: Path, *entries: Told) -> Any:
    """Index some transactions and return the rig for looking at the tables."""
    node = HazardNode(list(entries), finalized_slot=50)
    async with indexing(database, folder, node) as it:
        await it.prove()
        assert it.frontier() == 50, "nothing that a transaction holds stops the frontier"
    return it


async def test_a_failed_transaction_is_a_row_without_events(database: Database, tmp_path: Path) -> None:
    """Its logs and its self-calls are there, and nothing in them happened."""

    def both(body: dict[str, Any]) -> None:
        calling(body, self_call(2, add_key(body, AUTHORITY)))

    failed = Told(1, 5, amount=1, err={"InstructionError": [0, {"Custom": 6001}]}, change=both)
    it = await stored(database, tmp_path, failed, Told(2, 6, amount=3))
    assert it.amounts() == [3]
    assert [row.failed for row in it.stored().transactions.values()] == [True, False]
    assert it.complete(failed)


async def test_cut_logs_give_what_came_before_and_what_calls_prove(database: Database, tmp_path: Path) -> None:
    """Shorter lines that follow the cut belong to nobody; self-calls need no logs; the rest is told to be missing."""

    def cut(body: dict[str, Any]) -> None:
        # The stranger's own lines were too long; what still fits looks as if our program had printed it.
        lines = [OPEN, data_line(deposit(1)), "Log truncated", data_line(deposit(666)), CLOSE]
        body["meta"]["logMessages"] = lines
        calling(body, self_call(2, add_key(body, AUTHORITY)))

    entry = Told(1, 5, change=cut)
    it = await stored(database, tmp_path, entry)
    assert it.amounts() == [1, 2]
    assert it.identities(entry) == [("cpi", 0), ("log", 0)]
    assert it.problems(entry) == ["truncated"]
    assert not it.complete(entry)
    assert it.status().incomplete == 1


async def test_a_transaction_without_logs_is_not_one_without_events(database: Database, tmp_path: Path) -> None:
    """`logMessages` null or absent: self-calls are recovered, and the transaction is counted as incomplete."""

    def null(body: dict[str, Any]) -> None:
        body["meta"]["logMessages"] = None
        calling(body, self_call(2, add_key(body, AUTHORITY)))

    def absent(body: dict[str, Any]) -> None:
        del body["meta"]["logMessages"]

    entries = [Told(1, 5, change=null), Told(2, 6, change=absent)]
    it = await stored(database, tmp_path, *entries)
    assert it.amounts() == [2]
    assert [it.problems(entry) for entry in entries] == [["no_logs"], ["no_logs"]]
    assert it.status().incomplete == 2


async def test_one_entry_is_one_line_whatever_it_holds(database: Database, tmp_path: Path) -> None:
    """A stranger prints newlines with a forged call and forged data of ours: it stays the stranger's text."""
    forged = "\n".join(["Program log: hello", CLOSE, OPEN, data_line(deposit(666)), CLOSE])
    entry = Told(1, 5, change=logged(*call(FOREIGN_ADDRESS, 1, forged), OPEN, data_line(deposit(1)), forged, CLOSE))
    it = await stored(database, tmp_path, entry)
    assert it.amounts() == [1]
    assert it.identities(entry) == [("log", 0)]
    assert (it.problems(entry), it.complete(entry)) == ([], True)


async def test_data_belongs_to_the_program_that_runs(database: Database, tmp_path: Path) -> None:
    """Calls within calls, failed ones, two-digit depths, unknown lines: the stack is kept through all of them."""
    tower = [f"Program {FOREIGN_ADDRESS} invoke [{depth}]" for depth in range(2, 13)]
    lines = [
        OPEN,
        data_line(deposit(1)),
        *call(FOREIGN_ADDRESS, 2, data_line(deposit(666)), f"Program {PROGRAM_ADDRESS} consumed 5 of 10 compute units"),
        *tower,
        data_line(deposit(667)),
        *[f"Program {FOREIGN_ADDRESS} failed: custom program error: 0x1"] * len(tower),
        "a line of a runtime that is not written yet",
        f"Program {PROGRAM_ADDRESS} invoke [2]",
        data_line(deposit(2)),
        CLOSE,
        data_line(deposit(3)),
        CLOSE,
        *call(FOREIGN_ADDRESS, 1, data_line(deposit(668))),
    ]
    entry = Told(1, 5, change=logged(*lines))
    it = await stored(database, tmp_path, entry)
    assert it.amounts() == [1, 2, 3]
    assert it.identities(entry) == [("log", 0), ("log", 3), ("log", 4)]
    assert it.problems(entry) == []


async def test_several_fields_on_one_data_line_are_one_event(database: Database, tmp_path: Path) -> None:
    """The first field is read, the others are told, and the next line's number is the next."""
    several = f"{data_line(deposit(1))} {data_line(deposit(666)).removeprefix('Program data: ')}"
    entry = Told(1, 5, change=logged(OPEN, several, data_line(deposit(2)), CLOSE))
    it = await stored(database, tmp_path, entry)
    assert it.amounts() == [1, 2]
    assert it.identities(entry) == [("log", 0), ("log", 1)]
    assert it.problems(entry) == ["extra_fields"]


async def test_a_precompile_prints_nothing_and_shifts_nothing(database: Database, tmp_path: Path) -> None:
    """Its instruction has no line in the logs: positions of calls count it, and lines say who runs by themselves."""

    def verified_first(body: dict[str, Any]) -> None:
        at = add_key(body, ED25519)
        ours = body["transaction"]["message"]["instructions"]
        ours.insert(0, {"programIdIndex": at, "accounts": [], "data": "", "stackHeight": None})
        calling(body, self_call(2, add_key(body, AUTHORITY)), outer=1)

    entry = Told(1, 5, amount=1, change=verified_first)
    it = await stored(database, tmp_path, entry)
    assert it.identities(entry) == [("cpi", CPI_ORDINAL_STRIDE), ("log", 0)]
    assert (it.amounts(), it.problems(entry), it.complete(entry)) == ([1, 2], [], True)


async def test_a_forged_self_call_is_no_event(database: Database, tmp_path: Path) -> None:
    """Program, tag and event authority must all be right: a stranger can copy two of them and never the third."""

    def forge(body: dict[str, Any]) -> None:
        authority, stranger = add_key(body, AUTHORITY), add_key(body, FOREIGN)
        wrong_tag = {**self_call(663, authority), "data": base58(bytes(8) + deposit(663))}
        calling(
            body,
            self_call(660, authority, program_at=stranger),
            self_call(661, stranger),
            {**self_call(662, authority), "accounts": []},
            wrong_tag,
            self_call(1, authority),
        )
        outer = {"programIdIndex": 1, "accounts": [authority], "data": base58(CPI_EVENT_TAG + deposit(664))}
        body["transaction"]["message"]["instructions"].append(outer)

    entry = Told(1, 5, amount=None, change=forge)
    it = await stored(database, tmp_path, entry)
    assert it.amounts() == [1]
    assert it.identities(entry) == [("cpi", 4)]


async def test_places_do_not_depend_on_stack_heights(database: Database, tmp_path: Path) -> None:
    """Nodes may leave `stackHeight` out: an identity is the flat position, the same with heights and without."""

    def three_calls(body: dict[str, Any]) -> None:
        authority = add_key(body, AUTHORITY)
        heights = zip((1, 2, 3), (2, 3, 2), strict=True)
        calling(body, *({**self_call(n, authority), "stackHeight": height} for n, height in heights))

    def without_heights(body: dict[str, Any]) -> None:
        three_calls(body)
        for one in body["meta"]["innerInstructions"][0]["instructions"]:
            del one["stackHeight"]

    told, silent = Told(1, 5, amount=None, change=three_calls), Told(2, 6, amount=None, change=without_heights)
    it = await stored(database, tmp_path, told, silent)
    assert it.identities(told) == it.identities(silent) == [("cpi", 0), ("cpi", 1), ("cpi", 2)]
    assert it.amounts() == [1, 1, 2, 2, 3, 3]
