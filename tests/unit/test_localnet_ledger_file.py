"""A chain saved and resumed is the same chain, and a file that is none is refused in one sentence."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from indexer.errors import SettingsError
from localnet.chain import Chain
from localnet.clients import ephemeral_vault as client
from localnet.fork import Chances, fork
from localnet.ledger_file import FILE_NAME, LedgerFolder, Notes
from localnet.programs import PROGRAM_IDS, load_elf
from localnet.rpc.bodies import TransactionView
from localnet.traffic.history import fill_purses, play_history
from localnet.traffic.live import LiveTraffic
from localnet.traffic.schedule import Company, plan_history
from localnet.traffic.sessions import SessionCast
from tests.fixtures.chain import START_TIME, build_chain

NOTES = Notes(wall_clock=False, populated=True, transactions=300, next_life=17)


def with_programs(chain: Chain) -> None:
    for name, program_id in PROGRAM_IDS.items():
        chain.add_program(program_id, load_elf(name))


def peopled() -> tuple[Chain, list[Company]]:
    """Return a chain with a history and an open slot in which something has happened."""
    chain = build_chain(seed=11, finalized_distance=8)
    companies = [Company(SessionCast(seed=11, parents=20))]
    fill_purses(chain, companies)
    end = START_TIME + 86_400.0
    plan = plan_history(companies, seed=11, begin=START_TIME, end=end, transactions=300)
    play_history(chain, plan.acts, begin=START_TIME, end=end, slot_ms=400)
    chain.log_limit = lambda signature: 300 if signature[0] % 2 else None
    traffic(chain, companies, 30)
    return chain, companies


def traffic(chain: Chain, companies: list[Company], slots: int) -> None:
    users = LiveTraffic(chain, companies, seed=11, rate_tps=20, first_life=1_000 + chain.slot)
    for _ in range(slots):
        chain.open_slot(chain.slot + 1, chain.unix_time + 1)
        users.on_slot(400)


def digest(chain: Chain) -> str:
    """Return one hash of every block, transaction and account, at every commitment."""
    view = TransactionView("json", 1)
    kept = chain.kept()
    told: list[Any] = [kept.reached, kept.airdrops, kept.forks, chain.latest_blockhash().__str__()]
    for block in [*chain.ledger.blocks, kept.open]:
        told.append([block.slot, block.parent_slot, block.height, block.unix_time, block.blockhash.hex()])
        told += [view.body(executed) for executed in block.transactions]
    for commitment in ("processed", "confirmed", "finalized", None):
        for address, state in chain.all_accounts(commitment):
            told.append([address.hex(), state.lamports, state.data.hex(), state.owner.hex(), state.executable])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def saved(folder: Path, chain: Chain) -> None:
    ledger = LedgerFolder(folder)
    ledger.save(chain, NOTES)
    ledger.close()


def resumed(folder: Path) -> Chain:
    ledger = LedgerFolder(folder)
    found = ledger.load(with_programs)
    ledger.close()
    assert found is not None
    assert found[1] == NOTES
    return found[0]


def test_a_resumed_chain_is_the_same_and_goes_on_the_same(tmp_path: Path) -> None:
    """Transactions, accounts, commitments and cut logs; then the same users do the same things on both."""
    chain, companies = peopled()
    saved(tmp_path / "deep" / "chain", chain)
    again = resumed(tmp_path / "deep" / "chain")
    assert digest(again) == digest(chain)
    assert any("Log truncated" in one.shown_logs for block in again.ledger.blocks for one in block.transactions)
    again.log_limit = chain.log_limit
    for one in (chain, again):
        traffic(one, companies, 20)
        one.airdrop(Keypair.from_seed(bytes(32)).pubkey(), 10**9)
    assert digest(again) == digest(chain)
    assert [*again.accounts_of(client.PROGRAM_ID)] == [*chain.accounts_of(client.PROGRAM_ID)]


def test_a_resumed_chain_can_fork_below_the_stop(tmp_path: Path) -> None:
    """What was not final when it was saved is not final afterwards either."""
    chain, _ = peopled()
    saved(tmp_path, chain)
    again = resumed(tmp_path)
    again.log_limit = chain.log_limit
    results = [fork(one, 6, seed=3, chances=Chances()) for one in (chain, again)]
    assert results[0] == results[1]
    assert digest(again) == digest(chain)


def test_saving_twice_keeps_the_newer(tmp_path: Path) -> None:
    """And nothing else lies in the folder but the lock."""
    chain, companies = peopled()
    saved(tmp_path, chain)
    traffic(chain, companies, 3)
    saved(tmp_path, chain)
    assert digest(resumed(tmp_path)) == digest(chain)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "lock"]


def test_an_empty_folder_holds_no_chain(tmp_path: Path) -> None:
    """The first start with a folder begins anew."""
    ledger = LedgerFolder(tmp_path)
    assert ledger.load(with_programs) is None
    ledger.close()


def broken_versions(good: bytes) -> dict[str, bytes]:
    line, body = good.split(b"\n", 1)
    header = json.loads(line)

    def with_header(**changes: Any) -> bytes:
        return json.dumps({**header, **changes}).encode() + b"\n" + body

    other = b"not zstd"
    return {
        "is not a localnet ledger": b"SQLite format 3\0" + bytes(100),
        "is not a localnet ledger ": b"",
        "is not a localnet ledger  ": with_header(format="tar"),
        "has version 2": with_header(version=2),
        "is broken": good[:-1],
        "is broken ": good[:500] + bytes([good[500] ^ 1]) + good[501:],
        "cannot be understood": json.dumps({**header, "sha256": hashlib.sha256(other).hexdigest()}).encode()
        + b"\n"
        + other,
    }


def test_a_file_that_is_no_ledger_is_one_sentence(tmp_path: Path) -> None:
    """Foreign, newer, cut short, damaged: each is named, and the file is left as it is."""
    saved(tmp_path, build_chain())
    path = tmp_path / FILE_NAME
    for what, raw in broken_versions(path.read_bytes()).items():
        path.write_bytes(raw)
        ledger = LedgerFolder(tmp_path)
        with pytest.raises(SettingsError, match=what.strip()) as refused:
            ledger.load(with_programs)
        ledger.close()
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
        assert path.read_bytes() == raw


def test_two_localnets_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is told; once the first has ended it may have it."""
    first = LedgerFolder(tmp_path)
    with pytest.raises(SettingsError, match="another localnet runs on"):
        LedgerFolder(tmp_path)
    first.close()
    LedgerFolder(tmp_path).close()


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    """A file in its place."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="cannot be used"):
        LedgerFolder(tmp_path / "file")
