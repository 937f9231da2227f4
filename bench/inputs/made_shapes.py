"""
What the made transactions do: which programs they call, in what depth, and what those print.

The calls are those of localnet's users; the shares are chosen so that there are 1.26 events to a transaction. Some
transactions are awkward on purpose: a stranger prints our bytes or calls us, a program prints a caller's text, which
may look like an event. `made_transactions.py` turns a shape into a transaction.
"""

from dataclasses import dataclass, replace

SYSTEM = "11111111111111111111111111111111"
TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
BUDGET = "ComputeBudget111111111111111111111111111111"
STRANGER = "GDDMwNyyx8uB6zrqwBFHjLLG3TBYk2F8Az4yrQC5RzMp"


@dataclass(frozen=True)
class Call:
    """
    One call of a program, and what it does, in this order: log its name and texts, call others, log events, call
    itself for each event of `emit_cpi!`.

    Args:
        program: a home program's name, or a program id in base58.
        instruction: what it logs as its instruction; empty for programs that log nothing.
        texts: what else it logs.
        logs: its events as data lines.
        cpis: its events as inner instructions.
        forged: (home program, event) whose bytes it prints as a data line, and puts into a call of itself.
        quoted: an event of its own whose bytes it logs as text, because a caller gave them.
        fails: ends with an error after that.
        units: compute units.
    """

    program: str
    instruction: str = ""
    texts: tuple[str, ...] = ()
    calls: tuple["Call", ...] = ()
    logs: tuple[str, ...] = ()
    cpis: tuple[str, ...] = ()
    forged: tuple[str, str] | None = None
    quoted: str = ""
    fails: bool = False
    units: int = 150


@dataclass(frozen=True)
class Shape:
    """A kind of transaction: its top-level calls, and how many of 1,000 transactions are of it."""

    per_mille: int
    calls: tuple[Call, ...]


SESSIONS, VAULT, ENGINE = "ephemeral_vault", "collateral_vault", "liquidation_engine"
CREATE_ACCOUNT = Call(SYSTEM)
TRANSFER = Call(TOKEN, "Transfer", units=4_645)

CREATE = Call(SESSIONS, "CreateVault", calls=(CREATE_ACCOUNT,), logs=("VaultCreated",), units=4_019)
APPROVE = Call(SESSIONS, "ApproveDelegate", calls=(CREATE_ACCOUNT,), logs=("DelegateApproved",), units=7_113)
FUND = Call(SESSIONS, "AutoDepositForTrade", calls=(CREATE_ACCOUNT,), logs=("AutoDeposit",), units=3_650)
TRADE = Call(SESSIONS, "ExecuteTrade", logs=("TradeExecuted",), units=4_235)
REVOKE = Call(SESSIONS, "RevokeAccess", logs=("AccessRevoked",), units=4_556)
CLEAN = Call(SESSIONS, "CleanupVault", logs=("VaultCleaned",), units=2_847)

DEPOSIT = Call(VAULT, "Deposit", calls=(TRANSFER,), logs=("DepositEvent",), units=10_249)
REQUEST = Call(VAULT, "RequestWithdraw", calls=(CREATE_ACCOUNT,), logs=("WithdrawRequested",), units=7_329)
PAY_OUT = Call(VAULT, "ExecuteWithdraw", calls=(TRANSFER,), logs=("WithdrawEvent",), units=13_722)
CANCEL = Call(VAULT, "CancelWithdraw", logs=("WithdrawCancelled",), units=4_161)
PAUSE = Call(VAULT, "SetPaused", logs=("PausedSet",), units=2_384)
LOCK = Call(VAULT, "LockCollateral", logs=("LockEvent",), units=7_262)
UNLOCK = Call(VAULT, "UnlockCollateral", logs=("UnlockEvent",), units=7_259)
MOVE = Call(VAULT, "TransferCollateral", calls=(TRANSFER,), logs=("TransferEvent",), units=15_192)

OPEN = Call(ENGINE, "OpenPosition", calls=(CREATE_ACCOUNT, LOCK), cpis=("PositionOpened",), units=26_001)
TOP_UP = Call(ENGINE, "AddCollateral", calls=(LOCK,), cpis=("CollateralAdded",), units=21_898)
CLOSE = Call(ENGINE, "ClosePosition", calls=(MOVE, UNLOCK), cpis=("PositionClosed",), units=45_197)
LIQUIDATE = Call(ENGINE, "LiquidateFull", calls=(MOVE,), cpis=("LiquidationEvent", "BadDebtCovered"), units=43_117)
CONTRIBUTE = Call(ENGINE, "Contribute", calls=(DEPOSIT,), cpis=("InsuranceContribution",), units=22_207)
LIST = Call(ENGINE, "CreateMarket", calls=(CREATE_ACCOUNT,), cpis=("MarketCreated",), units=12_852)

FORGER = Call(STRANGER, "Collect", forged=(VAULT, "DepositEvent"), units=1_911)
ROUTER = Call(STRANGER, "Route", texts=("about to invoke a vault",), calls=(TRADE,), units=9_102)
QUOTER = replace(DEPOSIT, quoted="DepositEvent")

SHAPES = (
    Shape(369, (TRADE,)),
    Shape(110, (FUND,)),
    Shape(141, (FUND, TRADE)),
    Shape(40, (CREATE, APPROVE)),
    Shape(30, (CREATE,)),
    Shape(30, (REVOKE,)),
    Shape(40, (CLEAN,)),
    Shape(50, (DEPOSIT,)),
    Shape(20, (REQUEST,)),
    Shape(12, (PAY_OUT,)),
    Shape(6, (CANCEL,)),
    Shape(2, (PAUSE,)),
    Shape(40, (OPEN,)),
    Shape(10, (TOP_UP,)),
    Shape(25, (CLOSE,)),
    Shape(6, (LIQUIDATE,)),
    Shape(5, (CONTRIBUTE,)),
    Shape(1, (LIST,)),
    Shape(8, (FORGER, TRADE)),
    Shape(2, (FORGER,)),
    Shape(10, (ROUTER,)),
    Shape(2, (QUOTER,)),
    Shape(25, (replace(TRADE, logs=(), fails=True),)),
    # What was logged before the failure stays in the logs, and did not happen.
    Shape(10, (FUND, replace(TRADE, logs=(), fails=True))),
    Shape(6, (replace(OPEN, cpis=(), fails=True),)),
)
