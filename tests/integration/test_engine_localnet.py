"""The engine as a process on a real chain: real VM, real program, real PostgreSQL, and kill -9."""

import asyncio
import base64
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from solders.keypair import Keypair

from indexer.chain.idl import load_idl
from indexer.chain.program import Program
from indexer.sources.node import fetch_genesis_hash, fetch_program_accounts
from indexer.sources.rpc import Rpc, RpcError
from indexer.store.accounts import AccountRow, write_accounts
from indexer.store.database import Database, connect
from indexer.store.identity import ensure_chain
from indexer.store.registry import ensure_tables
from localnet.clients import ephemeral_vault as client
from tests.fixtures.chain import LocalnetThread, signed

ROOT = Path(__file__).parents[2]
SESSIONS = 12
KILLS = 6
DEPOSIT_LAMPORTS = 50_000


async def open_sessions(localnet: LocalnetThread, rpc: Rpc) -> None:
    """Let users open sessions of one second, every second one with a deposit for the cleaner's reward."""
    users = [(Keypair.from_seed(bytes([1, n] * 16)), Keypair.from_seed(bytes([2, n] * 16))) for n in range(SESSIONS)]
    for user, _ in users:
        localnet.call(lambda user=user: localnet.chain.airdrop(user.pubkey(), 10**9))  # type: ignore[misc]
    for number, (user, session) in enumerate(users):
        parent, ephemeral = user.pubkey(), session.pubkey()
        steps = [client.create_vault(parent, ephemeral, session_duration_s=1, max_deposit=10**8)]
        if number % 2:
            steps.append(client.auto_deposit_for_trade(parent, ephemeral, trade_fee_estimate=DEPOSIT_LAMPORTS))

        def execute(user: Keypair = user, steps: Any = steps) -> Any:
            return localnet.chain.execute(signed(steps, [user], localnet.chain.latest_blockhash()))

        assert localnet.call(execute).err is None
    for _ in range(200):
        _, accounts = await fetch_program_accounts(rpc, bytes(client.PROGRAM_ID), commitment="confirmed")
        if len(accounts) == SESSIONS:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the sessions were never confirmed")


async def mirror(database: Database, rpc: Rpc) -> None:
    """Do once what the indexer does always: bring the chain's accounts into the tables."""
    text = (resources.files("indexer") / "idls" / "ephemeral_vault.json").read_text()
    program = Program.from_idl(load_idl(text, source="ephemeral_vault.json"))
    slot, accounts = await fetch_program_accounts(rpc, program.program_id, commitment="confirmed")
    rows = []
    for account in accounts:
        decoded = program.decode_account(account.data)
        rows.append(AccountRow(account.address, slot, account.lamports, decoded.name, decoded.values))
    connection = await connect(database.dsn)
    async with connection:
        await ensure_chain(connection, await fetch_genesis_hash(rpc))
        await write_accounts(connection, await ensure_tables(connection, program), rows)


async def cleaned_vaults(rpc: Rpc) -> Counter[bytes]:
    """Count VaultCleaned per vault from the chain's own logs, read by a client that is not the indexer's."""
    infos = await rpc.call("getSignaturesForAddress", [str(client.PROGRAM_ID), {"commitment": "confirmed"}])
    calls = [
        ("getTransaction", [info["signature"], {"maxSupportedTransactionVersion": 1, "commitment": "confirmed"}])
        for info in infos
        if info["err"] is None
    ]
    counted: Counter[bytes] = Counter()
    for reply in await rpc.batch(calls):
        assert not isinstance(reply, RpcError)
        keys = reply["transaction"]["message"]["accountKeys"]
        if str(client.PROGRAM_ID) not in keys:
            continue
        for line in reply["meta"]["logMessages"]:
            if line.startswith("Program data: "):
                event = client.parse_event(base64.b64decode(line.removeprefix("Program data: ")))
                if event is not None and event[0] == "VaultCleaned":
                    vault = event[1]["vault"]
                    assert isinstance(vault, bytes)
                    counted[vault] += 1
    return counted


def rows_of(database: Database, query: str) -> list[Any]:
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_moments_every_session_is_cleaned_once(
    database: Database, start_localnet: Callable[..., LocalnetThread], tmp_path: Path, seed: int
) -> None:
    """kill -9 six times, then left alone: each session has one VaultCleaned on the chain and one landed attempt."""
    chance = random.Random(seed)
    localnet = start_localnet(slot_ms=50)
    keypair = tmp_path / "engine.json"
    keypair.write_text(Keypair.from_seed(bytes([9]) * 32).to_json())
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CAPSTAN")},
        "CAPSTAN_RPC_URL": localnet.rpc_url,
        "DATABASE_URL": database.dsn,
        "CAPSTAN_ENGINE_KEYPAIR": str(keypair),
        "CAPSTAN_ENGINE_LEASE_TTL_S": "1",
        "CAPSTAN_ENGINE_INTERVAL_S": "0.2",
        "CAPSTAN_ENGINE_RESEND_INTERVAL_S": "0.2",
        "CAPSTAN_ENGINE_IN_FLIGHT_MAX": "3",
        "CAPSTAN_ENGINE_FUND_FROM_FAUCET_LAMPORTS": "1000000000",
        "PYTHONWARNINGS": "ignore",
    }
    log = tmp_path / "engine.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "engine", "--json"], cwd=ROOT, env=settings, stdout=output, stderr=output
            )

    async def scenario() -> None:
        async with Rpc(localnet.rpc_url) as rpc:
            await open_sessions(localnet, rpc)
            await mirror(database, rpc)
            for _ in range(KILLS):
                process = start()
                await asyncio.sleep(chance.uniform(0.7, 2.0))
                process.kill()
                process.wait()
            process = start()
            try:
                deadline = time.monotonic() + 60
                done = "select count(*) from engine.intents where state = 'landed'"
                while rows_of(database, done)[0][0] < SESSIONS:
                    assert process.poll() is None, log.read_text()[-2_000:]
                    assert time.monotonic() < deadline, log.read_text()[-4_000:]
                    await asyncio.sleep(0.2)
            finally:
                process.terminate()
                assert process.wait(timeout=5) == 0
            cleaned = await cleaned_vaults(rpc)
            assert len(cleaned) == SESSIONS
            assert set(cleaned.values()) == {1}

    asyncio.run(scenario())
    landed = rows_of(database, "select intent_id from engine.attempts where outcome = 'landed'")
    assert len(landed) == len(set(landed)) == SESSIONS
    assert rows_of(database, "select * from engine.attempts where outcome is null") == []
    assert "Traceback" not in log.read_text()
