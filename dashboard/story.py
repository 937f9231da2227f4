"""
A session's story: its events, told as stations, as moments on a chart and as rows of a table.

Pure: events and the session in, what the page shows out. The numbers are those the program itself put into its events.
"""

import datetime as dt
from collections.abc import Sequence

from dashboard.amounts import duration_text, short_address, sol_text, utc_text
from dashboard.charts import Moment, Palette
from dashboard.look import Step
from dashboard.source import Session, StoryEvent

EVENT_LABELS = {
    "VaultCreated": "Session created",
    "DelegateApproved": "Delegate approved",
    "AutoDeposit": "Deposit",
    "TradeExecuted": "Trade",
    "AccessRevoked": "Access revoked",
    "VaultCleaned": "Vault cleaned up",
}
# Trades and approvals follow what enables them within seconds.
LOWER_LANE = {"TradeExecuted": 1, "DelegateApproved": 1}
OVER = frozenset({"expired", "cleaned"})


def event_label(name: str) -> str:
    """Return an event's name for people; one we do not know keeps its own."""
    return EVENT_LABELS.get(name, name)


def event_detail(event: StoryEvent) -> str:
    """Say in a few words what an event was about."""
    match event.name:
        case "AutoDeposit":
            return f"{sol_text(event.amount or 0)} SOL deposited"
        case "TradeExecuted":
            return f"{sol_text(event.amount or 0)} SOL fee"
        case "VaultCleaned":
            return f"reward {sol_text(event.amount or 0)} SOL, cleaned by {short_address(event.actor or '')}"
        case "VaultCreated":
            return f"up to {sol_text(event.amount or 0)} SOL"
        case "DelegateApproved":
            return f"delegate {short_address(event.actor or '')}"
        case _:
            return f"by {short_address(event.actor)}" if event.actor else ""


def event_colour(name: str, tone: Palette) -> str:
    """Return the colour an event is drawn in."""
    colours = {
        "VaultCreated": tone.text,
        "DelegateApproved": tone.muted,
        "AutoDeposit": tone.deposit,
        "TradeExecuted": tone.fee,
        "AccessRevoked": tone.danger,
        "VaultCleaned": tone.cleanup,
    }
    return colours.get(name, tone.muted)


def moments(events: Sequence[StoryEvent], tone: Palette) -> list[Moment]:
    """Return the events that have a time, each with the running totals after it."""
    told: list[Moment] = []
    deposited = spent = 0
    for event in events:
        if event.name == "AutoDeposit" and event.total is not None:
            deposited = event.total
        if event.name == "TradeExecuted" and event.total is not None:
            spent = event.total
        if event.when is None:
            continue
        told.append(
            Moment(
                when=event.when,
                label=event_label(event.name),
                detail=event_detail(event),
                colour=event_colour(event.name, tone),
                lane=LOWER_LANE.get(event.name, 0),
                deposited=deposited,
                spent=spent,
            )
        )
    return told


def stations(session: Session, events: Sequence[StoryEvent]) -> list[Step]:
    """Return a session's life as stations, from creation to cleanup; what has not happened yet is unmarked."""

    def first(name: str) -> StoryEvent | None:
        return next((event for event in events if event.name == name), None)

    def step(name: str, title: str, missing: str) -> Step:
        event = first(name)
        if event is None:
            return Step(title=title, note=missing)
        return Step(title=title, note=utc_text(event.when), mark="done")

    deposits = [event for event in events if event.name == "AutoDeposit"]
    trades = [event for event in events if event.name == "TradeExecuted"]
    life = [
        Step(title="Created", note=utc_text(session.started_at), mark="done"),
        step("DelegateApproved", "Delegate approved", "not approved"),
        counted("deposit", deposits),
        counted("trade", trades),
    ]
    revoked = first("AccessRevoked")
    if revoked is not None:
        life.append(Step(title="Access revoked", note=utc_text(revoked.when), mark="warn"))
    cleaned = first("VaultCleaned")
    over = session.state in OVER or cleaned is not None
    expiry = utc_text(session.expires_at)
    life.append(Step(title="Expired" if over else "Expires", note=expiry, mark="done" if over else ""))
    if cleaned is None:
        life.append(Step(title="Cleanup", note="awaited" if over else "after expiry", mark="warn" if over else ""))
        return life
    late = after(session.expires_at, cleaned.when)
    return [*life, Step(title="Cleaned up", note=utc_text(cleaned.when) + late, mark="done")]


def counted(what: str, events: Sequence[StoryEvent]) -> Step:
    """Return one station for all events of a kind: how many, and together how much."""
    if not events:
        return Step(title=f"No {what}s", note="–")
    total = sum(event.amount or 0 for event in events)
    plural = "" if len(events) == 1 else "s"
    return Step(title=f"{len(events)} {what}{plural}", note=f"{sol_text(total)} SOL", mark="done")


def after(expiry: dt.datetime, when: dt.datetime | None) -> str:
    """Say how long after the expiry something happened."""
    if when is None or when < expiry:
        return ""
    return f", {duration_text((when - expiry).total_seconds())} after expiry"
