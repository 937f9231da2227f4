"""Other people's Python clients live a life of every home program on localnet, as they would on any cluster."""

import asyncio
import importlib
import warnings
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

from localnet.programs import PROGRAM_IDS
from tests.fixtures.chain import LocalnetThread
from tests.fixtures.client_checks import SLOT_MS, assert_lived, elapse_on
from tests.fixtures.client_tour import build_tour
from tests.fixtures.home_lives import LIVES
from tests.fixtures.lives import Life

# solana-py stands on the part of websockets that is called legacy there.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Seen = dict[str, Any]
Live = Callable[[str, str], Awaitable[tuple[Life, Seen]]]

every_program = pytest.mark.parametrize("program", PROGRAM_IDS)


@pytest.fixture(scope="module")
def clients() -> ModuleType:
    """Return the fixtures' module of the clients; its imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("tests.fixtures.python_clients")


@pytest.fixture
def live(start_localnet: Callable[..., LocalnetThread], clients: ModuleType) -> Live:
    """Return what lives a program's life through a client, and returns both the life and what was seen."""

    async def lived(program: str, client: str) -> tuple[Life, Seen]:
        life = LIVES[program]()
        chain = life.build_chain()
        localnet = start_localnet(chain, slot_ms=SLOT_MS)
        elapse_here = elapse_on(chain)

        async def elapse(seconds: int) -> None:
            await asyncio.to_thread(localnet.call, lambda: elapse_here([seconds]))

        seen = await getattr(clients, client)(life, localnet.rpc_url, localnet.ws_url, elapse)
        await asyncio.to_thread(assert_lived, life, localnet, seen)
        return life, seen

    return lived


@every_program
async def test_solana_py(live: Live, program: str) -> None:
    """solana-py parses every answer and every notification, and a failed preflight into its own error class."""
    life, seen = await live(program, "live_solana_py")
    assert seen["noticed"] == [row["signature"] for row in seen["history"][::-1]]
    for row, send in zip(seen["refused"], life.refusals, strict=True):
        assert send.refused is not None
        assert row["err"] == {"InstructionError": [0, {"Custom": send.refused[0]}]}
        assert row["message"].endswith(f"custom program error: {send.refused[0]:#x}")
        assert row["units"] > 0


@every_program
async def test_anchorpy(live: Live, program: str) -> None:
    """anchorpy calls, fetches and parses by the legacy IDL, and raises the program's error by its number and text."""
    life, seen = await live(program, "live_anchorpy")
    messages = {error.code: error.message for error in life.compiled.idl.errors}
    for row, send in zip(seen["refused"], life.refusals, strict=True):
        assert send.refused is not None
        assert row["code"] == send.refused[0]
        assert row["message"] == messages[row["code"]]


async def test_solana_py_asked_for_everything(
    start_localnet: Callable[..., LocalnetThread], clients: ModuleType
) -> None:
    """solana-py, whose answers are the validator's own types, can read what every method of localnet says."""
    tour = build_tour()
    localnet = start_localnet(tour.chain, slot_ms=SLOT_MS)
    seen, failures = await clients.tour_solana_py(tour, localnet.rpc_url, localnet.ws_url)
    assert failures == {}
    (found,) = seen["get_program_accounts"].value
    assert found.pubkey == tour.account
    assert seen["get_token_account_balance"].value.amount == str(tour.tokens)
    assert str(seen["get_genesis_hash"].value) == tour.chain.genesis_hash
    for encoding in ("json", "jsonParsed", "base58", "base64"):
        assert seen[f"get_transaction {encoding}"].value.slot == tour.slot
    assert all(note is not None for name, note in seen.items() if name.endswith("_subscribe"))
