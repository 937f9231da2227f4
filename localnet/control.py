"""
What only a test chain answers: `localnet_*` methods over JSON-RPC, off unless asked for.

They tell what really happened, from the VM, to whoever checks an indexer against it, and they stop the users so that
there is an end to compare at. Each takes one optional object. Lists come in pages: `after_index` is the index of the
last row already had (-1 or absent: from the first), `limit` the rows wanted (at most ROWS_MAX); an empty page is the
end. `commitment` is `confirmed` where none is named. An option of another name is refused: it would be a mistake.
Integers inside `values`, lamports and nanoseconds are decimal strings, because JSON clients lose them above 2**53.
"""

from collections.abc import Callable
from typing import Any

from localnet.census import Census, json_values, tally
from localnet.chain import Chain, Commitment
from localnet.rpc.errors import invalid_params
from localnet.rpc.params import U64_MAX, Config, Params

ROWS_MAX = 10_000
DEFAULT_COMMITMENT: Commitment = "confirmed"


class ControlMethods:
    """
    The methods of one chain, each on the params of a request.

    Args:
        chain: what they tell about.
        stop_traffic: lets no user act any more.
    """

    def __init__(self, chain: Chain, *, stop_traffic: Callable[[], None]) -> None:
        self._chain = chain
        self._census = Census(chain)
        self._stop_traffic = stop_traffic

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "localnet_census": self.census,
            "localnet_transactions": self.transactions,
            "localnet_events": self.events,
            "localnet_accounts": self.accounts,
            "localnet_slotTimes": self.slot_times,
            "localnet_stopTraffic": self.stop_traffic,
        }

    def census(self, given: Any) -> dict[str, Any]:
        """How many transactions name a home program, how many of them failed, and how many events by full name."""
        commitment = read_config(given, "commitment").commitment(DEFAULT_COMMITMENT)
        transactions = self._census.transactions(commitment)
        return {
            "slot": self._chain.block_at(commitment).slot,
            "transactions": len(transactions),
            "failed": sum(executed.err is not None for executed in transactions),
            "events": tally(self._census.events(commitment)),
        }

    def transactions(self, given: Any) -> list[dict[str, Any]]:
        """A page of the transactions that name a home program, in the chain's order; `err` as Solana has it."""
        config = read_config(given, "commitment", "after_index", "limit")
        rows = self._census.transactions(config.commitment(DEFAULT_COMMITMENT))
        return [
            {"index": index, "signature": rows[index].signature_text, "slot": rows[index].slot, "err": rows[index].err}
            for index in rows_of_page(config, len(rows))
        ]

    def events(self, given: Any) -> list[dict[str, Any]]:
        """A page of the home programs' events, in the chain's order."""
        config = read_config(given, "commitment", "after_index", "limit")
        rows = self._census.events(config.commitment(DEFAULT_COMMITMENT))
        return [
            {
                "index": index,
                "signature": rows[index].signature,
                "slot": rows[index].slot,
                "kind": rows[index].kind,
                "ordinal": rows[index].ordinal,
                "program": rows[index].program,
                "name": rows[index].name,
                "values": json_values(rows[index].values),
            }
            for index in rows_of_page(config, len(rows))
        ]

    def accounts(self, given: Any) -> list[dict[str, Any]]:
        """A page of the home programs' accounts as they are now, by address."""
        config = read_config(given, "commitment", "after_index", "limit")
        rows = self._census.accounts(config.commitment(DEFAULT_COMMITMENT))
        return [
            {
                "index": index,
                "address": rows[index].address,
                "lamports": str(rows[index].lamports),
                "program": rows[index].program,
                "name": rows[index].name,
                "values": json_values(rows[index].values),
            }
            for index in rows_of_page(config, len(rows))
        ]

    def slot_times(self, given: Any) -> dict[str, str]:
        """When live slots from `first_slot` to `last_slot` were produced: slot to nanoseconds since 1970."""
        config = read_config(given, "first_slot", "last_slot")
        first, last = config.u64("first_slot"), config.u64("last_slot")
        slots = range(first or 0, U64_MAX if last is None else last + 1)
        return {
            str(block.slot): str(block.produced_ns)
            for block in self._chain.ledger.blocks
            if block.produced_ns is not None and block.slot in slots
        }

    def stop_traffic(self, given: Any) -> int:
        """Let no user act any more; return the open slot, the last one that can hold what they did."""
        read_config(given)
        self._stop_traffic()
        return self._chain.slot


def read_config(given: Any, *known: str) -> Config:
    """Return a request's one optional object, which has no members but those `known`."""
    params = Params(given, required=0, allowed=1)
    config = params.config(0, "LocalnetConfig")
    unknown = sorted(set(params.raw(0) or ()) - set(known))
    if unknown:
        raise invalid_params(f"unknown option {unknown[0]!r}: known are {', '.join(known) or 'none'}")
    return config


def rows_of_page(config: Config, total: int, *, rows_max: int = ROWS_MAX) -> range:
    """Return which of `total` rows a page has, by `after_index` and `limit`."""
    # -1 lets a client name the last of the rows that it has from its first request on.
    after = None if config.raw("after_index") == -1 else config.u64("after_index")
    first = 0 if after is None else after + 1
    limit = config.u64("limit")
    return range(min(first, total), min(total, first + min(rows_max, rows_max if limit is None else limit)))
