"""
`capstan decode`: payloads in hex, a line each, to names and values.
"""

import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from solders.pubkey import Pubkey

from indexer.chain.codec import DecodeError
from indexer.chain.program import Decoded, DecodedInstruction, Program
from indexer.commands.edge import ValuesEncoder, account_encoders, event_encoders, instruction_encoders
from indexer.commands.lines import answer_lines
from indexer.console import reported
from indexer.idls import GivenIdl, given_idls

_KINDS = ("event", "account", "instruction")


class _Line(msgspec.Struct, gc=False):
    """One line of stdin; members that it has beyond these are nobody's business here."""

    kind: str
    hex: str
    program: str | None = None


_read_line = msgspec.json.Decoder(_Line).decode
_write_line = msgspec.json.Encoder().encode


class _Reader(NamedTuple):
    """How one IDL reads payloads of one kind."""

    discriminators: tuple[bytes, ...]
    decode: Callable[[bytes], Decoded | DecodedInstruction]
    encoders: Mapping[str, ValuesEncoder]
    counts_trailing: bool


class _UnreadableLineError(Exception):
    """Why a line has no value: the sentence that is its answer."""


class PayloadDecoder:
    """Answers lines `{"kind", "hex"}` with `{"name", "value"}`, by one IDL or several."""

    def __init__(self, given: Sequence[GivenIdl]) -> None:
        """
        Args:
            given: at least one.
        """
        self._readers = [_readers(idl.program) for idl in given]
        self._by_address = {idl.address: n for n, idl in enumerate(given) if idl.address is not None}
        # A lone IDL without an address is whatever program the lines are about.
        self._any_address = len(given) == 1 and given[0].address is None

    def answer(self, line: bytes) -> bytes:
        """
        Return the answer to one line, as JSON: name, value and, where bytes of an event or instruction are left
        over, how many; or error. Never raises.
        """
        try:
            asked = _read_line(line)
            data = binascii.unhexlify(asked.hex)
            reader = self._reader(asked, data)
            decoded = reader.decode(data)
        except (DecodeError, _UnreadableLineError) as error:
            return _write_line({"error": str(error)})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = str(error) if line.strip() else "it is empty"
            return _write_line({"error": f'the line is not {{"kind": ..., "hex": ...}}: {why}'})
        except ValueError as error:
            return _write_line({"error": f"hex is not hexadecimal digits, two for each byte: {error}"})
        answer = {"name": decoded.name, "value": reader.encoders[decoded.name](decoded.values)}
        if decoded.trailing and reader.counts_trailing:
            answer["trailing"] = decoded.trailing
        return _write_line(answer)

    def _reader(self, asked: _Line, data: bytes) -> _Reader:
        kind = asked.kind
        if kind not in _KINDS:
            raise _UnreadableLineError(f"kind is {kind[:40]!r}, not event, account or instruction")
        if asked.program is not None and not self._any_address:
            return self._named(asked.program)[kind]
        if len(self._readers) == 1:
            return self._readers[0][kind]
        fitting = [readers[kind] for readers in self._readers if data.startswith(readers[kind].discriminators)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise _UnreadableLineError(
                f"{len(fitting)} of the IDLs have such an {kind}: say which program the line is about in its program"
            )
        begins = data[:8].hex() or "(no bytes)"
        raise _UnreadableLineError(
            f"none of the {len(self._readers)} IDLs has an {kind} with the discriminator {begins}"
        )

    def _named(self, address: str) -> dict[str, _Reader]:
        try:
            number = self._by_address.get(bytes(Pubkey.from_string(address)))
        except ValueError:
            raise _UnreadableLineError(f"program is {address[:60]!r}, which is not an address in base58") from None
        if number is None:
            raise _UnreadableLineError(f"no IDL was given for the program {address}: give one as --idl {address}=FILE")
        return self._readers[number]


def _readers(program: Program) -> dict[str, _Reader]:
    return {
        "event": _Reader(_starts(program.events), program.decode_event, event_encoders(program), True),
        "account": _Reader(_starts(program.accounts), program.decode_account, account_encoders(program), False),
        "instruction": _Reader(
            _starts(program.instructions), program.decode_instruction, instruction_encoders(program), True
        ),
    }


def _starts(entries: Mapping[str, Any]) -> tuple[bytes, ...]:
    return tuple(entry.discriminator for entry in entries.values())


def decode(
    *,
    idl: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PROGRAM=]FILE",
            help="An Anchor IDL, either format; repeat for more. PROGRAM, its address in base58, is needed only where "
            "lines name programs and the file does not say. Default: the home programs.",
        ),
    ] = None,
) -> None:
    """
    Decode payloads: hex in, names and values out.

    Reads lines {"kind": "event"|"account"|"instruction", "hex": "..."} from stdin and answers each, in order, with
    {"name": ..., "value": ...} or {"error": "..."}. The hex begins with the discriminator. With several IDLs the one
    that knows the discriminator is taken; a line may name another as "program": "<address>".

    Example: echo '{"kind": "event", "hex": "..."}' | capstan decode --idl target/idl/my_program.json
    """
    with reported():
        answer_lines(PayloadDecoder(given_idls(idl or [])).answer)
