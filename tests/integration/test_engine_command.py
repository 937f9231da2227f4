"""The command `engine` as an operator runs it: over HTTP, in a process of its own, stopped by signals."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from solders.keypair import Keypair

from indexer.sources.rpc import RpcError
from indexer.store.database import Database
from tests.fixtures.engine_rig import open_rig
from tests.fixtures.scripted_chain import FINALITY_SLOTS, GENESIS_TIME, ScriptedChain

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0


class Node:
    """A scripted chain behind a port."""

    def __init__(self, chain: ScriptedChain) -> None:
        self.chain = chain
        self.lock = threading.Lock()
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with node.lock:
                    answer = [node.answer(r) for r in body] if isinstance(body, list) else node.answer(body)
                raw = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def answer(self, request: dict[str, object]) -> dict[str, object]:
        try:
            result = asyncio.run(self.chain.call(str(request["method"]), request.get("params", [])))  # type: ignore[arg-type] # JSON
        except RpcError as error:
            body = {"code": error.code, "message": error.message, "data": error.data}
            return {"jsonrpc": "2.0", "id": request["id"], "error": body}
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}

    def step(self, slots: int) -> None:
        with self.lock:
            self.chain.step(slots)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def node() -> Iterator[Node]:
    chain = ScriptedChain()
    chain.step(FINALITY_SLOTS + 8)
    for number in range(3):
        chain.open_session(number, expiry=GENESIS_TIME + 500)
    running = Node(chain)
    yield running
    running.close()


@pytest.fixture
def keypair(tmp_path: Path) -> Path:
    path = tmp_path / "engine.json"
    path.write_text(Keypair.from_seed(bytes([9]) * 32).to_json())
    return path


def prepare(database: Database, chain: ScriptedChain) -> None:
    """Do what the indexer does before the engine may act."""

    async def go() -> None:
        async with open_rig(database, chain) as rig:
            await rig.mirror()

    asyncio.run(go())


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "engine", *map(str, arguments)]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CAPSTAN") and k != "DATABASE_URL"}
    return {**kept, "PYTHONWARNINGS": "ignore"}


def run_engine(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=90, check=False
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_it_cleans_up_and_stops_within_five_seconds_of_sigterm(database: Database, node: Node, keypair: Path) -> None:
    """Funded by the faucet it cleans three sessions over HTTP, and leaves with 0 when told; no secret in its logs."""
    prepare(database, node.chain)
    node.chain.balances.clear()
    arguments = ("--rpc", node.url, "--database-url", database.dsn, "--keypair", keypair, "--interval", 0.1)
    process = subprocess.Popen(
        command(*arguments, "--fund-from-faucet", 10**9, "--json"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: len(node.chain.sent) == 3)
        node.step(40)
        wait_for(lambda: len(node.chain.landings) == 3)
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert time.monotonic() - began < 5
    events = [json.loads(line)["event"] for line in output.splitlines()]
    assert {"started", "intended", "sent", "settled", "stopped"} <= set(events)
    secret = json.loads(keypair.read_text())
    assert str(secret[:32])[1:-1] not in output
    assert bytes(secret[:32]).hex() not in output


def test_once_makes_one_pass_and_leaves(database: Database, node: Node, keypair: Path) -> None:
    """--once sends for what is due and leaves with 0; the next one finds the outcome."""
    prepare(database, node.chain)
    arguments = ("--rpc", node.url, "--database-url", database.dsn, "--keypair", keypair, "--once")
    first = run_engine(*arguments)
    assert (first.returncode, len(node.chain.sent)) == (0, 3), first.stderr
    node.step(40)
    second = run_engine(*arguments)
    assert second.returncode == 0
    assert "landed" in second.stderr
    assert len(node.chain.sent) == 3


def test_it_refuses_a_database_of_another_chain(database: Database, node: Node, keypair: Path) -> None:
    """Acting on one chain by what was seen on another would lose money: one sentence with both hashes, exit 65."""
    prepare(database, node.chain)
    node.chain.genesis_hash = "anotherchain"
    refused = run_engine("--rpc", node.url, "--database-url", database.dsn, "--keypair", keypair)
    assert refused.returncode == 65
    assert "anotherchain" in refused.stderr
    assert "scripted" in refused.stderr
    assert node.chain.sent == {}
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--keypair", "/nowhere/id.json"), "/nowhere/id.json"),
        ((), "--keypair"),
        (("--keypair", "KEYPAIR", "--program", "not-base58"), "not-base58"),
        (("--keypair", "KEYPAIR", "--rpc", "ftp://x"), "RPC url"),
        (("--keypair", "KEYPAIR", "--database-url", "postgresql://u:hush@127.0.0.1:1/x"), "DATABASE_URL"),
        (("--keypair", "KEYPAIR", "--interval", "0"), "interval"),
        (("--keypair", "KEYPAIR", "--program", "11111111111111111111111111111112"), "there is no account"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    database: Database, node: Node, keypair: Path, arguments: tuple[str, ...], expected: str
) -> None:
    """The operator reads what is wrong and what to do, on one line, without a traceback or a secret."""
    given = [str(keypair) if argument == "KEYPAIR" else argument for argument in arguments]
    defaults = {"--rpc": node.url, "--database-url": database.dsn}
    given += [part for flag, value in defaults.items() if flag not in given for part in (flag, value)]
    refused = run_engine(*given)
    assert refused.returncode == 78
    sentences = [line for line in refused.stderr.splitlines() if line.startswith("capstan:")]
    assert len(sentences) == 1
    assert expected in sentences[0]
    assert "hush" not in refused.stderr
    assert "Traceback" not in refused.stderr
