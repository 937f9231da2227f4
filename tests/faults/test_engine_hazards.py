"""What goes wrong around the engine: races, forks, lost sends, stale leases, empty pockets, dead nodes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from solders.keypair import Keypair

from engine.landing import Verdict, judge
from engine.loop import run
from indexer.errors import RetryableError
from indexer.store.database import Database
from indexer.store.ledger import SignedAttempt
from tests.fixtures.engine_rig import LEASE, Killed, Rig, Tripwire, open_rig
from tests.fixtures.scripted_chain import FINALITY_SLOTS, GENESIS_TIME, ScriptedChain

START = GENESIS_TIME + 100
EXPIRED = GENESIS_TIME + 500


def with_rig(database: Database, scenario: Callable[[Rig], Awaitable[None]], *, sessions: int = 1) -> None:
    """Run a scenario on a chain with expired sessions that the tables show."""

    async def whole() -> None:
        chain = ScriptedChain()
        chain.step(FINALITY_SLOTS + 8)
        for number in range(sessions):
            chain.open_session(number, expiry=EXPIRED)
        async with open_rig(database, chain) as rig:
            await rig.mirror()
            await scenario(rig)
            assert chain.violations == []

    asyncio.run(whole())


def states(rig: Rig) -> list[str]:
    return sorted(rig.intents().values())


def test_many_sessions_are_in_flight_at_a_time_and_no_more_than_allowed(database: Database) -> None:
    """Of 120 sessions 50 are signed for in the first pass; the others follow as those end."""

    async def scenario(rig: Rig) -> None:
        engine = rig.engine()
        done = await engine.run_pass()
        assert (done.intended, done.sent, done.in_flight) == (120, 50, 50)
        for _ in range(3):
            rig.chain.step(40)
            done = await engine.run_pass()
            assert done.in_flight <= 50
        assert states(rig) == ["landed"] * 120
        assert all(rig.chain.cleaned(landing.vault, START) == 1 for landing in rig.chain.landings)

    with_rig(database, scenario, sessions=120)


def test_what_is_only_confirmed_is_not_an_outcome(database: Database) -> None:
    """A cleanup that a fork takes back was never written down as done; the same bytes are sent again and land."""

    async def scenario(rig: Rig) -> None:
        engine = rig.engine()
        await engine.run_pass()
        rig.chain.step(10)
        done = await engine.run_pass()
        assert (done.in_flight, states(rig)) == (1, ["open"])
        rig.chain.fork(10)
        done = await engine.run_pass()
        assert done.sent_again == 1
        rig.chain.step(40)
        await engine.run_pass()
        assert states(rig) == ["landed"]
        assert len(rig.chain.sent) == 1

    with_rig(database, scenario)


def test_a_fork_does_not_lose_a_session_to_another_keeper_who_never_was(database: Database) -> None:
    """A vault that is gone at confirmed only is not lost yet; when a fork brings it back, it is cleaned."""

    async def scenario(rig: Rig) -> None:
        engine = rig.engine()
        # Decided, then killed before signing; then another keeper is first, on a fork that will die.
        with pytest.raises(Killed):
            await rig.engine("one", wire=Tripwire(at=13)).run_pass()
        assert states(rig) == ["open"]
        rig.chain.step(1)
        rig.chain.clean_by_another(next(iter(rig.chain.vaults)))
        rig.chain.step(4)
        await engine.run_pass()
        assert states(rig) == ["open"]
        rig.chain.fork(5)
        await engine.run_pass()
        rig.chain.step(40)
        await engine.run_pass()
        assert states(rig) == ["landed"]

    with_rig(database, scenario)


def test_a_lost_race_before_signing_is_an_outcome_of_its_own(database: Database) -> None:
    """Somebody else was first and it is final: lost, without an attempt, without an error."""

    async def scenario(rig: Rig) -> None:
        with pytest.raises(Killed):
            await rig.engine("one", wire=Tripwire(at=13)).run_pass()
        rig.chain.clean_by_another(next(iter(rig.chain.vaults)))
        rig.chain.step(FINALITY_SLOTS + 1)
        done = await rig.engine("one").run_pass()
        assert (done.sent, states(rig)) == (0, ["lost"])
        assert rig.sql("select * from engine.attempts") == []

    with_rig(database, scenario)


def test_a_vault_that_lives_again_is_another_session(database: Database) -> None:
    """Another keeper cleans, the user opens a session at the same address: the old intent is lost, the new one kept."""

    async def scenario(rig: Rig) -> None:
        with pytest.raises(Killed):
            await rig.engine("one", wire=Tripwire(at=13)).run_pass()
        vault = next(iter(rig.chain.vaults))
        rig.chain.clean_by_another(vault)
        rig.chain.step(1)
        again = rig.chain.open_session(0, start=GENESIS_TIME + 900, expiry=rig.chain.clock + 20)
        assert again == vault
        rig.chain.step(FINALITY_SLOTS + 1)
        await rig.mirror()
        await rig.engine("one").run_pass()
        rig.chain.step(40)
        await rig.engine("one").run_pass()
        assert states(rig) == ["landed", "lost"]
        assert rig.chain.cleaned(vault, START) == rig.chain.cleaned(vault, GENESIS_TIME + 900) == 1

    with_rig(database, scenario)


def test_nothing_is_signed_again_while_the_first_may_still_land(database: Database) -> None:
    """The blockhash has expired at confirmed but not at finalised height: the same bytes, no second signature."""

    async def scenario(rig: Rig) -> None:
        rig.chain.lose_sends = True
        engine = rig.engine()
        await engine.run_pass()
        rig.chain.step(150 + FINALITY_SLOTS)
        await engine.run_pass()
        assert len(rig.chain.sent) == 1
        rig.chain.step(1)
        await engine.run_pass()
        assert len(rig.chain.sent) == 2
        outcomes = rig.sql("select outcome from engine.attempts order by attempt_id")
        assert [row["outcome"] for row in outcomes] == ["expired", None]

    with_rig(database, scenario)


def test_an_expired_attempt_is_signed_again_only_if_the_rule_still_wants_it(database: Database) -> None:
    """The rule is asked again: with a higher minimum reward an expired attempt has no successor, the intent is void."""

    async def scenario(rig: Rig) -> None:
        rig.chain.lose_sends = True
        await rig.engine().run_pass()
        rig.chain.step(200)
        await rig.engine(min_reward_lamports=10_001).run_pass()
        assert (len(rig.chain.sent), states(rig)) == (1, ["void"])
        rig.chain.lose_sends = False
        rig.sql("delete from engine.skips")
        await rig.engine().run_pass()
        rig.chain.step(40)
        await rig.engine().run_pass()
        assert states(rig) == ["landed"], "what is wanted again is taken up again, under the same key"

    with_rig(database, scenario)


def test_a_node_whose_statuses_lag_behind_proves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent signature from a node behind the finalised slot never lets an attempt expire."""

    async def scenario(rig: Rig) -> None:
        rig.chain.lose_sends = True
        engine = rig.engine()
        await engine.run_pass()
        rig.chain.step(200)
        answer = rig.chain._getSignatureStatuses

        def behind(*args: Any) -> Any:
            reply = answer(*args)
            reply["context"]["slot"] = rig.chain.slot - FINALITY_SLOTS - 1
            return reply

        monkeypatch.setattr(rig.chain, "_getSignatureStatuses", behind)
        with pytest.raises(RetryableError, match="behind the finalised slot"):
            await engine.run_pass()
        assert len(rig.chain.sent) == 1

    with_rig(database, scenario)


def test_a_dry_run_decides_and_sends_nothing(database: Database) -> None:
    """A dry run records decisions, takes no lease, and never asks the node to send or to fund."""

    async def scenario(rig: Rig) -> None:
        rig.chain.balances.clear()
        engine = rig.engine(dry_run=True, faucet_lamports=10**9)
        for _ in range(3):
            await engine.run_pass()
            rig.chain.step(40)
        assert states(rig) == ["open"] * 3
        assert not {"sendTransaction", "requestAirdrop", "getLatestBlockhash"} & set(rig.chain.calls)
        assert rig.sql("select * from engine.attempts") == rig.sql("select * from engine.leases") == []

    with_rig(database, scenario, sessions=3)


def test_a_dry_run_leaves_the_attempts_of_a_killed_engine_alone(database: Database) -> None:
    """Recorded bytes are not sent by a dry run either."""

    async def scenario(rig: Rig) -> None:
        await rig.engine().run_pass()
        before = rig.chain.calls.count("sendTransaction")
        await rig.engine(dry_run=True).run_pass()
        assert rig.chain.calls.count("sendTransaction") == before == 1

    with_rig(database, scenario)


def test_of_two_engines_one_acts_and_the_other_stands_by(database: Database) -> None:
    """The second engine does nothing while the first holds the lease, and everything once it has given it back."""

    async def scenario(rig: Rig) -> None:
        first, second = rig.engine("first"), rig.engine("second", keypair=Keypair.from_seed(bytes([8]) * 32))
        assert (await first.run_pass()).acting
        assert not (await second.run_pass()).acting
        await first.lease.release()
        rig.chain.step(40)
        assert (await second.run_pass()).acting
        assert states(rig) == ["landed"]
        assert rig.sql("select holder, epoch from engine.leases") == [{"holder": "second", "epoch": 2}]

    with_rig(database, scenario)


def test_an_engine_that_slept_through_its_lease_is_refused(database: Database) -> None:
    """It has signed, but another took over meanwhile: its INSERT is refused and its bytes are never sent."""

    async def scenario(rig: Rig) -> None:
        sleeper, successor = rig.engine("sleeper"), rig.engine("successor")
        insert = rig.ledger.insert_attempts

        async def asleep(attempts: Any, **lease: Any) -> Any:
            rig.expire_lease()
            assert await successor.lease.renew() is not None
            return await insert(attempts, **lease)

        sleeper.sender.ledger = type("Sleepy", (), {"insert_attempts": staticmethod(asleep)})()
        done = await sleeper.run_pass()
        assert (done.sent, rig.chain.sent, rig.sql("select * from engine.attempts")) == (0, {}, [])
        await successor.run_pass()
        rig.chain.step(40)
        await successor.run_pass()
        assert states(rig) == ["landed"]

    with_rig(database, scenario)


@pytest.mark.parametrize("wrong", ["epoch", "holder", "expired", "name", "settled", "open attempt"])
def test_the_insert_is_refused_without_the_right_to_send(database: Database, wrong: str) -> None:
    """Every single condition of the INSERT is needed: lease, holder, epoch, time, an open intent, no open attempt."""

    async def scenario(rig: Rig) -> None:
        with pytest.raises(Killed):
            await rig.engine("one", wire=Tripwire(at=13)).run_pass()
        intent_id = rig.sql("select intent_id from engine.intents")[0]["intent_id"]
        epoch = await rig.ledger.acquire_lease(LEASE, holder="one", ttl_s=60)
        assert epoch is not None
        lease: dict[str, Any] = {"lease": LEASE, "holder": "one", "epoch": epoch}

        async def insert(fill: int) -> dict[int, int]:
            attempt = SignedAttempt(intent_id, bytes([fill]) * 64, b"bytes", 100)
            return await rig.ledger.insert_attempts([attempt], **lease)

        if wrong == "epoch":
            lease["epoch"] = epoch - 1 or 99
        elif wrong in {"holder", "name"}:
            lease["holder" if wrong == "holder" else "lease"] = "another"
        elif wrong == "expired":
            rig.expire_lease()
        elif wrong == "settled":
            rig.sql("update engine.intents set state = 'lost', settled_at = now()")
        else:
            assert len(await insert(1)) == 1
        count = len(rig.sql("select * from engine.attempts"))
        assert await insert(2) == {}
        assert len(rig.sql("select * from engine.attempts")) == count

    with_rig(database, scenario)


def test_an_empty_pocket_is_an_alert_and_not_a_crash(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Below the fee and the rent-exempt minimum nothing is signed; with money the next pass goes on."""

    async def scenario(rig: Rig) -> None:
        payer = str(rig.keypair.pubkey())
        rig.chain.balances[payer] = 890_880 + 5_000 * 2
        engine = rig.engine()
        done = await engine.run_pass()
        assert (done.intended, done.sent) == (3, 2)
        assert "balance_too_low" in capsys.readouterr().out
        rig.chain.balances[payer] = 10**9
        assert (await engine.run_pass()).sent == 1

    with_rig(database, scenario, sessions=3)


def test_on_a_test_chain_the_faucet_fills_the_pocket(database: Database) -> None:
    """With a faucet amount an empty balance is funded by request, and the next pass acts."""

    async def scenario(rig: Rig) -> None:
        rig.chain.balances.clear()
        engine = rig.engine(faucet_lamports=10**9)
        assert (await engine.run_pass()).sent == 0
        assert (await engine.run_pass()).sent == 1

    with_rig(database, scenario)


def test_a_failure_on_chain_that_nobody_expected_is_not_repeated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown refusal costs one fee: the intent is failed, with the error for a person to read."""

    async def scenario(rig: Rig) -> None:
        rig.chain.preflight = False
        monkeypatch.setattr(rig.chain, "_refusal", lambda _: {"InstructionError": [1, {"Custom": 6000}]})
        engine = rig.engine()
        for _ in range(4):
            await engine.run_pass()
            rig.chain.step(40)
        assert (states(rig), len(rig.chain.sent)) == (["failed"], 1)
        assert "6000" in rig.sql("select outcome from engine.intents")[0]["outcome"]

    with_rig(database, scenario)


def test_too_early_on_the_fork_where_it_landed_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SessionNotExpired costs a fee and ends nothing: the rule is asked again, and the session is cleaned later."""

    async def scenario(rig: Rig) -> None:
        rig.chain.preflight = False
        monkeypatch.setattr(rig.chain, "_refusal", lambda _: {"InstructionError": [1, {"Custom": 6002}]})
        engine = rig.engine()
        await engine.run_pass()
        rig.chain.step(40)
        monkeypatch.undo()
        await engine.run_pass()
        rig.chain.step(40)
        await engine.run_pass()
        outcomes = [row["outcome"] for row in rig.sql("select outcome from engine.attempts order by attempt_id")]
        assert (states(rig), outcomes) == (["landed"], ["failed", "landed"])

    with_rig(database, scenario)


def test_a_node_that_fails_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of node and database end a pass, not the engine; it acts once they answer again, and stops when told."""

    async def scenario(rig: Rig) -> None:
        engine = rig.engine()
        answer, failures = rig.chain.call, iter(range(3))

        async def failing(method: str, params: Any = (), /) -> Any:
            if next(failures, None) is not None:
                raise RetryableError("cannot reach the node")
            return await answer(method, params)

        monkeypatch.setattr(rig.chain, "call", failing)
        stop = asyncio.Event()
        sent: list[int] = []

        def on_pass(done: Any) -> None:
            sent.append(done.sent)
            stop.set()

        await asyncio.wait_for(run(engine, stop, interval_s=0.01, on_pass=on_pass), 5)
        assert sent == [1]
        lease = rig.sql("select expires_at <= clock_timestamp() as free from engine.leases")
        assert lease == [{"free": True}], "a graceful stop gives the lease back"

    with_rig(database, scenario)


def test_it_stops_within_five_seconds_also_where_the_node_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that never returns is cut short, and the lease is given back."""

    async def scenario(rig: Rig) -> None:
        async def hanging(*_: Any) -> Any:
            await asyncio.sleep(3_600)

        monkeypatch.setattr(rig.chain, "call", hanging)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, stop.set)
        await asyncio.wait_for(run(rig.engine(), stop, interval_s=0.01), 5)
        assert rig.sql("select expires_at <= clock_timestamp() as free from engine.leases") == [{"free": True}]

    with_rig(database, scenario)


@pytest.mark.parametrize("slot", [1_000, 10**9], ids=["cluster behind", "cluster ahead"])
def test_the_cluster_s_clock_decides_and_not_this_machine_s(database: Database, slot: int) -> None:
    """Years behind or ahead of ours, the Clock sysvar alone says whether a session has expired."""

    async def whole() -> None:
        chain = ScriptedChain(slot=slot)
        chain.step(FINALITY_SLOTS + 8)
        expired = chain.open_session(1, expiry=chain.clock - 1)
        going_on = chain.open_session(2, expiry=chain.clock + 10_000)
        async with open_rig(database, chain) as rig:
            await rig.mirror()
            engine = rig.engine()
            for _ in range(2):
                await engine.run_pass()
                chain.step(FINALITY_SLOTS + 1)
            assert (chain.cleaned(expired, START), chain.cleaned(going_on, START)) == (1, 0)
            assert chain.violations == []

    asyncio.run(whole())


def test_the_boundary_of_expiry_is_the_finalised_height() -> None:
    """The last valid height itself may still hold the transaction."""
    assert judge(10, None, 10) is Verdict.ABSENT
    assert judge(10, None, 11) is Verdict.EXPIRED
