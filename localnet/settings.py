"""
What localnet is told before it starts. Read from flags and the environment (CAPSTAN_LOCALNET_*) in `__main__` alone.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.errors import SettingsError, settings_refusal
from localnet.traffic.mix import DEFAULT_MIX, read_mix

DAY_S = 86_400
Port = Annotated[int, Field(ge=0, le=65_535)]


class LocalnetSettings(BaseSettings):
    """
    One frozen set of settings; flags win over the environment, the environment over the defaults.

    Attributes:
        rpc_port: of JSON-RPC over HTTP; 0 takes a free one.
        ws_port: of PubSub over WebSocket; 0 takes a free one.
        traffic: whether there are users at all, in the past and now.
        history: days of past before the present; 0 for none.
        transactions: how many the history has, at least.
        rate: live transactions a second, on average; 0 for a chain that stands still after its history.
        mix: which users act and how much of each, as `localnet.traffic.mix` reads it.
        seed: decides keys, amounts and times; None draws one.
        start_time: unix seconds of the chain's first slot; None puts the end of the history at the present.
        slot_ms: length of a slot, milliseconds.
        confirmed_distance: slots from produced to confirmed.
        finalized_distance: slots from produced to finalized.
        control: whether `localnet_*` methods answer.
        ledger: a folder that the chain is saved in on stop and resumed from; None keeps nothing.
    """

    model_config = SettingsConfigDict(env_prefix="CAPSTAN_LOCALNET_", frozen=True, extra="ignore")

    rpc_port: Port = 8899
    ws_port: Port = 8900
    traffic: bool = True
    history: Annotated[float, Field(ge=0, le=3_650)] = 30.0
    transactions: Annotated[int, Field(ge=0, le=10_000_000)] = 20_000
    rate: Annotated[float, Field(ge=0, le=1_000)] = 3.0
    mix: str = DEFAULT_MIX
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    start_time: Annotated[int, Field(ge=0, lt=2**40)] | None = None
    slot_ms: Annotated[int, Field(ge=10, le=60_000)] = 400
    confirmed_distance: Annotated[int, Field(ge=0, le=10_000)] = 1
    finalized_distance: Annotated[int, Field(ge=1, le=10_000)] = 32
    control: bool = False
    ledger: Path | None = None

    @classmethod
    def read(cls, **flags: object) -> Self:
        """
        Return the settings; a flag that is None was not given.

        Raises:
            SettingsError: a value is out of range or not of its type, or two of them contradict each other.
        """
        try:
            settings = cls(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]  # pydantic checks them
        except ValidationError as error:
            raise settings_refusal("localnet's setting", error) from None
        if settings.finalized_distance < settings.confirmed_distance:
            raise SettingsError(
                f"finalized_distance {settings.finalized_distance} is below confirmed_distance "
                f"{settings.confirmed_distance}: a slot is confirmed before it is finalized"
            )
        read_mix(settings.mix)
        return settings

    @property
    def history_s(self) -> float:
        """How long the history is, in seconds; 0 where there are no users to have one."""
        return self.history * DAY_S if self.traffic and self.transactions else 0.0
