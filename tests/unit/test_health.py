"""What /health, /ready and /metrics say, over a real port."""

import httpx
import pytest

from indexer import metrics
from indexer.errors import SettingsError
from indexer.health import BEAT_AGE_S_MAX, READY_LAG_SLOTS_MAX, Health, served


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_starting_process_is_healthy_and_not_ready() -> None:
    """Nothing to restart, nothing to rely on."""
    async with served(Health(), "127.0.0.1", 0) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        assert (await web.get("/health")).status_code == 200
        ready = await web.get("/ready")
        assert ready.status_code == 503
        assert ready.json() == {
            "ok": False,
            "reasons": ["the first enumeration is not done", "the live feed is not connected"],
        }
        assert (await web.get("/nothing")).status_code == 404


async def test_ready_is_caught_up_connected_and_near() -> None:
    """One slot too far behind is not ready."""
    health = Health(caught_up=True, connected=True)
    health.beat(READY_LAG_SLOTS_MAX)
    async with served(health, "127.0.0.1", 0) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        assert (await web.get("/ready")).status_code == 200
        health.beat(READY_LAG_SLOTS_MAX + 1)
        assert (await web.get("/ready")).json()["reasons"] == [
            f"the frontier is {READY_LAG_SLOTS_MAX + 1} slots behind"
        ]


def test_a_process_without_heartbeat_should_be_restarted() -> None:
    """The rounds stopped: unhealthy, and unready for that reason too."""
    clock = Clock()
    health = Health(clock=clock, caught_up=True, connected=True)
    health.beat(0)
    assert health.complaints() == health.reservations() == []
    clock.now_s += BEAT_AGE_S_MAX + 1
    assert health.complaints() == health.reservations() == ["no heartbeat for 31 s"]


async def test_metrics_are_in_prometheus_format() -> None:
    """A scrape finds the counters by their documented names."""
    metrics.ERRORS.labels("test").inc()
    async with served(Health(), "127.0.0.1", 0) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        answer = await web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'capstan_errors_total{part="test"}' in answer.text


async def test_a_taken_port_is_one_sentence() -> None:
    """The operator is told which flag to change."""
    async with served(Health(), "127.0.0.1", 0) as port:
        with pytest.raises(SettingsError, match="--metrics-port"):
            async with served(Health(), "127.0.0.1", port):
                pass
