"""
The users of `collateral_vault` alone: tokens in, and out after the time lock; and the admin who pauses it at times.

About one transaction in ten is a mistake: too early, too much, nothing at all, or at once where a delay is asked for.
"""

from collections.abc import Sequence

from solders.pubkey import Pubkey

from localnet.accounts import AccountState
from localnet.clients import collateral_vault as vaults
from localnet.traffic.act import Act, Life, Span, Wallet
from localnet.traffic.person import Person
from localnet.traffic.rhythm import DAY_S, chance, draw_amount
from localnet.traffic.treasury import USDT, Treasury

PAUSES_MAX = 40
LIVE_PAUSE_GAP_S = 900.0


class CollateralCast:
    """All users of `collateral_vault` who do not trade; each life is a new wallet."""

    name = "collateral"
    reacts = True

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._treasury = Treasury(seed)

    def purses(self) -> Sequence[tuple[Pubkey, int]]:
        """Return the staff's; users get theirs from the faucet."""
        return self._treasury.purses()

    def furniture(self) -> Sequence[tuple[Pubkey, AccountState]]:
        """Return mint and faucet."""
        return self._treasury.furniture()

    def founding(self, span: Span) -> Life | None:
        """Tell what the admin does: settings, once, and short pauses for maintenance, all through the span."""
        return self._administer(span)

    def life(self, index: int, *, at: float, span: Span) -> Life:
        """Tell life `index`: a wallet that comes at `at` (unix seconds), pays in, and takes out or not."""
        wallet = Wallet.derive(self._seed, "saver", index)
        rng = chance(self._seed, "collateral", index)
        return _save(Person(rng, wallet=wallet, treasury=self._treasury, span=span, at=at))

    def _administer(self, span: Span) -> Life:
        admin = self._treasury.admin
        at = founding_time(span)
        yield Act(at, (self._treasury.settle(),), (admin,), absent=vaults.find_vault_authority())
        rng = chance(self._seed, "pauses", span.begin)
        gap = (
            LIVE_PAUSE_GAP_S
            if span.live
            else (span.end - span.begin) / min(PAUSES_MAX, 6 + (span.end - span.begin) / DAY_S)
        )
        at = span.begin
        while True:
            at += gap * rng.uniform(0.5, 1.4)
            if not span.live and at + 600 > span.end:
                return
            yield Act(at, (vaults.set_paused(admin.address, paused=True),), (admin,))
            at += rng.uniform(3, 6) if span.live else rng.uniform(60, 500)
            yield Act(at, (vaults.set_paused(admin.address, paused=False),), (admin,))


def founding_time(span: Span) -> float:
    """Return when programs are set up, unix seconds: before the first user comes."""
    return span.begin - 60.0 if span.live else span.begin


def _save(person: Person) -> Life:
    """Pay in, then do this and that with it."""
    rng, address, mint = person.rng, person.wallet.address, person.treasury.mint
    purse = draw_amount(rng, median=3_000 * USDT, spread=1.1, least=100 * USDT, most=400_000 * USDT)
    free = draw_amount(rng, median=purse // 3, spread=0.5, least=20 * USDT, most=purse)
    if not (yield from person.join(tokens=purse, deposit=free)):
        return
    purse -= free
    for _ in range(1 + min(9, int(rng.expovariate(1 / 3.5)))):
        kind = rng.choices(("pay in", "take out", "too much", "at once", "nothing"), (40, 42, 6, 7, 3))[0]
        if kind == "pay in" and purse > USDT:
            amount = 1 + int(purse * rng.uniform(0.1, 0.7))
            outcome = yield from person.do(
                person.pause(), vaults.deposit(address, address, mint=mint, amount=amount), present=person.vault
            )
            if outcome.landed:
                purse, free = purse - amount, free + amount
        elif kind == "take out" and free > USDT:
            amount = 1 + int(free * rng.uniform(0.1, 0.9))
            if (yield from person.take_out(amount=amount)):
                purse, free = purse + amount, free - amount
        elif kind == "too much":
            asking = vaults.request_withdraw(address, amount=free * 2 + USDT, request_id=person.requests)
            yield from person.do(person.pause(), asking, refusal="InsufficientAvailableBalance")
        elif kind == "at once":
            yield from person.do(
                person.pause(), vaults.withdraw(address, mint=mint, amount=USDT), refusal="TimelockRequired"
            )
        elif kind == "nothing":
            nothing = vaults.deposit(address, address, mint=mint, amount=0)
            yield from person.do(person.pause(), nothing, refusal="InvalidAmount")
