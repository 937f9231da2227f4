"""
LiteSVM, as the ledger uses it: states in plain bytes, errors as Solana's JSON, and what a transaction names.

LiteSVM executes. What it does not know (sizes, locks, blockhashes, duplicates, rent, priority fees) is `chain.py`'s.
"""

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from solders.account import Account
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, SimulatedTransactionInfo, TransactionMetadata

from localnet.accounts import AccountState, State
from localnet.ledger import Footprint, TokenBalance, TransactionError

SYSTEM_PROGRAM = bytes(32)
CLOCK_SYSVAR = bytes(Pubkey.from_string("SysvarC1ock11111111111111111111111111111111"))
SLOT_HASHES_SYSVAR = bytes(Pubkey.from_string("SysvarS1otHashes111111111111111111111111111"))
SYSVAR_OWNER = bytes(Pubkey.from_string("Sysvar1111111111111111111111111111111111111"))
LOOKUP_TABLE_PROGRAM = bytes(Pubkey.from_string("AddressLookupTab1e1111111111111111111111111"))
COMPUTE_BUDGET_PROGRAM = bytes(Pubkey.from_string("ComputeBudget111111111111111111111111111111"))
TOKEN_PROGRAM = bytes(Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"))
TOKEN_2022_PROGRAM = bytes(Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"))
TOKEN_PROGRAMS = frozenset({TOKEN_PROGRAM, TOKEN_2022_PROGRAM})
BUILTIN_PROGRAMS = frozenset(
    {
        SYSTEM_PROGRAM,
        COMPUTE_BUDGET_PROGRAM,
        LOOKUP_TABLE_PROGRAM,
        bytes(Pubkey.from_string("Vote111111111111111111111111111111111111111")),
        bytes(Pubkey.from_string("BPFLoader1111111111111111111111111111111111")),
        bytes(Pubkey.from_string("BPFLoader2111111111111111111111111111111111")),
        bytes(Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")),
    }
)

SLOTS_PER_EPOCH = 432_000
LAMPORTS_PER_SIGNATURE = 5_000
COMPUTE_UNITS_MAX = 1_400_000
COMPUTE_UNITS_PER_INSTRUCTION = 200_000
COMPUTE_UNITS_PER_BUILTIN = 3_000
TOKEN_ACCOUNT_BYTES = 165
MINT_BYTES = 82
# Account type, in the byte after the classic 165, of a Token-2022 account with extensions.
TOKEN_2022_ACCOUNT_TYPE = 2
LOOKUP_TABLE_META_BYTES = 56

_decode = msgspec.json.Decoder().decode


class Outcome(NamedTuple):
    """What the VM says to a transaction; `meta` is None where the VM itself broke down."""

    err: TransactionError | None
    meta: TransactionMetadata | None


class Simulated(NamedTuple):
    """What would come of a transaction; `accounts`: the state that it would leave, by address."""

    err: TransactionError | None
    meta: TransactionMetadata | None
    accounts: dict[bytes, State]


class Vm:
    """One LiteSVM in which only execution is left to LiteSVM."""

    def __init__(self) -> None:
        self._svm = LiteSVM().with_blockhash_check(False).with_sigverify(False).with_transaction_history(0)
        self._svm.set_epoch_schedule(EpochSchedule.custom(SLOTS_PER_EPOCH, SLOTS_PER_EPOCH, False))

    def account(self, address: bytes) -> State:
        """Return an account as it is now."""
        account = self._svm.get_account(Pubkey(address))
        if account is None or account.lamports == 0:
            return None
        return _state(account)

    def set_account(self, address: bytes, state: State) -> None:
        """Write any account; None removes it."""
        if state is None:
            state = AccountState(0, b"", SYSTEM_PROGRAM)
        account = Account(state.lamports, state.data, Pubkey(state.owner), state.executable)
        self._svm.set_account(Pubkey(address), account)

    def add_program(self, address: bytes, elf: bytes) -> None:
        """
        Load a program, owned by the loader that knows no upgrades.

        Raises:
            ValueError: the VM does not accept it.
        """
        try:
            self._svm.add_program(Pubkey(address), elf)
        except BaseException as error:
            if _is_panic(error):
                raise ValueError(f"the VM does not accept the program: {error}") from error
            raise

    def set_clock(self, *, slot: int, unix_time: int, epoch_start: int) -> AccountState:
        """Set the Clock sysvar and return its account."""
        epoch = slot // SLOTS_PER_EPOCH
        self._svm.set_clock(Clock(slot, epoch_start, epoch, epoch + 1, unix_time))
        data = struct.pack("<QqQQq", slot, epoch_start, epoch, epoch + 1, unix_time)
        return AccountState(1_169_280, data, SYSVAR_OWNER)

    def set_slot_hashes(self, newest_first: Sequence[tuple[int, bytes]]) -> None:
        """Set the SlotHashes sysvar: (slot, blockhash) of produced blocks."""
        self._svm.set_slot_hashes([(slot, Hash(digest)) for slot, digest in newest_first])

    def send(self, transaction: VersionedTransaction) -> Outcome:
        """Execute. A transaction with an error has cost its fee, if LiteSVM got as far as running it."""
        try:
            result = self._svm.send_transaction(transaction)
        except BaseException as error:
            if _is_panic(error):
                return Outcome("SanitizeFailure", None)
            raise
        if isinstance(result, FailedTransactionMetadata):
            return Outcome(error_json(result), result.meta())
        return Outcome(None, result)

    def simulate(self, transaction: VersionedTransaction) -> Simulated:
        """Execute and forget."""
        try:
            result = self._svm.simulate_transaction(transaction)
        except BaseException as error:
            if _is_panic(error):
                return Simulated("SanitizeFailure", None, {})
            raise
        if isinstance(result, SimulatedTransactionInfo):
            after = {bytes(key): _state(account) for key, account in result.post_accounts()}
            return Simulated(None, result.meta(), {k: s if s.lamports else None for k, s in after.items()})
        return Simulated(error_json(result), result.meta(), {})


def error_json(failed: FailedTransactionMetadata) -> TransactionError:
    """Return a failure as Solana's JSON has it."""
    err: TransactionError = _decode(failed.to_json())["err"]
    return err


def footprint(
    message: Message | MessageV0, *, slot: int, read: Callable[[bytes], State]
) -> Footprint | TransactionError:
    """
    Return what a message names, its lookup tables read as of the open `slot`, or the error that it meets there.

    Source: `AddressLookupTable` of the lookup table program: 56 bytes of header, then 32 for each address.
    """
    header = message.header
    keys = [bytes(key) for key in message.account_keys]
    static = len(keys)
    signers = header.num_required_signatures
    writable = [*range(signers - header.num_readonly_signed_accounts)]
    writable += range(signers, static - header.num_readonly_unsigned_accounts)
    loaded_readonly: list[bytes] = []
    if isinstance(message, MessageV0):
        for lookup in message.address_table_lookups:
            table = read(bytes(lookup.account_key))
            if table is None:
                return "AddressLookupTableNotFound"
            if table.owner != LOOKUP_TABLE_PROGRAM:
                return "InvalidAddressLookupTableOwner"
            addresses = _addresses(table.data, slot)
            if addresses is None:
                return "InvalidAddressLookupTableData"
            wanted = bytes(lookup.writable_indexes) + bytes(lookup.readonly_indexes)
            if wanted and max(wanted) >= len(addresses):
                return "InvalidAddressLookupTableIndex"
            keys += [addresses[i] for i in bytes(lookup.writable_indexes)]
            loaded_readonly += [addresses[i] for i in bytes(lookup.readonly_indexes)]
    loaded_writable = len(keys) - static
    writable += range(static, len(keys))
    return Footprint((*keys, *loaded_readonly), tuple(writable), static, loaded_writable)


def fee_of(message: Message | MessageV0) -> tuple[int, int]:
    """
    Return base fee and priority fee in lamports.

    Source: the compute budget program: instruction 2 sets the limit of units, 3 the price in micro-lamports a unit;
    the priority fee is rounded up.
    """
    base = message.header.num_required_signatures * LAMPORTS_PER_SIGNATURE
    price, units = _budget(message)
    return base, -(-price * units // 1_000_000)


def unit_price(message: Message | MessageV0) -> int:
    """Return the price that a message sets for a compute unit, micro-lamports."""
    return _budget(message)[0]


def _budget(message: Message | MessageV0) -> tuple[int, int]:
    """Return the price of a compute unit in micro-lamports, and for how many of them it is paid."""
    keys = message.account_keys
    if Pubkey(COMPUTE_BUDGET_PROGRAM) not in keys:
        return 0, 0
    price = 0
    limit: int | None = None
    default_limit = 0
    for instruction in message.instructions:
        if instruction.program_id_index >= len(keys):
            continue
        program = bytes(keys[instruction.program_id_index])
        builtin = program in BUILTIN_PROGRAMS
        default_limit += COMPUTE_UNITS_PER_BUILTIN if builtin else COMPUTE_UNITS_PER_INSTRUCTION
        data = bytes(instruction.data)
        if program != COMPUTE_BUDGET_PROGRAM:
            continue
        if data[:1] == b"\x02" and len(data) >= 5:
            limit = int.from_bytes(data[1:5], "little")
        elif data[:1] == b"\x03" and len(data) >= 9:
            price = int.from_bytes(data[1:9], "little")
    return price, min(default_limit if limit is None else limit, COMPUTE_UNITS_MAX)


def token_account(state: State) -> tuple[bytes, bytes, int] | None:
    """Return mint, owner and amount of a token account of either token program, None for anything else."""
    if state is None or state.owner not in TOKEN_PROGRAMS or len(state.data) < TOKEN_ACCOUNT_BYTES:
        return None
    data = state.data
    longer = len(data) > TOKEN_ACCOUNT_BYTES
    if longer and (state.owner == TOKEN_PROGRAM or data[TOKEN_ACCOUNT_BYTES] != TOKEN_2022_ACCOUNT_TYPE):
        return None
    if data[108] == 0:
        return None
    return data[:32], data[32:64], int.from_bytes(data[64:72], "little")


def mint_decimals(state: State) -> int | None:
    """Return the decimals of a mint of either token program, None for anything else."""
    if state is None or state.owner not in TOKEN_PROGRAMS or len(state.data) < MINT_BYTES or not state.data[45]:
        return None
    return state.data[44]


def token_balances(keys: Sequence[bytes], read: Callable[[bytes], State]) -> tuple[TokenBalance, ...]:
    """Return the balance of each token account among `keys`; nothing where no token program is among them."""
    if TOKEN_PROGRAMS.isdisjoint(keys):
        return ()
    found = []
    for index, key in enumerate(keys):
        state = read(key)
        account = token_account(state)
        if account is None or state is None:
            continue
        decimals = mint_decimals(read(account[0]))
        if decimals is not None:
            found.append(TokenBalance(index, account[0], account[1], state.owner, account[2], decimals))
    return tuple(found)


def _addresses(data: bytes, slot: int) -> list[bytes] | None:
    if len(data) < LOOKUP_TABLE_META_BYTES or data[:4] != b"\x01\0\0\0":
        return None
    _, extended, extended_from = struct.unpack_from("<QQB", data, 4)
    body = data[LOOKUP_TABLE_META_BYTES:]
    addresses = [body[i : i + 32] for i in range(0, len(body) // 32 * 32, 32)]
    # What was added in this very slot cannot be used in it.
    return addresses if slot > extended else addresses[:extended_from]


def _state(account: Account) -> AccountState:
    return AccountState(account.lamports, account.data, bytes(account.owner), account.executable)


def _is_panic(error: BaseException) -> bool:
    # A panic inside the VM arrives as a BaseException whose class no module offers.
    return type(error).__name__ == "PanicException"
