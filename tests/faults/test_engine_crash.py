"""
The engine is killed between every two steps of its life, and nothing is done twice and nothing forgotten.

Each scenario first runs undisturbed to count its moments (before and after every call to node and ledger); then once
for every moment, killed there, its lease left to run out, and started again as a new process.
"""

import asyncio
import contextlib
import itertools

import pytest

from engine.loop import Engine
from indexer.store.database import Database
from tests.fixtures.engine_rig import Killed, Rig, Tripwire, open_rig, run_until
from tests.fixtures.scripted_chain import GENESIS_TIME, ScriptedChain

START = GENESIS_TIME + 100
EXPIRED = GENESIS_TIME + 500
SESSIONS = 3
# Two turns are more than a blockhash lives, finality included: what was lost in the first is signed again in the third.
BLOCKS_PER_TURN = 95
NUMBERS = itertools.count()


def new_chain(rig: Rig) -> list[bytes]:
    """
    Put the rig on a fresh chain with expired sessions and one that is not; return the expired vaults.

    The tables remember closed vaults of the chain before, so every chain has vaults of its own.
    """
    rig.chain = ScriptedChain()
    rig.chain.balances[str(rig.keypair.pubkey())] = 10**9
    rig.chain.step(40)
    numbers = [next(NUMBERS) for _ in range(SESSIONS + 1)]
    rig.chain.open_session(numbers.pop(), expiry=GENESIS_TIME + 10**6)
    return [rig.chain.open_session(number, expiry=EXPIRED) for number in numbers]


async def live_through(rig: Rig, scenario: str, wire: Tripwire) -> None:
    """Run one scenario to its end, with one engine until it is killed and new ones after that."""
    rig.forget_everything()
    vaults = new_chain(rig)
    chain = rig.chain
    await rig.mirror()
    chain.lose_sends = scenario == "expiry"
    if scenario == "lost race after sending":
        chain.preflight = False
    holders = iter(range(1_000))
    current: list[Engine] = [rig.engine("first", wire=wire)]

    for turn in range(20):
        try:
            await current[0].run_pass()
        except Killed:
            rig.expire_lease()
            current[0] = rig.engine(f"next {next(holders)}")
        if scenario.startswith("lost race") and turn == 0 and rig.intents():
            for vault in vaults:
                chain.clean_by_another(vault)
        if turn == 1:
            chain.lose_sends = False
        states = rig.intents()
        if len(states) == SESSIONS and "open" not in states.values():
            break
        chain.step(BLOCKS_PER_TURN)
        await rig.mirror()
    else:
        raise AssertionError(f"never settled: {rig.intents()}")
    check(rig, vaults)


def check(rig: Rig, vaults: list[bytes]) -> None:
    """Every session closed exactly once, the ledger says by whom, and nothing was done that may not be."""
    chain = rig.chain
    assert chain.violations == []
    by_us = {landing.signature for landing in chain.landings if landing.err is None} & set(chain.sent)
    attempts = rig.sql("select i.state, a.outcome from engine.intents i join engine.attempts a using (intent_id)")
    for vault in vaults:
        assert chain.cleaned(vault, START) == 1
    landed = [row for row in attempts if row["outcome"] == "landed"]
    assert len(landed) == len(by_us)
    assert {row["state"] for row in landed} <= {"landed"}
    states = list(rig.intents().values())
    assert states.count("landed") == len(by_us)
    assert states.count("lost") == len(states) - len(by_us)
    assert all(row["outcome"] for row in attempts), "an attempt was forgotten"
    assert len(chain.vaults) == 1, "the session that had not expired is untouched"


@pytest.mark.parametrize("scenario", ["landing", "expiry", "lost race", "lost race after sending"])
def test_killed_at_any_moment_it_does_nothing_twice_and_forgets_nothing(database: Database, scenario: str) -> None:
    """Killed between any two steps, the next start settles every session with at most one landed signature."""

    async def every_moment() -> None:
        async with open_rig(database, ScriptedChain()) as rig:
            whole = Tripwire()
            await live_through(rig, scenario, whole)
            assert whole.count > 40
            for moment in range(whole.count):
                wire = Tripwire(at=moment)
                await live_through(rig, scenario, wire)
                assert wire.where, f"moment {moment} was never reached"

    asyncio.run(every_moment())


def test_killed_again_and_again_it_still_gets_there(database: Database) -> None:
    """Ten kills in a row, each a little later than the last, delay the work and change nothing else."""

    async def again_and_again() -> None:
        async with open_rig(database, ScriptedChain()) as rig:
            vaults = new_chain(rig)
            await rig.mirror()
            for moment in range(3, 43, 4):
                with contextlib.suppress(Killed):
                    await rig.engine(f"victim {moment}", wire=Tripwire(at=moment)).run_pass()
                rig.expire_lease()
                rig.chain.step(7)
            done = set(vaults)
            await run_until(
                rig,
                lambda: rig.engine("last"),
                lambda: len(rig.intents()) == len(done) and "open" not in rig.intents().values(),
            )
            check(rig, vaults)

    asyncio.run(again_and_again())
