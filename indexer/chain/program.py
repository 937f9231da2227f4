"""
A program as its IDL describes it, compiled: bytes to names and values, and back.

A payload begins with a discriminator, which picks the layout for the rest. Where payloads come from is the business of
`events.py` and of whoever reads accounts.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import msgspec
from solders.pubkey import Pubkey as SoldersPubkey

from indexer.chain.codec import Codec, DecodeError, EncodeError
from indexer.chain.columns import BatchDecoder, Columns, Layout, Payloads
from indexer.chain.generated import generate_reader
from indexer.chain.idl import AccountType, EventType, Idl, InstructionType
from indexer.chain.layout import Compiler
from indexer.chain.types import Defined, Definition, Scope, Struct, Tuple, fields_of, resolve
from indexer.chain.value import Value
from indexer.errors import DataError, SettingsError


# As `logs.DataLine`: made quickly, and nothing for the collector, however many are kept.
class Decoded(msgspec.Struct, frozen=True, gc=False):
    """
    What a payload says; unpacks into its three parts.

    Args:
        values: the fields by name; of an enum {"Variant": fields}.
        trailing: bytes behind the last field. Normal for accounts, which are allocated at their largest size.
    """

    name: str
    values: dict[str, Value]
    trailing: int

    def __iter__(self) -> Iterator[Any]:
        return iter((self.name, self.values, self.trailing))


class DecodedInstruction(NamedTuple):
    """
    What an instruction says.

    Args:
        accounts: by name, "group.account" inside groups; None for an optional account that was left out, and for one
            behind the end of the list that was given.
        remaining: the accounts that the IDL has no name for.
    """

    name: str
    values: dict[str, Value]
    trailing: int
    accounts: dict[str, bytes | None]
    remaining: tuple[bytes, ...]


class _Entry(NamedTuple):
    """One discriminator's name, type and layout."""

    name: str
    discriminator: bytes
    type: Defined
    codec: Codec


class _Dispatch:
    """Finds the entry that a payload's first bytes name, for discriminators of any length."""

    def __init__(self, what: str, entries: Sequence[_Entry], compiler: Compiler) -> None:
        self._what = what
        self.batches = BatchDecoder([Layout(e.name, e.discriminator, e.type) for e in entries], compiler, self.decode)
        self.by_name = {entry.name: entry for entry in entries}
        self._by_length: dict[int, dict[bytes, list[_Entry]]] = {}
        for entry in entries:
            same_length = self._by_length.setdefault(len(entry.discriminator), {})
            same_length.setdefault(entry.discriminator, []).append(entry)
        self._lengths = sorted(self._by_length)
        # Nearly always all discriminators have one length and differ: then finding one is a single lookup.
        single = len(self._lengths) == 1 and len(self.by_name) == len(self._by_length[self._lengths[0]])
        self._length = self._lengths[0] if single else 0
        self._single = {entry.discriminator: entry for entry in entries} if single else {}
        # Made at the first use: of most programs only some events are ever read.
        self._readers: dict[bytes, Callable[[bytes], Decoded]] = {
            key: partial(self._generate, entry) for key, entry in self._single.items()
        }

    def find(self, data: bytes) -> _Entry:
        """
        Return the entry for `data`.

        Raises:
            DecodeError: none or more than one fits, or `data` is too short for any.
        """
        entry = self._single.get(data[: self._length])
        return entry if entry is not None else self._search(data)

    def _search(self, data: bytes) -> _Entry:
        found = [e for length in self._lengths for e in self._by_length[length].get(data[:length], ())]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(entry.name for entry in found[:10])
            raise DecodeError("ambiguous_discriminator", f"the {self._what} can be any of {names}")
        if self._lengths and len(data) < self._lengths[0]:
            raise DecodeError("short_payload", f"{len(data)} bytes are less than a discriminator of {self._lengths[0]}")
        shown = data[: max(self._lengths, default=8)].hex()
        raise DecodeError("unknown_discriminator", f"the IDL has no {self._what} with the discriminator {shown}")

    def decode(self, data: bytes) -> Decoded:
        read = self._readers.get(data[: self._length])
        if read is not None:
            try:
                return read(data)
            except (struct.error, DecodeError):
                # What for is said below.
                pass
        return self._explain(self.find(data), data)

    def _explain(self, entry: _Entry, data: bytes) -> Decoded:
        """Return the same, or the error with the path of the field."""
        try:
            values, end = entry.codec.read(data, len(entry.discriminator), 0)
        except DecodeError as error:
            raise error.within(entry.name)  # noqa: B904 - the same error, one step further out
        return Decoded(entry.name, values, len(data) - end)

    def _generate(self, entry: _Entry, data: bytes) -> Decoded:
        runs = entry.codec.runs
        read = None if runs is None else generate_reader(Decoded, entry.name, len(entry.discriminator), runs)
        self._readers[entry.discriminator] = read or partial(self._explain, entry)
        return self._readers[entry.discriminator](data)

    def encode(self, name: str, values: Mapping[str, Value]) -> bytes:
        entry = self.by_name.get(name)
        if entry is None:
            known = ", ".join(list(self.by_name)[:20])
            raise DataError(f"the IDL has no {self._what} {name!r}; it has {known or 'none'}")
        out = bytearray(entry.discriminator)
        try:
            entry.codec.write(dict(values), out, 0)
        except EncodeError as error:
            raise error.within(name)  # noqa: B904 - the same error, one step further out
        return bytes(out)


@dataclass(frozen=True, eq=False)
class Program:
    """
    One program on one chain: an IDL with an address.

    Compared by identity. Made by `from_idl` only.
    """

    program_id: bytes
    idl: Idl
    events: Mapping[str, EventType]
    accounts: Mapping[str, AccountType]
    instructions: Mapping[str, InstructionType]
    _events: _Dispatch
    _accounts: _Dispatch
    _instructions: _Dispatch

    @classmethod
    def from_idl(cls, idl: Idl, program_id: bytes | None = None) -> Self:
        """
        Compile `idl`.

        Args:
            program_id: 32 bytes; None takes the address that the IDL gives.

        Raises:
            SettingsError: no address, here or there.
            DataError: a type without a layout that could be known.
        """
        if program_id is None:
            if idl.address is None:
                raise SettingsError(
                    f"the IDL {idl.source} does not say at which address {idl.name} is deployed; give the program id"
                )
            program_id = bytes(SoldersPubkey.from_string(idl.address))
        if len(program_id) != 32:
            raise SettingsError(f"a program id has 32 bytes; the one given for {idl.name} has {len(program_id)}")
        try:
            dispatches = _compile(idl)
        except DataError as error:
            raise DataError(f"{idl.source} cannot be compiled: {error}") from None
        return cls(
            program_id,
            idl,
            MappingProxyType({event.name: event for event in idl.events}),
            MappingProxyType({account.name: account for account in idl.accounts}),
            MappingProxyType({instruction.name: instruction for instruction in idl.instructions}),
            *dispatches,
        )

    def __repr__(self) -> str:
        return f"Program({self.name}, {SoldersPubkey.from_bytes(self.program_id)})"

    @property
    def name(self) -> str:
        """The program's name in snake_case."""
        return self.idl.name

    def decode_event(self, payload: bytes) -> Decoded:
        """
        Return the event that `payload`, discriminator and fields, says.

        Raises:
            DecodeError: unknown discriminator, short payload, invalid value.
        """
        return self._events.decode(payload)

    def decode_account(self, data: bytes) -> Decoded:
        """
        Return the account that `data` holds; bytes behind the last field are normal.

        Raises:
            DecodeError: as for events.
        """
        return self._accounts.decode(data)

    def decode_instruction(self, data: bytes, accounts: Sequence[bytes] = ()) -> DecodedInstruction:
        """
        Return the instruction with its arguments and accounts named.

        Args:
            accounts: the instruction's account keys in order, 32 bytes each. Fewer or more than the IDL names is
                nothing unusual: optional accounts may be left off the end, programs take additional ones.

        Raises:
            DecodeError: as for events.
        """
        name, values, trailing = self._instructions.decode(data)
        named: dict[str, bytes | None] = {}
        expected = self.instructions[name].accounts
        for index, account in enumerate(expected):
            key = accounts[index] if index < len(accounts) else None
            # Anchor marks an absent optional account with the program's own id.
            named[account.name] = None if account.optional and key == self.program_id else key
        return DecodedInstruction(name, values, trailing, named, tuple(accounts[len(expected) :]))

    def decode_events(self, payloads: Payloads) -> Columns:
        """
        Return what `decode_event` says of each of many payloads, as columns.

        Args:
            payloads: an Arrow array of binary, large_binary or fixed_size_binary, or bytes; less than 2 GiB together.

        Raises:
            DataError: the payloads are not that, or some are null. A bad payload is an error of its row.
        """
        return self._events.batches.decode(payloads)

    def decode_accounts(self, payloads: Payloads) -> Columns:
        """Return what `decode_account` says of each of many accounts. Raises as `decode_events` does."""
        return self._accounts.batches.decode(payloads)

    def decode_instructions(self, payloads: Payloads) -> Columns:
        """Return the arguments that `decode_instruction` finds in each of many. Raises as `decode_events` does."""
        return self._instructions.batches.decode(payloads)

    def encode_event(self, name: str, values: Mapping[str, Value]) -> bytes:
        """
        Return the payload of an event.

        Raises:
            DataError: no such event, or a value that its field cannot hold; with the field's path.
        """
        return self._events.encode(name, values)

    def encode_account(self, name: str, values: Mapping[str, Value]) -> bytes:
        """Return an account's data, as long as its values need. Raises as `encode_event` does."""
        return self._accounts.encode(name, values)

    def encode_instruction(self, name: str, args: Mapping[str, Value]) -> bytes:
        """Return an instruction's data. Raises as `encode_event` does."""
        return self._instructions.encode(name, args)


def _compile(idl: Idl) -> tuple[_Dispatch, _Dispatch, _Dispatch]:
    compiler = Compiler()

    def entry(name: str, discriminator: bytes, type_: Defined) -> _Entry:
        return _Entry(name, discriminator, type_, compiler.compile(type_))

    events = [entry(e.name, e.discriminator, _named_fields(e.type)) for e in idl.events]
    accounts = [entry(a.name, a.discriminator, _named_fields(a.type)) for a in idl.accounts]
    instructions = [entry(i.name, i.discriminator, _arguments(i)) for i in idl.instructions]
    return (
        _Dispatch("event", events, compiler),
        _Dispatch("account", accounts, compiler),
        _Dispatch("instruction", instructions, compiler),
    )


def _named_fields(type_: Defined) -> Defined:
    """A tuple struct is named "0", "1", ... where an event or account is one: those are dicts."""
    target = resolve(type_)
    assert isinstance(target, Defined), "an IDL's events and accounts are checked when it is loaded"
    definition = target.definition()
    body = definition.body
    if not isinstance(body, Struct) or not isinstance(body.fields, Tuple):
        return type_
    return _standing_alone(replace(definition, body=Struct(fields_of(body.fields))))


def _standing_alone(definition: Definition) -> Defined:
    scope = Scope()
    scope.definitions[definition.name] = definition
    return Defined(definition.name, (), scope)


def _arguments(instruction: InstructionType) -> Defined:
    """Return the arguments as the struct that Anchor packs them into."""
    return _standing_alone(Definition(instruction.name, Struct(instruction.fields)))
