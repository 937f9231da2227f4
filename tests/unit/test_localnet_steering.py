"""The methods that change a chain: what each does, what it refuses, and that a refusal changes nothing."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.accounts import AccountState, rent_exempt_minimum
from localnet.oracle import RECEIVER_PROGRAM_ID, find_price_account, read_price_update
from localnet.rpc import Dispatcher
from localnet.rpc.faults import Faults
from localnet.steering import SteeringMethods
from localnet.vm import CLOCK_SYSVAR
from tests.fixtures.chain import START_TIME, build_chain

SOL = 10**9
SOMEBODY = str(Keypair.from_seed(bytes(32)).pubkey())
FEED = "0x" + "e6" * 32


class Helm:
    """A chain, its methods over JSON-RPC, and how often a slot was opened for its users."""

    def __init__(self) -> None:
        self.chain = build_chain()
        self.opened = 0
        steering = SteeringMethods(self.chain, Faults(), slot_ms=400, on_slot=self._count)
        self.dispatcher = Dispatcher(self.chain, steering.methods())

    def _count(self) -> None:
        self.opened += 1

    async def answer(self, method: str, *params: Any) -> dict[str, Any]:
        """Return a whole answer."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer: dict[str, Any] = json.loads(await self.dispatcher.answer(json.dumps(request).encode()))
        return answer

    async def call(self, method: str, **config: Any) -> Any:
        """Return the result of a `localnet_` method."""
        answer = await self.answer(f"localnet_{method}", config)
        assert "error" not in answer, answer
        return answer["result"]

    async def refusal(self, method: str, **config: Any) -> str:
        """Return why a `localnet_` method refuses."""
        answer = await self.answer(f"localnet_{method}", config)
        assert answer["error"]["code"] == -32602, answer
        message: str = answer["error"]["message"]
        return message


@pytest.fixture
def helm() -> Helm:
    return Helm()


async def test_the_clock_is_set_forward(helm: Helm) -> None:
    """In a slot of its own, as programs see it; the block before keeps its time, and backwards it does not go."""
    later = START_TIME + 86_400
    assert await helm.call("setClock", unix_time=later) == {"slot": 2, "unix_time": later}
    clock = helm.chain.account_at(CLOCK_SYSVAR)
    assert clock is not None
    assert int.from_bytes(clock.data[32:40], "little") == later
    assert helm.chain.ledger.blocks[-1].unix_time == START_TIME
    assert helm.opened == 1
    assert "clocks only go on" in await helm.refusal("setClock", unix_time=later - 1)
    assert "expected u64" in await helm.refusal("setClock")
    assert helm.chain.slot == 2


async def test_a_warp_skips_slots_and_takes_the_clock_along(helm: Helm) -> None:
    """So many slots' time, or the time that is named."""
    assert await helm.call("warpSlot", slot=1_001) == {"slot": 1_001, "unix_time": START_TIME + 400}
    assert await helm.call("warpSlot", slot=1_002, unix_time=START_TIME + 9_000) == {
        "slot": 1_002,
        "unix_time": START_TIME + 9_000,
    }
    assert [block.slot for block in helm.chain.ledger.blocks] == [0, 1, 1_001]
    assert "slots only go up" in await helm.refusal("warpSlot", slot=1_002)
    assert "slots only go up" in await helm.refusal("warpSlot", slot=2**64 - 1)


async def test_skipped_slots_have_no_block(helm: Helm) -> None:
    """The next block's parent proves it; no time passes."""
    assert await helm.call("skipSlots", count=3) == {"slot": 5, "unix_time": START_TIME}
    helm.chain.open_slot(6, START_TIME)
    assert helm.chain.ledger.slots(0, 10) == [0, 1, 5]
    assert helm.chain.ledger.blocks[-1].parent_slot == 1
    for count in (0, -1, "3", 2**60):
        assert await helm.refusal("skipSlots", count=count)


async def test_accounts_are_set_and_removed(helm: Helm) -> None:
    """Any owner, data and lamports; without lamports what rent asks for; with none it is gone."""
    owner = str(Keypair().pubkey())
    data = base64.b64encode(b"abc").decode()
    address = Pubkey.from_string(SOMEBODY)
    await helm.call("setAccount", address=SOMEBODY, data=data, owner=owner)
    expected = AccountState(rent_exempt_minimum(3), b"abc", bytes(Pubkey.from_string(owner)))
    assert helm.chain.account_at(address) == expected
    await helm.call("setAccount", address=SOMEBODY, data=[data, "base64"], owner=owner, lamports=5)
    assert helm.chain.account_at(address) == expected._replace(lamports=5)
    await helm.call("setAccount", address=SOMEBODY, lamports=0)
    assert helm.chain.account_at(address) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "expected a string"),
        ({"address": "xyz"}, "WrongSize"),
        ({"address": SOMEBODY, "lamports": -1}, "expected u64"),
        ({"address": SOMEBODY, "data": "*"}, "not base64"),
        ({"address": SOMEBODY, "owner": 5}, "expected a string"),
        ({"address": SOMEBODY, "executable": "yes"}, "expected a boolean"),
        ({"address": SOMEBODY, "rent": 1}, "unknown option 'rent'"),
        ({"address": "SysvarC1ock11111111111111111111111111111111", "data": "AAAA"}, "the VM does not accept"),
    ],
)
async def test_accounts_that_cannot_be_are_refused(helm: Helm, config: dict[str, Any], message: str) -> None:
    """With the reason, and without a trace."""
    before = dict(helm.chain.all_accounts())
    assert message in await helm.refusal("setAccount", **config)
    assert dict(helm.chain.all_accounts()) == before


async def test_a_price_is_what_the_oracles_account_says(helm: Helm) -> None:
    """At Pyth's own address for the feed; what is not named stays from the price before."""
    answer = await helm.call("setPrice", feed_id=FEED, price=6_500_000_000_000, conf=1_000, exponent=-8)
    address = find_price_account(bytes.fromhex(FEED[2:]))
    assert answer == {"address": str(address), "slot": 1}
    await helm.call("setClock", unix_time=START_TIME + 60)
    await helm.call("setPrice", feed_id=FEED[2:], price=-5)
    state = helm.chain.account_at(address)
    assert state is not None
    assert state.owner == bytes(RECEIVER_PROGRAM_ID)
    update = read_price_update(state.data)
    assert update is not None
    assert (update.price, update.conf, update.exponent) == (-5, 1_000, -8)
    assert (update.publish_time, update.prev_publish_time) == (START_TIME + 60, START_TIME)
    assert (update.posted_slot, update.ema_price) == (2, 6_500_000_000_000)
    for config in (
        {"feed_id": "e6", "price": 1},
        {"feed_id": FEED, "price": 2**63},
        {"feed_id": FEED, "price": 1.5},
        {"feed_id": FEED},
        {"feed_id": FEED, "price": 1, "shard": 65_536},
        {"price": 1},
    ):
        assert await helm.refusal("setPrice", **config)


async def test_a_fork_over_json(helm: Helm) -> None:
    """What went is told by slot and signature; rates and seed are the caller's; too much is refused."""
    for _ in range(6):
        helm.chain.open_slot(helm.chain.slot + 1, START_TIME)
    sent = helm.chain.airdrop(Pubkey.from_string(SOMEBODY), SOL)
    helm.chain.open_slot(helm.chain.slot + 1, START_TIME)
    # Signed with a hash of a block that goes with it.
    forked = await helm.call("fork", blocks=2, seed=5, lost=0, moved=0, skipped=0)
    assert forked == {"dropped": [5, 6, 7], "rewritten": [5, 6, 7], "lost": [sent.signature_text], "moved": []}
    assert helm.chain.account_at(Pubkey.from_string(SOMEBODY)) is None
    assert "are confirmed and not final" in await helm.refusal("fork", blocks=100)
    assert "not a rate" in await helm.refusal("fork", blocks=1, lost=2)
    assert "together more than 1" in await helm.refusal("fork", blocks=1, lost=0.6, moved=0.6)
    assert "expected u64" in await helm.refusal("fork")


async def test_a_dump_is_the_ledger_in_getTransaction_bodies(helm: Helm, tmp_path: Path) -> None:  # noqa: N802  # the method's name
    """Page by page or as one file, the same bodies that getTransaction answers, in the chain's order."""
    for number in range(5):
        helm.chain.airdrop(Keypair().pubkey(), SOL + number)
        helm.chain.open_slot(helm.chain.slot + 1, START_TIME)
    first = await helm.call("dump", commitment="confirmed", limit=3)
    rest = await helm.call("dump", commitment="confirmed", after_index=2)
    rows = [*first, *rest]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    path = tmp_path / "ledger.ndjson"
    told = await helm.call("dump", commitment="processed", path=str(path))
    lines = path.read_bytes().splitlines()
    assert (told["transactions"], told["bytes"], len(lines)) == (5, path.stat().st_size, 5)
    bodies = [json.loads(line) for line in lines]
    assert bodies[:4] == [row["body"] for row in rows]
    for body in bodies[:4]:
        options = {"commitment": "confirmed", "maxSupportedTransactionVersion": 1}
        answer = await helm.answer("getTransaction", body["transaction"]["signatures"][0], options)
        assert answer["result"] == body


async def test_a_dump_never_overwrites_a_file(helm: Helm, tmp_path: Path) -> None:
    """Nor goes to a relative path, nor into a folder that is not there."""
    path = tmp_path / "kept"
    path.write_text("dear")
    assert "File exists" in await helm.refusal("dump", path=str(path))
    assert path.read_text() == "dear"
    assert "not absolute" in await helm.refusal("dump", path="ledger.ndjson")
    assert "No such file" in await helm.refusal("dump", path=str(tmp_path / "no" / "file"))
    assert "leave limit" in await helm.refusal("dump", path=str(tmp_path / "new"), limit=3)
