"""Each fault as a client meets it, over real sockets: on request only, by a seed, and counted."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from localnet.chain import Chain
from localnet.rpc.faults import Faults
from localnet.steering import SteeringMethods
from tests.fixtures.chain import LocalnetThread, build_chain

SOL = 10**9
WIRED = {"jsonrpc": "2.0", "id": 1}


class Rig:
    """A chain that stands still, its ports, and the faults that its own control method sets."""

    def __init__(self, start: Callable[..., LocalnetThread]) -> None:
        self.chain = build_chain()
        faults = Faults()
        steering = SteeringMethods(self.chain, faults, slot_ms=400)
        self.localnet = start(self.chain, slot_ms=3_600_000, extra_methods=steering.methods(), faults=faults)
        self.http = httpx.Client(base_url=self.localnet.rpc_url, timeout=20)

    def post(self, method: str, *params: Any, timeout: float = 20) -> httpx.Response:
        """Return what HTTP says to a request."""
        return self.http.post("/", json={**WIRED, "method": method, "params": list(params)}, timeout=timeout)

    def call(self, method: str, *params: Any) -> Any:
        """Return a result."""
        answer = self.post(method, *params).raise_for_status().json()
        assert "error" not in answer, answer
        return answer["result"]

    def set(self, **faults: Any) -> Any:
        """Set what goes wrong."""
        return self.call("localnet_faults", faults)

    def counts(self) -> dict[str, int]:
        """Return how often each fault has happened."""
        counts: dict[str, int] = self.call("localnet_faults")["counts"]
        return counts

    def step(self, blocks: int = 1) -> None:
        """Produce blocks."""

        def produce() -> None:
            for _ in range(blocks):
                self.chain.open_slot(self.chain.slot + 1, self.chain.unix_time)

        self.localnet.call(produce)


@pytest.fixture
def rig(start_localnet: Callable[..., LocalnetThread]) -> Any:
    rig = Rig(start_localnet)
    yield rig
    rig.http.close()


def test_nothing_goes_wrong_unless_asked(rig: Rig) -> None:
    """No faults at first, none after an empty object, and what is in force can be read."""
    assert all(rig.post("getSlot").status_code == 200 for _ in range(50))
    told = rig.set(http_5xx=1.0, seed=4)
    assert (told["settings"]["http_5xx"], told["settings"]["seed"]) == (1.0, 4)
    assert rig.post("getSlot").status_code in (500, 502, 503)
    assert rig.counts() == {"http_5xx": 1}
    assert rig.set()["settings"]["http_5xx"] == 0.0
    assert all(rig.post("getSlot").status_code == 200 for _ in range(50))
    assert rig.counts() == {}


def test_too_many_requests(rig: Rig) -> None:
    """429 with Retry-After, for about the share that was asked for, and the same ones for the same seed."""

    def statuses() -> list[int]:
        rig.set(http_429=0.3, retry_after_s=7, seed=5)
        return [rig.post("getSlot").status_code for _ in range(60)]

    first = statuses()
    assert 8 < first.count(429) < 32
    assert set(first) == {200, 429}
    assert statuses() == first
    rig.set(http_429=1.0, retry_after_s=7)
    assert rig.post("getSlot").headers["retry-after"] == "7"


def test_a_server_that_fails(rig: Rig) -> None:
    """500, 502 and 503 without JSON, and nothing was done."""
    rig.set(http_5xx=1.0)
    answers = [rig.post("requestAirdrop", str(Keypair().pubkey()), SOL) for _ in range(30)]
    assert {answer.status_code for answer in answers} == {500, 502, 503}
    rig.set()
    rig.step()
    assert rig.call("getTransactionCount", {"commitment": "processed"}) == 0


def test_time_outs(rig: Rig) -> None:
    """The client gives up, or hears 504 at last; what it asked for was done."""
    target = Keypair().pubkey()
    rig.set(http_timeout=1.0, timeout_s=30)
    with pytest.raises(httpx.ReadTimeout):
        rig.post("requestAirdrop", str(target), SOL, timeout=0.3)
    rig.set(http_timeout=1.0, timeout_s=0.05)
    assert rig.post("getSlot").status_code == 504
    rig.set()
    rig.step()
    assert rig.call("getBalance", str(target), {"commitment": "processed"})["value"] == SOL


def test_bodies_cut_short(rig: Rig) -> None:
    """Some break off before the promised length, others are whole for HTTP and not for JSON."""
    rig.set(http_cut=1.0)
    kinds = []
    for _ in range(20):
        try:
            answer = rig.post("getVersion")
        except httpx.RemoteProtocolError:
            kinds.append("length")
            continue
        assert answer.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            answer.json()
        kinds.append("json")
    assert set(kinds) == {"length", "json"}
    rig.set()
    assert rig.call("getHealth") == "ok"


def test_transactions_that_come_late(rig: Rig) -> None:
    """Null for the first asks for each signature, then the transaction for good."""
    sent = [rig.localnet.call(lambda: rig.chain.airdrop(Pubkey.new_unique(), SOL)).signature_text for _ in range(2)]
    rig.step(3)
    rig.set(transaction_null_asks=2)
    config = {"commitment": "confirmed"}
    for signature in sent:
        answers = [rig.call("getTransaction", signature, config) for _ in range(4)]
        assert [answer is None for answer in answers] == [True, True, False, False]
    assert rig.counts() == {"transaction_null_asks": 4}


def test_blocks_that_are_not_available(rig: Rig) -> None:
    """-32004 with its words for a block that is there, now and then."""
    rig.step(5)
    rig.set(block_unavailable=0.5, seed=2)
    config = {"commitment": "confirmed"}
    answers = [rig.post("getBlock", 2, config).json() for _ in range(40)]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert 8 < len(refused) < 32
    assert all(error == {"code": -32004, "message": "Block not available for slot 2"} for error in refused)
    rig.set(block_unavailable=1.0)
    assert rig.post("getBlockTime", 2).json()["error"]["code"] == -32004


async def test_logs_are_cut_for_good_and_everywhere(rig: Rig) -> None:
    """PubSub and getTransaction agree, also after the fault is over; `Log truncated` and then what is short enough."""
    rig.set(logs_cut=1.0, logs_bytes_max=150)
    async with connect(rig.localnet.ws_url) as socket:
        await socket.send(
            json.dumps({**WIRED, "method": "logsSubscribe", "params": ["all", {"commitment": "processed"}]})
        )
        await socket.recv()
        sent = rig.localnet.call(lambda: rig.chain.airdrop(Pubkey.new_unique(), SOL))
        rig.set()
        await asyncio.to_thread(rig.step, 3)
        logs = json.loads(await socket.recv())["params"]["result"]["value"]["logs"]
    assert logs == [
        "Program ComputeBudget111111111111111111111111111111 invoke [1]",
        "Program ComputeBudget111111111111111111111111111111 success",
        "Log truncated",
    ]
    body = rig.call("getTransaction", sent.signature_text, {"commitment": "confirmed"})
    assert body["meta"]["logMessages"] == logs
    assert len(sent.logs) == 4, "the chain itself knows better"


async def slot_socket(socket: ClientConnection) -> None:
    await socket.send(json.dumps({**WIRED, "method": "slotSubscribe"}))
    await socket.recv()


async def slots_heard(rig: Rig, socket: ClientConnection, blocks: int, *, wait_s: float = 0.4) -> list[int]:
    """Produce blocks, and return the slots that a subscriber is told of before it gets quiet."""
    await asyncio.to_thread(rig.step, blocks)
    heard = []
    try:
        while True:
            async with asyncio.timeout(wait_s):
                heard.append(json.loads(await socket.recv())["params"]["result"]["slot"])
    except TimeoutError:
        return heard


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"notification_drop": 0.4}, lambda heard: heard == sorted(set(heard)) and 5 < len(heard) < 35),
        ({"notification_repeat": 0.4}, lambda heard: len(set(heard)) == 40 < len(heard) and heard == sorted(heard)),
        ({"notification_reorder": 0.3}, lambda heard: heard != sorted(heard) and len(set(heard)) == len(heard) == 40),
        (
            {"notification_delay": 0.3, "notification_delay_ms": 80},
            lambda heard: heard != sorted(heard) and sorted(heard) == list(range(1, 41)),
        ),
    ],
    ids=["dropped", "repeated", "reordered", "delayed"],
)
async def test_notifications_go_astray(
    start_localnet: Callable[..., LocalnetThread], faults: dict[str, Any], expected: Callable[[list[int]], bool]
) -> None:
    """Dropped, repeated, out of order or late, and the same ones on another chain with the same seed."""
    runs = []
    for _ in range(2):
        rig = Rig(start_localnet)
        rig.set(seed=3, **faults)
        async with connect(rig.localnet.ws_url) as socket:
            await slot_socket(socket)
            runs.append(await slots_heard(rig, socket, 40))
        rig.http.close()
    assert expected(runs[0]), runs[0]
    assert runs[0] == runs[1]


async def test_clients_fare_apart(rig: Rig) -> None:
    """What one misses another hears; once the faults are over both hear all."""
    rig.set(notification_drop=0.5, seed=1)
    async with connect(rig.localnet.ws_url) as first, connect(rig.localnet.ws_url) as second:
        for socket in (first, second):
            await slot_socket(socket)
        one = await slots_heard(rig, first, 30)
        two = await slots_heard(rig, second, 0)
        assert one != two
        rig.set()
        assert await slots_heard(rig, first, 5) == await slots_heard(rig, second, 0) == list(range(31, 36))


async def test_a_socket_that_is_closed(rig: Rig) -> None:
    """The client sees it and can come back."""
    rig.set(socket_close=1.0)
    async with connect(rig.localnet.ws_url) as socket:
        await slot_socket(socket)
        await asyncio.to_thread(rig.step)
        with pytest.raises((ConnectionClosedOK, ConnectionClosedError)):
            async with asyncio.timeout(10):
                await socket.recv()
    rig.set()
    async with connect(rig.localnet.ws_url) as socket:
        await slot_socket(socket)
        assert await slots_heard(rig, socket, 2) == [2, 3]


async def test_a_socket_that_falls_silent(rig: Rig) -> None:
    """Open, answering pings, and dead: no notification and no reply, also after the faults are over."""
    rig.set(socket_silent=1.0)
    async with connect(rig.localnet.ws_url) as socket:
        await slot_socket(socket)
        assert await slots_heard(rig, socket, 2) == []
        rig.set()
        await socket.send(json.dumps({**WIRED, "method": "rootSubscribe"}))
        assert await slots_heard(rig, socket, 2) == []
        async with asyncio.timeout(10):
            await (await socket.ping())
        async with connect(rig.localnet.ws_url) as other:
            await slot_socket(other)
            assert await slots_heard(rig, other, 1) == [5]


async def test_subscribers_live_through_a_fork(rig: Rig) -> None:
    """A signature that was told is told again from its new slot, or never; slots come anew and roots do not."""
    rig.step(20)
    async with connect(rig.localnet.ws_url) as socket:
        for method in ("slotSubscribe", "rootSubscribe"):
            await socket.send(json.dumps({**WIRED, "method": method}))
            await socket.recv()
        await asyncio.to_thread(rig.step, 20)
        forked = await asyncio.to_thread(rig.call, "localnet_fork", {"blocks": 4, "seed": 1, "skipped": 0.7})
        await asyncio.to_thread(rig.step, 20)
        slots: list[dict[str, int]] = []
        roots: list[int] = []
        try:
            while True:
                async with asyncio.timeout(0.5):
                    told = json.loads(await socket.recv())
                if told["method"] == "rootNotification":
                    roots.append(told["params"]["result"])
                else:
                    slots.append(told["params"]["result"])
        except TimeoutError:
            pass
    numbers = [slot["slot"] for slot in slots]
    assert all(numbers.count(slot) == 2 for slot in forked["rewritten"])
    assert set(forked["dropped"]) > set(forked["rewritten"])
    assert roots == sorted(set(roots))
    assert not set(roots) & (set(forked["dropped"]) - set(forked["rewritten"]))
    assert all(slot["root"] <= slot["slot"] for slot in slots)


def test_faults_that_cannot_be_are_refused(rig: Rig) -> None:
    """-32602 that names the member; what was in force stays."""
    rig.set(transaction_null_asks=3)
    for given, named in (
        ({"http_429": 1.5}, "http_429"),
        ({"http_429": "often"}, "http_429"),
        ({"transaction_null_asks": -1}, "transaction_null_asks"),
        ({"htpp_429": 0.5}, "htpp_429"),
        ([], "one object"),
    ):
        error = rig.post("localnet_faults", given).json()["error"]
        assert error["code"] == -32602
        assert named in error["message"]
    assert rig.call("localnet_faults")["settings"]["transaction_null_asks"] == 3


def test_faults_reach_only_the_server_that_was_given_them() -> None:
    """A chain without a server knows none."""
    chain = Chain(seed=1, start_time=5)
    assert chain.airdrop(Keypair().pubkey(), SOL).log_bytes_max is None
