"""
The users of `liquidation_engine`: traders, liquidators who watch them, and those who pay into the fund.

A trader joins, opens a position as large as chance and vault allow, tops it up or not, and closes it, if it still is
there by then. Liquidators look at every position from time to time, as often as a liquidator's loop would come round to
it: often enough to find most of them while a part is enough, too seldom for a crash, which is what a fund is for. Live
they come late, so that an engine at work is there first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from localnet.accounts import AccountState
from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as client
from localnet.prices import FEEDS, Feed
from localnet.traffic.act import Act, Choice, Life, Sight, Span, Wallet
from localnet.traffic.collateral import founding_time
from localnet.traffic.margin import UNIT, Exposure, judge, maintenance_bps, read_exposure
from localnet.traffic.person import Person, Telling
from localnet.traffic.price_board import PRICE_ACCOUNTS
from localnet.traffic.rhythm import chance, draw_amount
from localnet.traffic.treasury import STAFF_PURSE, USDT, Treasury

LIQUIDATORS = 4
FUND_BEGINS_WITH = 3_000_000 * USDT
MAX_PRICE_AGE_S, MAX_CONF_BPS = 60, 200
MAX_LEVERAGE = {"SOL": 500, "BTC": 1_000, "ETH": 500}
HISTORY_LEVERAGES = ((3, 14), (5, 18), (10, 25), (20, 18), (40, 11), (90, 8), (300, 4), (800, 2))
LIVE_LEVERAGES = ((20, 15), (45, 20), (90, 25), (300, 25), (450, 15))
HOLD_S_MAX = 3 * 86_400.0
COLLATERAL_MIN = 5 * USDT


class MarketCast:
    """All users of `liquidation_engine`; each life is a new wallet, the liquidators are always the same."""

    name = "market"
    reacts = True

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._treasury = Treasury(seed)
        self._liquidators = [Wallet.derive(seed, "liquidator", number) for number in range(LIQUIDATORS)]

    def purses(self) -> Sequence[tuple[Pubkey, int]]:
        """Return the staff's and the liquidators'; users get theirs from the faucet."""
        return [*self._treasury.purses(), *((one.address, STAFF_PURSE) for one in self._liquidators)]

    def furniture(self) -> Sequence[tuple[Pubkey, AccountState]]:
        """Return mint and faucet."""
        return self._treasury.furniture()

    def founding(self, span: Span) -> Life | None:
        """Tell how programs, fund, markets and the liquidators' vaults come to be; what is there is left alone."""
        return self._found(founding_time(span))

    def life(self, index: int, *, at: float, span: Span) -> Life:
        """Tell life `index`: somebody who comes at `at` (unix seconds) and trades, or pays into the fund."""
        wallet = Wallet.derive(self._seed, "trader", index)
        rng = chance(self._seed, "market", index)
        person = Person(rng, wallet=wallet, treasury=self._treasury, span=span, at=at)
        return self._trade(person) if rng.random() < 0.94 else _contribute(person)

    def _found(self, at: float) -> Life:
        treasury = self._treasury
        admin, mint = treasury.admin, treasury.mint
        yield Act(at, (treasury.settle(),), (admin,), absent=vaults.find_vault_authority())
        fund = client.initialize_insurance_fund(admin.address, mint=mint)
        yield Act(at, (fund,), (admin,), absent=client.find_fund())
        for feed in FEEDS:
            opening = client.create_market(
                admin.address, symbol=feed.symbol, feed_id=feed.feed_id, max_price_age_s=MAX_PRICE_AGE_S,
                max_conf_bps=MAX_CONF_BPS, max_leverage=MAX_LEVERAGE[feed.symbol],
            )  # fmt: skip
            yield Act(at, (opening,), (admin,), absent=client.find_market(feed.symbol))
        for number, one in enumerate(self._liquidators):
            vault = vaults.find_vault(one.address)
            opening = vaults.initialize_vault(one.address, one.address, mint=mint)
            outcome = yield Act(at, (opening,), (one,), absent=vault)
            if number == 0 and outcome.landed:
                paying = client.contribute(one.address, amount=FUND_BEGINS_WITH, mint=mint)
                joining = treasury.welcome(one.address, FUND_BEGINS_WITH)
                yield Act(at, (*joining, paying), (treasury.faucet, one))

    def _trade(self, person: Person) -> Life:
        rng = person.rng
        purse = draw_amount(rng, median=1_500 * USDT, spread=1.2, least=100 * USDT, most=200_000 * USDT)
        deposit = int(purse * rng.uniform(0.5, 0.9))
        if not (yield from person.join(tokens=purse, deposit=deposit)):
            return
        for _ in range(1 + min(4, int(rng.expovariate(1 / 1.3)))):
            position = _Position(person, self._liquidators)
            if (yield from position.open()):
                yield from position.hold()
                yield from position.close()
        if rng.random() < 0.45:
            yield from person.take_out(_all_but_some(person, rng.uniform(0.3, 1.0)))


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a trader would like: direction, leverage, the share of the vault, and whether they mind a vague price."""

    is_long: bool
    leverage: int
    share: float
    careful: bool
    mistake: str


class _Position:
    """One position, from its opening to its end, and the liquidators who look at it."""

    def __init__(self, person: Person, liquidators: Sequence[Wallet]) -> None:
        rng = person.rng
        self._person = person
        self._liquidators = liquidators
        self._feed = rng.choices(FEEDS, (45, 30, 25))[0]
        self._address = client.find_position(person.wallet.address, self._feed.symbol)
        self._price_update = PRICE_ACCOUNTS[self._feed.symbol]
        self._wish = _draw_wish(rng, self._feed, live=person.span.live)
        self._gone = False
        # What was read last, and from which bytes: those who look often mostly see what they have seen before.
        self._seen: tuple[bytes, Exposure | None] = (b"", None)

    def open(self) -> Telling:
        """Open it, at the second attempt if the first was a mistake; False where it does not come about."""
        person, rng = self._person, self._person.rng
        if self._wish.mistake:
            yield from person.do(
                person.pause(), choice=self._choose_open(self._wish.mistake), feeds=(self._feed,),
                refusal=self._wish.mistake,
            )  # fmt: skip
        outcome = yield from person.do(
            rng.uniform(1, 5) if person.span.live else person.pause(), choice=self._choose_open(""),
            feeds=(self._feed,), absent=self._address,
        )  # fmt: skip
        return outcome.landed

    def hold(self) -> Life:
        """Keep it for a while; top it up, perhaps; be watched."""
        person, rng = self._person, self._person.rng
        live = person.span.live
        until = person.now + (rng.uniform(15, 150) if live else min(HOLD_S_MAX, rng.lognormvariate(8.8, 1.0)))
        top_up_at = person.now + rng.random() * (until - person.now) if rng.random() < 0.4 else math.inf
        while person.now < until and not self._gone:
            pause = rng.uniform(6, 20) if live else rng.uniform(300, 1_200)
            if person.now < top_up_at <= person.now + pause:
                top_up = _top_up(person, self._feed.symbol, rng.uniform(0.1, 0.6))
                yield from person.do(top_up_at - person.now, choice=top_up, present=self._address)
                top_up_at = math.inf
                continue
            liquidator = rng.choice(self._liquidators)
            watching = self._watch(liquidator, hasty=rng.random() < 0.004, part=rng.choice((1.0, 1.0, 0.5)))
            yield from person.do(pause, choice=watching, signers=(liquidator,), feeds=(self._feed,), likely=False)

    def close(self) -> Life:
        """Close it, unless somebody else has."""
        person = self._person
        closing = client.close_position(
            person.wallet.address, symbol=self._feed.symbol, price_update=self._price_update, mint=person.treasury.mint
        )
        yield from person.do(person.rng.uniform(0.5, 5), closing, feeds=(self._feed,), present=self._address)

    def _read(self, data: bytes) -> Exposure | None:
        if self._seen[0] != data:
            self._seen = (data, read_exposure(data))
        return self._seen[1]

    def _choose_open(self, mistake: str) -> Choice:
        wish, person, feed = self._wish, self._person, self._feed

        def choose(sight: Sight) -> Sequence[Instruction]:
            price, conf = sight.quote(feed)
            collateral = int(person.available(sight) * wish.share)
            vague = conf * 20_000 > maintenance_bps(wish.leverage) * price
            if collateral < COLLATERAL_MIN or price <= 0 or (vague and wish.careful):
                return ()
            size = collateral * wish.leverage * 97 // 100 * UNIT // price
            declared = wish.leverage
            if mistake == "InvalidLeverage":
                declared = MAX_LEVERAGE[feed.symbol] + 1
            elif mistake == "InsufficientCollateral":
                declared = max(1, wish.leverage // 2)
            return [
                client.open_position(
                    person.wallet.address, symbol=feed.symbol, price_update=self._price_update, is_long=wish.is_long,
                    size=size, collateral=collateral, leverage=declared,
                )
            ]  # fmt: skip

        return choose

    def _watch(self, liquidator: Wallet, *, hasty: bool, part: float) -> Choice:
        """Return a look at the position: the right liquidation, where there is one; the hasty try anyway."""

        def choose(sight: Sight) -> Sequence[Instruction]:
            position = self._read(sight.data(self._address))
            if position is None:
                self._gone = True
                return ()
            price, conf = sight.quote(self._feed)
            verdict = judge(position, price=price, conf=conf)
            if verdict is None and not hasty:
                return ()
            owner = self._person.wallet.address
            symbol, mint, update = self._feed.symbol, self._person.treasury.mint, self._price_update
            if verdict == "full":
                return [client.liquidate_full(liquidator.address, owner, symbol=symbol, price_update=update, mint=mint)]
            size = max(1, int(position.size * part))
            return [
                client.liquidate_partial(
                    liquidator.address, owner, symbol=symbol, price_update=update, mint=mint, size=size
                )
            ]

        return choose


def _draw_wish(rng: Random, feed: Feed, *, live: bool) -> _Wish:
    leverages = LIVE_LEVERAGES if live else HISTORY_LEVERAGES
    leverage = rng.choices([one for one, _ in leverages], [weight for _, weight in leverages])[0]
    return _Wish(
        is_long=rng.random() < 0.58,
        leverage=min(leverage, MAX_LEVERAGE[feed.symbol]),
        share=rng.uniform(0.2, 0.85),
        careful=rng.random() < 0.85,
        mistake=rng.choices(("", "InvalidLeverage", "InsufficientCollateral"), (94, 3, 3))[0],
    )


def _top_up(person: Person, symbol: str, share: float) -> Choice:
    def choose(sight: Sight) -> Sequence[Instruction]:
        amount = int(person.available(sight) * share)
        return [client.add_collateral(person.wallet.address, symbol=symbol, amount=amount)] if amount else ()

    return choose


def _all_but_some(person: Person, share: float) -> Choice:
    number = person.requests

    def choose(sight: Sight) -> Sequence[Instruction]:
        amount = int(person.available(sight) * share)
        address = person.wallet.address
        return [vaults.request_withdraw(address, amount=amount, request_id=number)] if amount else ()

    return choose


def _contribute(person: Person) -> Life:
    """Pay into the fund once, or a few times."""
    rng, address, mint = person.rng, person.wallet.address, person.treasury.mint
    purse = draw_amount(rng, median=5_000 * USDT, spread=1.0, least=200 * USDT, most=500_000 * USDT)
    first = client.contribute(address, amount=purse // 4, mint=mint)
    joining = [*person.treasury.welcome(address, purse), first]
    yield from person.do(0.0, *joining, signers=(person.treasury.faucet, person.wallet))
    for _ in range(rng.choice((0, 1, 2))):
        yield from person.do(person.pause(), client.contribute(address, amount=purse // 4, mint=mint))
