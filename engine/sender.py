"""
The one place that signs and sends.

Every way to the chain leads through here: a new transaction, the same bytes once more, a request to the faucet. So the
dry run is decided here too, and cannot leak. A new transaction is recorded before it is sent, and what the ledger did
not record is thrown away. Whether a transaction is wanted is decided before this, what became of it after it.
"""

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import Instruction
from solders.signature import Signature

from engine.chain import ACT_COMMITMENT, RpcClient, fetch_blockhash
from engine.keys import Signer
from engine.lease import Held
from indexer.errors import RetryableError
from indexer.sources.rpc import RpcError
from indexer.store.ledger import SignedAttempt

LAMPORTS_PER_SIGNATURE = 5_000
MICRO_LAMPORTS_PER_LAMPORT = 1_000_000
TRANSACTION_SIZE_MAX = 1_232
AIRDROP_INTERVAL_S = 5.0

log = structlog.get_logger("engine.sender")


class AttemptTable(Protocol):
    """The part of the ledger that must know of a transaction before the chain does."""

    async def insert_attempts(
        self, attempts: Sequence[SignedAttempt], *, lease: str, holder: str, epoch: int
    ) -> dict[int, int]:
        """Record; return attempt_id by intent_id for those that may be sent."""
        ...

    async def count_sends(self, attempt_ids: Sequence[int]) -> None:
        """Note that these went out once more."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """An intent that the rule has just confirmed, and the instruction that fulfils it."""

    intent_id: int
    key: str
    instruction: Instruction


@dataclass(frozen=True, slots=True)
class Recorded:
    """Signed bytes that the ledger holds, and that may therefore be sent as often as one likes."""

    attempt_id: int
    key: str
    signature: bytes
    transaction: bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """What a transaction may use and pays: units, and micro-lamports a unit on top of the fee of its signature."""

    compute_unit_limit: int
    compute_unit_price_micro_lamports: int = 0

    @property
    def fee_lamports(self) -> int:
        """The whole fee of a transaction with one signature; the priority fee is rounded up, as on chain."""
        micro = self.compute_unit_limit * self.compute_unit_price_micro_lamports
        return LAMPORTS_PER_SIGNATURE + -(-micro // MICRO_LAMPORTS_PER_LAMPORT)


@dataclass
class Sender:
    """Signs, records and sends, or only says what it would do."""

    rpc: RpcClient
    ledger: AttemptTable
    signer: Signer
    budget: Budget
    dry_run: bool
    resend_interval_s: float
    monotonic_s: Callable[[], float] = time.monotonic
    _sent_at_s: dict[int, float] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)
    _airdrop_at_s: float = float("-inf")

    async def send_new(self, wanted: Sequence[Wanted], lease: Held | None) -> list[Recorded]:
        """
        Sign, record and send one transaction for each intent, in this order; return what was recorded.

        Args:
            wanted: intents without an open attempt, confirmed by the rule on fresh state.
            lease: what entitles us; the ledger checks it again. None in a dry run only.

        Raises:
            RetryableError: nothing, or not everything, was sent. What was recorded is resumed by `send_again`.
        """
        if not wanted:
            return []
        if self.dry_run:
            self._show(wanted)
            return []
        assert lease is not None
        signed = await self._sign(wanted)
        ids = await self.ledger.insert_attempts(
            [attempt for _, attempt in signed], lease=lease.name, holder=lease.holder, epoch=lease.epoch
        )
        refused = len(signed) - len(ids)
        if refused:
            log.warning("attempts_refused", refused=refused, epoch=lease.epoch, meaning="signed, never sent")
        recorded = [
            Recorded(ids[attempt.intent_id], job.key, attempt.signature, attempt.transaction)
            for job, attempt in signed
            if attempt.intent_id in ids
        ]
        await self._send(recorded)
        return recorded

    async def send_again(self, recorded: Sequence[Recorded]) -> int:
        """Send recorded bytes that were not sent for `resend_interval_s`; return how many went out."""
        now_s = self.monotonic_s()
        never = float("-inf")
        due = [r for r in recorded if now_s - self._sent_at_s.get(r.attempt_id, never) >= self.resend_interval_s]
        if not due or self.dry_run:
            return 0
        await self._send(due)
        return len(due)

    def forget(self, attempt_ids: Sequence[int]) -> None:
        """Drop the memory of attempts that are settled."""
        for attempt_id in attempt_ids:
            self._sent_at_s.pop(attempt_id, None)

    async def request_airdrop(self, lamports: int) -> None:
        """Ask the faucet of a test chain for lamports; a refusal is logged, and asked again later."""
        if self.dry_run or self.monotonic_s() - self._airdrop_at_s < AIRDROP_INTERVAL_S:
            return
        self._airdrop_at_s = self.monotonic_s()
        try:
            await self.rpc.call("requestAirdrop", [str(self.signer.pubkey), lamports])
        except (RpcError, RetryableError) as error:
            log.warning("airdrop_refused", lamports=lamports, error=str(error))
        else:
            log.info("airdrop_requested", lamports=lamports, payer=str(self.signer.pubkey))

    async def _sign(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, SignedAttempt]]:
        recent = await fetch_blockhash(self.rpc)
        prefix = [set_compute_unit_limit(self.budget.compute_unit_limit)]
        if self.budget.compute_unit_price_micro_lamports:
            prefix.append(set_compute_unit_price(self.budget.compute_unit_price_micro_lamports))
        signed = []
        for job in wanted:
            transaction = self.signer.sign([*prefix, job.instruction], blockhash=recent.blockhash)
            body = bytes(transaction)
            assert len(body) <= TRANSACTION_SIZE_MAX
            attempt = SignedAttempt(
                job.intent_id, bytes(transaction.signatures[0]), body, recent.last_valid_block_height
            )
            signed.append((job, attempt))
        return signed

    async def _send(self, recorded: Sequence[Recorded]) -> None:
        """
        Send recorded bytes, with the node's preflight, so that a foreseeable refusal costs no fee.

        A refusal by the preflight is a fact about now, not about the attempt: an earlier copy may be on its way. So it
        is logged, and the attempt stays open until it lands or expires.
        """
        if not recorded:
            return
        options = {"encoding": "base64", "preflightCommitment": ACT_COMMITMENT}
        calls = [("sendTransaction", [base64.b64encode(r.transaction).decode(), options]) for r in recorded]
        now_s = self.monotonic_s()
        answers = await self.rpc.batch(calls)
        for attempt, answer in zip(recorded, answers, strict=True):
            self._sent_at_s[attempt.attempt_id] = now_s
            signature = str(Signature(attempt.signature))
            if isinstance(answer, RpcError):
                log.warning("send_refused", key=attempt.key, signature=signature, **_refusal(answer))
            else:
                log.info("sent", key=attempt.key, signature=signature)
        await self.ledger.count_sends([attempt.attempt_id for attempt in recorded])

    def _show(self, wanted: Sequence[Wanted]) -> None:
        for job in wanted:
            if job.key not in self._shown:
                self._shown.add(job.key)
                log.info("would_send", key=job.key, instruction_bytes=len(bytes(job.instruction.data)))


def _refusal(error: RpcError) -> dict[str, Any]:
    """Return what the operator should see of a refused send."""
    data = error.data if isinstance(error.data, dict) else {}
    return {"code": error.code, "error": error.message, "err": data.get("err")}
