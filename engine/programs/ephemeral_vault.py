"""
What the engine must know of `ephemeral_vault` beyond its IDL.

Which field says when a session ends, which instruction cleans up, what the reward is, and what the program's refusals
mean. Layouts and discriminators come from the IDL that the indexer registered, so a deployment with its own IDL is read
by that; only names are fixed here.
"""

import json
from enum import Enum

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from engine.chain import Account
from engine.rules.cleanup import Session, Unreadable
from indexer.chain.program import Program
from indexer.chain.value import snake_case
from indexer.errors import DataError, SettingsError

ACCOUNT_TYPE = "EphemeralVault"
START_FIELD = "session_start"
EXPIRY_FIELD = "session_expiry"
PARENT_FIELD = "parent_wallet"
CLEANUP_INSTRUCTION = "cleanup_vault"
KNOWN_ACCOUNTS = frozenset({"vault", "parent", "parent_wallet", "cleaner", "system_program"})
CLEANUP_REWARD_LAMPORTS_MAX = 10_000
SYSTEM_PROGRAM = Pubkey.from_string("11111111111111111111111111111111")

# Anchor's own codes for an account that is not there any more: never initialised, or owned by another program because
# somebody sent lamports to the address of the closed vault.
GONE_CODES = frozenset({3007, 3012})
SESSION_NOT_EXPIRED = "SessionNotExpired"


class Refusal(Enum):
    """What a refusal of `cleanup_vault` by the chain means."""

    LOST = "lost"  # the vault is gone: another keeper was first
    EARLY = "early"  # not expired on the fork where it landed: ask the rule again
    FAILED = "failed"  # anything else: for a person to look at


class EphemeralVault:
    """
    Reads sessions and builds instructions for one deployment of the program.

    `start_field` and `expiry_field` are the names as this deployment's IDL has them.
    """

    def __init__(self, program: Program) -> None:
        """
        Raises:
            SettingsError: the IDL is not that of an ephemeral_vault.
        """
        self._program = program
        self._id = Pubkey(program.program_id)
        account = program.accounts.get(ACCOUNT_TYPE)
        # Legacy IDLs write names in camelCase.
        instructions = {snake_case(name): name for name in program.instructions}
        if account is None or CLEANUP_INSTRUCTION not in instructions:
            raise SettingsError(
                f"the IDL of {self._id} has no account {ACCOUNT_TYPE} or no instruction {CLEANUP_INSTRUCTION}: "
                "the engine cleans up ephemeral_vault only"
            )
        self._instruction = instructions[CLEANUP_INSTRUCTION]
        fields = {snake_case(field.name): field.name for field in account.fields}
        missing = {START_FIELD, EXPIRY_FIELD, PARENT_FIELD} - fields.keys()
        if missing:
            raise SettingsError(f"{ACCOUNT_TYPE} in the IDL of {self._id} has no {', '.join(sorted(missing))}")
        self.start_field, self.expiry_field = fields[START_FIELD], fields[EXPIRY_FIELD]
        self._parent_field = fields[PARENT_FIELD]
        accounts = program.instructions[self._instruction].accounts
        self._metas = tuple((snake_case(a.name), a.signer, a.writable) for a in accounts)
        unknown = {name for name, _, _ in self._metas} - KNOWN_ACCOUNTS
        if unknown:
            raise SettingsError(
                f"{CLEANUP_INSTRUCTION} of {self._id} wants accounts unknown here: {', '.join(sorted(unknown))}"
            )
        self._not_expired_code = next(
            (error.code for error in program.idl.errors if error.name == SESSION_NOT_EXPIRED), None
        )

    @property
    def program_id(self) -> bytes:
        """The deployment's id, 32 bytes."""
        return self._program.program_id

    def read_session(
        self, address: bytes, account: Account | None, *, rent_exempt_lamports: int
    ) -> Session | Unreadable | None:
        """
        Return the session in an account, None where there is no vault.

        Args:
            address: of the account, 32 bytes.
            account: as fetched; None and another owner both mean that the vault was closed.
            rent_exempt_lamports: the minimum for an account of this size; what is above it pays the reward.
        """
        if account is None or account.owner != self._program.program_id:
            return None
        try:
            decoded = self._program.decode_account(account.data)
        except DataError as error:
            return Unreadable(str(error))
        if decoded.name != ACCOUNT_TYPE:
            return Unreadable(f"it is a {decoded.name}")
        values = decoded.values
        above_rent = max(account.lamports - rent_exempt_lamports, 0)
        return Session(
            vault=address,
            parent_wallet=bytes(values[self._parent_field]),
            session_start=int(values[self.start_field]),
            session_expiry=int(values[self.expiry_field]),
            reward_lamports=min(CLEANUP_REWARD_LAMPORTS_MAX, above_rent),
        )

    def cleanup_instruction(self, *, vault: bytes, parent_wallet: bytes, cleaner: Pubkey) -> Instruction:
        """Return `cleanup_vault` with its accounts in the IDL's order; `cleaner` signs and is rewarded."""
        keys = {
            "vault": Pubkey(vault),
            "parent": Pubkey(parent_wallet),
            "parent_wallet": Pubkey(parent_wallet),
            "cleaner": cleaner,
            "system_program": SYSTEM_PROGRAM,
        }
        metas = [AccountMeta(keys[name], signer, writable) for name, signer, writable in self._metas]
        data = self._program.encode_instruction(self._instruction, {})
        return Instruction(self._id, data, metas)

    def read_refusal(self, err: str) -> Refusal:
        """
        Return what a TransactionError (JSON text) of a cleanup transaction means.

        The other instructions only set the compute budget, which has no custom errors: a custom code is the program's.
        """
        code = _custom_code(err)
        if code in GONE_CODES:
            return Refusal.LOST
        if code is not None and code == self._not_expired_code:
            return Refusal.EARLY
        return Refusal.FAILED


def _custom_code(err: str) -> int | None:
    """Return N of {"InstructionError": [index, {"Custom": N}]}, None for every other error."""
    try:
        code = json.loads(err)["InstructionError"][1]["Custom"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return code if isinstance(code, int) else None
