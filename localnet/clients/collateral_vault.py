"""
`collateral_vault` for whoever talks to it: addresses, instructions, and the reading of its events and accounts.

Independent of the IDL and of `indexer.chain` on purpose: what they read is compared with what this reads. Amounts are
base units of the program's mint, which has 6 decimals.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

PROGRAM_ID = Pubkey.from_string("8vjbjPhoD2rav71J8mgbVxcYdbbqST78y2bzMPRqoGr9")
TOKEN_PROGRAM_ID = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN_PROGRAM_ID = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
DECIMALS = 6
AUTHORIZED_PROGRAMS_MAX = 10
ADDRESSES_KEPT = 4_096
"""A derived address costs hashes, and callers ask for the same ones over and over."""
VAULT_BYTES = 129
AUTHORITY_BYTES = 406
"""The settings at their largest; with fewer programs the fields move forward and zeros follow."""
REQUEST_BYTES = 97

ERRORS: dict[int, str] = dict(
    enumerate(
        (
            "InvalidAmount", "InsufficientAvailableBalance", "InsufficientLockedBalance", "UnauthorizedOwner",
            "UnauthorizedProgram", "Overflow", "Underflow", "Paused", "TimelockActive", "TimelockRequired", "SameVault",
        ),
        start=6000,
    )
)  # fmt: skip
"""The program's own errors by code; Anchor's are below 6000."""

Value: TypeAlias = int | bool | bytes | list[bytes]
"""Integers, bools, and 32 bytes for a pubkey; a list of those for a vector."""

Layout: TypeAlias = tuple[str, tuple[str, ...]]
"""A struct format and the names of what it unpacks."""

BALANCE = "<32s32sQQq"
EVENTS: dict[str, Layout] = {
    "VaultInitialized": ("<32s32sq", ("user", "vault", "timestamp")),
    "DepositEvent": (BALANCE, ("user", "vault", "amount", "new_balance", "timestamp")),
    "WithdrawEvent": (BALANCE, ("user", "vault", "amount", "new_balance", "timestamp")),
    "LockEvent": (BALANCE, ("user", "vault", "amount", "locked_balance", "timestamp")),
    "UnlockEvent": (BALANCE, ("user", "vault", "amount", "locked_balance", "timestamp")),
    "TransferEvent": (
        "<32s32s32s32sQq",
        ("from_user", "to_user", "from_vault", "to_vault", "amount", "timestamp"),
    ),
    "WithdrawRequested": (BALANCE, ("user", "vault", "id", "amount", "unlock_at")),
    "WithdrawCancelled": (BALANCE, ("user", "vault", "id", "amount", "timestamp")),
    "PausedSet": ("<32s?q", ("admin", "paused", "timestamp")),
}
VAULT: Layout = (
    "<32s32sQQQQQqQB",
    (
        "owner", "token_account", "total_balance", "locked_balance", "available_balance", "total_deposited",
        "total_withdrawn", "created_at", "next_request", "bump",
    ),
)  # fmt: skip
REQUEST: Layout = ("<32s32sQQqB", ("vault", "owner", "id", "amount", "unlock_at", "bump"))


def discriminator(namespace: str, name: str) -> bytes:
    """Return Anchor's 8 bytes for a name: namespace `global` for instructions, `account`, or `event`."""
    return sha256(f"{namespace}:{name}".encode()).digest()[:8]


EVENT_BY_DISCRIMINATOR = {discriminator("event", name): name for name in EVENTS}
VAULT_DISCRIMINATOR = discriminator("account", "CollateralVault")
AUTHORITY_DISCRIMINATOR = discriminator("account", "VaultAuthority")
REQUEST_DISCRIMINATOR = discriminator("account", "WithdrawRequest")


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_vault(owner: Pubkey, program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of the owner's vault."""
    return Pubkey.find_program_address([b"vault", bytes(owner)], program_id)[0]


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_vault_authority(program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of the program's settings."""
    return Pubkey.find_program_address([b"vault_authority"], program_id)[0]


def find_withdraw_request(vault: Pubkey, request_id: int, program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of a vault's withdrawal request; a vault counts them from 0."""
    return Pubkey.find_program_address([b"withdraw", bytes(vault), request_id.to_bytes(8, "little")], program_id)[0]


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_caller_authority(caller_program: Pubkey) -> Pubkey:
    """Return the PDA by which an authorised program signs its calls."""
    return Pubkey.find_program_address([b"cpi_authority"], caller_program)[0]


@lru_cache(maxsize=ADDRESSES_KEPT)
def find_token_account(wallet: Pubkey, mint: Pubkey) -> Pubkey:
    """Return the address of the wallet's associated token account; a vault is a wallet, too."""
    seeds = [bytes(wallet), bytes(TOKEN_PROGRAM_ID), bytes(mint)]
    return Pubkey.find_program_address(seeds, ASSOCIATED_TOKEN_PROGRAM_ID)[0]


def create_token_account(payer: Pubkey, wallet: Pubkey, mint: Pubkey) -> Instruction:
    """Make the wallet's associated token account unless it is there. Signed by payer. The ATA program's instruction."""
    accounts = [
        writable(payer, signer=True), writable(find_token_account(wallet, mint)), readable(wallet), readable(mint),
        readable(SYSTEM_PROGRAM_ID), readable(TOKEN_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(ASSOCIATED_TOKEN_PROGRAM_ID, b"\x01", accounts)


def initialize_vault_authority(
    admin: Pubkey,
    *,
    mint: Pubkey,
    authorized_programs: Sequence[Pubkey],
    withdraw_min_delay_s: int,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Fix mint, callers (10 at most) and delay, once for the whole program. Signed by admin."""
    programs = struct.pack("<I", len(authorized_programs)) + b"".join(map(bytes, authorized_programs))
    data = discriminator("global", "initialize_vault_authority") + programs + struct.pack("<q", withdraw_min_delay_s)
    accounts = [
        writable(admin, signer=True), writable(find_vault_authority(program_id)), readable(mint),
        readable(SYSTEM_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, data, accounts)


def set_paused(admin: Pubkey, *, paused: bool, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Stop or resume. Signed by admin."""
    accounts = [readable(admin, signer=True), writable(find_vault_authority(program_id))]
    return Instruction(program_id, discriminator("global", "set_paused") + struct.pack("<?", paused), accounts)


def initialize_vault(payer: Pubkey, owner: Pubkey, *, mint: Pubkey, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Open the owner's vault. Signed by payer, who may be the owner, and by owner."""
    vault = find_vault(owner, program_id)
    accounts = [
        writable(payer, signer=True), readable(owner, signer=True), writable(vault),
        writable(find_token_account(vault, mint)), readable(mint), readable(find_vault_authority(program_id)),
        readable(TOKEN_PROGRAM_ID), readable(ASSOCIATED_TOKEN_PROGRAM_ID), readable(SYSTEM_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, discriminator("global", "initialize_vault"), accounts)


def deposit(
    depositor: Pubkey,
    owner: Pubkey,
    *,
    mint: Pubkey,
    amount: int,
    depositor_token_account: Pubkey | None = None,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Pay into the owner's vault, from the depositor's associated token account or another one. Signed by depositor."""
    vault = find_vault(owner, program_id)
    accounts = [
        readable(depositor, signer=True), writable(vault),
        writable(depositor_token_account or find_token_account(depositor, mint)),
        writable(find_token_account(vault, mint)), readable(find_vault_authority(program_id)),
        readable(TOKEN_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, with_number("deposit", amount), accounts)


def withdraw(
    owner: Pubkey,
    *,
    mint: Pubkey,
    amount: int,
    owner_token_account: Pubkey | None = None,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Take out at once, to the owner's associated token account or another one. Signed by owner."""
    vault = find_vault(owner, program_id)
    accounts = [
        readable(owner, signer=True), writable(vault), writable(find_token_account(vault, mint)),
        writable(owner_token_account or find_token_account(owner, mint)), readable(find_vault_authority(program_id)),
        readable(TOKEN_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, with_number("withdraw", amount), accounts)


def request_withdraw(owner: Pubkey, *, amount: int, request_id: int, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Announce a withdrawal; `request_id` is the vault's `next_request`. Signed by owner."""
    vault = find_vault(owner, program_id)
    accounts = [
        writable(owner, signer=True), writable(vault), writable(find_withdraw_request(vault, request_id, program_id)),
        readable(find_vault_authority(program_id)), readable(SYSTEM_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, with_number("request_withdraw", amount), accounts)


def cancel_withdraw(owner: Pubkey, *, request_id: int, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Take a request back. Signed by owner."""
    vault = find_vault(owner, program_id)
    accounts = [
        writable(owner, signer=True), writable(vault), writable(find_withdraw_request(vault, request_id, program_id)),
    ]  # fmt: skip
    return Instruction(program_id, with_number("cancel_withdraw", request_id), accounts)


def execute_withdraw(owner: Pubkey, *, mint: Pubkey, request_id: int, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Pay a request out to the owner's associated token account. Signed by nobody in particular."""
    vault = find_vault(owner, program_id)
    accounts = [
        writable(owner), writable(vault), writable(find_withdraw_request(vault, request_id, program_id)),
        writable(find_token_account(vault, mint)), writable(find_token_account(owner, mint)),
        readable(find_vault_authority(program_id)), readable(TOKEN_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, with_number("execute_withdraw", request_id), accounts)


def lock_collateral(
    caller_program: Pubkey, owner: Pubkey, *, amount: int, program_id: Pubkey = PROGRAM_ID
) -> Instruction:
    """Set available tokens aside. Signed by the calling program's PDA."""
    accounts = [*caller_accounts(caller_program, program_id), writable(find_vault(owner, program_id))]
    return Instruction(program_id, with_number("lock_collateral", amount), accounts)


def unlock_collateral(
    caller_program: Pubkey, owner: Pubkey, *, amount: int, program_id: Pubkey = PROGRAM_ID
) -> Instruction:
    """Make locked tokens available again. Signed by the calling program's PDA."""
    accounts = [*caller_accounts(caller_program, program_id), writable(find_vault(owner, program_id))]
    return Instruction(program_id, with_number("unlock_collateral", amount), accounts)


def transfer_collateral(
    caller_program: Pubkey,
    from_owner: Pubkey,
    to_owner: Pubkey,
    *,
    mint: Pubkey,
    amount: int,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Move locked tokens of one vault to the available ones of another. Signed by the calling program's PDA."""
    from_vault, to_vault = find_vault(from_owner, program_id), find_vault(to_owner, program_id)
    accounts = [
        *caller_accounts(caller_program, program_id), writable(from_vault), writable(to_vault),
        writable(find_token_account(from_vault, mint)), writable(find_token_account(to_vault, mint)),
        readable(TOKEN_PROGRAM_ID),
    ]  # fmt: skip
    return Instruction(program_id, with_number("transfer_collateral", amount), accounts)


def parse_event(payload: bytes) -> tuple[str, dict[str, Value]] | None:
    """Return name and fields of one of the program's events, or None where the bytes are not exactly one."""
    name = EVENT_BY_DISCRIMINATOR.get(payload[:8])
    if name is None or len(payload) != 8 + struct.calcsize(EVENTS[name][0]):
        return None
    return name, named(EVENTS[name], payload[8:])


def parse_account(data: bytes) -> tuple[str, dict[str, Value]] | None:
    """Return name and fields of one of the program's accounts, or None where the data is not one."""
    if data[:8] == VAULT_DISCRIMINATOR and len(data) == VAULT_BYTES:
        return "CollateralVault", named(VAULT, data[8:])
    if data[:8] == REQUEST_DISCRIMINATOR and len(data) == REQUEST_BYTES:
        return "WithdrawRequest", named(REQUEST, data[8:])
    if data[:8] == AUTHORITY_DISCRIMINATOR and len(data) == AUTHORITY_BYTES:
        admin, mint, count = struct.unpack_from("<32s32sI", data, 8)
        if count > AUTHORIZED_PROGRAMS_MAX:
            return None
        programs = [data[start : start + 32] for start in range(76, 76 + 32 * count, 32)]
        delay, paused, bump = struct.unpack_from("<q?B", data, 76 + 32 * count)
        fields = {"admin": admin, "mint": mint, "authorized_programs": programs, "withdraw_min_delay": delay}
        return "VaultAuthority", {**fields, "paused": paused, "bump": bump}
    return None


def caller_accounts(caller_program: Pubkey, program_id: Pubkey) -> list[AccountMeta]:
    """Return what the three instructions for authorised programs begin with."""
    authority = readable(find_caller_authority(caller_program), signer=True)
    return [authority, readable(caller_program), readable(find_vault_authority(program_id))]


def with_number(name: str, number: int) -> bytes:
    """Return the data of an instruction whose one argument is a u64: an amount, or a request's id."""
    return discriminator("global", name) + struct.pack("<Q", number)


def readable(key: Pubkey, *, signer: bool = False) -> AccountMeta:
    """Return the account as one that is only read."""
    return AccountMeta(key, is_signer=signer, is_writable=False)


def writable(key: Pubkey, *, signer: bool = False) -> AccountMeta:
    """Return the account as one that may change."""
    return AccountMeta(key, is_signer=signer, is_writable=True)


def named(layout: Layout, data: bytes) -> dict[str, Value]:
    """Unpack the data by the layout."""
    return dict(zip(layout[1], struct.unpack(layout[0], data), strict=True))
