"""
The `localnet_*` methods that change a chain: its clock, its slots, its accounts, its past, and how it misbehaves.

Off unless asked for, as those of `control.py`, and called like them: one object, whose unknown members are refused.
What moves time or slots produces the open slot first, so that no block has two clocks.
"""

import asyncio
import binascii
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from solders.signature import Signature

from indexer.errors import DataError
from localnet.accounts import AccountState, rent_exempt_minimum
from localnet.chain import Chain
from localnet.control import DEFAULT_COMMITMENT, read_config, rows_of_page
from localnet.fork import Chances, Forked, fork
from localnet.ledger import Block, Executed
from localnet.oracle import (
    PRICE_UPDATE_BYTES,
    RECEIVER_PROGRAM_ID,
    PriceUpdate,
    find_price_account,
    read_price_update,
)
from localnet.rpc.bodies import TransactionView
from localnet.rpc.errors import invalid_params
from localnet.rpc.faults import Faults
from localnet.rpc.params import Config, as_bool, as_pubkey, as_text, as_u64
from localnet.vm import SYSTEM_PROGRAM

SLOTS_SKIPPED_MAX = 1_000_000_000
UNIX_TIME_MAX = 2**40
ACCOUNT_BYTES_MAX = 10 * 1024 * 1024
DUMP_ROWS_MAX = 1_000
DUMP_ROWS_BETWEEN_BREATHS = 200
VERSION_MAX = 1
"""Bodies are for readers that know every transaction version there is."""

_encode = msgspec.json.Encoder().encode


class SteeringMethods:
    """
    The methods of one chain, each on the params of a request.

    Args:
        chain: what they change.
        faults: what they set for the server of the same chain.
        slot_ms: a slot's length.
        on_slot: called in each slot that they open, as the server does in its own.
        on_price: hears of each price that is set, so that whoever writes prices every slot can go on from it.
    """

    def __init__(
        self,
        chain: Chain,
        faults: Faults,
        *,
        slot_ms: int,
        on_slot: Callable[[], None] = lambda: None,
        on_price: Callable[[PriceUpdate], None] = lambda _: None,
    ) -> None:
        self._chain = chain
        self._faults = faults
        self._slot_ms = slot_ms
        self._on_slot = on_slot
        self._on_price = on_price

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "localnet_setClock": self.set_clock,
            "localnet_warpSlot": self.warp_slot,
            "localnet_skipSlots": self.skip_slots,
            "localnet_setAccount": self.set_account,
            "localnet_setPrice": self.set_price,
            "localnet_faults": self.faults,
            "localnet_fork": self.fork,
            "localnet_dump": self.dump,
        }

    # Time

    def set_clock(self, given: Any) -> dict[str, int]:
        """Open the next slot with the clock at `unix_time`, from which it goes on; it cannot go back."""
        config = read_config(given, "unix_time")
        return self._open_slot(self._chain.slot + 1, self._unix_time(config, None))

    def warp_slot(self, given: Any) -> dict[str, int]:
        """Open `slot`; those in between are skipped. The clock goes as far, or to `unix_time`."""
        config = read_config(given, "slot", "unix_time")
        slot = as_u64(config.raw("slot"))
        ahead = slot - self._chain.slot
        if not 0 < ahead <= SLOTS_SKIPPED_MAX:
            raise invalid_params(f"slot {slot} cannot be opened: slot {self._chain.slot} is open, and slots only go up")
        return self._open_slot(slot, self._unix_time(config, self._chain.unix_time + ahead * self._slot_ms // 1000))

    def skip_slots(self, given: Any) -> dict[str, int]:
        """Skip the `count` slots after the open one: numbers without a block. No time passes."""
        count = as_u64(read_config(given, "count").raw("count"))
        if not 0 < count <= SLOTS_SKIPPED_MAX:
            raise invalid_params(f"count {count} is not from 1 to {SLOTS_SKIPPED_MAX}")
        return self._open_slot(self._chain.slot + count + 1, self._chain.unix_time)

    def _unix_time(self, config: Config, default: int | None) -> int:
        given = config.raw("unix_time")
        if given is None and default is not None:
            return default
        unix_time = as_u64(given)
        if not self._chain.unix_time <= unix_time < UNIX_TIME_MAX:
            raise invalid_params(
                f"unix_time {unix_time} is not from {self._chain.unix_time} to {UNIX_TIME_MAX - 1}: clocks only go on"
            )
        return unix_time

    def _open_slot(self, slot: int, unix_time: int) -> dict[str, int]:
        self._chain.open_slot(slot, unix_time, produced_ns=time.time_ns())
        self._on_slot()
        return {"slot": self._chain.slot, "unix_time": self._chain.unix_time}

    # Accounts

    def set_account(self, given: Any) -> dict[str, int]:
        """Write an account into the open slot; no `lamports`: as many as rent asks for; 0: it is gone."""
        config = read_config(given, "address", "lamports", "data", "owner", "executable")
        address = as_pubkey(config.raw("address"))
        data = _decoded(config)
        owner = SYSTEM_PROGRAM if config.raw("owner") is None else as_pubkey(config.raw("owner"))
        executable = False if config.raw("executable") is None else as_bool(config.raw("executable"))
        lamports = config.u64("lamports")
        state = AccountState(rent_exempt_minimum(len(data)) if lamports is None else lamports, data, owner, executable)
        return self._write(address, state)

    def _write(self, address: bytes, state: AccountState) -> dict[str, int]:
        try:
            self._chain.set_account(address, state)
        except Exception as error:  # the VM's own class is private to solders
            if type(error).__name__ != "LiteSVMError":
                raise
            raise invalid_params(f"the VM does not accept this account: {error}") from error
        return {"slot": self._chain.slot, "lamports": state.lamports}

    def set_price(self, given: Any) -> dict[str, Any]:
        """
        Write a feed's Pyth price account into the open slot; what is not named stays as it was.

        A chain whose prices are written every slot is told, and goes on from this one.
        """
        config = read_config(
            given, "feed_id", "price", "conf", "exponent", "ema_price", "ema_conf", "publish_time", "shard"
        )
        feed_id = _feed_id(config.raw("feed_id"))
        shard = config.u64("shard") or 0
        if shard >= 2**16:
            raise invalid_params(f"shard {shard} is not below 65536")
        address = find_price_account(feed_id, shard=shard)
        state = self._chain.account_at(address)
        last = read_price_update(state.data) if state is not None else None
        price = _signed(config, "price", 64, None)
        conf = config.u64("conf")
        update = PriceUpdate(
            feed_id=feed_id,
            price=price,
            conf=(last.conf if last else 0) if conf is None else conf,
            exponent=_signed(config, "exponent", 32, last.exponent if last else -8),
            publish_time=_signed(config, "publish_time", 64, self._chain.unix_time),
            prev_publish_time=last.publish_time if last else self._chain.unix_time,
            ema_price=_signed(config, "ema_price", 64, last.ema_price if last else price),
            ema_conf=_unsigned(config, "ema_conf", last.ema_conf if last else conf or 0),
            posted_slot=self._chain.slot,
            write_authority=last.write_authority if last else bytes(32),
        )
        lamports = state.lamports if state is not None else rent_exempt_minimum(PRICE_UPDATE_BYTES)
        written = self._write(bytes(address), AccountState(lamports, bytes(update), bytes(RECEIVER_PROGRAM_ID)))
        self._on_price(update)
        return {"address": str(address), "slot": written["slot"]}

    # The past

    def fork(self, given: Any) -> dict[str, Any]:
        """Replace the newest `blocks` confirmed blocks by others, by `seed`; see `localnet.fork`."""
        config = read_config(given, "blocks", "seed", "lost", "moved", "skipped")
        blocks = as_u64(config.raw("blocks"))
        chances = Chances()
        named = {name: _rate(config, name, getattr(chances, name)) for name in Chances._fields}
        chances = Chances(**named)
        if chances.lost + chances.moved > 1:
            raise invalid_params(f"lost {chances.lost} and moved {chances.moved} are together more than 1")
        try:
            forked = fork(
                self._chain, blocks, seed=config.u64("seed") or 0, chances=chances, produced_ns=time.time_ns()
            )
        except DataError as error:
            raise invalid_params(str(error)) from error
        return _forked_body(forked)

    def dump(self, given: Any) -> Any:
        """
        Tell the ledger as getTransaction bodies, in the chain's order.

        With `path`: all of them into that new file, one a line; the answer counts them. Else a page of them.
        """
        config = read_config(given, "commitment", "after_index", "limit", "path")
        commitment = config.commitment(DEFAULT_COMMITMENT)
        slot_max = self._chain.block_at(commitment).slot
        rows = [
            (block, one) for block in self._chain.ledger.blocks if block.slot <= slot_max for one in block.transactions
        ]
        if config.raw("path") is None:
            page = rows_of_page(config, len(rows), rows_max=DUMP_ROWS_MAX)
            return [{"index": index, "body": _body(*rows[index])} for index in page]
        if config.raw("limit") is not None or config.raw("after_index") is not None:
            raise invalid_params("a dump into a file is whole: leave limit and after_index out, or path")
        return self._dump_to(Path(as_text(config.raw("path"))), rows)

    async def _dump_to(self, path: Path, rows: list[tuple[Block, Executed]]) -> dict[str, Any]:
        if not path.is_absolute():
            raise invalid_params(f"path {str(path)!r} is not absolute")
        try:
            # Never over another file: whoever can reach the port may call this.
            with path.open("xb") as file:
                for number, row in enumerate(rows, start=1):
                    file.write(_encode(_body(*row)) + b"\n")
                    if number % DUMP_ROWS_BETWEEN_BREATHS == 0:
                        await asyncio.sleep(0)
                size = file.tell()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise invalid_params(f"path {str(path)!r} cannot be written: {reason}") from error
        return {"path": str(path), "transactions": len(rows), "bytes": size}

    # Misbehaviour

    def faults(self, given: Any) -> dict[str, Any]:
        """Set what goes wrong: an object replaces everything, `{}` ends it; without one, tell what is in force."""
        if given:
            if len(given) > 1 or not isinstance(given[0], dict):
                raise invalid_params("faults: one object is expected")
            self._faults.set(given[0])
        return {"settings": msgspec.to_builtins(self._faults.settings), "counts": dict(self._faults.counts)}


def _body(block: Block, executed: Executed) -> dict[str, Any]:
    view = TransactionView("json", VERSION_MAX)
    return {"blockTime": block.unix_time, "slot": executed.slot, **view.body(executed)}


def _forked_body(forked: Forked) -> dict[str, Any]:
    return {
        "dropped": forked.dropped,
        "rewritten": forked.rewritten,
        "lost": [str(Signature(one)) for one in forked.lost],
        "moved": [str(Signature(one)) for one in forked.moved],
    }


def _decoded(config: Config) -> bytes:
    """Return the `data` of a request: base64, as text or as Solana's [text, "base64"]; empty where there is none."""
    given = config.raw("data")
    if given is None:
        return b""
    if isinstance(given, list) and len(given) == 2 and given[1] == "base64":
        given = given[0]
    try:
        data = binascii.a2b_base64(as_text(given), strict_mode=True) if given else b""
    except (binascii.Error, ValueError) as error:
        raise invalid_params(f"data is not base64: {error}") from error
    if len(data) > ACCOUNT_BYTES_MAX:
        raise invalid_params(f"an account holds at most {ACCOUNT_BYTES_MAX} bytes, not {len(data)}")
    return data


def _feed_id(given: Any) -> bytes:
    """Return a feed's 32 bytes from hexadecimal, with or without 0x, as Pyth prints it."""
    try:
        feed_id = bytes.fromhex(as_text(given).removeprefix("0x"))
    except ValueError as error:
        raise invalid_params(f"feed_id is not hexadecimal: {error}") from error
    if len(feed_id) != 32:
        raise invalid_params(f"a feed_id has 32 bytes, not {len(feed_id)}")
    return feed_id


def _signed(config: Config, name: str, bits: int, default: int | None) -> int:
    given = config.raw(name)
    if given is None and default is not None:
        return default
    if isinstance(given, bool) or not isinstance(given, int) or not -(2 ** (bits - 1)) <= given < 2 ** (bits - 1):
        raise invalid_params(f"{name} is not an integer of {bits} bits: {given!r}"[:200])
    return given


def _unsigned(config: Config, name: str, default: int) -> int:
    given = config.u64(name)
    return default if given is None else given


def _rate(config: Config, name: str, default: float) -> float:
    given = config.raw(name)
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise invalid_params(f"{name} is not a rate from 0 to 1: {given!r}"[:200])
    return float(given)
