"""Several endpoints as one: a failing or lagging one is set aside, another chain's is refused, and rates are kept."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stamina

from indexer.errors import RetryableError, SettingsError
from indexer.sources.endpoints import ASIDE_S, COMPARE_S, DISTRUSTED_S, Endpoints
from indexer.sources.rate import TokenBucket
from indexer.sources.rpc import Rpc

URLS = ["http://user:hunter2@first.example/KEY1", "http://second.example/KEY2"]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


class Nodes:
    """Two nodes whose answers a test decides; `clock` stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slots = {"first.example": 1_000, "second.example": 1_000}
        self.genesis = {"first.example": "G", "second.example": "G"}
        self.status = {"first.example": 200, "second.example": 200}
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        body = json.loads(request.content)
        calls = body if isinstance(body, list) else [body]
        self.asked += [(host, call["method"]) for call in calls]
        if self.status[host] != 200:
            return httpx.Response(self.status[host])
        answers = {"getGenesisHash": self.genesis[host], "getSlot": self.slots[host], "who": host}
        replies = [{"id": call["id"], "result": answers[call["method"]]} for call in calls]
        return httpx.Response(200, json=replies if isinstance(body, list) else replies[0])

    def endpoints(self, **options: Any) -> Endpoints:
        return Endpoints(URLS, transport=httpx.MockTransport(self), clock=lambda: self.now, **options)


async def test_a_failing_endpoint_is_left_for_the_next_and_asked_again_later() -> None:
    """The caller sees only the answer; after a while the preferred one is preferred again."""
    nodes = Nodes()
    async with nodes.endpoints() as rpc:
        assert await rpc.check() == "G"
        assert await rpc.call("who") == "first.example"
        nodes.status["first.example"] = 503
        assert await rpc.call("who") == "second.example"
        nodes.asked.clear()
        assert await rpc.call("who") == "second.example"
        assert ("first.example", "who") not in nodes.asked
        nodes.status["first.example"] = 200
        nodes.now += ASIDE_S + 1
        assert await rpc.call("who") == "first.example"


async def test_when_none_answers_all_reasons_are_told_without_keys() -> None:
    """One sentence with every endpoint in it, and no secret."""
    nodes = Nodes()
    async with nodes.endpoints() as rpc:
        await rpc.check()
        nodes.status = dict.fromkeys(nodes.status, 503)
        with pytest.raises(RetryableError, match="no endpoint answers") as caught:
            await rpc.batch([("who", [])])
    assert "first.example" in str(caught.value)
    assert "second.example" in str(caught.value)
    assert not any(secret in str(caught.value) + rpc.shown_url for secret in ("KEY", "hunter2"))


async def test_a_key_that_ran_out_is_no_reason_to_stop() -> None:
    """HTTP 401 of one endpoint is passed over while another answers."""
    nodes = Nodes()
    async with nodes.endpoints() as rpc:
        await rpc.check()
        nodes.status["first.example"] = 401
        assert await rpc.call("who") == "second.example"


async def test_endpoints_of_two_chains_are_refused() -> None:
    """Rows of two chains in one database would be a lie."""
    nodes = Nodes()
    nodes.genesis["second.example"] = "H"
    async with nodes.endpoints() as rpc:
        with pytest.raises(SettingsError, match="different chains"):
            await rpc.check()


async def test_one_that_was_away_at_the_start_says_its_chain_before_it_is_used() -> None:
    """It joins once it answers, unless it is of another chain."""
    nodes = Nodes()
    nodes.status["second.example"] = 503
    async with nodes.endpoints() as rpc:
        await rpc.check()
        nodes.status = {"first.example": 503, "second.example": 200}
        nodes.genesis["second.example"] = "H"
        nodes.now += ASIDE_S + COMPARE_S + 1
        with pytest.raises(RetryableError):
            await rpc.call("who")
        await rpc._compare()
        with pytest.raises(RetryableError):
            await rpc.call("who")
        nodes.genesis["second.example"] = "G"
        await rpc._compare()
        assert await rpc.call("who") == "second.example"


async def test_one_that_lags_is_set_aside_until_it_has_caught_up() -> None:
    """Its answers would be about the past."""
    nodes = Nodes()
    nodes.slots["first.example"] = 1_000 - 151
    async with nodes.endpoints() as rpc:
        await rpc.check()
        assert await rpc.call("who") == "second.example"
        nodes.slots["first.example"] = 1_000
        await rpc._compare()
        assert await rpc.call("who") == "first.example"


async def test_what_is_pinned_is_answered_by_one_node_or_not_at_all() -> None:
    """A listing and the status that confirms a drop must not be of two nodes; the next pin is another node."""
    nodes = Nodes()
    async with nodes.endpoints() as rpc:
        await rpc.check()
        pinned = rpc.pinned()
        assert await pinned.call("who") == "first.example"
        nodes.status["first.example"] = 503
        with pytest.raises(RetryableError, match=r"first\.example"):
            await pinned.call("who")
        assert await rpc.pinned().call("who") == "second.example"


async def test_one_that_is_distrusted_is_left_alone_although_it_answers() -> None:
    """What it lacks it will lack in a moment, too: neither its answers nor its slot bring it back before its time."""
    nodes = Nodes()
    async with nodes.endpoints() as rpc:
        await rpc.check()
        pinned = rpc.pinned()
        assert "lacks a block" in str(pinned.distrust("first.example lacks a block"))
        nodes.now += COMPARE_S + 1
        await rpc._compare()
        assert await rpc.call("who") == "second.example"
        assert await pinned.call("who") == "first.example", "what is pinned stays where it is"
        nodes.now += DISTRUSTED_S
        assert await rpc.call("who") == "first.example"


async def test_a_bucket_lets_a_second_of_calls_through_and_then_the_rate() -> None:
    """Waiting times follow from the injected clock alone, and calls leave in their order."""
    now = 0.0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))

    bucket = TokenBucket(10, clock=lambda: now, sleep=sleep)
    await bucket.take(10)
    assert slept == []
    await bucket.take(5)
    await bucket.take(5)
    assert slept == [0.5, 1.0]
    now = 3.0
    await bucket.take(10)
    assert slept == [0.5, 1.0]
    await bucket.take(1)
    assert slept == [0.5, 1.0, 0.1]


async def test_a_batch_is_cut_to_what_a_second_allows() -> None:
    """The cost of a batch is the number of its calls."""
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        sizes.append(len(body))
        return httpx.Response(200, json=[{"id": call["id"], "result": 1} for call in body])

    async with Rpc("http://node:1", rate=40.0, transport=httpx.MockTransport(answer)) as rpc:
        assert await rpc.batch([("m", [n]) for n in range(50)]) == [1] * 50
    assert sizes == [40, 10]
