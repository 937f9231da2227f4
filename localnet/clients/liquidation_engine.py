"""
`liquidation_engine` for whoever talks to it: addresses, instructions, and the reading of its events and accounts.

Independent of the IDL and of `indexer.chain` on purpose: what they read is compared with what this reads. Units: sizes
1e-6 of the base asset, prices 1e-6 USDT per whole base asset, money 1e-6 USDT.
"""

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

from localnet.clients import collateral_vault

PROGRAM_ID = Pubkey.from_string("HCJaVaM9GEH4nYoX6UquxWXroXJyjSLp2LLKCa1gg5NJ")
ADDRESSES_KEPT = 4_096
"""A derived address costs hashes, and callers ask for the same ones over and over."""
SYMBOL_BYTES_MAX = 16
MARKET_BYTES = 74
POSITION_BYTES = 98
FUND_BYTES = 73
EVENT_TAG = bytes.fromhex("e445a52e51cb9a1d")
"""What an event instruction begins with; then comes the event, from its discriminator on."""

ERRORS: dict[int, str] = dict(
    enumerate(
        (
            "NotLiquidatable", "InvalidLiquidationAmount", "StalePrice", "LowConfidence", "WrongFeed", "MarketHalted",
            "InvalidLeverage", "InsufficientCollateral", "MathOverflow", "SymbolTooLong", "UseFullLiquidation",
            "WrongOracleOwner", "UsePartialLiquidation", "FundInsufficient", "InvalidPrice", "PartialVerification",
            "SelfLiquidation",
        ),
        start=6000,
    )
)  # fmt: skip
"""The program's own errors by code; Anchor's are below 6000."""

Value: TypeAlias = int | bool | bytes | str
"""Integers, bools, text, and 32 bytes for a pubkey or a feed id."""

Layout: TypeAlias = tuple[str, tuple[str, ...]]
"""Struct codes, `$` for a string, and the names of what they read."""

EVENTS: dict[str, Layout] = {
    "MarketCreated": ("$32sq", ("symbol", "feed_id", "timestamp")),
    "PositionOpened": (
        "32s32s$?QQQHq",
        (
            "owner", "position", "symbol", "is_long", "size", "collateral", "entry_price", "leverage", "timestamp",
        ),
    ),
    "CollateralAdded": ("32s32sQQq", ("owner", "position", "amount", "collateral", "timestamp")),
    "PositionClosed": ("32s32s$QQqq", ("owner", "position", "symbol", "size", "exit_price", "pnl", "timestamp")),
    "LiquidationEvent": (
        "32s32s$QQqqQQq?",
        (
            "position_owner", "liquidator", "symbol", "liquidated_size", "liquidation_price", "margin_before",
            "margin_after", "liquidator_reward", "bad_debt", "timestamp", "is_full",
        ),
    ),
    "InsuranceContribution": ("32sQQq", ("contributor", "amount", "balance", "timestamp")),
    "BadDebtCovered": ("32sQQQq", ("position_owner", "bad_debt", "covered", "balance", "timestamp")),
}  # fmt: skip
ACCOUNTS: dict[str, tuple[int, Layout]] = {
    "Market": (
        MARKET_BYTES,
        ("$32sqHH?B", ("symbol", "feed_id", "max_price_age", "max_conf_bps", "max_leverage", "halted", "bump")),
    ),
    "Position": (
        POSITION_BYTES,
        (
            "32s$?QQQHHqB",
            (
                "owner", "symbol", "is_long", "size", "collateral", "entry_price", "leverage",
                "maintenance_margin_bps", "opened_at", "bump",
            ),
        ),
    ),
    "InsuranceFund": (
        FUND_BYTES,
        (
            "32sQQQQB",
            (
                "authority", "balance", "total_contributions", "total_bad_debt_covered", "utilization_ratio", "bump",
            ),
        ),
    ),
}  # fmt: skip
"""Bytes allocated and layout, by name; a symbol shorter than its maximum leaves bytes over at the end."""


def discriminator(namespace: str, name: str) -> bytes:
    """Return Anchor's 8 bytes for a name: namespace `global` for instructions, `account`, or `event`."""
    return sha256(f"{namespace}:{name}".encode()).digest()[:8]


EVENT_BY_DISCRIMINATOR = {discriminator("event", name): name for name in EVENTS}
ACCOUNT_BY_DISCRIMINATOR = {discriminator("account", name): name for name in ACCOUNTS}


def find_position(owner: Pubkey, symbol: str, program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of the owner's position in a symbol."""
    return Pubkey.find_program_address([b"position", bytes(owner), symbol.encode()], program_id)[0]


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_market(symbol: str, program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of a symbol's market."""
    return Pubkey.find_program_address([b"market", symbol.encode()], program_id)[0]


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_fund(program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of the insurance fund."""
    return Pubkey.find_program_address([b"insurance_fund"], program_id)[0]


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_event_authority(program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the PDA that signs the program's events."""
    return Pubkey.find_program_address([b"__event_authority"], program_id)[0]


def initialize_insurance_fund(authority: Pubkey, *, mint: Pubkey, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Create the fund and its vault, once; the authority is the markets', too. Signed by authority."""
    fund = find_fund(program_id)
    accounts = [
        writable(authority, signer=True), writable(fund), *vault_and_tokens(fund, mint), readable(mint),
        readable(collateral_vault.find_vault_authority()), readable(collateral_vault.PROGRAM_ID),
        readable(collateral_vault.TOKEN_PROGRAM_ID), readable(collateral_vault.ASSOCIATED_TOKEN_PROGRAM_ID),
        readable(SYSTEM_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "initialize_insurance_fund"), accounts)


def create_market(
    authority: Pubkey,
    *,
    symbol: str,
    feed_id: bytes,
    max_price_age_s: int,
    max_conf_bps: int,
    max_leverage: int,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Open a market for a symbol of at most 16 bytes, priced by a feed of 32 bytes. Signed by authority."""
    arguments = text(symbol) + struct.pack("<32sqHH", feed_id, max_price_age_s, max_conf_bps, max_leverage)
    accounts = [
        writable(authority, signer=True), readable(find_fund(program_id)), writable(find_market(symbol, program_id)),
        readable(SYSTEM_PROGRAM_ID), *event_accounts(program_id),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "create_market") + arguments, accounts)


def set_market_halted(authority: Pubkey, *, symbol: str, halted: bool, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Stop the opening of positions in a market, or allow it again. Signed by authority."""
    accounts = [
        readable(authority, signer=True), readable(find_fund(program_id)), writable(find_market(symbol, program_id)),
    ]  # fmt: skip
    data = discriminator("global", "set_market_halted") + struct.pack("<?", halted)
    return Instruction(program_id, data, accounts)


def contribute(
    contributor: Pubkey,
    *,
    amount: int,
    mint: Pubkey,
    token_account: Pubkey | None = None,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Pay tokens into the fund, from the contributor's associated account where none is named. Signed by them."""
    fund = find_fund(program_id)
    source = token_account or collateral_vault.find_token_account(contributor, mint)
    accounts = [
        readable(contributor, signer=True), writable(source), writable(fund), *vault_and_tokens(fund, mint),
        readable(collateral_vault.find_vault_authority()), readable(collateral_vault.PROGRAM_ID),
        readable(collateral_vault.TOKEN_PROGRAM_ID), *event_accounts(program_id),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "contribute") + struct.pack("<Q", amount), accounts)


def open_position(
    owner: Pubkey,
    *,
    symbol: str,
    price_update: Pubkey,
    is_long: bool,
    size: int,
    collateral: int,
    leverage: int,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Open a position at the price of the account, its collateral out of the owner's vault. Signed by owner."""
    arguments = text(symbol) + struct.pack("<?QQH", is_long, size, collateral, leverage)
    accounts = [
        writable(owner, signer=True), readable(find_market(symbol, program_id)), readable(price_update),
        writable(find_position(owner, symbol, program_id)), writable(collateral_vault.find_vault(owner)),
        *call_accounts(program_id), readable(SYSTEM_PROGRAM_ID), *event_accounts(program_id),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "open_position") + arguments, accounts)


def add_collateral(owner: Pubkey, *, symbol: str, amount: int, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Lock more of the owner's vault on a position. Signed by owner."""
    accounts = [
        readable(owner, signer=True), writable(find_position(owner, symbol, program_id)),
        writable(collateral_vault.find_vault(owner)), *call_accounts(program_id), *event_accounts(program_id),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "add_collateral") + struct.pack("<Q", amount), accounts)


def close_position(
    owner: Pubkey, *, symbol: str, price_update: Pubkey, mint: Pubkey, program_id: Pubkey = PROGRAM_ID
) -> Instruction:
    """Settle a position at the price of the account, and close it. Signed by owner."""
    fund = find_fund(program_id)
    accounts = [
        writable(owner, signer=True), readable(find_market(symbol, program_id)), readable(price_update),
        writable(find_position(owner, symbol, program_id)), writable(fund), *vault_and_tokens(owner, mint),
        *vault_and_tokens(fund, mint), *call_accounts(program_id), readable(collateral_vault.TOKEN_PROGRAM_ID),
        *event_accounts(program_id),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "close_position"), accounts)


def liquidate_partial(
    liquidator: Pubkey,
    owner: Pubkey,
    *,
    symbol: str,
    price_update: Pubkey,
    mint: Pubkey,
    size: int,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Close at most `size` of somebody's position, which that restores. Signed by liquidator, who has a vault."""
    accounts = liquidation_accounts(
        liquidator, owner, symbol=symbol, price_update=price_update, mint=mint, program_id=program_id
    )
    return Instruction(program_id, discriminator("global", "liquidate_partial") + struct.pack("<Q", size), accounts)


def liquidate_full(
    liquidator: Pubkey,
    owner: Pubkey,
    *,
    symbol: str,
    price_update: Pubkey,
    mint: Pubkey,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Close all of somebody's position, which nothing less restores. Signed by liquidator, who has a vault."""
    accounts = liquidation_accounts(
        liquidator, owner, symbol=symbol, price_update=price_update, mint=mint, program_id=program_id
    )
    return Instruction(program_id, discriminator("global", "liquidate_full"), accounts)


def parse_event(payload: bytes) -> tuple[str, dict[str, Value]] | None:
    """Return name and fields of one of the program's events, or None where the bytes are not exactly one."""
    name = EVENT_BY_DISCRIMINATOR.get(payload[:8])
    read = unpack(EVENTS[name], payload, 8) if name is not None else None
    return (name, read[0]) if name is not None and read is not None and read[1] == len(payload) else None


def parse_account(data: bytes) -> tuple[str, dict[str, Value]] | None:
    """Return name and fields of one of the program's accounts, or None where the data is not one."""
    name = ACCOUNT_BY_DISCRIMINATOR.get(data[:8])
    if name is None or len(data) != ACCOUNTS[name][0]:
        return None
    read = unpack(ACCOUNTS[name][1], data, 8)
    return (name, read[0]) if read is not None else None


def unpack(layout: Layout, data: bytes, at: int) -> tuple[dict[str, Value], int] | None:
    """Return the fields from offset `at` on and where they end, or None where the data does not hold them."""
    values: list[Value] = []
    try:
        for code in re.findall(r"\d*[a-zA-Z?$]", layout[0]):
            if code == "$":
                (length,) = struct.unpack_from("<I", data, at)
                (raw,) = struct.unpack_from(f"<{length}s", data, at + 4)
                values.append(raw.decode())
                at += 4 + length
            else:
                values.append(struct.unpack_from(f"<{code}", data, at)[0])
                at += struct.calcsize(f"<{code}")
    except (struct.error, UnicodeDecodeError):
        return None
    return dict(zip(layout[1], values, strict=True)), at


def text(value: str) -> bytes:
    """Return a borsh string."""
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw


def readable(key: Pubkey, *, signer: bool = False) -> AccountMeta:
    """Return an account that the instruction does not change."""
    return AccountMeta(key, is_signer=signer, is_writable=False)


def writable(key: Pubkey, *, signer: bool = False) -> AccountMeta:
    """Return an account that the instruction may change."""
    return AccountMeta(key, is_signer=signer, is_writable=True)


def vault_and_tokens(owner: Pubkey, mint: Pubkey) -> Sequence[AccountMeta]:
    """Return an owner's collateral vault and where its tokens lie."""
    vault = collateral_vault.find_vault(owner)
    return writable(vault), writable(collateral_vault.find_token_account(vault, mint))


def call_accounts(program_id: Pubkey) -> Sequence[AccountMeta]:
    """Return what every call of the collateral program takes."""
    authority = collateral_vault.find_caller_authority(program_id)
    return readable(collateral_vault.find_vault_authority()), readable(authority), readable(collateral_vault.PROGRAM_ID)


def event_accounts(program_id: Pubkey) -> Sequence[AccountMeta]:
    """Return what every event takes."""
    return readable(find_event_authority(program_id)), readable(program_id)


def liquidation_accounts(
    liquidator: Pubkey, owner: Pubkey, *, symbol: str, price_update: Pubkey, mint: Pubkey, program_id: Pubkey
) -> list[AccountMeta]:
    """Return the accounts of both liquidations."""
    fund = find_fund(program_id)
    return [
        readable(liquidator, signer=True), writable(owner), readable(find_market(symbol, program_id)),
        readable(price_update), writable(find_position(owner, symbol, program_id)), writable(fund),
        *vault_and_tokens(owner, mint), *vault_and_tokens(liquidator, mint), *vault_and_tokens(fund, mint),
        *call_accounts(program_id), readable(collateral_vault.TOKEN_PROGRAM_ID), *event_accounts(program_id),
    ]  # fmt: skip
