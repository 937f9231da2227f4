"""What explorers ask about the cluster: one node without stake, votes or inflation, and honest sums."""

import json
import struct
from typing import Any

import pytest
from solders.keypair import Keypair

from localnet.accounts import AccountState
from localnet.rpc import Dispatcher
from localnet.vm import SYSTEM_PROGRAM, TOKEN_PROGRAM
from tests.fixtures.chain import START_TIME, build_chain

SOL = 10**9


class Explorer:
    """A chain of two hundred blocks, one a second, every tenth slot skipped, and its methods."""

    def __init__(self) -> None:
        self.chain = build_chain()
        for number in range(1, 201):
            if number % 50 == 0:
                self.chain.airdrop(Keypair().pubkey(), SOL + number)
            self.chain.open_slot(self.chain.slot + (2 if number % 10 == 0 else 1), START_TIME + number)
        self.dispatcher = Dispatcher(self.chain)

    async def answer(self, method: str, *params: Any) -> dict[str, Any]:
        """Return a whole answer."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer: dict[str, Any] = json.loads(await self.dispatcher.answer(json.dumps(request).encode()))
        return answer

    async def call(self, method: str, *params: Any) -> Any:
        """Return a result."""
        answer = await self.answer(method, *params)
        assert "error" not in answer, answer
        return answer["result"]


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer()


async def test_one_node_leads_every_slot(explorer: Explorer) -> None:
    """Nodes, leaders, schedule and production name the same identity."""
    identity = (await explorer.call("getIdentity"))["identity"]
    assert [node["pubkey"] for node in await explorer.call("getClusterNodes")] == [identity]
    assert await explorer.call("getSlotLeaders", 5, 3) == [identity] * 3
    assert list(await explorer.call("getLeaderSchedule")) == [identity]
    assert await explorer.call("getLeaderSchedule", 10**7) is None
    assert await explorer.call("getLeaderSchedule", None, {"identity": "1" * 32}) == {}
    assert await explorer.call("getVoteAccounts") == {"current": [], "delinquent": []}
    production = (await explorer.call("getBlockProduction", {"range": {"firstSlot": 1, "lastSlot": 110}}))["value"]
    assert production["byIdentity"] == {identity: [110, len(explorer.chain.ledger.slots(1, 110))]}
    assert len(explorer.chain.ledger.slots(1, 110)) < 110


async def test_money_adds_up(explorer: Explorer) -> None:
    """The supply is the sum of all accounts, the largest come first, nothing is inflated."""
    value = (await explorer.call("getSupply", {"commitment": "processed"}))["value"]
    states = [state for _, state in explorer.chain.all_accounts("processed")]
    assert value["total"] == sum(state.lamports for state in states) == value["circulating"]
    largest = (await explorer.call("getLargestAccounts", {"commitment": "processed"}))["value"]
    amounts = [row["lamports"] for row in largest]
    assert amounts == sorted((state.lamports for state in states), reverse=True)[: len(amounts)]
    assert (await explorer.call("getLargestAccounts", {"filter": "nonCirculating"}))["value"] == []
    assert (await explorer.call("getInflationRate"))["total"] == 0
    assert (await explorer.call("getInflationGovernor"))["initial"] == 0
    assert await explorer.call("getInflationReward", ["1" * 32, "1" * 32]) == [None, None]


async def test_who_holds_most_of_a_token(explorer: Explorer) -> None:
    """By amount, with the mint's decimals; of another account than a mint it is refused."""
    chain = explorer.chain
    mint, holders = Keypair().pubkey(), [Keypair().pubkey() for _ in range(25)]
    mint_data = bytes(36) + struct.pack("<QBB", 5_000_000, 6, 1) + bytes(36)
    chain.set_account(mint, AccountState(SOL, mint_data, TOKEN_PROGRAM))
    for number, holder in enumerate(holders, start=1):
        data = bytes(mint) + bytes(SYSTEM_PROGRAM) + struct.pack("<Q", number * 10) + bytes(36) + b"\1" + bytes(56)
        chain.set_account(holder, AccountState(SOL, data, TOKEN_PROGRAM))
    chain.open_slot(chain.slot + 1, chain.unix_time)
    config = {"commitment": "processed"}
    rows = (await explorer.call("getTokenLargestAccounts", str(mint), config))["value"]
    assert [row["amount"] for row in rows] == [str(10 * number) for number in range(25, 5, -1)]
    assert rows[0]["address"] == str(holders[-1])
    assert rows[0]["uiAmountString"] == "0.00025"
    error = (await explorer.answer("getTokenLargestAccounts", str(holders[0]), config))["error"]
    assert error == {"code": -32602, "message": "Invalid param: not a Token mint"}


async def test_samples_are_minutes_of_the_chain(explorer: Explorer) -> None:
    """Newest first, blocks and transactions of each, none of them overlapping."""
    samples = await explorer.call("getRecentPerformanceSamples", 5)
    assert [sample["samplePeriodSecs"] for sample in samples] == [60, 60]
    assert [sample["numSlots"] for sample in samples] == [60, 60]
    assert [sample["numTransactions"] for sample in samples] == [1, 2]
    assert samples[0]["slot"] > samples[1]["slot"]
    assert await explorer.call("getRecentPerformanceSamples", 0) == []
    assert "max 720" in (await explorer.answer("getRecentPerformanceSamples", 721))["error"]["message"]


async def test_the_rest_of_what_is_asked(explorer: Explorer) -> None:
    """No snapshots, no stake, no shreds on their way."""
    assert (await explorer.answer("getHighestSnapshotSlot"))["error"] == {"code": -32008, "message": "No snapshot"}
    newest = explorer.chain.block_at("processed").slot
    assert await explorer.call("getMaxRetransmitSlot") == await explorer.call("getMaxShredInsertSlot") == newest
    assert (await explorer.call("getStakeMinimumDelegation"))["value"] == 1
    assert await explorer.call("getBlockCommitment", 1) == {"commitment": None, "totalStake": 0}
    assert len((await explorer.call("getBlockCommitment", newest))["commitment"]) == 32
