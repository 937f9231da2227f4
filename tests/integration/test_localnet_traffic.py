"""Traffic on the real VM: what was planned happens, the same way each time, and the census counts it."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from solders.pubkey import Pubkey

from localnet.census import Census, CountedEvent
from localnet.chain import Chain
from localnet.clients import ephemeral_vault as client
from localnet.ledger import Executed, TransactionError
from localnet.programs import load_elf
from localnet.traffic.history import Seeded, fill_purses, play_history
from localnet.traffic.live import LiveTraffic
from localnet.traffic.schedule import Company, Plan, plan_history
from localnet.traffic.sessions import SessionCast

BEGIN = 1_750_032_000
DAYS = 20
END = BEGIN + DAYS * 86_400
SLOT_MS = 400
CODES = {**{name: code for code, name in client.ERRORS.items()}, "AccountNotInitialized": 3012}


@dataclass
class Played:
    """A chain with its history, and the plan it was played from."""

    chain: Chain
    companies: list[Company]
    plan: Plan
    seeded: Seeded

    @property
    def transactions(self) -> list[Executed]:
        """Return every transaction in the chain's order, the open slot's left out."""
        return [executed for block in self.chain.ledger.blocks for executed in block.transactions]


def play(seed: int, transactions: int = 1_500) -> Played:
    """Play a small history."""
    chain = Chain(seed=seed, start_time=BEGIN)
    chain.add_program(client.PROGRAM_ID, load_elf("ephemeral_vault"))
    companies = [Company(SessionCast(seed=seed, parents=30))]
    fill_purses(chain, companies)
    plan = plan_history(companies, seed=seed, begin=BEGIN, end=END, transactions=transactions)
    seeded = play_history(chain, plan.acts, begin=BEGIN, end=END, slot_ms=SLOT_MS)
    return Played(chain, companies, plan, seeded)


def digest(played: Played) -> str:
    """Return a hash of every signature, the last blockhash and every account."""
    told = hashlib.sha256()
    for executed in played.transactions:
        told.update(executed.signature)
    told.update(bytes(played.chain.latest_blockhash()))
    for address, state in sorted(played.chain.all_accounts()):
        told.update(repr((address, state)).encode())
    return told.hexdigest()


def custom_code(err: TransactionError | None) -> int | None:
    """Return the program's error code of a failed transaction."""
    if not isinstance(err, dict):
        return None
    code: int = err["InstructionError"][1]["Custom"]
    return code


@pytest.fixture(scope="module")
def played() -> Played:
    """Return one history that several tests look at."""
    return play(seed=11)


def test_the_same_seed_plays_the_same_chain() -> None:
    """Signatures, blockhashes and final accounts are equal, and differ for another seed."""
    first = digest(play(seed=5, transactions=400))
    assert first == digest(play(seed=5, transactions=400))
    assert first != digest(play(seed=6, transactions=400))


def test_every_act_comes_out_as_planned(played: Played) -> None:
    """What should land lands; what should be refused is refused by the program, for the reason planned."""
    assert len(played.transactions) == len(played.plan.acts)
    wanted = [None if act.refusal is None else CODES[act.refusal] for act in played.plan.acts]
    assert [custom_code(executed.err) for executed in played.transactions] == wanted
    assert played.seeded.transactions == len(wanted)
    assert played.seeded.failed == sum(code is not None for code in wanted)


def test_slots_stand_where_the_clock_says_and_only_where_transactions_are(played: Played) -> None:
    """A slot's number follows from its time, and no slot of the history is empty."""
    blocks = [block for block in played.chain.ledger.blocks if block.slot > 1]
    assert all(block.transactions for block in blocks)
    assert all(abs(BEGIN + (block.slot - 1) * SLOT_MS / 1_000 - block.unix_time) < 1.4 for block in blocks)
    assert played.chain.unix_time == END


def test_the_census_counts_the_events_that_landed_acts_make(played: Played) -> None:
    """Each landed instruction of the program makes one event, numbered inside its transaction."""
    census = Census(played.chain)
    events = census.events("processed")
    ours = [
        ix
        for act in played.plan.acts
        if act.refusal is None
        for ix in act.instructions
        if ix.program_id == client.PROGRAM_ID
    ]
    assert len(events) == len(ours)
    assert {event.name for event in events} == set(client.EVENTS)
    per_transaction = Counter(event.signature for event in events)
    assert max(per_transaction.values()) > 1
    for signature, count in per_transaction.items():
        assert [event.ordinal for event in events if event.signature == signature] == list(range(count))
    assert len(census.transactions("processed")) == len(played.plan.acts)


def test_a_census_knows_no_event_above_its_commitment(played: Played) -> None:
    """What is not finalized is not counted as finalized, and asking twice counts nothing twice."""
    census = Census(played.chain)
    finalized, processed = census.events("finalized"), census.events("processed")
    newest = played.chain.block_at("finalized").slot
    assert len(finalized) < len(processed)
    assert max(event.slot for event in finalized) <= newest
    assert census.events("processed") == processed


def replayed(events: list[CountedEvent]) -> dict[Any, dict[str, Any]]:
    """Return each open vault's numbers as its events alone tell them."""
    vaults: dict[Any, dict[str, Any]] = {}
    for event in events:
        values, vault = event.values, event.values["vault"]
        if event.name == "VaultCreated":
            kept = ("session_start", "session_expiry", "max_deposit")
            vaults[vault] = {name: values[name] for name in kept} | {
                "is_active": True,
                "total_deposited": 0,
                "total_spent": 0,
            }
        elif event.name == "AutoDeposit":
            vaults[vault]["total_deposited"] = values["total_deposited"]
        elif event.name == "TradeExecuted":
            vaults[vault]["total_spent"] = values["total_spent"]
        elif event.name == "AccessRevoked":
            vaults[vault]["is_active"] = False
        elif event.name == "VaultCleaned":
            del vaults[vault]
    return vaults


def test_accounts_are_what_their_events_add_up_to(played: Played) -> None:
    """Replaying the counted events gives exactly the VM's open vaults, number by number."""
    census = Census(played.chain)
    told = {str(Pubkey(vault)): state for vault, state in replayed(census.events("processed")).items()}
    vaults = {a.address: a.values for a in census.accounts("processed") if a.name == "EphemeralVault"}
    assert told.keys() == vaults.keys()
    for address, state in told.items():
        assert state == {name: vaults[address][name] for name in state}


def test_expired_vaults_are_left_for_an_engine() -> None:
    """A history of the default size ends with a few dozen sessions that nobody cleaned up."""
    companies = [Company(SessionCast(seed=1))]
    end = BEGIN + 30 * 86_400
    plan = plan_history(companies, seed=1, begin=BEGIN, end=end, transactions=20_000)
    landed = [ix for act in plan.acts if act.refusal is None for ix in act.instructions]
    names = Counter(bytes(ix.data[:8]) for ix in landed)
    created, cleaned = (client.discriminator("global", name) for name in ("create_vault", "cleanup_vault"))
    left = names[created] - names[cleaned]
    assert 24 <= left <= 120


def tick(chain: Chain, traffic: LiveTraffic, seconds: int) -> None:
    """Let so much time pass on the chain, slot by slot, as a server would."""
    begin_slot, begin_time = chain.slot, chain.unix_time
    for number in range(1, seconds * 1_000 // SLOT_MS + 1):
        chain.open_slot(begin_slot + number, begin_time + number * SLOT_MS // 1_000)
        traffic.on_slot(SLOT_MS)


def test_live_traffic_keeps_its_rate_and_leaves_work_behind() -> None:
    """About so many transactions a second as asked, few of them failing, and expired sessions within a minute."""
    played = play(seed=21, transactions=200)
    chain = played.chain
    before = len(played.transactions)
    traffic = LiveTraffic(
        chain, played.companies, seed=21, rate_tps=5.0, first_life=played.plan.lives, later=played.plan.later
    )
    tick(chain, traffic, 300)
    landed = played.transactions[before:]
    assert 300 * 5 * 0.8 < len(landed) < 300 * 5 * 1.2
    assert sum(executed.err is not None for executed in landed) < 0.1 * len(landed)
    accounts = Census(chain).accounts("confirmed")
    expired = [
        a for a in accounts if a.name == "EphemeralVault" and int(str(a.values["session_expiry"])) <= chain.unix_time
    ]
    assert len(expired) > 20


def test_nobody_acts_after_a_stop() -> None:
    """A stopped traffic leaves the chain to others, for good."""
    played = play(seed=22, transactions=100)
    traffic = LiveTraffic(played.chain, played.companies, seed=22, rate_tps=20.0, first_life=played.plan.lives)
    tick(played.chain, traffic, 10)
    acted = traffic.transactions
    assert acted > 0
    traffic.stop()
    tick(played.chain, traffic, 10)
    assert traffic.transactions == acted


def test_a_jump_of_the_clock_is_not_made_up_for() -> None:
    """When the clock leaps a day, a day's worth of people do not come at once."""
    played = play(seed=24, transactions=100)
    chain = played.chain
    traffic = LiveTraffic(chain, played.companies, seed=24, rate_tps=5.0, first_life=played.plan.lives)
    tick(chain, traffic, 20)
    acted = traffic.transactions
    chain.open_slot(chain.slot + 216_000, chain.unix_time + 86_400)
    traffic.on_slot(SLOT_MS)
    assert traffic.transactions - acted < 100


def test_users_return_to_an_address_only_when_it_is_free() -> None:
    """While nobody cleans up, no live user tries to open a session where one still lies."""
    played = play(seed=23, transactions=100)
    before = len(played.transactions)
    traffic = LiveTraffic(played.chain, played.companies, seed=23, rate_tps=10.0, first_life=played.plan.lives)
    tick(played.chain, traffic, 180)
    codes = Counter(custom_code(executed.err) for executed in played.transactions[before:] if executed.err is not None)
    assert codes
    assert set(codes) <= set(CODES.values())
