"""
What the operator decides about the engine.

One frozen value, read once in `__main__`: flags first, then the environment (CAPSTAN_ENGINE_*; for the node, the
database and the data folder also the names that all processes share), then these defaults. Urls may carry keys and
passwords and are masked in repr.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from solders.pubkey import Pubkey

from indexer.errors import SettingsError, settings_refusal

DEFAULT_PROGRAM = "EpheVau1t1111111111111111111111111111111111"


class EngineSettings(BaseSettings):
    """
    The engine's settings. Durations in seconds, amounts in lamports.

    min_reward_lamports: 0 cleans every expired session, also one whose reward is 0 after a revoke (the fee is lost, the
        user's rent comes back); a value above the fee cleans only what pays.
    compute_unit_price_micro_lamports: the priority fee, for each unit of compute_unit_limit.
    in_flight_max: transactions whose end is not known yet, at any time.
    fund_from_faucet_lamports: asked of a test chain's faucet when the balance is too low; 0 never asks.
    """

    model_config = SettingsConfigDict(env_prefix="CAPSTAN_ENGINE_", frozen=True, extra="ignore", populate_by_name=True)

    rpc_url: SecretStr = Field(
        default=SecretStr("http://127.0.0.1:8899"),
        validation_alias=AliasChoices("CAPSTAN_ENGINE_RPC_URL", "CAPSTAN_RPC_URL"),
    )
    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("CAPSTAN_ENGINE_DATABASE_URL", "DATABASE_URL", "CAPSTAN_DATABASE_URL"),
    )
    data_dir: Path = Field(
        default=Path(".data"), validation_alias=AliasChoices("CAPSTAN_ENGINE_DATA_DIR", "CAPSTAN_DATA_DIR")
    )
    keypair: Path | None = None
    program: str = DEFAULT_PROGRAM
    dry_run: bool = False
    once: bool = False
    settle: bool = False
    interval_s: Annotated[float, Field(ge=0.05, le=3600)] = 2.0
    resend_interval_s: Annotated[float, Field(ge=0.05, le=60)] = 4.0
    lease_ttl_s: Annotated[float, Field(ge=1, le=3600)] = 15.0
    in_flight_max: Annotated[int, Field(ge=1, le=5_000)] = 50
    min_reward_lamports: Annotated[int, Field(ge=0)] = 0
    compute_unit_limit: Annotated[int, Field(ge=1_000, le=1_400_000)] = 60_000
    compute_unit_price_micro_lamports: Annotated[int, Field(ge=0, le=10**9)] = 0
    fund_from_faucet_lamports: Annotated[int, Field(ge=0, le=10**12)] = 0

    @property
    def program_id(self) -> bytes:
        """
        The program's id, 32 bytes.

        Raises:
            SettingsError: it is not a base58 address.
        """
        try:
            return bytes(Pubkey.from_string(self.program))
        except ValueError:
            raise SettingsError(f"{self.program!r} is not a program id: give its base58 address") from None

    @property
    def lease_s(self) -> float:
        """How long the lease is taken for: long enough that the wait between two passes does not lose it."""
        return max(self.lease_ttl_s, 4 * self.interval_s)


def read_settings(**flags: Any) -> EngineSettings:
    """
    Return the settings; a flag that is None leaves the word to the environment and the defaults.

    Raises:
        SettingsError: a value that cannot be; the message names the setting and never shows its value.
    """
    try:
        return EngineSettings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise settings_refusal("the engine's setting", error) from None
