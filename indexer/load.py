"""
`capstan index --source file:...`: what is asked for, checked, and one load from beginning to end without any node.
"""

import asyncio
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from solders.hash import Hash, ParseHashError

from indexer.archive import Archive, Covers, Loaded
from indexer.errors import SettingsError
from indexer.intake import Programs
from indexer.registry import open_registry
from indexer.settings import IndexerSettings
from indexer.sources.base import Source
from indexer.sources.files import open_sources
from indexer.store.database import INDEXER_ROLE, Database, Pool, connect, open_pool, session
from indexer.store.identity import ensure_chain, select_chain
from indexer.store.lake import Lake
from indexer.store.migrate import migrate

# Objects between two looks for cycles among them.
COLLECTED_MIN = 1_000_000
# Public clusters by the names that Solana's own tools give them.
GENESIS_HASHES = {
    "mainnet-beta": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "testnet": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
    "devnet": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
}


log = structlog.get_logger("indexer.load")


@dataclass(frozen=True, slots=True)
class Request:
    """What to load, of which chain (None: the database's own), what it covers, and where it goes."""

    sources: Sequence[Source]
    covers: Covers | None
    genesis_hash: str | None
    lake_only: bool


def read_request(sources: list[str], *, covers: str | None, genesis: str | None, lake_only: bool) -> Request | None:
    """
    Return what the flags ask for; None without any --source.

    Raises:
        SettingsError: a flag is wrong, or has no meaning without --source.
    """
    if not sources:
        if covers is not None or genesis is not None or lake_only:
            raise SettingsError(
                "--covers, --genesis and --lake-only are about files: name them with --source file:PATH"
            )
        return None
    if lake_only and covers is None:
        raise SettingsError("--lake-only moves the lake's watermarks: say with --covers FROM:TO what the files have")
    return Request(
        open_sources(sources),
        None if covers is None else Covers.read(covers),
        None if genesis is None else _genesis_hash(genesis),
        lake_only,
    )


def _genesis_hash(text: str) -> str:
    known = GENESIS_HASHES.get(text, text)
    try:
        return str(Hash.from_string(known))
    except ParseHashError:
        raise SettingsError(
            f"--genesis {text!r} is neither a genesis hash nor one of {', '.join(GENESIS_HASHES)}"
        ) from None


async def load_files(
    request: Request, settings: IndexerSettings, programs: Programs, database: Database, *, as_json: bool
) -> None:
    """
    Load files, bring the lake up to the frontiers, and say what was done.

    Raises:
        CapstanError: see `Archive`.
    """
    await asyncio.to_thread(migrate, database.dsn)
    role = database.for_role(INDEXER_ROLE)
    async with open_pool(role) as pool:
        await _check_chain(pool, request.genesis_hash)
        async with await connect(database.dsn) as owner:
            registry = await open_registry(owner, programs.values())
        archive = Archive(pool, registry, request.covers)
        opened = asyncio.to_thread(Lake.open, role, settings.lake_path, bulk=request.lake_only)
        with await opened as lake, _collecting_seldom():
            if request.lake_only:
                loaded = await archive.to_lake(request.sources, lake)
            else:
                loaded = await archive.to_postgres(request.sources)
                await asyncio.to_thread(lake.export)
    _report(loaded, as_json=as_json)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """A load makes rows by the million and no cycles of them: looking for some would take a tenth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_MIN, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _check_chain(pool: Pool, genesis_hash: str | None) -> None:
    async with session(pool) as connection:
        known = await select_chain(connection)
        if known is None and genesis_hash is None:
            log.warning("the files' chain is not known: name it with --genesis, or the first node decides for it")
            return
        await ensure_chain(connection, genesis_hash or known or "")


def _report(loaded: Loaded, *, as_json: bool) -> None:
    rate = loaded.transactions / loaded.seconds if loaded.seconds > 0 else 0.0
    if as_json:
        facts = {
            "transactions": loaded.transactions,
            "events": loaded.events,
            "bad_lines": loaded.bad_lines,
            "seconds": round(loaded.seconds, 3),
            "per_second": round(rate, 1),
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    bad = f", {loaded.bad_lines:,} lines were none" if loaded.bad_lines else ""
    sys.stderr.write(
        f"loaded {loaded.transactions:,} transactions with {loaded.events:,} events in {loaded.seconds:.1f} s "
        f"({rate:,.0f}/s){bad}\n"
    )
