"""What transactions and payloads lack, or have too much of: what of it is stored, and what an operator is told."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from indexer.catchup import CatchUp
from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.store.audit import read_lake
from indexer.store.coverage import Means, Range
from indexer.store.database import Database
from indexer.verify import Verifier
from tests.fixtures.hazard_rig import AUTHORITY, HazardNode, Told, account, data_line, indexing, self_call, vault
from tests.fixtures.scripted_node import Entry

WALLET = str(Pubkey(bytes([11]) * 32))
TABLE = str(Pubkey(bytes([99]) * 32))
CRIER_ADDRESS = str(Pubkey(bytes([5]) * 32))
SAID = b"said\0\0\0\0"
CRIER = Program.from_idl(
    load_idl(
        json.dumps(
            {
                "address": CRIER_ADDRESS,
                "metadata": {"name": "crier"},
                "instructions": [],
                "events": [{"name": "Said", "discriminator": list(SAID)}],
                "types": [
                    {
                        "name": "Said",
                        "type": {
                            "kind": "struct",
                            "fields": [
                                {"name": "text", "type": "string"},
                                {"name": "loud", "type": "bool"},
                                {"name": "count", "type": "u64"},
                            ],
                        },
                    }
                ],
            }
        ),
        source="crier.json",
    )
)
PAYLOAD = CRIER.encode_event("Said", {"text": "hear", "loud": True, "count": 7})
TEXT_AT, LOUD_AT = 8 + 4, 8 + 4 + 4


def crying(*lines: str) -> Callable[[dict[str, Any]], None]:
    """Return what makes a body the crier's, with these lines between its first word and its last."""

    def change(body: dict[str, Any]) -> None:
        body["transaction"]["message"]["accountKeys"][1] = CRIER_ADDRESS
        said = (data_line(PAYLOAD), *lines, data_line(PAYLOAD))
        body["meta"]["logMessages"] = [f"Program {CRIER_ADDRESS} invoke [1]", *said, f"Program {CRIER_ADDRESS} success"]

    return change


def patched(at: int, byte: int) -> bytes:
    """Return the payload with one byte changed."""
    return PAYLOAD[:at] + bytes([byte]) + PAYLOAD[at + 1 :]


SPOILT = [
    (data_line(b"whatever" + PAYLOAD[8:]), "unknown_discriminator"),
    (data_line(PAYLOAD[:5]), "short_payload"),
    (data_line(PAYLOAD[:-1]), "short_payload"),
    (data_line(PAYLOAD[:8] + b"\xff\xff\xff\x7f" + PAYLOAD[12:]), "short_payload"),
    ("Program data: c2FpZA=*", "bad_base64"),
    (f"Program data: {base64.b64encode(PAYLOAD).decode()[:-1]}", "bad_base64"),
    (data_line(patched(TEXT_AT, 0xFF)), "invalid_value"),  # bad UTF-8
    (data_line(patched(LOUD_AT, 2)), "invalid_value"),  # a bool of 2
]


async def test_what_cannot_be_read_is_counted_and_the_rest_is_stored(database: Database, tmp_path: Path) -> None:
    """A problem with its signature and place, shown by the status; the events around it and the frontier go on."""
    spoilt = [Told(number, 4 + number, change=crying(line)) for number, (line, _) in enumerate(SPOILT, 1)]
    sound = Told(99, 20, change=crying())
    async with indexing(database, tmp_path, HazardNode([*spoilt, sound], finalized_slot=30), programs=(CRIER,)) as it:
        await it.prove()
        assert it.frontier() == 30
        assert [it.identities(entry) for entry in spoilt] == [[("log", 0), ("log", 2)]] * len(spoilt)
        assert it.identities(sound) == [("log", 0), ("log", 1)]
        assert {event.values["count"] for event in it.stored().events.values()} == {"7"}
        assert [it.problems(entry) for entry in spoilt] == [[kind] for _, kind in SPOILT]
        assert it.problems(sound) == []
        counted = {problem.kind: problem.total for problem in it.status().problems}
        assert counted == {"unknown_discriminator": 1, "short_payload": 3, "bad_base64": 2, "invalid_value": 2}


async def test_trailing_bytes_are_told_and_the_event_is_stored(database: Database, tmp_path: Path) -> None:
    """A longer payload is most likely a newer version of the program: what is known of it is kept, and that is said."""
    entry = Told(1, 5, change=crying(data_line(PAYLOAD + b"more")))
    async with indexing(database, tmp_path, HazardNode([entry], finalized_slot=9), programs=(CRIER,)) as it:
        await it.prove()
        assert it.identities(entry) == [("log", 0), ("log", 1), ("log", 2)]
        assert it.problems(entry) == ["trailing_bytes"]
        assert it.sql("select detail from capstan.problems") == [("Said is 4 bytes longer than the IDL says",)]


def by_table(body: dict[str, Any]) -> None:
    """Put a writable wallet and the event authority into a lookup table, as version 0 may."""
    body["version"] = 0
    lookup = {"accountKey": TABLE, "writableIndexes": [4], "readonlyIndexes": [0]}
    body["transaction"]["message"]["addressTableLookups"] = [lookup]
    body["meta"]["loadedAddresses"] = {"writable": [WALLET], "readonly": [str(Pubkey(AUTHORITY))]}
    body["meta"]["innerInstructions"] = [{"index": 0, "instructions": [self_call(2, 3)]}]


def table_untold(body: dict[str, Any]) -> None:
    """The same from a node that does not say what the table loaded."""
    by_table(body)
    del body["meta"]["loadedAddresses"]


def first_version(body: dict[str, Any]) -> None:
    """Name every account in the message itself, as version 1 does."""
    body["version"] = 1
    body["transaction"]["message"]["accountKeys"] += [str(Pubkey(AUTHORITY))]
    body["transaction"]["message"]["header"]["numReadonlyUnsignedAccounts"] += 1
    body["meta"]["innerInstructions"] = [{"index": 0, "instructions": [self_call(2, 2)]}]
    body["meta"].pop("loadedAddresses", None)


async def test_keys_are_static_then_writable_then_readonly_loaded_ones(database: Database, tmp_path: Path) -> None:
    """A self-call whose authority came from a table counts, and what the table made writable is asked for again."""
    node = HazardNode([Told(1, 5, amount=1, change=by_table)], finalized_slot=9)
    node.accounts[WALLET] = account(vault(5))
    async with indexing(database, tmp_path, node) as it:
        advanced = await it.indexer.frontier.advance()
        await it.indexer.accounts.refetch(advanced.touched)
        assert (it.amounts(), it.deposited()) == ([1, 2], [5])
        assert it.identities(node.entries[0]) == [("cpi", 0), ("log", 0)]
        assert it.complete(node.entries[0])


async def test_keys_that_a_node_does_not_tell_are_not_guessed(database: Database, tmp_path: Path) -> None:
    """`loadedAddresses` absent where tables were used: what the logs say is stored, and the rest may be missing."""
    entry = Told(1, 5, amount=1, change=table_untold)
    async with indexing(database, tmp_path, HazardNode([entry], finalized_slot=9)) as it:
        await it.prove()
        assert (it.amounts(), it.frontier()) == ([1], 9)
        assert not it.complete(entry)
        assert "unknown_keys" in it.problems(entry)
        assert it.status().incomplete == 1


async def test_version_1_needs_no_tables(database: Database, tmp_path: Path) -> None:
    """All keys are static, `loadedAddresses` may be absent, and nothing is missing."""
    entry = Told(1, 5, amount=1, change=first_version, version=1)
    async with indexing(database, tmp_path, HazardNode([entry], finalized_slot=9)) as it:
        await it.prove()
        assert (it.amounts(), it.problems(entry), it.complete(entry)) == ([1, 2], [], True)


class Timeless(HazardNode):
    """A node that does not know when its blocks were made."""

    def _block(self, slot: int, options: dict[str, Any]) -> dict[str, Any]:
        return {**super()._block(slot, options), "blockTime": None}


def timeless(body: dict[str, Any]) -> None:
    """Leave the time out."""
    body["blockTime"] = None


@pytest.mark.parametrize("means", ["signatures", "blocks"])
async def test_a_block_without_a_time_is_stored_like_any_other(
    database: Database, tmp_path: Path, means: Means
) -> None:
    """blockTime null is null in the tables and in the lake; slots alone say what comes first and how far we are."""
    entries = [Told(number, 5 + number, amount=number, change=timeless) for number in (1, 2)]
    node = Timeless([*entries, Entry(3, 9, amount=3)], finalized_slot=12)
    async with indexing(database, tmp_path, node) as it:
        await it.indexer.backfills.open(means, None, None)
        await it.indexer.backfills.run(CatchUp())
        assert (it.amounts(), it.frontier()) == ([1, 2, 3], 12)
        times = [time is None for (time,) in it.sql("select block_time from capstan.transactions order by slot")]
        assert times == [True, True, means == "blocks"]
        if means == "signatures":
            await it.indexer.export()
            assert read_lake(database.dsn).events == it.stored().events
        indexer = it.indexer
        verifier = Verifier(indexer.rpc, indexer.pool, indexer.programs, indexer.tables, database.dsn)
        assert (await verifier.verify(Range(0, 12), means)).is_clean
