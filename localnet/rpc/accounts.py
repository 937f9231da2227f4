"""Methods about accounts, balances and tokens."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from indexer.chain.base58 import decode_base58
from indexer.errors import DataError
from localnet.accounts import AccountState
from localnet.chain import Chain
from localnet.rpc.encoding import AccountView, key_text, ui_amount
from localnet.rpc.errors import RpcError, invalid_params
from localnet.rpc.params import Config, Params, as_choice, as_pubkey, as_text, as_u64, wrong_type
from localnet.rpc.view import bank_of
from localnet.vm import TOKEN_PROGRAMS, mint_decimals, token_account

MULTIPLE_ACCOUNTS_MAX = 100
FILTERS_MAX = 4
MEMCMP_BYTES_MAX = 128
TOKEN_ACCOUNT_STATE_OFFSET = 108


class Filter(NamedTuple):
    """`size` bytes of data where that is set, else `needle` at `offset`; `token` asks for a token account."""

    size: int | None = None
    offset: int = 0
    needle: bytes = b""
    token: bool = False

    def accepts(self, state: AccountState) -> bool:
        """Say whether an account passes."""
        if self.token:
            return token_account(state) is not None
        if self.size is not None:
            return len(state.data) == self.size
        return state.data[self.offset : self.offset + len(self.needle)] == self.needle


def read_filters(config: Config) -> tuple[Filter, ...]:
    """
    Return the filters of a request.

    Raises:
        RpcError: too many of them, or one that is none.
    """
    given = config.raw("filters")
    if given is None:
        return ()
    if not isinstance(given, list):
        raise wrong_type(given, "a sequence")
    if len(given) > FILTERS_MAX:
        raise invalid_params(f"Too many filters provided; max {FILTERS_MAX}")
    return tuple(_read_filter(one) for one in given)


def _read_filter(given: Any) -> Filter:
    if given == "tokenAccountState":
        return Filter(token=True)
    if not isinstance(given, dict) or len(given) != 1:
        raise wrong_type(given, "enum RpcFilterType")
    kind, value = next(iter(given.items()))
    if kind == "tokenAccountState":
        return Filter(token=True)
    if kind == "dataSize":
        return Filter(size=as_u64(value))
    if kind != "memcmp":
        raise invalid_params(
            f"Invalid params: unknown variant `{kind[:200]}`, expected one of `dataSize`, `memcmp`,"
            " `tokenAccountState`."
        )
    if not isinstance(value, dict):
        raise wrong_type(value, "struct Memcmp")
    return Filter(offset=as_u64(value.get("offset"), "usize"), needle=_needle(value))


def _needle(memcmp: dict[str, Any]) -> bytes:
    given = memcmp.get("bytes")
    if isinstance(given, list):
        if not all(isinstance(byte, int) and 0 <= byte <= 255 for byte in given):
            raise wrong_type(given, "u8")
        raw = bytes(given)
    else:
        text = as_text(given)
        encoding = as_choice(memcmp.get("encoding") or "base58", ("base58", "base64"))
        try:
            raw = decode_base58(text[:1024]) if encoding == "base58" else base64.b64decode(text, validate=True)
        except (DataError, binascii.Error, ValueError) as error:
            raise invalid_params(f"Invalid param: {encoding} decode error: {error}") from error
    if len(raw) > MEMCMP_BYTES_MAX:
        raise invalid_params("Invalid param: encoded binary data should be less than 129 bytes")
    return raw


class AccountMethods:
    """The methods, each on the params of a request."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """Return every method by its name."""
        return {
            "getAccountInfo": self.account_info,
            "getMultipleAccounts": self.multiple_accounts,
            "getProgramAccounts": self.program_accounts,
            "getBalance": self.balance,
            "getTokenAccountBalance": self.token_account_balance,
            "getTokenAccountsByOwner": self.token_accounts_by_owner,
            "getTokenAccountsByDelegate": self.token_accounts_by_delegate,
            "getTokenSupply": self.token_supply,
        }

    def account_info(self, given: Any) -> dict[str, Any]:
        """One account."""
        params = Params(given, required=1, allowed=2)
        address = params.pubkey(0)
        config = params.config(1, "RpcAccountInfoConfig")
        view = AccountView(self._chain, config)
        bank = bank_of(self._chain, config)
        state = self._chain.account_at(address, bank.commitment)
        return bank.context(view.optional_body(state, bank.commitment))

    def multiple_accounts(self, given: Any) -> dict[str, Any]:
        """Several accounts, all as of one slot."""
        params = Params(given, required=1, allowed=2)
        addresses = [as_pubkey(text) for text in params.list_of(0, at_most=MULTIPLE_ACCOUNTS_MAX)]
        config = params.config(1, "RpcAccountInfoConfig")
        view = AccountView(self._chain, config, default="base64")
        bank = bank_of(self._chain, config)
        states = [self._chain.account_at(address, bank.commitment) for address in addresses]
        return bank.context([view.optional_body(state, bank.commitment) for state in states])

    def program_accounts(self, given: Any) -> Any:
        """Every account of a program that passes all filters."""
        params = Params(given, required=1, allowed=2)
        program = params.pubkey(0)
        config = params.config(1, "RpcProgramAccountsConfig")
        filters = read_filters(config)
        view = AccountView(self._chain, config)
        bank = bank_of(self._chain, config)
        rows = [
            {"account": view.body(state, bank.commitment), "pubkey": key_text(address)}
            for address, state in self._chain.accounts_of(program, bank.commitment)
            if all(one.accepts(state) for one in filters)
        ]
        return bank.context(rows) if config.flag("withContext") else rows

    def balance(self, given: Any) -> dict[str, Any]:
        """Lamports; 0 where there is no account."""
        params = Params(given, required=1, allowed=2)
        address = params.pubkey(0)
        bank = bank_of(self._chain, params.config(1, "RpcContextConfig"))
        state = self._chain.account_at(address, bank.commitment)
        return bank.context(0 if state is None else state.lamports)

    def token_account_balance(self, given: Any) -> dict[str, Any]:
        """What a token account holds."""
        params = Params(given, required=1, allowed=2)
        address = params.pubkey(0)
        bank = bank_of(self._chain, params.config(1, "CommitmentConfig"))
        state = self._chain.account_at(address, bank.commitment)
        if state is None:
            raise invalid_params("Invalid param: could not find account")
        account = token_account(state)
        if account is None:
            raise invalid_params("Invalid param: not a Token account")
        decimals = mint_decimals(self._chain.account_at(account[0], bank.commitment))
        if decimals is None:
            raise invalid_params("Invalid param: could not find mint")
        return bank.context(ui_amount(account[2], decimals))

    def token_supply(self, given: Any) -> dict[str, Any]:
        """How much of a token there is."""
        params = Params(given, required=1, allowed=2)
        address = params.pubkey(0)
        bank = bank_of(self._chain, params.config(1, "CommitmentConfig"))
        state = self._chain.account_at(address, bank.commitment)
        if state is None:
            raise invalid_params("Invalid param: could not find account")
        decimals = mint_decimals(state)
        if decimals is None:
            raise invalid_params("Invalid param: not a Token mint")
        return bank.context(ui_amount(int.from_bytes(state.data[36:44], "little"), decimals))

    def token_accounts_by_owner(self, given: Any) -> dict[str, Any]:
        """The token accounts of an owner, of one mint or of one token program."""
        return self._token_accounts(given, lambda data, owner: data[32:64] == owner)

    def token_accounts_by_delegate(self, given: Any) -> dict[str, Any]:
        """The token accounts that somebody may spend from for their owner."""
        return self._token_accounts(given, lambda data, delegate: data[72] == 1 and data[76:108] == delegate)

    def _token_accounts(self, given: Any, belongs: Callable[[bytes, bytes], bool]) -> dict[str, Any]:
        params = Params(given, required=2, allowed=3)
        holder = params.pubkey(0)
        wanted = params.config(1, "RpcTokenAccountsFilter")
        config = params.config(2, "RpcAccountInfoConfig")
        view = AccountView(self._chain, config)
        bank = bank_of(self._chain, config)
        programs, mint = self._token_filter(wanted)
        rows = []
        for program in programs:
            for address, state in self._chain.accounts_of(program, bank.commitment):
                account = token_account(state)
                if account is None or not belongs(state.data, holder) or mint not in (None, account[0]):
                    continue
                rows.append({"account": view.body(state, bank.commitment), "pubkey": key_text(address)})
        return bank.context(rows)

    def _token_filter(self, wanted: Config) -> tuple[Sequence[bytes], bytes | None]:
        if "mint" in wanted:
            mint = as_pubkey(wanted.raw("mint"))
            state = self._chain.account_at(mint, "processed")
            if state is None or mint_decimals(state) is None:
                raise invalid_params("Invalid param: could not find mint")
            return [state.owner], mint
        if "programId" in wanted:
            program = as_pubkey(wanted.raw("programId"))
            if program not in TOKEN_PROGRAMS:
                raise invalid_params("Invalid param: unrecognized Token program id")
            return [program], None
        raise _no_token_filter()


def _no_token_filter() -> RpcError:
    return invalid_params("Invalid params: expected one of `mint`, `programId`.")
