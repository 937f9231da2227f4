"""A running localnet through solana-py, a client that is not ours, and over bare HTTP."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from solana.exceptions import SolanaRpcException
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solana.rpc.core import RPCException
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rpc.errors import SendTransactionPreflightFailureMessage
from solders.system_program import TransferParams, transfer
from solders.transaction_status import TransactionConfirmationStatus

from indexer.errors import SettingsError
from localnet.chain import Chain
from localnet.clients import ephemeral_vault as client
from localnet.server import serve
from tests.fixtures.chain import START_TIME, LocalnetThread, build_chain, signed

SOL = 10**9


async def test_a_wallets_life_through_solana_py(localnet: LocalnetThread) -> None:
    """Airdrop, send, confirm, and read the same back by every way that the client knows."""
    alice, bob = Keypair(), Keypair().pubkey()
    async with AsyncClient(localnet.rpc_url) as rpc:
        assert await rpc.is_connected()
        assert str((await rpc.get_genesis_hash()).value) == localnet.chain.genesis_hash
        assert (await rpc.get_epoch_schedule()).value.warmup is False
        dropped = (await rpc.request_airdrop(alice.pubkey(), 10 * SOL)).value
        await rpc.confirm_transaction(dropped, Confirmed, sleep_seconds=0.05)
        latest = (await rpc.get_latest_blockhash(Confirmed)).value
        pay = transfer(TransferParams(from_pubkey=alice.pubkey(), to_pubkey=bob, lamports=SOL))
        transaction = signed([pay], [alice], latest.blockhash)
        simulated = await rpc.simulate_transaction(transaction, sig_verify=True)
        assert (simulated.value.err, simulated.value.units_consumed) == (None, 150)
        signature = (await rpc.send_raw_transaction(bytes(transaction))).value
        await rpc.confirm_transaction(
            signature, Finalized, sleep_seconds=0.05, last_valid_block_height=latest.last_valid_block_height
        )
        status = (await rpc.get_signature_statuses([signature])).value[0]
        assert status is not None
        assert status.confirmation_status == TransactionConfirmationStatus.Finalized
        for encoding in ("json", "jsonParsed", "base64", "base58"):
            found = (await rpc.get_transaction(signature, encoding, Confirmed, 0)).value
            assert found is not None
            assert found.slot == status.slot
            assert found.transaction.meta is not None
            assert found.transaction.meta.fee == 5_000
        block = (await rpc.get_block(status.slot, "json", 0)).value
        assert block is not None
        assert block.transactions is not None
        assert len(block.transactions) == 1
        rows = (await rpc.get_signatures_for_address(bob)).value
        assert [row.signature for row in rows] == [signature]
        assert (await rpc.get_balance(bob)).value == SOL
        account = (await rpc.get_account_info(bob, encoding="base64")).value
        assert account is not None
        assert account.lamports == SOL


async def test_a_refused_send_has_the_shape_that_clients_expect(localnet: LocalnetThread) -> None:
    """solana-py reads the preflight failure with its error and logs."""
    async with AsyncClient(localnet.rpc_url) as rpc:
        blockhash = (await rpc.get_latest_blockhash()).value.blockhash
        poor = Keypair()
        pay = transfer(TransferParams(from_pubkey=poor.pubkey(), to_pubkey=poor.pubkey(), lamports=SOL))
        with pytest.raises(RPCException) as caught:
            await rpc.send_raw_transaction(bytes(signed([pay], [poor], blockhash)))
    failure = caught.value.args[0]
    assert isinstance(failure, SendTransactionPreflightFailureMessage)
    assert "no record of a prior credit" in failure.message


async def test_a_program_runs_and_is_read_back(localnet: LocalnetThread) -> None:
    """A vault is created, listed, and its error comes back as Solana's JSON has it."""
    parent = Keypair()
    create = client.create_vault(parent.pubkey(), Keypair().pubkey(), session_duration_s=3_600, max_deposit=SOL)
    async with AsyncClient(localnet.rpc_url) as rpc:
        dropped = (await rpc.request_airdrop(parent.pubkey(), 10 * SOL)).value
        await rpc.confirm_transaction(dropped, Processed, sleep_seconds=0.05)
        blockhash = (await rpc.get_latest_blockhash()).value.blockhash
        signature = (await rpc.send_raw_transaction(bytes(signed([create], [parent], blockhash)))).value
        await rpc.confirm_transaction(signature, Confirmed, sleep_seconds=0.05)
        rows = (await rpc.get_program_accounts(client.PROGRAM_ID, Confirmed, "base64")).value
        assert [client.parse_account(row.account.data) is not None for row in rows] == [True]
        found = (await rpc.get_transaction(signature, "json", Confirmed, 0)).value
        assert found is not None
        meta = found.transaction.meta
        assert meta is not None
        assert meta.inner_instructions, "the vault's account is created by a call to the system program"
        assert meta.log_messages is not None
        assert any(line.startswith("Program data: ") for line in meta.log_messages)
        programs = (await rpc.get_account_info(client.PROGRAM_ID, Finalized, "base64")).value
        assert programs is not None
        assert programs.executable


async def reached(rpc: AsyncClient, commitment: Commitment, slot: int) -> None:
    """Wait until a slot has the commitment."""
    while (await rpc.get_slot(commitment)).value < slot:  # noqa: ASYNC110  # a node can only be asked
        await asyncio.sleep(0.03)


async def post(url: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.post(url, **options)


async def test_http_around_the_json(localnet: LocalnetThread) -> None:
    """Health by GET, answers to browsers, and refusals by status for what is not JSON at all."""
    url = localnet.rpc_url
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/health")).text == "ok"
        assert (await http.get(url)).status_code == 405
        preflight = await http.options(url)
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert (await http.post(url, content=b"x", headers={"content-type": "text/plain"})).status_code == 415
        long = await http.post(url, content=b" " * (8 * 2**20 + 1), headers={"content-type": "application/json"})
        assert long.status_code == 413
        broken = await http.post(url, content=b"{", headers={"content-type": "application/json"})
        assert broken.json()["error"]["code"] == -32700
        batch = [{"jsonrpc": "2.0", "id": i, "method": "getSlot"} for i in range(100)]
        assert [answer["id"] for answer in (await http.post(url, json=batch)).json()] == list(range(100))


async def test_answers_do_not_wait_for_each_other(localnet: LocalnetThread) -> None:
    """A hundred calls on one connection take less than the 40 ms each that a delayed acknowledgement would cost."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}
    async with httpx.AsyncClient() as http:
        await http.post(localnet.rpc_url, json=request)
        begun = time.monotonic()
        for _ in range(100):
            await http.post(localnet.rpc_url, json=request)
    assert time.monotonic() - begun < 3


async def test_bytes_that_are_not_http_do_not_stop_it(localnet: LocalnetThread) -> None:
    """A port scanner leaves the node alive."""
    for url in (localnet.rpc_url, localnet.ws_url):
        host, port = url.split("//")[1].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x16\x03\x01\0\0rubbish\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    health = await post(localnet.rpc_url, json={"jsonrpc": "2.0", "id": 1, "method": "getHealth"})
    assert health.json()["result"] == "ok"


async def test_history_goes_on_live(start_localnet: Callable[..., LocalnetThread]) -> None:
    """A chain with a past is served from where it is; produced slots know their wall clock, old ones do not."""
    chain = build_chain()
    chain.open_slot(5_000, START_TIME + 2_000)
    before_ns = time.time_ns()
    running = start_localnet(chain)
    async with AsyncClient(running.rpc_url) as rpc:
        await reached(rpc, Finalized, 5_001)
        slots = (await rpc.get_blocks(0, 5_001)).value
    assert slots == [0, 1, 5_000, 5_001]

    def produced() -> list[int | None]:
        return [block.produced_ns for block in chain.ledger.blocks[:4]]

    genesis, old, first, second = running.call(produced)
    assert genesis is None
    assert old is None
    assert first is not None
    assert second is not None
    assert before_ns < first < second
    assert second - first < 10**9


async def test_on_slot_runs_inside_each_slot(start_localnet: Callable[..., LocalnetThread]) -> None:
    """What the hook executes is in the slot that has just opened, and a hook that fails does not stop the slots."""
    chain = build_chain()
    target = Keypair().pubkey()

    def act() -> None:
        executed = chain.airdrop(target, SOL)
        assert executed.slot % 3, "a hook with a bug"

    running = start_localnet(chain, on_slot=act)
    async with AsyncClient(running.rpc_url) as rpc:
        await reached(rpc, Confirmed, 6)
        rows = (await rpc.get_signatures_for_address(target, commitment=Confirmed)).value
    slots = [row.slot for row in rows]
    assert slots[-6:] == [6, 5, 4, 3, 2, 1]


async def test_a_port_in_use_is_one_sentence() -> None:
    """Which port, and what to do; also where only the second one is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("rpc_port", "ws_port"):
            ports = {"rpc_port": 0, "ws_port": 0} | {option: port}
            with pytest.raises(
                SettingsError, match=rf"cannot listen on 127.0.0.1:{port} .*--{option.replace('_', '-')}"
            ):
                async with serve(Chain(seed=1, start_time=START_TIME), **ports):
                    pass


async def test_stopping_closes_the_ports() -> None:
    """After the block nothing answers, and the same ports can be bound again at once."""
    chain = Chain(seed=1, start_time=START_TIME)
    async with serve(chain, rpc_port=0, ws_port=0, slot_ms=20) as urls, AsyncClient(urls.rpc_url) as rpc:
        assert await rpc.is_connected()
    async with AsyncClient(urls.rpc_url) as rpc:
        with pytest.raises(SolanaRpcException):
            await rpc.get_slot()
    ports = [int(url.rsplit(":", 1)[1]) for url in urls]
    async with serve(Chain(seed=1, start_time=START_TIME), rpc_port=ports[0], ws_port=ports[1]) as again:
        assert again == urls


async def test_unknown_accounts_are_null(localnet: LocalnetThread) -> None:
    """Nobody has written there."""
    async with AsyncClient(localnet.rpc_url) as rpc:
        assert (await rpc.get_account_info(Pubkey.new_unique())).value is None
        assert (await rpc.get_balance(Pubkey.new_unique())).value == 0
