"""
Methods about the cluster, its money and its leaders: what explorers and wallets show besides accounts and history.

The cluster is one node that leads every slot, has no stake, no votes and no inflation; the answers say just that.
"""

from collections.abc import Callable
from typing import Any

from localnet.chain import Chain
from localnet.rpc.encoding import key_text, ui_amount
from localnet.rpc.errors import NO_SNAPSHOT, RpcError, invalid_params
from localnet.rpc.params import Params, as_choice, as_pubkey, as_u64
from localnet.rpc.slots import FEATURE_SET
from localnet.rpc.view import SOLANA_VERSION, bank_of
from localnet.vm import SLOTS_PER_EPOCH, TOKEN_PROGRAMS, mint_decimals, token_account

LARGEST_MAX = 20
LEADERS_MAX = 5_000
SAMPLES_MAX = 720
SAMPLE_S = 60
MAX_LOCKOUT_HISTORY = 31


class ClusterMethods:
    """The methods, each on the params of a request."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._identity = str(chain.identity)

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "getBlockCommitment": self.block_commitment,
            "getBlockProduction": self.block_production,
            "getClusterNodes": self.cluster_nodes,
            "getHighestSnapshotSlot": self.highest_snapshot_slot,
            "getInflationGovernor": self.inflation_governor,
            "getInflationRate": self.inflation_rate,
            "getInflationReward": self.inflation_reward,
            "getLargestAccounts": self.largest_accounts,
            "getLeaderSchedule": self.leader_schedule,
            "getMaxRetransmitSlot": self.newest_slot,
            "getMaxShredInsertSlot": self.newest_slot,
            "getRecentPerformanceSamples": self.recent_performance_samples,
            "getSlotLeaders": self.slot_leaders,
            "getStakeMinimumDelegation": self.stake_minimum_delegation,
            "getSupply": self.supply,
            "getTokenLargestAccounts": self.token_largest_accounts,
            "getVoteAccounts": self.vote_accounts,
        }

    def block_commitment(self, given: Any) -> dict[str, Any]:
        """Nobody votes, so a block has no stake behind it."""
        slot = Params(given, required=1, allowed=1).u64(0)
        known = self._chain.ledger.block(slot) is not None and slot > self._chain.block_at("finalized").slot
        return {"commitment": [0] * (MAX_LOCKOUT_HISTORY + 1) if known else None, "totalStake": 0}

    def block_production(self, given: Any) -> dict[str, Any]:
        """How many slots there were, and how many of them have a block."""
        config = Params(given, required=0, allowed=1).config(0, "RpcBlockProductionConfig")
        bank = bank_of(self._chain, config)
        wanted = config.mapping("range")
        epoch_first = bank.block.slot // SLOTS_PER_EPOCH * SLOTS_PER_EPOCH
        first = epoch_first if wanted is None else as_u64(wanted.raw("firstSlot"))
        named = None if wanted is None else wanted.u64("lastSlot")
        last = bank.block.slot if named is None else named
        if last > bank.block.slot or first > last:
            raise invalid_params(f"lastSlot, {last}, is too large; max {bank.block.slot}")
        identity = config.raw("identity")
        mine = identity is None or key_text(as_pubkey(identity)) == self._identity
        counts = [last - first + 1, len(self._chain.ledger.slots(first, last))]
        by_identity = {self._identity: counts} if mine else {}
        return bank.context({"byIdentity": by_identity, "range": {"firstSlot": first, "lastSlot": last}})

    def cluster_nodes(self, given: Any) -> list[dict[str, Any]]:
        """The one node; it has no gossip."""
        Params(given, required=0, allowed=0)
        node = {"pubkey": self._identity, "version": SOLANA_VERSION, "featureSet": FEATURE_SET, "shredVersion": 0}
        return [{**node, "gossip": None, "tpu": None, "rpc": None, "pubsub": None}]

    def highest_snapshot_slot(self, given: Any) -> Any:
        """There are no snapshots."""
        Params(given, required=0, allowed=0)
        raise RpcError(NO_SNAPSHOT, "No snapshot")

    def inflation_governor(self, given: Any) -> dict[str, float]:
        """No inflation."""
        config = Params(given, required=0, allowed=1).config(0, "CommitmentConfig")
        config.commitment()
        return {"foundation": 0.0, "foundationTerm": 0.0, "initial": 0.0, "taper": 1.0, "terminal": 0.0}

    def inflation_rate(self, given: Any) -> dict[str, float | int]:
        """No inflation."""
        Params(given, required=0, allowed=0)
        epoch = self._chain.block_at("finalized").slot // SLOTS_PER_EPOCH
        return {"epoch": epoch, "foundation": 0.0, "total": 0.0, "validator": 0.0}

    def inflation_reward(self, given: Any) -> list[None]:
        """Nobody is rewarded: null for each address."""
        params = Params(given, required=1, allowed=2)
        addresses = [as_pubkey(text) for text in params.list_of(0, at_most=1_000)]
        params.config(1, "RpcEpochConfig").commitment()
        return [None for _ in addresses]

    def largest_accounts(self, given: Any) -> dict[str, Any]:
        """The accounts with the most lamports, of those that were ever written."""
        config = Params(given, required=0, allowed=1).config(0, "RpcLargestAccountsConfig")
        choice = config.raw("filter")
        if choice is not None:
            choice = as_choice(choice, ("circulating", "nonCirculating"))
        bank = bank_of(self._chain, config)
        if choice == "nonCirculating":
            return bank.context([])
        every = ((state.lamports, address) for address, state in self._chain.all_accounts(bank.commitment))
        largest = sorted(every, key=lambda row: (-row[0], row[1]))[:LARGEST_MAX]
        return bank.context([{"address": key_text(address), "lamports": lamports} for lamports, address in largest])

    def leader_schedule(self, given: Any) -> dict[str, list[int]] | None:
        """Who leads which slots of an epoch: one node all of them. Another epoch than the present one: null."""
        params = Params(given, required=0, allowed=2)
        early_config = isinstance(params.raw(0), dict)
        config = params.config(0 if early_config else 1, "RpcLeaderScheduleConfig")
        slot = None if early_config or params.raw(0) is None else as_u64(params.raw(0))
        bank = bank_of(self._chain, config)
        epoch = bank.block.slot // SLOTS_PER_EPOCH
        if (bank.block.slot if slot is None else slot) // SLOTS_PER_EPOCH != epoch:
            return None
        identity = config.raw("identity")
        if identity is not None and key_text(as_pubkey(identity)) != self._identity:
            return {}
        return {self._identity: list(range(SLOTS_PER_EPOCH))}

    def newest_slot(self, given: Any) -> int:
        """The newest slot: nothing is on its way to anybody."""
        Params(given, required=0, allowed=0)
        return self._chain.block_at("processed").slot

    def recent_performance_samples(self, given: Any) -> list[dict[str, int]]:
        """Slots and transactions of each whole minute of the chain's clock, newest first."""
        params = Params(given, required=0, allowed=1)
        limit = SAMPLES_MAX if params.raw(0) is None else params.u64(0)
        if limit > SAMPLES_MAX:
            raise invalid_params(f"Invalid limit; max {SAMPLES_MAX}")
        samples: list[dict[str, int]] = []
        upper = self._chain.block_at("finalized")
        for block in reversed(self._chain.ledger.blocks[: upper.height]):
            if len(samples) >= limit:
                break
            if upper.unix_time - block.unix_time < SAMPLE_S:
                continue
            transactions = upper.transactions_total - block.transactions_total
            samples.append(
                {
                    "numNonVoteTransactions": transactions,
                    "numSlots": upper.height - block.height,
                    "numTransactions": transactions,
                    "samplePeriodSecs": upper.unix_time - block.unix_time,
                    "slot": upper.slot,
                }
            )
            upper = block
        return samples

    def slot_leaders(self, given: Any) -> list[str]:
        """There is one leader."""
        params = Params(given, required=2, allowed=2)
        params.u64(0)
        limit = params.u64(1)
        if limit > LEADERS_MAX:
            raise invalid_params(f"Invalid limit; max {LEADERS_MAX}")
        return [self._identity] * limit

    def stake_minimum_delegation(self, given: Any) -> dict[str, Any]:
        """One lamport, as on a cluster without the feature that raises it."""
        config = Params(given, required=0, allowed=1).config(0, "RpcContextConfig")
        return bank_of(self._chain, config).context(1)

    def supply(self, given: Any) -> dict[str, Any]:
        """All lamports of all accounts that were ever written, the faucet's among them; all of it circulates."""
        config = Params(given, required=0, allowed=1).config(0, "RpcSupplyConfig")
        config.flag("excludeNonCirculatingAccountsList")
        bank = bank_of(self._chain, config)
        total = sum(state.lamports for _, state in self._chain.all_accounts(bank.commitment))
        value = {"circulating": total, "nonCirculating": 0, "nonCirculatingAccounts": [], "total": total}
        return bank.context(value)

    def token_largest_accounts(self, given: Any) -> dict[str, Any]:
        """Who holds the most of a token."""
        params = Params(given, required=1, allowed=2)
        mint = params.pubkey(0)
        bank = bank_of(self._chain, params.config(1, "CommitmentConfig"))
        state = self._chain.account_at(mint, bank.commitment)
        decimals = mint_decimals(state)
        if state is None or decimals is None or state.owner not in TOKEN_PROGRAMS:
            raise invalid_params("Invalid param: not a Token mint")
        held = []
        for address, holding in self._chain.accounts_of(state.owner, bank.commitment):
            account = token_account(holding)
            if account is not None and account[0] == mint:
                held.append((account[2], address))
        largest = sorted(held, key=lambda row: (-row[0], row[1]))[:LARGEST_MAX]
        return bank.context(
            [{"address": key_text(address), **ui_amount(amount, decimals)} for amount, address in largest]
        )

    def vote_accounts(self, given: Any) -> dict[str, list[Any]]:
        """Nobody votes."""
        config = Params(given, required=0, allowed=1).config(0, "RpcGetVoteAccountsConfig")
        config.commitment()
        return {"current": [], "delinquent": []}
