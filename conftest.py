"""Fixtures live in tests/fixtures/, one file per part of the house; this names them, as pytest asks, at the root."""

import pytest

pytest_plugins = ["tests.fixtures.require", "tests.fixtures.postgres", "tests.fixtures.chain", "tests.fixtures.node"]


SIM_SEEDS_DEFAULT = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a long night run more seeds than CI does."""
    parser.addoption(
        "--sim-seeds", type=int, default=SIM_SEEDS_DEFAULT, help="how many seeds of the simulation are run"
    )
    parser.addoption("--sim-first", type=int, default=0, help="the first of those seeds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `sim_seed` once for every seed."""
    if "sim_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--sim-first")
        metafunc.parametrize("sim_seed", range(first, first + metafunc.config.getoption("--sim-seeds")))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the processes do."""
    return "asyncio"
