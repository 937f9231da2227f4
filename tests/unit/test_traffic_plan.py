"""The plan of a history: what users will do and when, without a chain."""

from collections import Counter
from random import Random

import pytest
from solders.hash import Hash

from localnet.clients import ephemeral_vault as client
from localnet.traffic.act import Act, Life, Outcome, Span, imagine
from localnet.traffic.rhythm import DENSITY_MAX, Rhythm, draw_amount
from localnet.traffic.schedule import Company, Plan, Queue, mean_acts, plan_history
from localnet.traffic.sessions import SessionCast

BEGIN = 1_750_032_000.0  # a midnight, UTC
DAY_S = 86_400
END = BEGIN + 30 * DAY_S
INSTRUCTIONS = {
    client.discriminator("global", name): name
    for name in (
        "create_vault",
        "approve_delegate",
        "auto_deposit_for_trade",
        "execute_trade",
        "revoke_access",
        "cleanup_vault",
    )
}


def plan(seed: int = 1, transactions: int = 3_000) -> Plan:
    """Plan 30 days for one cast."""
    companies = [Company(SessionCast(seed=seed, parents=60))]
    return plan_history(companies, seed=seed, begin=BEGIN, end=END, transactions=transactions)


@pytest.fixture(scope="module")
def planned() -> Plan:
    """Return one plan that several tests look at."""
    return plan()


def names(act: Act) -> list[str]:
    """Return the act's instructions of the vault program, by name."""
    return [INSTRUCTIONS[bytes(ix.data[:8])] for ix in act.instructions if ix.program_id == client.PROGRAM_ID]


def signatures(acts: tuple[Act, ...]) -> list[str]:
    """Return the signatures the acts would have under one blockhash."""
    return [str(act.signed(Hash.default()).signatures[0]) for act in acts]


def test_the_same_seed_plans_the_same_transactions() -> None:
    """Keys, amounts, order and times all follow from the seed."""
    first, second = plan(seed=7, transactions=500), plan(seed=7, transactions=500)
    assert signatures(first.acts) == signatures(second.acts)
    assert [act.at for act in first.acts] == [act.at for act in second.acts]


def test_another_seed_plans_other_transactions() -> None:
    """Two seeds share not one signature."""
    assert not set(signatures(plan(seed=7, transactions=300).acts)) & set(
        signatures(plan(seed=8, transactions=300).acts)
    )


def test_a_plan_has_what_was_asked_for_and_less_than_one_life_more(planned: Plan) -> None:
    """The number of transactions is a promise from below, and close."""
    assert 3_000 <= len(planned.acts) < 3_200


def test_acts_are_in_order_and_inside_the_history(planned: Plan) -> None:
    """Nothing happens before the chain exists, and what comes after the end is kept for later."""
    times = [act.at for act in planned.acts]
    assert times == sorted(times)
    assert times[0] >= BEGIN
    assert times[-1] <= END
    assert planned.later
    assert all(act.at > END for act in planned.later)


def test_every_instruction_occurs(planned: Plan) -> None:
    """A history that never revokes would leave a table empty."""
    seen = Counter(name for act in planned.acts if act.refusal is None for name in names(act))
    assert set(seen) == set(INSTRUCTIONS.values())
    assert min(seen.values()) > 20


def test_three_to_five_of_a_hundred_fail_and_for_every_reason(planned: Plan) -> None:
    """Failures are a realistic share, of all the kinds that users and keepers meet."""
    refusals = Counter(act.refusal for act in planned.acts if act.refusal is not None)
    assert 0.03 <= refusals.total() / len(planned.acts) <= 0.055
    assert set(refusals) == {
        "AccountNotInitialized",
        "DelegationRevoked",
        "InsufficientVaultBalance",
        "InvalidDelegate",
        "InvalidDelegationAccount",
        "OverDeposit",
        "SessionExpired",
        "SessionNotExpired",
        "VaultInactive",
    }


def test_some_transactions_carry_several_events(planned: Plan) -> None:
    """Wallets bundle: an event's ordinal is not always 0."""
    assert any(len(names(act)) > 1 for act in planned.acts)


def test_vault_addresses_live_again_and_some_are_left_open(planned: Plan) -> None:
    """Per address, sessions and cleanups alternate; some addresses have several sessions and some end uncleaned."""
    open_vaults: set[bytes] = set()
    lives: Counter[bytes] = Counter()
    for act in planned.acts:
        if act.refusal is not None:
            continue
        for ix in act.instructions:
            name = INSTRUCTIONS.get(bytes(ix.data[:8]))
            if name == "create_vault":
                vault = bytes(ix.accounts[2].pubkey)
                assert vault not in open_vaults
                open_vaults.add(vault)
                lives[vault] += 1
            elif name == "cleanup_vault":
                open_vaults.remove(bytes(ix.accounts[0].pubkey))
    assert max(lives.values()) >= 2
    assert 0 < len(open_vaults) < len(lives) / 5


def test_live_sessions_are_short_and_left_to_the_engine() -> None:
    """Live, most sessions end within a minute, and hardly anybody but an engine cleans up."""
    cast = SessionCast(seed=3, parents=20)
    span = Span(begin=BEGIN, end=BEGIN, live=True)
    acts = [act for index in range(200) for act in imagine(cast.life(index, at=BEGIN, span=span))]
    created = client.discriminator("global", "create_vault")
    instructions = [ix for act in acts for ix in act.instructions if bytes(ix.data[:8]) == created]
    durations = [int.from_bytes(ix.data[8:16], "little") for ix in instructions]
    assert min(durations) >= 10
    assert sum(duration <= 60 for duration in durations) > 0.8 * len(durations)
    cleanups = sum("cleanup_vault" in names(act) and act.refusal is None for act in acts)
    assert 0 < cleanups < 0.2 * len(durations)


def test_the_rate_of_lives_is_measured_in_acts() -> None:
    """Live traffic divides its rate by this; a session has several transactions."""
    companies = [Company(SessionCast(seed=3, parents=20))]
    assert 4 < mean_acts(companies, seed=3, span=Span(begin=BEGIN, end=BEGIN, live=True)) < 40


def test_days_are_busier_than_nights_and_the_end_than_the_beginning() -> None:
    """Charts look alive: a daily rhythm and growth."""
    rhythm = Rhythm(seed=1, begin=BEGIN, end=END)
    rng = Random(1)
    moments = [rhythm.draw(rng) for _ in range(6_000)]
    assert all(BEGIN <= at <= END for at in moments)
    hours = Counter(int(at % DAY_S // 3_600) for at in moments)
    assert sum(hours[hour] for hour in (13, 14, 15, 16)) > 2 * sum(hours[hour] for hour in (1, 2, 3, 4))
    assert sum(at > END - 10 * DAY_S for at in moments) > 1.3 * sum(at < BEGIN + 10 * DAY_S for at in moments)
    assert max(rhythm.density(BEGIN + 600 * n) for n in range(30 * 144)) <= DENSITY_MAX


def test_amounts_are_integers_within_their_bounds() -> None:
    """Money is never a float, and never outside what its user can pay."""
    rng = Random(2)
    drawn = [draw_amount(rng, median=1_000, spread=1.0, least=10, most=50_000) for _ in range(2_000)]
    assert all(isinstance(amount, int) and 10 <= amount <= 50_000 for amount in drawn)
    assert 850 < sorted(drawn)[1_000] < 1_150


def test_the_queue_gives_acts_by_time_and_only_when_due() -> None:
    """A life's next act waits for the outcome of the one before."""

    def life(*times: float) -> Life:
        for at in times:
            yield Act(at, (), ())

    queue = Queue()
    first, second = life(5.0, 6.0), life(4.0)
    queue.enter(first)
    queue.enter(second)
    queue.enter(life())
    assert queue.due(3.9) is None
    order = []
    while (due := queue.due(10.0)) is not None:
        order.append(due[0].at)
        queue.tell(due[1], Outcome(landed=True, unix_time=10))
    assert order == [4.0, 5.0, 6.0]
    assert len(queue) == 0
