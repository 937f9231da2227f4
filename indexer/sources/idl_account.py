"""
The IDL that a program's authors put on chain, with Anchor's tools.

`anchor idl init` keeps it in an account of the program itself, at an address derived from the program's: 8 bytes of
discriminator, the authority, and the JSON, compressed with zlib. anchorpy knows address and layout; what the JSON says
is read by `indexer.chain.idl`, as anchorpy knows the older of its two formats only. IDLs kept elsewhere, as by the
Program Metadata program, are not looked for.
"""

import warnings
import zlib
from typing import Any, NamedTuple

import pybase64
from solders.pubkey import Pubkey

from indexer.errors import DataError, RetryableError
from indexer.sources.node import check_program
from indexer.sources.rpc import Rpc

# The first eight bytes of sha256("internal:IdlAccount").
IDL_ACCOUNT_DISCRIMINATOR = bytes.fromhex("184662bf3a907b9e")
HEAD_BYTES = 8 + 32 + 4
# The largest IDLs are a few hundred kilobytes; a few bytes can inflate to anything.
IDL_BYTES_MAX = 16 << 20
COMPRESSED_BYTES_MAX = 1 << 20


class _Anchor(NamedTuple):
    """What anchorpy is asked for."""

    address: Any
    layout: Any


async def fetch_idl(rpc: Rpc, program_id: bytes) -> bytes:
    """
    Return the text of the IDL that `program_id` has on chain, as its authors wrote it.

    Raises:
        SettingsError: there is no such program.
        DataError: it has no IDL on chain, or the account does not hold one.
        RetryableError: the node does not answer.
    """
    await check_program(rpc, program_id)
    anchor = _anchor()
    program = Pubkey(program_id)
    address = anchor.address(program)
    reply = await rpc.call("getAccountInfo", [str(address), {"encoding": "base64", "commitment": "confirmed"}])
    value = _value(rpc, reply)
    if value is None:
        raise DataError(
            f"the program {program} has no IDL on chain: its account {address} is not on {rpc.shown_url}; "
            "ask the program's authors for the file"
        )
    data, owner = value
    if owner != str(program):
        raise DataError(f"the account {address} is not the IDL of {program}: it belongs to {owner}")
    if not data.startswith(IDL_ACCOUNT_DISCRIMINATOR) or len(data) < HEAD_BYTES:
        raise DataError(f"the account {address} of {program} is not an IDL account: it begins with {data[:8].hex()!r}")
    length = int.from_bytes(data[HEAD_BYTES - 4 : HEAD_BYTES], "little")
    if length > min(len(data) - HEAD_BYTES, COMPRESSED_BYTES_MAX):
        raise DataError(
            f"the IDL account {address} says that its IDL has {length} compressed bytes, which it cannot have"
        )
    compressed = bytes(anchor.layout.parse(data[8 : HEAD_BYTES + length])["data"])
    return _inflated(compressed, f"the IDL on chain at {address}")


def _anchor() -> _Anchor:
    with warnings.catch_warnings():
        # Its own imports are deprecated in places, which is no news for whoever fetches an IDL.
        warnings.simplefilter("ignore")
        from anchorpy.idl import IDL_ACCOUNT_LAYOUT, _idl_address  # noqa: PLC0415 - slow, and one command needs it
    return _Anchor(_idl_address, IDL_ACCOUNT_LAYOUT)


def _value(rpc: Rpc, reply: Any) -> tuple[bytes, str] | None:
    try:
        value = reply["value"]
        return None if value is None else (pybase64.b64decode(value["data"][0], validate=True), str(value["owner"]))
    except (TypeError, KeyError, IndexError, ValueError):
        raise RetryableError(
            f"{rpc.shown_url} did not answer getAccountInfo with an account; ask another node"
        ) from None


def _inflated(compressed: bytes, source: str) -> bytes:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(compressed, IDL_BYTES_MAX)
    except zlib.error as error:
        raise DataError(f"{source} is not compressed with zlib: {error}") from None
    if not inflate.eof:
        why = f"is larger than {IDL_BYTES_MAX} bytes" if len(text) >= IDL_BYTES_MAX else "breaks off"
        raise DataError(f"{source} {why}; ask the program's authors for the file")
    return text
