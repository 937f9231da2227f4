"""
How a headless demo ends: traffic stops, the engine stops, the chain becomes final, everything catches up, and both
sides are compared.

The last catch-up is a second run of the indexer over a chain it has followed: that it changes nothing that was right is
part of what is shown.
"""

import asyncio
import subprocess
from typing import Any

from capstan.report import Witness, build_report
from capstan.supervisor import Child, Supervisor
from indexer.errors import DataError, RetryableError
from indexer.sources.node import fetch_slot
from indexer.sources.rpc import Rpc
from indexer.store.audit import count_intents, read_lake, read_postgres

PAGE = 5_000
FINAL_S_MAX = 120.0
CHILD_S_MAX = 180.0
POLL_S = 0.2


async def drain(
    *,
    rpc: Rpc,
    supervisor: Supervisor,
    indexer: Child,
    engine: Child,
    settle: Child,
    catch_up: Child,
    dsn: str,
    following_since_ns: int,
) -> dict[str, Any]:
    """
    Bring everything to rest and return the report.

    Args:
        following_since_ns: as `build_report` takes it.
        settle: an engine run that only settles what is open; `catch_up`: an indexer run that ends when it is current.

    Raises:
        RetryableError: the chain did not become final, or one of the two last runs failed.
    """
    await rpc.call("localnet_stopTraffic")
    await asyncio.to_thread(supervisor.stop, engine)
    # Nobody sends any more: what is on the chain now is all there will be.
    last_slot = await fetch_slot(rpc, "processed")
    await _until_final(rpc, last_slot)
    await _run(settle)
    await asyncio.to_thread(supervisor.stop, indexer)
    await _run(catch_up)
    witness = await fetch_witness(rpc)
    postgres = await asyncio.to_thread(read_postgres, dsn)
    lake = await asyncio.to_thread(read_lake, dsn)
    intents = await asyncio.to_thread(count_intents, dsn)
    return build_report(witness, postgres, lake, intents, following_since_ns=following_since_ns)


async def fetch_witness(rpc: Rpc) -> Witness:
    """Return what localnet itself counted, from its control methods, of the finalized chain."""
    transactions = await _pages(rpc, "localnet_transactions")
    events = await _pages(rpc, "localnet_events")
    accounts = await _pages(rpc, "localnet_accounts")
    times = await rpc.call("localnet_slotTimes")
    return Witness(transactions, events, accounts, {int(slot): int(time_ns) for slot, time_ns in times.items()})


async def _pages(rpc: Rpc, method: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        options = {"after_index": len(rows) - 1, "limit": PAGE, "commitment": "finalized"}
        page = await rpc.call(method, [options])
        if not page:
            return rows
        if page[0]["index"] != len(rows):
            raise DataError(f"{method} began at row {page[0]['index']} when asked to go on from row {len(rows)}")
        rows.extend(page)


async def _until_final(rpc: Rpc, slot: int) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FINAL_S_MAX
    while await fetch_slot(rpc, "finalized") < slot:
        if loop.time() > deadline:
            raise RetryableError(f"slot {slot} was not final after {FINAL_S_MAX:.0f} s: the chain stands still")
        await asyncio.sleep(POLL_S)


async def _run(child: Child) -> None:
    """Run a child once, to its end."""
    child.start(asyncio.get_running_loop().time())
    assert child.process is not None
    try:
        code: int | None = await asyncio.to_thread(child.process.wait, CHILD_S_MAX)
    except subprocess.TimeoutExpired:
        child.process.kill()
        code = None
    finally:
        child.close()
    if code != 0:
        raise RetryableError(f"{child.name} did not come to its end (exit {code}): {child.last_words()}")
