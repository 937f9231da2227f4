"""
A chain in a folder: saved when it stops, gone on from when it starts again.

One file: a line of JSON that says what it is, and behind it the packed ledger, accounts and open slot. Programs are not
in it (a chain that is resumed has those of the code that resumes it), nor are users half way through their business.
A file is written beside the old one and takes its place whole, so a process that dies while it saves loses nothing but
what happened since the last save.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import TransactionMetadata

from indexer.errors import SettingsError
from localnet.accounts import Accounts, State
from localnet.chain import Chain, Commitment, Kept
from localnet.ledger import Block, Executed, Footprint, Ledger, TokenBalance

FILE_NAME = "localnet.ledger"
FORMAT = "capstan localnet ledger"
VERSION = 1
HEADER_BYTES_MAX = 4_096


class Header(msgspec.Struct, frozen=True):
    """The first line; `sha256` is that of everything after it, `size` the number of bytes that it unpacks to."""

    format: str
    version: int
    sha256: str
    size: int


class Notes(msgspec.Struct, frozen=True):
    """
    What the command that runs a chain must remember of it.

    Attributes:
        wall_clock: the chain's clock is the wall's, so a resumed chain skips what it missed.
        populated: it has users.
        transactions: how many its history was asked to have; decides how many users there are.
        next_life: number of the first user who has not acted yet.
        mix: which users act; a chain saved before there was a choice had sessions alone.
    """

    wall_clock: bool
    populated: bool
    transactions: int
    next_life: int
    mix: str = "sessions=1"


class _Transaction(msgspec.Struct, array_like=True):
    wire: bytes
    err: str | dict[str, Any] | None
    meta: bytes | None
    fee: int
    footprint: Footprint
    pre_balances: list[int]
    post_balances: list[int]
    pre_token_balances: list[TokenBalance]
    post_token_balances: list[TokenBalance]
    log_bytes_max: int | None


class _Block(msgspec.Struct, array_like=True):
    slot: int
    parent_slot: int
    height: int
    unix_time: int
    previous_blockhash: bytes
    blockhash: bytes
    transactions: list[_Transaction]
    transactions_total: int
    written: dict[bytes, State]
    produced_ns: int | None
    epoch_start: int
    outside: list[tuple[int, bytes, State]]


class _Chain(msgspec.Struct, array_like=True):
    seed: int
    start_time: int
    distances: tuple[int, int]
    genesis_hash: str
    notes: Notes
    blocks: list[_Block]
    open: _Block
    reached: dict[Commitment, int]
    airdrops: int
    forks: int
    versions: dict[bytes, list[tuple[int, State]]]
    owners: dict[bytes, list[bytes]]


class LedgerFolder:
    """
    A folder that one running localnet at a time keeps its chain in.

    Raises:
        SettingsError: it cannot be written to, or another localnet runs on it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise SettingsError(f"another localnet runs on --ledger {folder}: stop it or name another folder") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise SettingsError(f"--ledger {folder} cannot be used ({reason}): name a folder that is yours") from error

    def close(self) -> None:
        """Let another localnet have the folder."""
        self._lock.close()

    def save(self, chain: Chain, notes: Notes) -> int:
        """Write the chain as it is; return the bytes written."""
        payload = msgspec.msgpack.encode(_packed(chain, notes))
        body: bytes = pa.compress(payload, codec="zstd", asbytes=True)
        header = Header(FORMAT, VERSION, hashlib.sha256(body).hexdigest(), len(payload))
        beside = self.path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(header) + b"\n")
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        return self.path.stat().st_size

    def load(self, prepare: Callable[[Chain], None]) -> tuple[Chain, Notes] | None:
        """
        Return the chain that was saved here, None where there is none yet.

        Args:
            prepare: puts programs on the new chain before its accounts arrive.

        Raises:
            SettingsError: the file is not one of ours, is broken, or a newer localnet wrote it.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be read ({error.strerror}): name another --ledger") from error
        saved = self._unpacked(raw)
        confirmed, finalized = saved.distances
        chain = Chain(
            seed=saved.seed, start_time=saved.start_time, confirmed_distance=confirmed, finalized_distance=finalized
        )
        if chain.genesis_hash != saved.genesis_hash:
            raise self._refusal("is of a chain that this localnet would begin in another way")
        prepare(chain)
        _resume(chain, saved)
        return chain, saved.notes

    def _unpacked(self, raw: bytes) -> _Chain:
        line, newline, body = raw.partition(b"\n")
        try:
            header = msgspec.json.decode(line[:HEADER_BYTES_MAX], type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            header = None
        if not newline or header is None or header.format != FORMAT:
            raise self._refusal("is not a localnet ledger")
        if header.version != VERSION:
            raise self._refusal(f"has version {header.version} of the format, and this localnet knows {VERSION}")
        if hashlib.sha256(body).hexdigest() != header.sha256:
            raise self._refusal(f"is broken: its {len(body)} bytes are not those that were saved")
        try:
            payload: bytes = pa.decompress(body, decompressed_size=header.size, codec="zstd", asbytes=True)
            return msgspec.msgpack.decode(payload, type=_Chain)
        except (OSError, ValueError, pa.ArrowException, msgspec.MsgspecError) as error:
            raise self._refusal(f"cannot be understood: {error}") from error

    def _refusal(self, what: str) -> SettingsError:
        return SettingsError(f"{self.path} {what}: remove it to begin anew, or name another --ledger")


def _packed(chain: Chain, notes: Notes) -> _Chain:
    kept = chain.kept()
    return _Chain(
        seed=chain.seed,
        start_time=chain.start_time,
        distances=chain.distances,
        genesis_hash=chain.genesis_hash,
        notes=notes,
        blocks=[_packed_block(block) for block in chain.ledger.blocks],
        open=_packed_block(kept.open),
        reached=kept.reached,
        airdrops=kept.airdrops,
        forks=kept.forks,
        versions=kept.accounts.versions(),
        owners=kept.accounts.owners(),
    )


def _packed_block(block: Block) -> _Block:
    return _Block(
        slot=block.slot,
        parent_slot=block.parent_slot,
        height=block.height,
        unix_time=block.unix_time,
        previous_blockhash=block.previous_blockhash,
        blockhash=block.blockhash,
        transactions=[_packed_transaction(executed) for executed in block.transactions],
        transactions_total=block.transactions_total,
        written=block.written,
        produced_ns=block.produced_ns,
        epoch_start=block.epoch_start,
        outside=block.outside,
    )


def _packed_transaction(executed: Executed) -> _Transaction:
    return _Transaction(
        wire=bytes(executed.transaction),
        err=executed.err,
        meta=None if executed.meta is None else bytes(executed.meta),
        fee=executed.fee,
        footprint=executed.footprint,
        pre_balances=list(executed.pre_balances),
        post_balances=list(executed.post_balances),
        pre_token_balances=list(executed.pre_token_balances),
        post_token_balances=list(executed.post_token_balances),
        log_bytes_max=executed.log_bytes_max,
    )


def _resume(chain: Chain, saved: _Chain) -> None:
    ledger = Ledger()
    for block in saved.blocks:
        ledger.add_block(_block(block, ledger))
    accounts = Accounts.restored(saved.versions, saved.owners)
    opened = _block(saved.open, ledger)
    chain.resume(ledger, Kept(opened, accounts, saved.reached, saved.airdrops, saved.forks))


def _block(saved: _Block, ledger: Ledger) -> Block:
    """Return a block and make its transactions findable."""
    block = Block(
        slot=saved.slot,
        parent_slot=saved.parent_slot,
        height=saved.height,
        unix_time=saved.unix_time,
        previous_blockhash=saved.previous_blockhash,
        blockhash=saved.blockhash,
        transactions_total=saved.transactions_total,
        written=saved.written,
        produced_ns=saved.produced_ns,
        epoch_start=saved.epoch_start,
        outside=saved.outside,
    )
    for index, one in enumerate(saved.transactions):
        executed = Executed(
            VersionedTransaction.from_bytes(one.wire),
            slot=saved.slot,
            landed=True,
            err=one.err,
            meta=None if one.meta is None else TransactionMetadata.from_bytes(one.meta),
            index=index,
            fee=one.fee,
            footprint=one.footprint,
            pre_balances=one.pre_balances,
            post_balances=one.post_balances,
            pre_token_balances=one.pre_token_balances,
            post_token_balances=one.post_token_balances,
            log_bytes_max=one.log_bytes_max,
        )
        block.transactions.append(executed)
        ledger.add_transaction(executed)
    return block
