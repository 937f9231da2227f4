"""
Which casts act on a chain, and how much of each: read from text such as `sessions=9,collateral=1,market=2`.
"""

from collections.abc import Callable, Mapping, Sequence

from indexer.errors import SettingsError
from localnet.traffic.act import Cast
from localnet.traffic.collateral import CollateralCast
from localnet.traffic.market import MarketCast
from localnet.traffic.schedule import Company
from localnet.traffic.sessions import SessionCast

DEFAULT_MIX = "sessions=9,collateral=1,market=2"
TRANSACTIONS_PER_PARENT = 50
PARENTS_MIN = 8
PARENTS_MAX = 400
WEIGHT_MAX = 1_000_000.0

CASTS: Mapping[str, Callable[[int, int], Cast]] = {
    "sessions": lambda seed, transactions: SessionCast(
        seed=seed, parents=max(PARENTS_MIN, min(PARENTS_MAX, transactions // TRANSACTIONS_PER_PARENT))
    ),
    "collateral": lambda seed, _: CollateralCast(seed=seed),
    "market": lambda seed, _: MarketCast(seed=seed),
}
"""How each cast is made, from seed and the size of the history."""


def read_mix(text: str) -> dict[str, float]:
    """
    Return the weight of each cast named in a mix, by name: which share of all lives is its.

    Raises:
        SettingsError: it is not a list of name=weight, or names a cast twice or one that is not there.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, given = part.strip().partition("=")
        try:
            weight = float(given) if equals else 1.0
        except ValueError:
            weight = -1.0
        if name not in CASTS or name in weights or not 0 <= weight <= WEIGHT_MAX:
            raise SettingsError(
                f"mix {text!r}: {part.strip()!r} is not name=weight, each name once, of {', '.join(CASTS)}; for example"
                f" {DEFAULT_MIX}"
            )
        weights[name] = weight
    present = {name: weight for name, weight in weights.items() if weight}
    if not present:
        raise SettingsError(f"mix {text!r} has nobody in it: give a cast a weight above 0, or --no-traffic")
    return present


def gather(mix: str, *, seed: int, transactions: int) -> Sequence[Company]:
    """
    Return the companies of a mix, for a chain of that seed whose history has so many transactions.

    Raises:
        SettingsError: as `read_mix`.
    """
    return [Company(CASTS[name](seed, transactions), weight) for name, weight in read_mix(mix).items()]
