"""
Where the tokens come from: the mint, the faucet that fills wallets, and who runs the collateral program.

All of it follows from the seed, so that every cast of a chain means the same mint. Users are strangers until the faucet
gives them lamports, a token account and tokens, in the transaction with which they join.
"""

import struct
from collections.abc import Sequence

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from localnet.accounts import AccountState, rent_exempt_minimum
from localnet.clients import collateral_vault as vaults
from localnet.clients import liquidation_engine as engine
from localnet.traffic.act import Wallet
from localnet.vm import TOKEN_PROGRAM

USDT = 10**vaults.DECIMALS
SUPPLY = 10**11 * USDT
FAUCET_PURSE = 1_000_000 * 10**9
STAFF_PURSE = 1_000 * 10**9
USER_PURSE = 40_000_000
"""The rent of a vault, its tokens, a position and a request, and some thousand fees, in lamports."""
WITHDRAW_DELAY_S = 60
KEEPERS = 3
SPL_TRANSFER = 3


class Treasury:
    """The mint and the people behind it, for one seed."""

    def __init__(self, seed: int) -> None:
        self.mint = Wallet.derive(seed, "mint", 0).address
        self.faucet = Wallet.derive(seed, "faucet", 0)
        self.admin = Wallet.derive(seed, "admin", 0)
        self.keepers = [Wallet.derive(seed, "withdrawal keeper", number) for number in range(KEEPERS)]
        self._faucet_tokens = vaults.find_token_account(self.faucet.address, self.mint)

    def purses(self) -> Sequence[tuple[Pubkey, int]]:
        """Return who must own how many lamports before anything happens."""
        staff = [(wallet.address, STAFF_PURSE) for wallet in (self.admin, *self.keepers)]
        return [(self.faucet.address, FAUCET_PURSE), *staff]

    def furniture(self) -> Sequence[tuple[Pubkey, AccountState]]:
        """Return the mint, without authorities, and the faucet's token account, which holds all there is."""
        mint = struct.pack("<I32sQB?I32s", 0, bytes(32), SUPPLY, vaults.DECIMALS, True, 0, bytes(32))
        tokens = struct.pack(
            "<32s32sQI32sBIQQI32s", bytes(self.mint), bytes(self.faucet.address), SUPPLY, 0, bytes(32), 1, 0, 0, 0, 0,
            bytes(32),
        )  # fmt: skip
        return [(self.mint, _token_state(mint)), (self._faucet_tokens, _token_state(tokens))]

    def settle(self) -> Instruction:
        """Return what makes the collateral program usable: its mint, its delay, and the one program that may call."""
        return vaults.initialize_vault_authority(
            self.admin.address,
            mint=self.mint,
            authorized_programs=[engine.PROGRAM_ID],
            withdraw_min_delay_s=WITHDRAW_DELAY_S,
        )

    def welcome(self, user: Pubkey, tokens: int) -> list[Instruction]:
        """Return what gives a new wallet lamports, a token account and tokens. Signed by the faucet."""
        faucet = self.faucet.address
        accounts = [
            vaults.writable(self._faucet_tokens), vaults.writable(vaults.find_token_account(user, self.mint)),
            vaults.readable(faucet, signer=True),
        ]  # fmt: skip
        return [
            transfer(TransferParams(from_pubkey=faucet, to_pubkey=user, lamports=USER_PURSE)),
            vaults.create_token_account(faucet, user, self.mint),
            Instruction(vaults.TOKEN_PROGRAM_ID, struct.pack("<BQ", SPL_TRANSFER, tokens), accounts),
        ]


def _token_state(data: bytes) -> AccountState:
    return AccountState(rent_exempt_minimum(len(data)), data, TOKEN_PROGRAM)
