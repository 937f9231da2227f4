"""
Bytes as JSON carries them: base58, base64, base64+zstd, and accounts in every encoding that Solana offers.
"""

import base64
import binascii
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from solders.pubkey import Pubkey

from indexer.chain.base58 import decode_base58
from indexer.errors import DataError
from localnet.accounts import AccountState, State
from localnet.chain import Chain, Commitment
from localnet.rpc.errors import INVALID_REQUEST, RpcError, invalid_params
from localnet.rpc.params import Config, as_u64
from localnet.vm import MINT_BYTES, TOKEN_2022_PROGRAM, TOKEN_PROGRAMS, mint_decimals, token_account

AccountEncoding = Literal["binary", "base58", "base64", "base64+zstd", "jsonParsed"]
ACCOUNT_ENCODINGS: tuple[AccountEncoding, ...] = ("binary", "base58", "base64", "jsonParsed", "base64+zstd")
BASE58_BYTES_MAX = 128
RENT_EPOCH_EXEMPT = 2**64 - 1
"""What a validator shows since rent is no longer collected."""

TRANSACTION_BYTES_MAX = 1_232
_ENCODED_MAX = {"base58": 1_683, "base64": 1_644}
_WIRE_TYPE = "solana_transaction::versioned::VersionedTransaction"

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LETTERS = [a + b for a in _ALPHABET for b in _ALPHABET]


@lru_cache(maxsize=4096)
def base58(data: bytes) -> str:
    """Return bytes of any length in base58. Keys and signatures go through solders, which is faster."""
    number = int.from_bytes(data, "big")
    pairs = []
    while number:
        number, pair = divmod(number, 58 * 58)
        pairs.append(_LETTERS[pair])
    digits = "".join(reversed(pairs)).lstrip("1")
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def key_text(key: bytes) -> str:
    """Return an address in base58."""
    return str(Pubkey(key))


def base64_text(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode("ascii")


def decode_wire(text: str, encoding: str, *, what: str = _WIRE_TYPE) -> bytes:
    """
    Return the bytes of a transaction or message as a client sent them.

    Raises:
        RpcError: longer than a packet, or not in that encoding.
    """
    encoded_max = _ENCODED_MAX[encoding]
    if len(text) > encoded_max:
        raise invalid_params(
            f"{encoding} encoded {what} too large: {len(text)} bytes"
            f" (max: encoded/raw {encoded_max}/{TRANSACTION_BYTES_MAX})"
        )
    try:
        raw = decode_base58(text) if encoding == "base58" else base64.b64decode(text, validate=True)
    except DataError as error:
        bad = next((i for i, letter in enumerate(text) if letter not in _ALPHABET), 0)
        raise invalid_params(
            f"invalid base58 encoding: InvalidCharacter {{ character: {text[bad]!r}, index: {bad} }}"
        ) from error
    except (binascii.Error, ValueError) as error:
        raise invalid_params(f"invalid base64 encoding: {error}") from error
    if len(raw) > TRANSACTION_BYTES_MAX:
        raise invalid_params(f"decoded {what} too large: {len(raw)} bytes (max: {TRANSACTION_BYTES_MAX} bytes)")
    return raw


class AccountView:
    """How a client wants accounts: encoding and slice."""

    def __init__(self, chain: Chain, config: Config, *, default: AccountEncoding = "binary") -> None:
        self._chain = chain
        self.encoding = config.choice("encoding", ACCOUNT_ENCODINGS, default)
        cut = config.mapping("dataSlice")
        self._slice: tuple[int, int] | None = None
        if cut is not None:
            self._slice = as_u64(cut.raw("offset"), "usize"), as_u64(cut.raw("length"), "usize")

    @property
    def key(self) -> tuple[str, tuple[int, int] | None]:
        """What tells one view from another."""
        return self.encoding, self._slice

    def body(self, state: AccountState, commitment: Commitment) -> dict[str, Any]:
        """Return an account's JSON; `commitment` is that of the mint, where decimals are shown."""
        return {
            "data": self._data(state, commitment),
            "executable": state.executable,
            "lamports": state.lamports,
            "owner": key_text(state.owner),
            "rentEpoch": RENT_EPOCH_EXEMPT,
            "space": len(state.data),
        }

    def optional_body(self, state: State, commitment: Commitment) -> dict[str, Any] | None:
        """Return an account's JSON, null where there is none."""
        return None if state is None else self.body(state, commitment)

    def _data(self, state: AccountState, commitment: Commitment) -> Any:
        if self.encoding == "jsonParsed":
            parsed = parsed_token(self._chain, state, commitment)
            return [base64_text(state.data), "base64"] if parsed is None else parsed
        data = state.data
        if self._slice is not None:
            offset, length = self._slice
            data = data[offset : offset + length]
        if self.encoding == "base64":
            return [base64_text(data), "base64"]
        if self.encoding == "base64+zstd":
            packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
            return [base64_text(packed), "base64+zstd"]
        if len(data) > BASE58_BYTES_MAX:
            raise RpcError(
                INVALID_REQUEST,
                f"Encoded binary (base 58) data should be less than {BASE58_BYTES_MAX} bytes,"
                " please use Base64 encoding.",
            )
        return base58(data) if self.encoding == "binary" else [base58(data), "base58"]


def ui_amount(amount: int, decimals: int) -> dict[str, Any]:
    """Return a token amount as Solana shows it. `uiAmount` is a float, as there; the other two are exact."""
    exact = Decimal(amount).scaleb(-decimals)
    text = f"{exact:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return {"amount": str(amount), "decimals": decimals, "uiAmount": float(exact), "uiAmountString": text}


def parsed_token(chain: Chain, state: AccountState, commitment: Commitment) -> dict[str, Any] | None:
    """Return an SPL token account or mint in `jsonParsed` form, None for anything else."""
    if state.owner not in TOKEN_PROGRAMS:
        return None
    program = "spl-token-2022" if state.owner == TOKEN_2022_PROGRAM else "spl-token"
    kind, info = "account", _parsed_account(chain, state, commitment)
    if info is None:
        kind, info = "mint", _parsed_mint(state)
    if info is None:
        return None
    return {"parsed": {"info": info, "type": kind}, "program": program, "space": len(state.data)}


def _parsed_account(chain: Chain, state: AccountState, commitment: Commitment) -> dict[str, Any] | None:
    found = token_account(state)
    if found is None:
        return None
    mint, owner, amount = found
    decimals = mint_decimals(chain.account_at(mint, commitment))
    if decimals is None:
        return None
    data = state.data
    info: dict[str, Any] = {
        "isNative": data[109] == 1,
        "mint": key_text(mint),
        "owner": key_text(owner),
        "state": {1: "initialized", 2: "frozen"}.get(data[108], "uninitialized"),
        "tokenAmount": ui_amount(amount, decimals),
    }
    if data[72] == 1:
        info["delegate"] = key_text(data[76:108])
        info["delegatedAmount"] = ui_amount(int.from_bytes(data[121:129], "little"), decimals)
    if data[109] == 1:
        info["rentExemptReserve"] = ui_amount(int.from_bytes(data[113:121], "little"), decimals)
    if data[129] == 1:
        info["closeAuthority"] = key_text(data[133:165])
    return info


def _parsed_mint(state: AccountState) -> dict[str, Any] | None:
    data = state.data
    if len(data) < MINT_BYTES or mint_decimals(state) is None:
        return None
    return {
        "decimals": data[44],
        "freezeAuthority": key_text(data[50:82]) if data[46] == 1 else None,
        "isInitialized": True,
        "mintAuthority": key_text(data[4:36]) if data[0] == 1 else None,
        "supply": str(int.from_bytes(data[36:44], "little")),
    }
