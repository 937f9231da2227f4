"""
What one user does at one moment, and how a life is told.

An act is a transaction not yet signed: it has no blockhash, because that is known only when its slot is open. It also
says what should come of it, so that a history can be planned without a chain and checked against one.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from localnet.accounts import AccountState
from localnet.prices import Feed


@dataclass(frozen=True, slots=True)
class Wallet:
    """A key pair and its address; `Keypair.pubkey()` computes the address anew each time, which is dear."""

    keypair: Keypair
    address: Pubkey

    @classmethod
    def derive(cls, seed: int, role: str, number: int) -> "Wallet":
        """Return the wallet that this seed gives to user `number` of a role. Not secret: anybody can derive it."""
        keypair = Keypair.from_seed(sha256(f"capstan localnet/{seed}/{role}/{number}".encode()).digest())
        return cls(keypair, keypair.pubkey())


class Sight(Protocol):
    """What a user sees before acting: accounts as they are, and prices as they will be in the slot of the act."""

    unix_time: int

    def data(self, address: Pubkey) -> bytes:
        """Return an account's data; empty where there is no account."""

    def quote(self, feed: Feed) -> tuple[int, int]:
        """Return price and confidence, 1e-6 USDT."""


Choice = Callable[[Sight], Sequence[Instruction]]
"""What somebody who has looked decides to do; nothing, where there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Act:
    """
    One transaction to come.

    Attributes:
        at: when, unix seconds of the chain's clock, with fractions; it runs in the first slot open then or later.
        instructions: in order.
        signers: the first one pays the fee.
        refusal: the program's error that it should meet, by name; None where it should land.
        absent: sent only while this account has no data; None where that does not matter.
        present: sent only while this account has data; None where that does not matter.
        choice: makes the instructions at the moment of the act, from what there is to see; None where they are known.
        feeds: whose prices the program will ask for.
        likely: whether it is expected to be sent. Somebody who only looks whether there is something to do is not.
    """

    at: float
    instructions: tuple[Instruction, ...]
    signers: tuple[Wallet, ...]
    refusal: str | None = None
    absent: Pubkey | None = None
    present: Pubkey | None = None
    choice: Choice | None = None
    feeds: tuple[Feed, ...] = ()
    likely: bool = True

    def chosen(self, sight: Sight) -> "Act | None":
        """Return the act with the instructions that it has now, or None where nobody acts."""
        if self.absent is not None and sight.data(self.absent):
            return None
        if self.present is not None and not sight.data(self.present):
            return None
        if self.choice is None:
            return self
        instructions = tuple(self.choice(sight))
        return replace(self, instructions=instructions) if instructions else None

    def signed(self, blockhash: Hash) -> VersionedTransaction:
        """Return the transaction with every signature, valid for that blockhash."""
        message = Message.new_with_blockhash(self.instructions, self.signers[0].address, blockhash)
        # Signed here and not by VersionedTransaction(message, keypairs), which verifies each signature right after.
        body = bytes(message)
        by_address = {signer.address: signer.keypair for signer in self.signers}
        required = message.account_keys[: message.header.num_required_signatures]
        return VersionedTransaction.populate(message, [by_address[key].sign_message(body) for key in required])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an act: whether it landed without an error, and the chain's clock (unix seconds) when it ran."""

    landed: bool
    unix_time: int


Life = Generator[Act, Outcome, None]


@dataclass(frozen=True, slots=True)
class Span:
    """
    The stretch of time that lives are told for, unix seconds.

    `live` is for a present that goes on without an end in sight: sessions are short, so that an engine has work at
    once, and nobody but that engine cleans up. In a history, keepers have done so until shortly before `end`.
    """

    begin: float
    end: float
    live: bool = False


class Cast(Protocol):
    """
    The users of one program.

    Attributes:
        name: what a mix of casts calls it.
        reacts: its lives depend on what the chain is like when they act; the others can be planned without a chain.
    """

    name: str
    reacts: bool

    def purses(self) -> Sequence[tuple[Pubkey, int]]:
        """Return who must own how many lamports before anything happens."""

    def furniture(self) -> Sequence[tuple[Pubkey, AccountState]]:
        """Return the accounts that must lie on the chain before anything happens, besides the purses."""

    def founding(self, span: Span) -> Life | None:
        """Tell what has to be done once, by whoever runs the programs, before the first life begins, and later on."""

    def life(self, index: int, *, at: float, span: Span) -> Life:
        """Tell life number `index`, which begins at `at` (unix seconds). The same arguments tell the same life."""


def imagine(life: Life) -> list[Act]:
    """Return all acts of a life to which everything happens as it expects: the plan, without a chain."""
    acts: list[Act] = []
    try:
        act = next(life)
        while True:
            acts.append(act)
            act = life.send(Outcome(landed=act.refusal is None and act.likely, unix_time=int(act.at)))
    except StopIteration:
        return acts
