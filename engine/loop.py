"""
One pass after the other: resume, ask the rule, act, and again.

A pass first settles what is open, then signs for open intents, then looks for new ones. It may stop anywhere: all that
matters is in the ledger, and the next pass, of this process or another, goes on from there. What it needs and does not
have (a database not ready, a node that does not answer, a balance too low) makes it wait, never end.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from solders.pubkey import Pubkey
from solders.signature import Signature

from engine.chain import (
    ACT_COMMITMENT,
    BELIEVE_COMMITMENT,
    VAULTS_PER_CALL_MAX,
    RpcClient,
    Snapshot,
    fetch_rent_exempt_lamports,
    fetch_snapshot,
    fetch_view,
)
from engine.landing import Verdict, judge
from engine.lease import Held, Lease
from engine.programs.ephemeral_vault import EphemeralVault, Refusal
from engine.rules.cleanup import (
    RULE,
    Candidate,
    Clean,
    Gone,
    Policy,
    Session,
    Skip,
    Unreadable,
    decide,
    intent_key,
    plan_cleanups,
)
from engine.sender import AttemptTable, Recorded, Sender, Wanted
from indexer.errors import RetryableError
from indexer.sources.rpc import RpcError
from indexer.store.ledger import (
    AccountTable,
    ActionableIntent,
    AttemptEnd,
    ExpiredSession,
    IntentEnd,
    NewIntent,
    NewSkip,
    OpenAttempt,
)

PAGES_PER_PASS_MAX = 20
RECHECK_SKIPPED_S = 30.0
FAILURES_PER_INTENT_MAX = 5
WAIT_S_MAX = 30.0
LOW_BALANCE_ALERT_INTERVAL_S = 30.0
STOP_GRACE_S = 3.0
RELEASE_TIMEOUT_S = 1.0

log = structlog.get_logger("engine")


class LedgerTables(AttemptTable, Protocol):
    """The ledger, as the loop uses it. `indexer.store.ledger.Ledger` is one."""

    async def select_expired_sessions(
        self,
        table: AccountTable,
        *,
        start_field: str,
        expiry_field: str,
        program_id: bytes,
        rule: str,
        clock_unix_s: int,
        recheck_s: float,
        after: ExpiredSession | None,
        limit: int,
    ) -> list[ExpiredSession]: ...

    async def record_decisions(
        self, *, rule: str, program_id: bytes, intents: Sequence[NewIntent], skips: Sequence[NewSkip]
    ) -> int: ...

    async def select_actionable_intents(
        self, *, program_id: bytes, rule: str, limit: int
    ) -> list[ActionableIntent]: ...

    async def select_open_attempts(self, *, program_id: bytes) -> list[OpenAttempt]: ...

    async def settle_attempts(self, ends: Sequence[AttemptEnd]) -> None: ...

    async def settle_intents(self, ends: Sequence[IntentEnd]) -> int: ...


@dataclass(slots=True)
class Pass:
    """What one pass did. `in_flight` counts attempts whose end is not known, as of now."""

    acting: bool = False
    intended: int = 0
    skipped: int = 0
    sent: int = 0
    sent_again: int = 0
    in_flight: int = 0
    attempts_settled: int = 0
    intents_settled: int = 0


@dataclass
class Engine:
    """One engine: its duty, its means and its limits. Amounts in lamports."""

    rpc: RpcClient
    ledger: LedgerTables
    lease: Lease
    adapter: EphemeralVault
    table: AccountTable
    sender: Sender
    policy: Policy
    in_flight_max: int
    faucet_lamports: int = 0
    monotonic_s: Callable[[], float] = time.monotonic
    _rent: dict[int, int] = field(default_factory=dict)
    _low_balance_at_s: float = float("-inf")

    async def run_pass(self) -> Pass:
        """
        Do everything that can be done now, once.

        Raises:
            RetryableError, RpcError: node or database; the next pass resumes.
        """
        done = Pass()
        lease = None if self.sender.dry_run else await self.lease.renew()
        if lease is None and not self.sender.dry_run:
            return done
        done.acting = True
        if lease is not None:
            await self.follow(done)
        snapshot = await fetch_snapshot(self.rpc, payer=self.sender.signer.pubkey)
        await self.plan(snapshot.clock_unix_s, done)
        # Planning may have taken longer than the lease lasts; without it everything would be signed in vain.
        if lease is None or await self.lease.renew() is not None:
            await self.act(self.lease.held, done)
        return done

    async def settle(self) -> Pass:
        """
        Record the ends that are known by now, and send nothing.

        Raises:
            RetryableError, RpcError: node or database; or another engine still holds the lease.
        """
        done = Pass()
        if await self.lease.renew() is None:
            raise RetryableError("another engine holds the lease: it settles, or its lease ends")
        done.acting = True
        await self.follow(done, send_again=False)
        return done

    async def follow(self, done: Pass, *, send_again: bool = True) -> None:
        """Settle every open attempt whose end is known, and send the others' bytes again where they are not seen."""
        attempts = await self.ledger.select_open_attempts(program_id=self.adapter.program_id)
        done.in_flight = len(attempts)
        again: list[Recorded] = []
        for start in range(0, len(attempts), 256):
            chunk = attempts[start : start + 256]
            view = await fetch_view(self.rpc, [attempt.signature for attempt in chunk])
            ends = []
            for attempt, status in zip(chunk, view.statuses, strict=True):
                verdict = judge(attempt.last_valid_block_height, status, view.finalized_block_height)
                if verdict is Verdict.ABSENT:
                    again.append(Recorded(attempt.attempt_id, attempt.key, attempt.signature, attempt.transaction))
                elif verdict is not Verdict.PENDING:
                    ends.append(
                        self._end(attempt, verdict, status.slot if status else None, status.err if status else None)
                    )
            await self._settle(chunk, ends, done)
        if send_again:
            done.sent_again += await self.sender.send_again(again)

    async def plan(self, clock_unix_s: int, done: Pass) -> None:
        """Find sessions that the tables show as expired, ask the rule on fresh state, and record its decisions."""
        after: ExpiredSession | None = None
        for _ in range(PAGES_PER_PASS_MAX):
            page = await self.ledger.select_expired_sessions(
                self.table,
                start_field=self.adapter.start_field,
                expiry_field=self.adapter.expiry_field,
                program_id=self.adapter.program_id,
                rule=RULE,
                clock_unix_s=clock_unix_s,
                recheck_s=RECHECK_SKIPPED_S,
                after=after,
                limit=VAULTS_PER_CALL_MAX,
            )
            if not page:
                return
            await self._plan_page([Candidate(row.address, row.session_start) for row in page], done)
            if len(page) < VAULTS_PER_CALL_MAX:
                return
            after = page[-1]

    async def act(self, lease: Held | None, done: Pass) -> None:
        """Ask the rule again about open intents without an open attempt, and sign and send for those it still wants."""
        capacity = self.in_flight_max - done.in_flight
        while capacity > 0:
            intents = await self.ledger.select_actionable_intents(
                program_id=self.adapter.program_id, rule=RULE, limit=min(capacity, VAULTS_PER_CALL_MAX)
            )
            if not intents:
                return
            if not await self._act_on(intents, lease, done):
                return
            capacity -= len(intents)

    async def _plan_page(self, candidates: Sequence[Candidate], done: Pass) -> None:
        snapshot, found = await self._fetch_found([c.vault for c in candidates])
        decisions = plan_cleanups(
            zip(candidates, found, strict=True), clock_unix_s=snapshot.clock_unix_s, policy=self.policy
        )
        intents, skips = [], []
        for decision in decisions:
            match decision:
                case Clean(session, reason):
                    intents.append(_intent_of(session, reason, snapshot.slot))
                case Gone(candidate, reason) | Skip(candidate, reason):
                    skips.append(NewSkip(candidate.vault, reason))
        new = await self.ledger.record_decisions(
            rule=RULE, program_id=self.adapter.program_id, intents=intents, skips=skips
        )
        done.intended += new
        done.skipped += len(skips)
        for intent in intents:
            log.info("intended", key=intent.key, reason=intent.reason, slot=intent.decided_slot)

    async def _act_on(self, intents: Sequence[ActionableIntent], lease: Held | None, done: Pass) -> int:
        """Return how many transactions were recorded and sent."""
        candidates = [Candidate(i.subject, int(i.payload["session_start"])) for i in intents]
        # A node that is behind the decision would show what was before it.
        min_slot = max(intent.decided_slot for intent in intents)
        snapshot, found = await self._fetch_found([c.vault for c in candidates], min_slot=min_slot)
        wanted: list[Wanted] = []
        gone: list[ActionableIntent] = []
        ends: list[IntentEnd] = []
        for intent, candidate, state in zip(intents, candidates, found, strict=True):
            decision = decide(candidate, state, clock_unix_s=snapshot.clock_unix_s, policy=self.policy)
            match decision:
                case Clean(session):
                    wanted.append(self._wanted(intent, session))
                case Gone():
                    gone.append(intent)
                case Skip(_, reason):
                    ends.append(IntentEnd(intent.intent_id, "void", reason))
        ends += await self._lost(gone)
        if not self.sender.dry_run and ends:
            done.intents_settled += await self.ledger.settle_intents(ends)
            _log_intent_ends(intents, ends)
        affordable = await self._affordable(snapshot.payer_lamports, done, len(wanted))
        recorded = await self.sender.send_new(wanted[:affordable], lease)
        done.sent += len(recorded)
        done.in_flight += len(recorded)
        return len(recorded)

    async def _fetch_found(
        self, vaults: Sequence[bytes], *, commitment: str = ACT_COMMITMENT, min_slot: int = 0
    ) -> tuple[Snapshot, list[Session | Unreadable | None]]:
        payer = self.sender.signer.pubkey
        snapshot = await fetch_snapshot(
            self.rpc, payer=payer, addresses=vaults, commitment=commitment, min_slot=min_slot
        )
        sizes = {len(account.data) for account in snapshot.accounts if account is not None} | {0}
        if sizes - self._rent.keys():
            self._rent |= await fetch_rent_exempt_lamports(self.rpc, sizes - self._rent.keys())
        found = [
            self.adapter.read_session(
                vault, account, rent_exempt_lamports=self._rent[len(account.data) if account else 0]
            )
            for vault, account in zip(vaults, snapshot.accounts, strict=True)
        ]
        return snapshot, found

    async def _lost(self, intents: Sequence[ActionableIntent]) -> list[IntentEnd]:
        """
        Return ends for those of `intents` whose session is gone in finalised state too.

        A session that is gone at `confirmed` may come back with a fork; one that was not yet there when it was decided
        is no proof either, so the finalised slot must have reached the decision's.
        """
        if not intents:
            return []
        snapshot, found = await self._fetch_found([i.subject for i in intents], commitment=BELIEVE_COMMITMENT)
        ends = []
        for intent, state in zip(intents, found, strict=True):
            candidate = Candidate(intent.subject, int(intent.payload["session_start"]))
            decision = decide(candidate, state, clock_unix_s=snapshot.clock_unix_s, policy=self.policy)
            if isinstance(decision, Gone) and snapshot.slot >= intent.decided_slot:
                ends.append(IntentEnd(intent.intent_id, "lost", f"another keeper was first: {decision.reason}"))
        return ends

    def _wanted(self, intent: ActionableIntent, session: Session) -> Wanted:
        instruction = self.adapter.cleanup_instruction(
            vault=session.vault, parent_wallet=session.parent_wallet, cleaner=self.sender.signer.pubkey
        )
        return Wanted(intent.intent_id, intent.key, instruction)

    async def _affordable(self, balance: int, done: Pass, wanted: int) -> int:
        """Return how many of `wanted` transactions the payer can pay for; say so loudly where it is not all of them."""
        fee = self.sender.budget.fee_lamports
        # A payer must stay rent exempt, and what is in flight may not have been paid yet.
        spendable = balance - self._rent[0] - fee * done.in_flight
        affordable = max(spendable // fee, 0)
        if affordable >= wanted:
            return wanted
        now_s = self.monotonic_s()
        if now_s - self._low_balance_at_s >= LOW_BALANCE_ALERT_INTERVAL_S:
            self._low_balance_at_s = now_s
            log.error(
                "balance_too_low",
                payer=str(self.sender.signer.pubkey),
                balance_lamports=balance,
                needed_lamports=balance - spendable + fee * wanted,
                waiting=wanted - affordable,
                advice="send lamports to the payer",
            )
        if self.faucet_lamports:
            await self.sender.request_airdrop(self.faucet_lamports)
        return affordable

    def _end(self, attempt: OpenAttempt, verdict: Verdict, slot: int | None, err: str | None) -> AttemptEnd:
        """Return the end of an attempt and what it means for its intent."""
        state, reason = "open", None
        if verdict is Verdict.LANDED:
            state = "landed"
        elif verdict is Verdict.FAILED:
            assert err is not None
            refusal = self.adapter.read_refusal(err)
            if refusal is Refusal.LOST:
                state, reason = "lost", "another keeper was first: the chain refused ours"
            elif refusal is Refusal.FAILED or attempt.failures + 1 >= FAILURES_PER_INTENT_MAX:
                state, reason = "failed", f"the chain refused it: {err}"
        return AttemptEnd(attempt.attempt_id, verdict.value, slot, err, state, reason)

    async def _settle(self, attempts: Sequence[OpenAttempt], ends: Sequence[AttemptEnd], done: Pass) -> None:
        if not ends:
            return
        await self.ledger.settle_attempts(ends)
        done.attempts_settled += len(ends)
        done.in_flight -= len(ends)
        self.sender.forget([end.attempt_id for end in ends])
        by_id = {attempt.attempt_id: attempt for attempt in attempts}
        for end in ends:
            attempt = by_id[end.attempt_id]
            write = log.error if end.intent_state == "failed" else log.info
            write(
                "settled",
                key=attempt.key,
                signature=str(Signature(attempt.signature)),
                attempt=end.outcome,
                intent=end.intent_state,
                slot=end.slot,
                err=end.err,
            )


def _log_intent_ends(intents: Sequence[ActionableIntent], ends: Sequence[IntentEnd]) -> None:
    keys = {intent.intent_id: intent.key for intent in intents}
    for end in ends:
        log.info("settled", key=keys[end.intent_id], intent=end.state, reason=end.outcome)


def _intent_of(session: Session, reason: str, slot: int) -> NewIntent:
    payload = {
        "session_start": session.session_start,
        "session_expiry": session.session_expiry,
        "parent_wallet": str(Pubkey(session.parent_wallet)),
        "reward_lamports": session.reward_lamports,
    }
    return NewIntent(intent_key(session.vault, session.session_start), session.vault, payload, reason, slot)


async def run(
    engine: Engine, stop: asyncio.Event, *, interval_s: float, on_pass: Callable[[Pass], None] = lambda _: None
) -> None:
    """
    Make passes until `stop` is set; then end within 5 seconds, in the middle of a pass if need be.

    Node and database may fail at any time: that is logged, and tried again with growing waits.
    """
    failures = 0
    stopping = asyncio.create_task(stop.wait())
    acting: bool | None = None
    try:
        while not stop.is_set():
            began_s = time.monotonic()
            work = asyncio.create_task(engine.run_pass())
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait({work}, timeout=STOP_GRACE_S)
                work.cancel()
            try:
                done = await work
            except asyncio.CancelledError:
                log.warning("pass_cut_short", meaning="the next start resumes it")
                break
            except (RetryableError, RpcError) as error:
                failures += 1
                wait_s = min(interval_s * 2**failures, WAIT_S_MAX)
                log.warning("pass_failed", error=str(error), failures=failures, wait_s=wait_s)
            else:
                failures, wait_s = 0, max(interval_s - (time.monotonic() - began_s), 0.0)
                if done.acting is not acting:
                    acting = done.acting
                    log.info("acting" if acting else "standing_by", lease=engine.lease.held)
                on_pass(done)
            await asyncio.wait({stopping}, timeout=wait_s)
    finally:
        stopping.cancel()
        await release(engine)


async def release(engine: Engine) -> None:
    """Give the lease back if the database still answers; if not, it runs out by itself."""
    try:
        await asyncio.wait_for(engine.lease.release(), RELEASE_TIMEOUT_S)
    except (RetryableError, TimeoutError) as error:
        log.warning("lease_not_released", error=str(error) or "no answer in time")
