"""Traffic of all three programs on the real VM: everything happens, the same way each time, and the books agree."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from solders.pubkey import Pubkey

from indexer.errors import SettingsError
from localnet.chain import Chain
from localnet.clients import collateral_vault as vaults
from localnet.clients import ephemeral_vault
from localnet.clients import liquidation_engine as engine
from localnet.ledger import Executed
from localnet.traffic.history import Seeded, seed_history
from localnet.traffic.live import LiveTraffic
from localnet.traffic.mix import DEFAULT_MIX, gather, read_mix
from localnet.traffic.price_board import PriceBoard
from localnet.traffic.schedule import Company, Plan
from localnet.traffic.treasury import Treasury
from tests.fixtures.chain import build_chain

BEGIN = 1_750_032_000
DAYS = 30
SLOT_MS = 400
SMALL_MIX = "sessions=2,collateral=1,market=2"


@dataclass
class Played:
    """A chain with its history, and what goes on from there."""

    chain: Chain
    companies: Sequence[Company]
    prices: PriceBoard
    plan: Plan
    seeded: Seeded

    @property
    def transactions(self) -> list[Executed]:
        """Return every transaction in the chain's order, the open slot's left out."""
        return [executed for block in self.chain.ledger.blocks for executed in block.transactions]


def play(seed: int, transactions: int, mix: str = SMALL_MIX) -> Played:
    """Play a history of 30 days."""
    chain = build_chain(seed=seed, start_time=BEGIN)
    companies, prices = gather(mix, seed=seed, transactions=transactions), PriceBoard(chain)
    plan, seeded = seed_history(
        chain, companies, seed=seed, end=BEGIN + DAYS * 86_400, transactions=transactions, slot_ms=SLOT_MS,
        prices=prices,
    )  # fmt: skip
    return Played(chain, companies, prices, plan, seeded)


def events_of(executed: Executed) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a transaction, by the clients."""
    if executed.err is not None or executed.meta is None:
        return
    for line in executed.meta.logs():
        if line.startswith("Program data: "):
            payload = base64.b64decode(line.removeprefix("Program data: "))
            yield from filter(None, (vaults.parse_event(payload), ephemeral_vault.parse_event(payload)))
    for group in executed.meta.inner_instructions():
        for inner in group:
            data = bytes(inner.instruction().data)
            if data.startswith(engine.EVENT_TAG):
                yield from filter(None, [engine.parse_event(data[len(engine.EVENT_TAG) :])])


@pytest.fixture(scope="module")
def played() -> Played:
    """Return one history that several tests look at."""
    return play(seed=11, transactions=3_000)


@pytest.fixture(scope="module")
def events(played: Played) -> list[tuple[str, dict[str, Any]]]:
    """Return all its events in order."""
    return [event for executed in played.transactions for event in events_of(executed)]


def test_every_event_of_every_program_occurs(events: list[tuple[str, dict[str, Any]]]) -> None:
    """Nobody's table stays empty."""
    assert {name for name, _ in events} == {*ephemeral_vault.EVENTS, *vaults.EVENTS, *engine.EVENTS}


def test_liquidations_are_of_every_kind_and_the_fund_is_drawn_on(events: list[tuple[str, dict[str, Any]]]) -> None:
    """Partly, wholly with something left, wholly with bad debt; longs and shorts; and the fund pays and is paid."""
    liquidations = [values for name, values in events if name == "LiquidationEvent"]
    kinds = Counter((values["is_full"], values["bad_debt"] > 0) for values in liquidations)
    assert kinds[False, False] > 3
    assert kinds[True, True] > 3
    assert {values["is_long"] for name, values in events if name == "PositionOpened"} == {True, False}
    assert sum(values["covered"] for name, values in events if name == "BadDebtCovered") > 0
    closed = [values["pnl"] for name, values in events if name == "PositionClosed"]
    assert min(closed) < 0 < max(closed)
    assert sum(name == "InsuranceContribution" for name, _ in events) > 1


def test_about_as_many_transactions_as_asked_and_few_of_them_fail(played: Played) -> None:
    """The number is a promise from below, give or take what markets do; mistakes are a realistic share."""
    assert played.seeded.transactions == len(played.transactions)
    assert 2_950 < len(played.transactions) < 3_400
    assert 0.02 < played.seeded.failed / played.seeded.transactions < 0.10
    assert played.seeded.failed == sum(executed.err is not None for executed in played.transactions)


def test_no_slot_of_a_history_is_empty(played: Played) -> None:
    """Who only looks opens no slot."""
    assert all(block.transactions for block in played.chain.ledger.blocks if block.slot > 1)
    assert played.chain.unix_time == BEGIN + DAYS * 86_400


def test_the_same_seed_plays_the_same_chain() -> None:
    """Every signature and account, though users look before they act; another seed is another chain."""

    def digest(seed: int) -> str:
        one, told = play(seed, 700), hashlib.sha256()
        for executed in one.transactions:
            told.update(executed.signature)
        for address, state in sorted(one.chain.all_accounts()):
            told.update(repr((address, state)).encode())
        return told.hexdigest()

    assert digest(5) == digest(5) != digest(6)


def tokens_in(chain: Chain, address: Pubkey) -> int:
    """Return what a token account holds."""
    state = chain.account_at(address)
    assert state is not None
    return int.from_bytes(state.data[64:72], "little")


def assert_books_agree(chain: Chain, mint: Pubkey) -> None:
    """Check that each vault holds what it says, and that what is locked is collateral or asked for."""
    locked: Counter[bytes] = Counter()
    for _, state in chain.accounts_of(engine.PROGRAM_ID):
        parsed: tuple[str, dict[str, Any]] = engine.parse_account(state.data) or ("", {})
        if parsed[0] == "Position":
            locked[bytes(vaults.find_vault(Pubkey(parsed[1]["owner"])))] += parsed[1]["collateral"]
    found: dict[bytes, dict[str, Any]] = {}
    for address, state in chain.accounts_of(vaults.PROGRAM_ID):
        account: tuple[str, dict[str, Any]] = vaults.parse_account(state.data) or ("", {})
        if account[0] == "CollateralVault":
            found[address] = account[1]
        elif account[0] == "WithdrawRequest":
            locked[bytes(account[1]["vault"])] += account[1]["amount"]
    assert len(found) > 20
    for address, values in found.items():
        assert values["total_balance"] == values["locked_balance"] + values["available_balance"]
        assert values["locked_balance"] == locked[address]
        assert values["total_balance"] == tokens_in(chain, vaults.find_token_account(Pubkey(address), mint))


def test_books_agree_after_a_history(played: Played) -> None:
    """Tokens are where the accounts say they are."""
    assert_books_agree(played.chain, Treasury(11).mint)


def tick(played: Played, traffic: LiveTraffic, seconds: int) -> None:
    """Let so much time pass on the chain, slot by slot, as a server would."""
    chain = played.chain
    begin_slot, begin_time = chain.slot, chain.unix_time
    for number in range(1, seconds * 1_000 // SLOT_MS + 1):
        chain.open_slot(begin_slot + number, begin_time + number * SLOT_MS // 1_000)
        played.prices.write()
        traffic.on_slot(SLOT_MS)


@pytest.mark.parametrize("transactions", [0, 300])
def test_live_users_trade_and_are_liquidated(transactions: int) -> None:
    """With a history before it, or on a chain on which nothing has been set up yet; about as fast as asked."""
    played = play(seed=8, transactions=transactions)
    before = len(played.transactions)
    traffic = LiveTraffic(
        played.chain, played.companies, seed=8, rate_tps=4.0, first_life=played.plan.lives, later=played.plan.later,
        queue=played.plan.queue, prices=played.prices,
    )  # fmt: skip
    tick(played, traffic, 400)
    landed = played.transactions[before:]
    assert 400 * 4 * 0.75 < len(landed) < 400 * 4 * 1.25
    assert sum(executed.err is not None for executed in landed) < 0.12 * len(landed)
    names = Counter(name for executed in landed for name, _ in events_of(executed))
    assert {"PositionOpened", "PositionClosed", "LiquidationEvent", "WithdrawEvent", "VaultCleaned"} <= set(names)
    assert_books_agree(played.chain, Treasury(8).mint)


@pytest.mark.parametrize("mix", ["", "sessions", "sessions=1,market=2.5", "market=0,collateral=1"])
def test_a_mix_is_read_or_refused(mix: str) -> None:
    """A name alone weighs 1, a weight of 0 is nobody; nothing at all is refused."""
    if not mix:
        with pytest.raises(SettingsError):
            read_mix(mix)
        return
    assert all(weight > 0 for weight in read_mix(mix).values())


@pytest.mark.parametrize(
    "mix", ["sessions=x", "dancers=1", "sessions=1,sessions=2", "market=0", "market=-1", "market=nan"]
)
def test_a_wrong_mix_is_refused_with_its_own_words(mix: str) -> None:
    """The message names what was given and what there is."""
    with pytest.raises(SettingsError, match=r"mix '"):
        read_mix(mix)


def test_the_default_mix_has_everybody() -> None:
    """All three programs have users unless somebody wants it otherwise."""
    assert set(read_mix(DEFAULT_MIX)) == {"sessions", "collateral", "market"}
