"""PubSub over real sockets: what is told, in which order, at which commitment, and to whom not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from solana.rpc.commitment import Confirmed, Processed
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rpc.responses import LogsNotification, SignatureNotification, SubscriptionResult
from solders.system_program import TransferParams, transfer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from localnet.accounts import AccountState
from localnet.chain import Chain
from localnet.ledger import Executed
from localnet.vm import SYSTEM_PROGRAM
from tests.fixtures.chain import LocalnetThread, build_chain, signed

SOL = 10**9
SYSTEM = str(Pubkey(SYSTEM_PROGRAM))


class Client:
    """A bare client: replies and notifications, apart."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._early: list[dict[str, Any]] = []

    async def ask(self, method: str, *params: Any) -> dict[str, Any]:
        """Return the reply to a request."""
        await self._socket.send(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}))
        while True:
            message = await self._next()
            if message.get("id") == 7:
                return message
            self._early.append(message)

    async def subscribe(self, method: str, *params: Any) -> int:
        """Return the number of a new subscription."""
        reply = await self.ask(method, *params)
        return int(reply["result"])

    async def hear(self, count: int) -> list[dict[str, Any]]:
        """Return the next notifications."""
        heard, self._early = self._early[:count], self._early[count:]
        while len(heard) < count:
            heard.append(await self._next())
        return heard

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            raw = await self._socket.recv()
        assert isinstance(raw, str), "clients in browsers expect text frames"
        message: dict[str, Any] = json.loads(raw)
        return message


@asynccontextmanager
async def client_of(localnet: LocalnetThread) -> AsyncIterator[Client]:
    async with connect(localnet.ws_url) as socket:
        yield Client(socket)


def quiet_localnet(start: Callable[..., LocalnetThread], chain: Chain) -> LocalnetThread:
    """Serve a chain whose slots are opened by the test alone."""
    return start(chain, slot_ms=3_600_000)


def step(chain: Chain, blocks: int = 1) -> None:
    for _ in range(blocks):
        chain.open_slot(chain.slot + 1, chain.unix_time)


def result(message: dict[str, Any]) -> Any:
    return message["params"]["result"]


async def test_logs_at_every_commitment(start_localnet: Callable[..., LocalnetThread]) -> None:
    """The same transactions in the same order, each when its block reaches the commitment."""
    chain = build_chain(confirmed_distance=1, finalized_distance=3)
    localnet = quiet_localnet(start_localnet, chain)
    targets = [Keypair().pubkey() for _ in range(3)]

    def play() -> list[Executed]:
        sent = []
        for target in targets:
            sent.append(chain.airdrop(target, SOL))
            step(chain)
        step(chain, 3)
        return sent

    async with client_of(localnet) as client:
        numbers = {}
        for commitment in ("processed", "confirmed", "finalized"):
            numbers[await client.subscribe("logsSubscribe", "all", {"commitment": commitment})] = commitment
        sent = localnet.call(play)
        heard = await client.hear(9)
    for number, commitment in numbers.items():
        mine = [result(message) for message in heard if message["params"]["subscription"] == number]
        assert [one["value"]["signature"] for one in mine] == [one.signature_text for one in sent], commitment
        assert [one["context"]["slot"] for one in mine] == [1, 2, 3]
        assert all(one["value"]["err"] is None and one["value"]["logs"] for one in mine)
    order = [(numbers[message["params"]["subscription"]], result(message)["context"]["slot"]) for message in heard]
    assert order.index(("processed", 2)) < order.index(("confirmed", 1))
    assert order.index(("processed", 3)) < order.index(("finalized", 1)), "three blocks behind"


async def test_mentions_filter_and_failures(start_localnet: Callable[..., LocalnetThread]) -> None:
    """Only transactions that name the address; failed ones too, with their error."""
    chain = build_chain()
    localnet = quiet_localnet(start_localnet, chain)
    payer = Keypair()
    chain.set_account(payer.pubkey(), AccountState(SOL, b"", SYSTEM_PROGRAM))
    pay = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=Pubkey.new_unique(), lamports=2 * SOL))

    def play() -> None:
        chain.airdrop(Keypair().pubkey(), SOL)
        chain.execute(signed([pay], [payer], chain.latest_blockhash()))
        step(chain)

    async with client_of(localnet) as client:
        await client.subscribe("logsSubscribe", {"mentions": [str(payer.pubkey())]}, {"commitment": "processed"})
        localnet.call(play)
        [message] = await client.hear(1)
    assert result(message)["value"]["err"] == {"InstructionError": [0, {"Custom": 1}]}


async def test_accounts_and_programs(start_localnet: Callable[..., LocalnetThread]) -> None:
    """The state at the end of the block; a closure is told to account subscribers only, with nothing left in it."""
    chain = build_chain()
    localnet = quiet_localnet(start_localnet, chain)
    address, program = Keypair().pubkey(), Keypair().pubkey()

    def play() -> None:
        chain.airdrop(Keypair().pubkey(), SOL)
        for data in (b"one", b"two"):
            chain.set_account(address, AccountState(SOL, data, bytes(program)))
        step(chain)
        chain.set_account(address, AccountState(SOL, b"three", bytes(program)))
        step(chain)
        chain.set_account(address, None)
        step(chain)

    options = {"commitment": "processed", "encoding": "base64"}
    async with client_of(localnet) as client:
        account = await client.subscribe("accountSubscribe", str(address), options)
        owned = await client.subscribe("programSubscribe", str(program), {**options, "filters": [{"dataSize": 3}]})
        slots = await client.subscribe("slotSubscribe")
        localnet.call(play)
        heard = await client.hear(7)
    by_number: dict[int, list[Any]] = {account: [], owned: [], slots: []}
    for message in heard:
        by_number[message["params"]["subscription"]].append(result(message))
    states = [one["value"] for one in by_number[account]]
    assert [state["data"][0] for state in states] == ["dHdv", "dGhyZWU=", ""]
    assert (states[2]["lamports"], states[2]["owner"]) == (0, SYSTEM)
    assert [one["value"]["pubkey"] for one in by_number[owned]] == [str(address)]
    assert by_number[slots] == [{"parent": slot - 1, "root": 0, "slot": slot} for slot in (1, 2, 3)]


async def test_signatures_end_with_their_one_notification(start_localnet: Callable[..., LocalnetThread]) -> None:
    """Told at the commitment, also where it was reached before somebody asked, and never twice."""
    chain = build_chain()
    localnet = quiet_localnet(start_localnet, chain)
    sent = chain.airdrop(Keypair().pubkey(), SOL)
    async with client_of(localnet) as client:
        number = await client.subscribe("signatureSubscribe", sent.signature_text, {"commitment": "confirmed"})
        localnet.call(lambda: step(chain, 3))
        [message] = await client.hear(1)
        assert message["method"] == "signatureNotification"
        assert result(message)["value"] == {"err": None}
        assert "error" in await client.ask("signatureUnsubscribe", number)
        late = await client.subscribe("signatureSubscribe", sent.signature_text, {"commitment": "confirmed"})
        [message] = await client.hear(1)
        assert message["params"]["subscription"] == late


async def test_roots_and_blocks(start_localnet: Callable[..., LocalnetThread]) -> None:
    """A root is a finalized slot; a block comes whole, or with the transactions that name an address."""
    chain = build_chain(confirmed_distance=1, finalized_distance=2)
    localnet = quiet_localnet(start_localnet, chain)
    target = Keypair().pubkey()

    def play() -> None:
        chain.airdrop(Keypair().pubkey(), SOL)
        chain.airdrop(target, SOL)
        step(chain, 3)

    options = {"commitment": "confirmed", "encoding": "json", "maxSupportedTransactionVersion": 0}
    async with client_of(localnet) as client:
        roots = await client.subscribe("rootSubscribe")
        whole = await client.subscribe("blockSubscribe", "all", options)
        part = await client.subscribe("blockSubscribe", {"mentionsAccountOrProgram": str(target)}, options)
        localnet.call(play)
        heard = await client.hear(4)
    by_number = {
        number: [result(m) for m in heard if m["params"]["subscription"] == number] for number in (roots, whole, part)
    }
    assert by_number[roots] == [1]
    assert [len(one["value"]["block"]["transactions"]) for one in by_number[whole]] == [2, 0]
    assert [len(one["value"]["block"]["transactions"]) for one in by_number[part]] == [1]
    assert by_number[part][0]["value"]["slot"] == 1


async def test_equal_subscriptions_share_a_number_and_end_apart(start_localnet: Callable[..., LocalnetThread]) -> None:
    """As on a validator; who leaves does not take the others along."""
    chain = build_chain()
    localnet = quiet_localnet(start_localnet, chain)
    async with client_of(localnet) as first, client_of(localnet) as second:
        number = await first.subscribe("slotSubscribe")
        assert await second.subscribe("slotSubscribe") == number
        assert (await first.ask("slotUnsubscribe", number))["result"] is True
        again = await first.ask("slotUnsubscribe", number)
        assert again["error"] == {"code": -32602, "message": "Invalid subscription id."}
        localnet.call(lambda: step(chain))
        assert result((await second.hear(1))[0])["slot"] == 1
        assert (await first.ask("voteSubscribe"))["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", -32700),
        ("[]", -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"getSlot"}', -32601),
        ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":["some"]}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":[{"mentions":[]}]}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"accountSubscribe","params":["x"]}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"slotUnsubscribe","params":["x"]}', -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"blockSubscribe","params":["all",{"commitment":"processed"}]}', -32602),
    ],
)
async def test_bad_messages_are_answered(localnet: LocalnetThread, message: str, code: int) -> None:
    """Each with its code, on a connection that stays open."""
    async with connect(localnet.ws_url) as socket:
        await socket.send(message)
        async with asyncio.timeout(20):
            assert json.loads(await socket.recv())["error"]["code"] == code
            await socket.send(b'{"jsonrpc":"2.0","id":2,"method":"slotSubscribe"}')
            assert "result" in json.loads(await socket.recv())


async def test_a_client_that_does_not_read_does_not_stop_the_chain(
    start_localnet: Callable[..., LocalnetThread],
) -> None:
    """It is cut off once too much waits for it; others hear everything meanwhile."""
    chain = build_chain()
    localnet = quiet_localnet(start_localnet, chain)
    address, program = Keypair().pubkey(), bytes(Keypair().pubkey())
    rounds = 30

    def play() -> None:
        for number in range(rounds):
            chain.set_account(address, AccountState(SOL, bytes([number]) * 2_000_000, program))
            step(chain)

    options = {"commitment": "processed", "encoding": "base64"}
    async with connect(localnet.ws_url, max_size=None, max_queue=1) as deaf, client_of(localnet) as listening:
        await Client(deaf).subscribe("accountSubscribe", str(address), options)
        await listening.subscribe("slotSubscribe")
        chain.airdrop(Keypair().pubkey(), SOL)
        await asyncio.to_thread(localnet.call, play)
        slots = [result(message)["slot"] for message in await listening.hear(rounds)]
        assert slots == list(range(1, rounds + 1))
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionClosedError):
                await drain(deaf)


async def drain(socket: ClientConnection) -> None:
    """Read until the connection ends."""
    while True:
        await socket.recv()


# solana-py stands on the part of websockets that is on its way out.
@pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")
async def test_solana_py_listens(localnet: LocalnetThread) -> None:
    """The independent client parses what it is told."""
    from solana.rpc.websocket_api import connect as solana_connect  # noqa: PLC0415  # warns at import, see above

    target = Keypair().pubkey()
    async with solana_connect(localnet.ws_url) as socket:
        await socket.logs_subscribe(commitment=Processed)
        [first] = await socket.recv()
        assert isinstance(first, SubscriptionResult)
        sent = localnet.call(lambda: localnet.chain.airdrop(target, SOL))
        [logs] = await socket.recv()
        assert isinstance(logs, LogsNotification)
        assert str(logs.result.value.signature) == sent.signature_text
        await socket.signature_subscribe(logs.result.value.signature, Confirmed)
        kinds = []
        while SignatureNotification not in kinds:
            kinds += [type(message) for message in await socket.recv()]
