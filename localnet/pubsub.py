"""
Solana's PubSub: who wants to hear what, and telling them when blocks reach a commitment.

Equal subscriptions share a number, as on a validator, so a notification is encoded once, however many listen. Writing
never waits: what a client does not read piles up in its socket's buffer, and beyond a limit the client is cut off. So
the chain does not notice a slow client, and no client sees a gap without losing its connection.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from localnet.accounts import AccountState
from localnet.chain import Chain, Commitment
from localnet.ledger import Block, Executed
from localnet.mishaps import Mishaps
from localnet.rpc.accounts import Filter, read_filters
from localnet.rpc.bodies import DETAILS, TRANSACTION_ENCODINGS, Details, TransactionView, block_json
from localnet.rpc.dispatch import failure, malformed
from localnet.rpc.encoding import AccountView, key_text
from localnet.rpc.errors import (
    INTERNAL_ERROR,
    PARSE_ERROR,
    RpcError,
    invalid_params,
    method_not_found,
)
from localnet.rpc.faults import Faults
from localnet.rpc.params import Params, as_pubkey, wrong_type
from localnet.rpc.view import Bank
from localnet.vm import SYSTEM_PROGRAM

BUFFER_BYTES_MAX = 32 * 1024 * 1024
SUBSCRIPTIONS_MAX = 10_000
"""Of one connection."""

Kind = Literal["logs", "program", "account", "slot", "root", "signature", "block"]
KINDS: tuple[Kind, ...] = ("logs", "program", "account", "slot", "root", "signature", "block")

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

CLOSED = AccountState(0, b"", SYSTEM_PROGRAM)
"""What an account subscription shows of an account that is gone."""


@dataclass(eq=False)
class Subscription:
    """
    What one or more clients listen to.

    Attributes:
        number: its name towards the clients.
        key: what makes two subscriptions equal.
        commitment: which one a block must reach.
        notes: what there is to tell about a block.
        once: it ends with its first notification.
    """

    number: int
    kind: Kind
    key: tuple[Any, ...]
    commitment: Commitment
    notes: Callable[[Block], Iterator[Any]]
    once: bool = False
    listeners: set[ServerConnection] = field(default_factory=set)


@dataclass(frozen=True)
class _Wish:
    """A subscription that nobody has a number for yet."""

    key: tuple[Any, ...]
    commitment: Commitment
    notes: Callable[[Block], Iterator[Any]]
    once: bool = False


class PubSub:
    """The subscriptions of one chain. `serve_client` is what a WebSocket server calls for each connection."""

    def __init__(self, chain: Chain, faults: Faults | None = None) -> None:
        self._chain = chain
        self._mishaps = Mishaps(Faults() if faults is None else faults)
        self._next_number = 0
        self._by_key: dict[tuple[Any, ...], Subscription] = {}
        self._by_number: dict[int, Subscription] = {}
        self._of_client: dict[ServerConnection, set[int]] = {}
        self._readers: Mapping[Kind, Callable[[Any], _Wish]] = {
            "logs": self._read_logs,
            "program": self._read_program,
            "account": self._read_account,
            "slot": self._read_slot,
            "root": self._read_root,
            "signature": self._read_signature,
            "block": self._read_block,
        }
        self._detach = chain.on(self._tell)

    def close(self) -> None:
        """Stop listening to the chain."""
        self._detach()

    async def serve_client(self, client: ServerConnection) -> None:
        """Answer one client until it leaves."""
        self._of_client[client] = set()
        self._mishaps.enter(client)
        try:
            async for message in client:
                reply, after = self._answer(client, message)
                if reply is not None and self._mishaps.hears(client):
                    # As text: clients in JavaScript do not look into binary frames.
                    await client.send(_encode(reply), text=True)
                if after is not None:
                    after()
        except ConnectionClosed:
            pass
        finally:
            for number in self._of_client.pop(client):
                self._leave(client, number)
            self._mishaps.leave(client)

    def _answer(
        self, client: ServerConnection, message: str | bytes
    ) -> tuple[dict[str, Any] | None, Callable[[], None] | None]:
        """Return the reply to one message, and what is to be done once it is sent."""
        try:
            request = _decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return failure(None, RpcError(PARSE_ERROR, "Parse error")), None
        refused = malformed(request)
        if refused is not None:
            return refused, None
        after = None
        try:
            result, after = self._call(client, request["method"], request.get("params"))
            reply = {"jsonrpc": "2.0", "result": result, "id": request.get("id")}
        except RpcError as error:
            reply = failure(request.get("id"), error)
        except Exception:  # noqa: BLE001  # a bug in one method must not take the chain down; it is logged
            _log.exception("localnet could not answer %s", request["method"])
            reply = failure(request.get("id"), RpcError(INTERNAL_ERROR, "Internal error"))
        return (reply if "id" in request else None), after

    def _call(self, client: ServerConnection, method: str, given: Any) -> tuple[Any, Callable[[], None] | None]:
        for kind in KINDS:
            if method == f"{kind}Subscribe":
                return self._subscribe(client, kind, given)
            if method == f"{kind}Unsubscribe":
                number = Params(given, required=1, allowed=1).u64(0)
                if number not in self._of_client[client]:
                    raise invalid_params("Invalid subscription id.")
                self._of_client[client].discard(number)
                self._leave(client, number)
                return True, None
        raise method_not_found()

    def _subscribe(self, client: ServerConnection, kind: Kind, given: Any) -> tuple[int, Callable[[], None] | None]:
        if len(self._of_client[client]) >= SUBSCRIPTIONS_MAX:
            raise RpcError(
                INTERNAL_ERROR, f"Internal Error: a connection has at most {SUBSCRIPTIONS_MAX} subscriptions"
            )
        wish = self._readers[kind](given)
        key = (kind, *wish.key, wish.commitment)
        subscription = self._by_key.get(key)
        if subscription is None:
            subscription = Subscription(self._next_number, kind, key, wish.commitment, wish.notes, wish.once)
            self._next_number += 1
            self._by_key[key] = self._by_number[subscription.number] = subscription
        subscription.listeners.add(client)
        self._of_client[client].add(subscription.number)
        if not wish.once:
            return subscription.number, None
        return subscription.number, lambda: self._tell_what_has_happened(subscription)

    def _leave(self, client: ServerConnection, number: int) -> None:
        subscription = self._by_number.get(number)
        if subscription is None:
            return
        subscription.listeners.discard(client)
        if not subscription.listeners:
            del self._by_number[number], self._by_key[subscription.key]

    # Telling

    def _tell(self, commitment: Commitment, block: Block) -> None:
        for subscription in tuple(self._by_number.values()):
            if subscription.commitment == commitment:
                try:
                    self._tell_about(subscription, block)
                except Exception:  # noqa: BLE001  # the block is produced whether or not it can be told
                    _log.exception("localnet could not notify %s", subscription.kind)

    def _tell_about(self, subscription: Subscription, block: Block) -> None:
        for note in subscription.notes(block):
            params = {"result": note, "subscription": subscription.number}
            message = _encode({"jsonrpc": "2.0", "method": f"{subscription.kind}Notification", "params": params})
            for client in tuple(subscription.listeners):
                if client.transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
                    client.transport.abort()
            self._mishaps.tell(subscription.listeners, message.decode())
            if subscription.once:
                self._end(subscription)
                return

    def _tell_what_has_happened(self, subscription: Subscription) -> None:
        """Answer a subscription to one signature whose transaction had landed before somebody asked."""
        executed = self._chain.transaction(subscription.key[1])
        if executed is None or executed.slot > self._chain.block_at(subscription.commitment).slot:
            return
        block = self._chain.ledger.block(executed.slot)
        if block is not None:
            self._tell_about(subscription, block)

    def _end(self, subscription: Subscription) -> None:
        for client in tuple(subscription.listeners):
            self._of_client.get(client, set()).discard(subscription.number)
            self._leave(client, subscription.number)

    # What can be subscribed to

    def _read_logs(self, given: Any) -> _Wish:
        params = Params(given, required=1, allowed=2)
        wanted = params.raw(0)
        address: bytes | None = None
        if isinstance(wanted, dict) and set(wanted) == {"mentions"}:
            mentions = wanted["mentions"]
            if not isinstance(mentions, list) or len(mentions) != 1:
                raise invalid_params("Invalid Request: Only 1 address supported")
            address = as_pubkey(mentions[0])
        elif wanted not in ("all", "allWithVotes"):
            raise wrong_type(wanted, "`all`, `allWithVotes` or `mentions`")
        commitment = params.config(1, "RpcTransactionLogsConfig").commitment()

        def notes(block: Block) -> Iterator[Any]:
            for executed in block.transactions:
                if address is None or address in executed.footprint.keys:
                    yield Bank(commitment, block).context(_logs_body(executed))

        return _Wish((address,), commitment, notes)

    def _read_program(self, given: Any) -> _Wish:
        params = Params(given, required=1, allowed=2)
        program = params.pubkey(0)
        config = params.config(1, "RpcProgramAccountsConfig")
        filters: tuple[Filter, ...] = read_filters(config)
        view = AccountView(self._chain, config)
        commitment = config.commitment()

        def notes(block: Block) -> Iterator[Any]:
            for address, state in block.written.items():
                if state is None or state.owner != program or not all(one.accepts(state) for one in filters):
                    continue
                body = {"account": view.body(state, commitment), "pubkey": key_text(address)}
                yield Bank(commitment, block).context(body)

        return _Wish((program, filters, view.key), commitment, notes)

    def _read_account(self, given: Any) -> _Wish:
        params = Params(given, required=1, allowed=2)
        address = params.pubkey(0)
        config = params.config(1, "RpcAccountInfoConfig")
        view = AccountView(self._chain, config)
        commitment = config.commitment()

        def notes(block: Block) -> Iterator[Any]:
            if address in block.written:
                state = block.written[address] or CLOSED
                yield Bank(commitment, block).context(view.body(state, commitment))

        return _Wish((address, view.key), commitment, notes)

    def _read_slot(self, given: Any) -> _Wish:
        Params(given, required=0, allowed=0)

        def notes(block: Block) -> Iterator[Any]:
            root = self._chain.block_at("finalized").slot
            yield {"parent": block.parent_slot, "root": root, "slot": block.slot}

        return _Wish((), "processed", notes)

    def _read_root(self, given: Any) -> _Wish:
        Params(given, required=0, allowed=0)

        def notes(block: Block) -> Iterator[Any]:
            yield block.slot

        return _Wish((), "finalized", notes)

    def _read_signature(self, given: Any) -> _Wish:
        params = Params(given, required=1, allowed=2)
        signature = params.signature(0)
        config = params.config(1, "RpcSignatureSubscribeConfig")
        config.flag("enableReceivedNotification")
        commitment = config.commitment()

        def notes(block: Block) -> Iterator[Any]:
            executed = self._chain.transaction(signature)
            if executed is not None and executed.slot == block.slot:
                yield Bank(commitment, block).context({"err": executed.err})

        return _Wish((signature,), commitment, notes, once=True)

    def _read_block(self, given: Any) -> _Wish:
        params = Params(given, required=1, allowed=2)
        wanted = params.raw(0)
        address: bytes | None = None
        if isinstance(wanted, dict) and set(wanted) == {"mentionsAccountOrProgram"}:
            address = as_pubkey(wanted["mentionsAccountOrProgram"])
        elif wanted != "all":
            raise wrong_type(wanted, "`all` or `mentionsAccountOrProgram`")
        config = params.config(1, "RpcBlockSubscribeConfig")
        commitment = config.commitment()
        if commitment == "processed":
            raise invalid_params("Method does not support commitment below `confirmed`")
        encoding = config.choice("encoding", TRANSACTION_ENCODINGS, "base64")
        view = TransactionView(encoding, config.u64("maxSupportedTransactionVersion"))
        details: Details = config.choice("transactionDetails", DETAILS, "full")
        rewards = config.flag("showRewards", default=True)

        def notes(block: Block) -> Iterator[Any]:
            yield from self._block_notes(block, Bank(commitment, block), address, view, details, rewards=rewards)

        key = (address, encoding, view.version_max, details, rewards)
        return _Wish(key, commitment, notes)

    def _block_notes(
        self, block: Block, bank: Bank, address: bytes | None, view: TransactionView, details: Details, *, rewards: bool
    ) -> Iterator[Any]:
        shown = block.only(address)
        if address is not None and not shown.transactions:
            return
        previous = self._chain.ledger.blocks[max(0, block.height - 1)]
        try:
            body = block_json(shown, previous, view, details, rewards=rewards)
        except RpcError as error:
            yield bank.context({"block": None, "err": {"UnsupportedTransactionVersion": 0}, "slot": block.slot})
            _log.debug("a block subscriber cannot read %d: %s", block.slot, error)
            return
        yield bank.context({"block": body, "err": None, "slot": block.slot})


def _logs_body(executed: Executed) -> dict[str, Any]:
    return {"err": executed.err, "logs": executed.shown_logs, "signature": executed.signature_text}
