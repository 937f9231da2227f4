"""The live feed: what a node may send in place of a notification ends the connection, never the process."""

import json
from typing import Any, cast

import pytest
from websockets.asyncio.server import ServerConnection, serve

from indexer.errors import RetryableError
from indexer.live import Live
from tests.fixtures.scripted_node import PROGRAM


@pytest.mark.parametrize(
    "result",
    [
        None,
        {},
        {"value": None},
        {"value": {"pubkey": 7}},
        {"context": {"slot": 1}, "value": {"pubkey": "not base58", "account": {}}},
        {"context": {"slot": 1}, "value": {"pubkey": "1" * 32, "account": {"owner": "1" * 32, "lamports": 1}}},
    ],
)
async def test_a_notification_of_another_shape_costs_the_connection(result: Any) -> None:
    """The feed is told to connect again, and repairs from the enumeration as after every break."""

    async def talk(socket: ServerConnection) -> None:
        for number in range(3):
            await socket.send(json.dumps({"id": json.loads(await socket.recv())["id"], "result": number}))
        for number in range(1, 3):
            params = {"subscription": number, "result": result}
            await socket.send(json.dumps({"jsonrpc": "2.0", "method": "x", "params": params}))
        await socket.wait_closed()

    async with serve(talk, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        absent = cast("Any", None)  # nothing gets as far as node or database
        live = Live(absent, url, absent, {PROGRAM.program_id: PROGRAM}, {}, absent, 5.0)
        with pytest.raises(RetryableError, match="unknown shape"):
            await live.listen()
    assert live.disconnected.is_set()
