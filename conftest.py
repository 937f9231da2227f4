"""Fixtures live in tests/fixtures/, one file per part of the house; this names them, as pytest asks, at the root."""

import pytest

pytest_plugins = ["tests.fixtures.require", "tests.fixtures.postgres", "tests.fixtures.chain", "tests.fixtures.node"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the processes do."""
    return "asyncio"
