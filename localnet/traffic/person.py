"""
Somebody with a wallet, tokens and a collateral vault: what users of all programs that take tokens have in common.
"""

from collections.abc import Generator, Sequence
from random import Random

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from localnet.clients import collateral_vault as vaults
from localnet.prices import Feed
from localnet.traffic.act import Act, Choice, Outcome, Sight, Span, Wallet
from localnet.traffic.treasury import WITHDRAW_DELAY_S, Treasury

Telling = Generator[Act, Outcome, bool]
JOIN_ATTEMPTS_MAX = 4


class Person:
    """
    One user and the time at which they last acted.

    Attributes:
        rng: the life's own source of chance.
        now: unix seconds of the last act.
        requests: how many withdrawals they have asked for; the number of the next one.
    """

    def __init__(self, rng: Random, *, wallet: Wallet, treasury: Treasury, span: Span, at: float) -> None:
        self.rng = rng
        self.wallet = wallet
        self.treasury = treasury
        self.span = span
        self.now = at
        self.requests = 0
        self.vault = vaults.find_vault(wallet.address)

    def do(
        self,
        pause: float,
        *instructions: Instruction,
        signers: Sequence[Wallet] = (),
        refusal: str | None = None,
        absent: Pubkey | None = None,
        present: Pubkey | None = None,
        choice: Choice | None = None,
        feeds: tuple[Feed, ...] = (),
        likely: bool = True,
    ) -> Generator[Act, Outcome, Outcome]:
        """Act `pause` seconds after the last act; they sign themselves where nobody else is named."""
        at = self.now + pause
        outcome = yield Act(
            at, instructions, tuple(signers) or (self.wallet,), refusal, absent, present, choice, feeds, likely
        )
        self.now = max(at, float(outcome.unix_time))
        return outcome

    def pause(self) -> float:
        """Return the seconds until this user's next act."""
        return self.rng.uniform(1.5, 12.0) if self.span.live else self.rng.lognormvariate(6.3, 1.2)

    def join(self, *, tokens: int, deposit: int) -> Telling:
        """Get `tokens`, open a vault and pay `deposit` into it, all in one transaction; False if that never works."""
        address, mint = self.wallet.address, self.treasury.mint
        joining = [
            *self.treasury.welcome(address, tokens),
            vaults.initialize_vault(address, address, mint=mint),
            vaults.deposit(address, address, mint=mint, amount=deposit),
        ]
        for _ in range(JOIN_ATTEMPTS_MAX):
            outcome = yield from self.do(0.0, *joining, signers=(self.treasury.faucet, self.wallet), absent=self.vault)
            if outcome.landed:
                return True
            self.now += self.rng.uniform(8, 30) if self.span.live else self.rng.uniform(200, 900)
        return False

    def available(self, sight: Sight) -> int:
        """Return what lies free in their vault, base units."""
        parsed = vaults.parse_account(sight.data(self.vault))
        found = parsed[1]["available_balance"] if parsed is not None else 0
        assert isinstance(found, int)
        return found

    def take_out(self, choose_amount: Choice | None = None, *, amount: int = 0) -> Telling:
        """
        Ask for a withdrawal, and cancel it or have it paid out after its delay; False where nothing came out.

        Args:
            choose_amount: makes the request from what there is; without it, `amount` base units are asked for.
        """
        rng, address, number = self.rng, self.wallet.address, self.requests
        asking = [vaults.request_withdraw(address, amount=amount, request_id=number)] if choose_amount is None else []
        outcome = yield from self.do(self.pause(), *asking, choice=choose_amount)
        if not outcome.landed:
            return False
        self.requests += 1
        unlock_at = float(outcome.unix_time + WITHDRAW_DELAY_S)
        request = vaults.find_withdraw_request(self.vault, number)
        paying = vaults.execute_withdraw(address, mint=self.treasury.mint, request_id=number)
        if rng.random() < 0.10:
            yield from self.do(rng.uniform(1, 20), paying, refusal="TimelockActive", present=request)
        if rng.random() < 0.18:
            cancelling = vaults.cancel_withdraw(address, request_id=number)
            yield from self.do(rng.uniform(1, 20), cancelling, present=request)
            return False
        self.now = max(self.now, unlock_at)
        payer = rng.choice(self.treasury.keepers) if rng.random() < 0.4 else self.wallet
        outcome = yield from self.do(rng.uniform(0.5, 20), paying, signers=(payer,), present=request)
        return outcome.landed
