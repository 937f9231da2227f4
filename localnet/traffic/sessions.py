"""
The users of `ephemeral_vault`: session by session, with the mistakes people make.

A parent wallet opens a session for an ephemeral wallet, approves it, deposits, and lets it trade; then revokes, or lets
it expire. Keepers clean up behind them, not always. Some come back with the same pair of wallets, so that one vault
address lives several sessions. About one transaction in twenty-five fails, for the reasons it would fail for real.
"""

import math
from collections.abc import Generator, Sequence
from random import Random

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from localnet.accounts import AccountState
from localnet.clients import ephemeral_vault as client
from localnet.traffic.act import Act, Life, Outcome, Span, Wallet
from localnet.traffic.rhythm import chance, draw_amount

LAMPORTS_PER_SOL = 1_000_000_000
PARENT_PURSE = 2_000 * LAMPORTS_PER_SOL
KEEPER_PURSE = 50 * LAMPORTS_PER_SOL
EPHEMERAL_PURSE = 2_000_000  # its own rent and some two hundred fees, sent along with its first session
HISTORY_DURATIONS_S = ((300, 14), (900, 24), (1_800, 18), (3_600, 22), (14_400, 14), (86_400, 7), (604_800, 1))
LIVE_DURATIONS_S = ((10, 16), (15, 18), (20, 18), (30, 20), (45, 10), (60, 10), (300, 6), (1_800, 2))
KEEPERS_REST_SHARE = 1 / 90  # keepers are away for this last part of a history: 8 hours of 30 days
RETURN_ATTEMPTS_MAX = 6

Telling = Generator[Act, Outcome, bool]


class SessionCast:
    """
    All users of `ephemeral_vault`.

    Args:
        seed: decides keys, amounts and times.
        parents: how many parent wallets share all lives; they come to the service one after another.
        keepers: how many wallets clean up expired vaults in a history.
    """

    name = "sessions"
    reacts = False

    def __init__(self, *, seed: int, parents: int = 400, keepers: int = 5) -> None:
        self._seed = seed
        self._parents = [Wallet.derive(seed, "parent", number) for number in range(parents)]
        self._keepers = [Wallet.derive(seed, "keeper", number) for number in range(keepers)]

    def purses(self) -> Sequence[tuple[Pubkey, int]]:
        """Return the wallets that must be filled first, in lamports. Ephemeral wallets are filled by their parents."""
        parents = [(parent.address, PARENT_PURSE) for parent in self._parents]
        return parents + [(keeper.address, KEEPER_PURSE) for keeper in self._keepers]

    def furniture(self) -> Sequence[tuple[Pubkey, AccountState]]:
        """Return nothing: sessions need lamports alone."""
        return ()

    def founding(self, span: Span) -> Life | None:  # noqa: ARG002  # others plan by it
        """Return nothing: the program has no settings."""
        return None

    def life(self, index: int, *, at: float, span: Span) -> Life:
        """Tell life `index`: one pair of wallets, one session or several, none before `at` (unix seconds)."""
        rng = chance(self._seed, "sessions", index)
        grown = 1.0 if span.live else (at - span.begin) / max(1.0, span.end - span.begin)
        arrived = max(1, math.ceil(len(self._parents) * (0.25 + 0.75 * grown)))
        parent = self._parents[int(arrived * rng.random() ** 1.6)]  # a few are much busier than the rest
        ephemeral = Wallet.derive(self._seed, "ephemeral", index)
        pair = _Pair(rng, parent=parent, ephemeral=ephemeral, keepers=self._keepers, span=span)
        return pair.life(at)


class _Pair:
    """A parent wallet, an ephemeral wallet and the one vault address that all their sessions share."""

    def __init__(
        self, rng: Random, *, parent: Wallet, ephemeral: Wallet, keepers: Sequence[Wallet], span: Span
    ) -> None:
        self._rng = rng
        self._parent = parent
        self._ephemeral = ephemeral
        self._keepers = keepers
        self._span = span
        self._wallets = (parent.address, ephemeral.address)
        self._vault = client.find_vault(parent.address, ephemeral.address)
        self._sessions = 0
        # Of the session that runs now:
        self._now = 0.0
        self._expiry = 0
        self._max_deposit = 0
        self._deposited = 0
        self._spent = 0
        self._revoked = False
        # Of the delegation, which outlives its session:
        self._delegation_revoked = False

    def life(self, at: float) -> Life:
        """Tell session after session, until the pair does not come back."""
        self._now = at
        while (yield from self._open()):
            yield from self._trade()
            yield from self._end()
            if not (yield from self._clean_up()) or self._rng.random() > 0.27:
                return
            self._now += self._rng.uniform(3, 20) if self._span.live else self._rng.lognormvariate(10.2, 1.1)

    # -- the parts of a session

    def _open(self) -> Telling:
        """Create the vault and approve the wallet, in one transaction or two; False if the address stays taken."""
        rng, live = self._rng, self._span.live
        durations = LIVE_DURATIONS_S if live else HISTORY_DURATIONS_S
        duration = rng.choices([s for s, _ in durations], [weight for _, weight in durations])[0]
        self._max_deposit = draw_amount(
            rng, median=300_000_000, spread=1.1, least=20_000_000, most=20 * LAMPORTS_PER_SOL
        )
        self._max_deposit -= self._max_deposit % 1_000_000
        self._deposited = self._spent = 0
        self._revoked = False
        opening = [self._create(duration)]
        if not self._sessions:
            opening.insert(0, self._fill_ephemeral())
        bundled = rng.random() < 0.35
        if bundled:
            opening.append(self._approve(self._ephemeral.address))
        for _ in range(RETURN_ATTEMPTS_MAX):
            outcome = yield from self._do(0.0, *opening, absent=self._vault)
            if outcome.landed:
                break
            self._now += rng.uniform(8, 15)
        else:
            return False
        self._expiry = outcome.unix_time + duration
        self._delegation_revoked = self._delegation_revoked and not bundled
        self._sessions += 1
        if not bundled:
            yield from self._approve_later()
        return True

    def _approve_later(self) -> Life:
        rng = self._rng
        if self._sessions > 1 and rng.random() < 0.25:
            # The delegation of the session before is still there; whoever forgets that it must be reset, fails.
            refusal = "DelegationRevoked" if self._delegation_revoked else "InvalidDelegationAccount"
            yield from self._do(self._pause(), self._execute(1_000), signer=self._ephemeral, refusal=refusal)
        if rng.random() < 0.05:
            stranger = self._keepers[0].address
            yield from self._do(self._pause(), self._approve(stranger), refusal="InvalidDelegate")
        yield from self._do(self._pause(), self._approve(self._ephemeral.address))
        self._delegation_revoked = False

    def _trade(self) -> Life:
        """Deposit and trade while the session lasts, a random number of times."""
        rng = self._rng
        rounds = 1 + min(7, int(rng.expovariate(1 / 1.9)))
        for number in range(rounds):
            if not self._time_left():
                return
            yield from self._deposit_once()
            if rng.random() < 0.045:
                too_much = self._max_deposit - self._deposited + 1 + int(rng.random() * self._max_deposit)
                yield from self._do(self._pause(), self._deposit(too_much), refusal="OverDeposit")
            for _ in range(rng.choices((1, 2, 3, 4), (35, 35, 20, 10))[0]):
                if self._spent < self._deposited and self._time_left():
                    yield from self._trade_once()
            if number == 1 and rng.random() < 0.10 and self._time_left():
                yield from self._do(self._pause(), self._approve(self._ephemeral.address))  # resets the delegation

    def _end(self) -> Life:
        """Revoke while it lasts, or let it expire; then, sometimes, go on as if nothing had happened."""
        rng = self._rng
        if rng.random() < 0.33 and self._time_left():
            outcome = yield from self._do(self._pause(), client.revoke_access(*self._wallets))
            self._revoked = self._delegation_revoked = outcome.landed
        if self._revoked:
            if rng.random() < 0.22:
                yield from self._do(
                    rng.uniform(1, 6), self._execute(5_000), signer=self._ephemeral, refusal="VaultInactive"
                )
            return
        if rng.random() < 0.05 and self._expiry - self._now > 4:
            keeper = rng.choice(self._keepers)
            yield from self._do(rng.uniform(0.5, 2), self._clean(keeper), signer=keeper, refusal="SessionNotExpired")
        if rng.random() < 0.16:
            self._now = max(self._now, float(self._expiry))
            late = self._execute(max(1, (self._deposited - self._spent) // 3))
            yield from self._do(rng.uniform(1, 9), late, signer=self._ephemeral, refusal="SessionExpired")

    def _clean_up(self) -> Telling:
        """Close the vault after its expiry; False where nobody does."""
        rng, span = self._rng, self._span
        self._now = max(self._now, float(self._expiry))
        if span.live:
            if rng.random() < 0.92:  # left to the engine
                self._now += rng.uniform(6, 15)
                return True
            yield from self._do(rng.uniform(1, 3), self._clean(self._parent))
            return True
        keepers_away = self._now > span.end - (span.end - span.begin) * KEEPERS_REST_SHARE
        if keepers_away or rng.random() < 0.01:
            return False
        # A revoked vault pays no reward, so mostly its own parent fetches the rent back, when it comes to mind.
        cleaner = self._parent if self._revoked and rng.random() < 0.7 else rng.choice(self._keepers)
        delay = rng.lognormvariate(7.5, 1.0) if cleaner is self._parent else rng.lognormvariate(3.0, 0.9)
        yield from self._do(delay, self._clean(cleaner), signer=cleaner)
        if cleaner is not self._parent and rng.random() < 0.03:
            second = rng.choice([keeper for keeper in self._keepers if keeper is not cleaner])
            yield from self._do(
                rng.uniform(0.4, 3), self._clean(second), signer=second, refusal="AccountNotInitialized"
            )
        return True

    # -- single acts

    def _do(
        self,
        pause: float,
        *instructions: Instruction,
        signer: Wallet | None = None,
        refusal: str | None = None,
        absent: Pubkey | None = None,
    ) -> Generator[Act, Outcome, Outcome]:
        """Act `pause` seconds after the last act; the parent signs where nobody else is named."""
        at = self._now + pause
        outcome = yield Act(at, instructions, (signer or self._parent,), refusal, absent)
        self._now = max(at, float(outcome.unix_time))
        return outcome

    def _deposit_once(self) -> Life:
        left = self._max_deposit - self._deposited
        most = min(left, self._max_deposit // 2)
        if most < 1_000:
            return
        amount = draw_amount(self._rng, median=max(1, self._max_deposit // 9), spread=0.7, least=1_000, most=most)
        outcome = yield from self._do(self._pause(), self._deposit(amount))
        if outcome.landed:
            self._deposited += amount

    def _trade_once(self) -> Life:
        funds = self._deposited - self._spent
        if self._rng.random() < 0.02:
            too_much = funds + 1 + int(self._rng.random() * funds)
            refusal = "InsufficientVaultBalance"
            yield from self._do(self._pause(), self._execute(too_much), signer=self._ephemeral, refusal=refusal)
            return
        fee = draw_amount(self._rng, median=max(1, funds // 6), spread=0.8, least=1, most=funds)
        outcome = yield from self._do(self._pause(), self._execute(fee), signer=self._ephemeral)
        if outcome.landed:
            self._spent += fee

    def _pause(self) -> float:
        """Return the seconds until this user's next act, so that one fits into what is left of the session."""
        left = max(0.0, self._expiry - self._now)
        return min(left * self._rng.uniform(0.03, 0.16), self._rng.lognormvariate(4.0, 1.2)) + self._rng.uniform(
            0.05, 0.3
        )

    def _time_left(self) -> bool:
        """Say whether one more act, after the longest pause, still finds the session open."""
        return self._expiry - self._now > 2.5

    # -- single instructions

    def _fill_ephemeral(self) -> Instruction:
        parent, ephemeral = self._wallets
        return transfer(TransferParams(from_pubkey=parent, to_pubkey=ephemeral, lamports=EPHEMERAL_PURSE))

    def _create(self, duration_s: int) -> Instruction:
        return client.create_vault(*self._wallets, session_duration_s=duration_s, max_deposit=self._max_deposit)

    def _approve(self, delegate: Pubkey) -> Instruction:
        right = client.approve_delegate(*self._wallets)
        # The builder knows only the right delegate; a mistaken wallet names another one for the same vault.
        return Instruction(right.program_id, bytes(right.data[:8]) + bytes(delegate), right.accounts)

    def _deposit(self, amount: int) -> Instruction:
        return client.auto_deposit_for_trade(*self._wallets, trade_fee_estimate=amount)

    def _execute(self, fee: int) -> Instruction:
        return client.execute_trade(*self._wallets, fee_paid=fee)

    def _clean(self, cleaner: Wallet) -> Instruction:
        return client.cleanup_vault(*self._wallets, cleaner=cleaner.address)
