"""
`ephemeral_vault` for whoever talks to it: addresses, instructions, and the reading of its events and accounts.

Independent of the IDL and of `indexer.chain` on purpose: what they read is compared with what this reads.
"""

import struct
from hashlib import sha256
from typing import TypeAlias

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM_ID

PROGRAM_ID = Pubkey.from_string("EpheVau1t1111111111111111111111111111111111")
CLEANUP_REWARD_LAMPORTS_MAX = 10_000
VAULT_BYTES = 114
DELEGATION_BYTES = 90

ERRORS: dict[int, str] = dict(
    enumerate(
        (
            "MathOverflow", "SessionExpired", "SessionNotExpired", "VaultInactive", "InvalidDelegate",
            "InvalidDelegationAccount", "DelegationRevoked", "OverDeposit", "InsufficientVaultBalance",
        ),
        start=6000,
    )
)  # fmt: skip
"""The program's own errors by code; Anchor's are below 6000."""

Value: TypeAlias = int | bool | bytes | None
"""Integers, bools, None for an empty option, and 32 bytes for a pubkey."""

Layout: TypeAlias = tuple[str, tuple[str, ...]]
"""A struct format and the names of what it unpacks."""

EVENTS: dict[str, Layout] = {
    "VaultCreated": (
        "<32s32s32sQqq",
        ("parent", "vault", "ephemeral_wallet", "max_deposit", "session_start", "session_expiry"),
    ),
    "DelegateApproved": ("<32s32sq", ("vault", "delegate", "approved_at")),
    "AutoDeposit": ("<32sQQ", ("vault", "amount", "total_deposited")),
    "TradeExecuted": ("<32s32sQQ", ("vault", "delegate", "fee_paid", "total_spent")),
    "AccessRevoked": ("<32s32sq", ("vault", "parent", "revoked_at")),
    "VaultCleaned": ("<32s32s32sQ", ("vault", "parent", "cleaner", "reward")),
}
VAULT: Layout = (
    "<32s32sqq?QQQB",
    (
        "parent_wallet", "ephemeral_wallet", "session_start", "session_expiry", "is_active", "total_deposited",
        "total_spent", "max_deposit", "bump",
    ),
)  # fmt: skip


def discriminator(namespace: str, name: str) -> bytes:
    """Return Anchor's 8 bytes for a name: namespace `global` for instructions, `account`, or `event`."""
    return sha256(f"{namespace}:{name}".encode()).digest()[:8]


EVENT_BY_DISCRIMINATOR = {discriminator("event", name): name for name in EVENTS}
VAULT_DISCRIMINATOR = discriminator("account", "EphemeralVault")
DELEGATION_DISCRIMINATOR = discriminator("account", "VaultDelegation")


def find_vault(parent: Pubkey, ephemeral: Pubkey, program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of the vault that `parent` opens for `ephemeral`."""
    return Pubkey.find_program_address([b"vault", bytes(parent), bytes(ephemeral)], program_id)[0]


def find_delegation(vault: Pubkey, program_id: Pubkey = PROGRAM_ID) -> Pubkey:
    """Return the address of a vault's delegation."""
    return Pubkey.find_program_address([b"delegation", bytes(vault)], program_id)[0]


def create_vault(
    parent: Pubkey,
    ephemeral: Pubkey,
    *,
    session_duration_s: int,
    max_deposit: int,
    program_id: Pubkey = PROGRAM_ID,
) -> Instruction:
    """Open a session of that many seconds, for deposits of up to `max_deposit` lamports in all. Signed by parent."""
    arguments = struct.pack("<qQ32s", session_duration_s, max_deposit, bytes(ephemeral))
    accounts = [
        AccountMeta(parent, is_signer=True, is_writable=True),
        AccountMeta(ephemeral, is_signer=False, is_writable=False),
        AccountMeta(find_vault(parent, ephemeral, program_id), is_signer=False, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM_ID, is_signer=False, is_writable=False),
    ]
    return Instruction(program_id, discriminator("global", "create_vault") + arguments, accounts)


def approve_delegate(parent: Pubkey, ephemeral: Pubkey, *, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Let the ephemeral wallet trade. Signed by parent."""
    vault = find_vault(parent, ephemeral, program_id)
    accounts = [
        AccountMeta(vault, is_signer=False, is_writable=True),
        AccountMeta(parent, is_signer=True, is_writable=True),
        AccountMeta(find_delegation(vault, program_id), is_signer=False, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM_ID, is_signer=False, is_writable=False),
    ]
    return Instruction(program_id, discriminator("global", "approve_delegate") + bytes(ephemeral), accounts)


def auto_deposit_for_trade(
    parent: Pubkey, ephemeral: Pubkey, *, trade_fee_estimate: int, program_id: Pubkey = PROGRAM_ID
) -> Instruction:
    """Move that many lamports from parent to vault. Signed by parent."""
    accounts = [
        AccountMeta(find_vault(parent, ephemeral, program_id), is_signer=False, is_writable=True),
        AccountMeta(parent, is_signer=True, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM_ID, is_signer=False, is_writable=False),
    ]
    data = discriminator("global", "auto_deposit_for_trade") + struct.pack("<Q", trade_fee_estimate)
    return Instruction(program_id, data, accounts)


def execute_trade(parent: Pubkey, ephemeral: Pubkey, *, fee_paid: int, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """Book that many lamports against what was deposited. Signed by ephemeral."""
    vault = find_vault(parent, ephemeral, program_id)
    accounts = [
        AccountMeta(vault, is_signer=False, is_writable=True),
        AccountMeta(ephemeral, is_signer=True, is_writable=False),
        AccountMeta(find_delegation(vault, program_id), is_signer=False, is_writable=True),
        AccountMeta(parent, is_signer=False, is_writable=False),
    ]
    return Instruction(program_id, discriminator("global", "execute_trade") + struct.pack("<Q", fee_paid), accounts)


def revoke_access(parent: Pubkey, ephemeral: Pubkey, *, program_id: Pubkey = PROGRAM_ID) -> Instruction:
    """End the session now; the delegation must have been made. Signed by parent."""
    vault = find_vault(parent, ephemeral, program_id)
    accounts = [
        AccountMeta(vault, is_signer=False, is_writable=True),
        AccountMeta(parent, is_signer=True, is_writable=True),
        AccountMeta(find_delegation(vault, program_id), is_signer=False, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM_ID, is_signer=False, is_writable=False),
        AccountMeta(parent, is_signer=False, is_writable=False),
    ]
    return Instruction(program_id, discriminator("global", "revoke_access"), accounts)


def cleanup_vault(
    parent: Pubkey, ephemeral: Pubkey, *, cleaner: Pubkey, program_id: Pubkey = PROGRAM_ID
) -> Instruction:
    """Close an expired vault, for a reward. Signed by cleaner, who may be anybody, the parent too."""
    accounts = [
        AccountMeta(find_vault(parent, ephemeral, program_id), is_signer=False, is_writable=True),
        AccountMeta(parent, is_signer=False, is_writable=True),
        AccountMeta(cleaner, is_signer=True, is_writable=True),
        AccountMeta(parent, is_signer=False, is_writable=False),
    ]
    return Instruction(program_id, discriminator("global", "cleanup_vault"), accounts)


def parse_event(payload: bytes) -> tuple[str, dict[str, Value]] | None:
    """Return name and fields of one of the program's events, or None where the bytes are not exactly one."""
    name = EVENT_BY_DISCRIMINATOR.get(payload[:8])
    if name is None or len(payload) != 8 + struct.calcsize(EVENTS[name][0]):
        return None
    return name, named(EVENTS[name], payload[8:])


def parse_account(data: bytes) -> tuple[str, dict[str, Value]] | None:
    """Return name and fields of one of the program's accounts, or None where the data is not one."""
    if data[:8] == VAULT_DISCRIMINATOR and len(data) == VAULT_BYTES:
        return "EphemeralVault", named(VAULT, data[8:])
    if data[:8] == DELEGATION_DISCRIMINATOR and len(data) == DELEGATION_BYTES:
        vault, delegate, approved_at, is_revoked = struct.unpack_from("<32s32sqB", data, 8)
        # The option takes 1 or 9 bytes, and what follows it moves.
        revoked_at, bump = struct.unpack_from("<qB", data, 81) if is_revoked else (None, data[81])
        fields = {"vault": vault, "delegate": delegate, "approved_at": approved_at}
        return "VaultDelegation", {**fields, "revoked_at": revoked_at, "bump": bump}
    return None


def named(layout: Layout, data: bytes) -> dict[str, Value]:
    """Unpack the data by the layout."""
    return dict(zip(layout[1], struct.unpack(layout[0], data), strict=True))
