"""
What the indexer is told before it starts. Read from flags and the environment in `__main__` alone.
"""

import re
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.errors import settings_refusal

DATA_DIR_DEFAULT = Path(".data")


class IndexerSettings(BaseSettings):
    """One frozen set of settings; flags win over the environment, the environment over the defaults."""

    model_config = SettingsConfigDict(env_prefix="CAPSTAN_", frozen=True, extra="ignore", populate_by_name=True)

    rpc_url: SecretStr = SecretStr("http://127.0.0.1:8899")
    rpc_rate: float | None = Field(default=None, ge=0.1, le=100_000)
    ws_url: SecretStr | None = None
    database_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL", "CAPSTAN_DATABASE_URL")
    )
    data_dir: Path = DATA_DIR_DEFAULT
    lake: Path | None = None
    export_interval_s: float = Field(default=10.0, gt=0, le=3_600)
    enumerate_interval_s: float = Field(default=1.0, gt=0, le=60)
    retention: str = "off"
    silence_s_max: float = Field(default=15.0, gt=0, le=600)
    lease_s: float = Field(default=15.0, ge=0.5, le=3_600)
    workers: int = Field(default=3, ge=1, le=64)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)

    @classmethod
    def read(cls, **flags: object) -> Self:
        """
        Return the settings; a flag that is None was not given.

        Raises:
            SettingsError: a value is out of range or not of its type.
        """
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type] # pydantic checks them
        except ValidationError as error:
            raise settings_refusal("the setting", error) from None

    @field_validator("retention")
    @classmethod
    def _readable(cls, text: str) -> str:
        _seconds(text)
        return text

    @property
    def retention_s(self) -> float | None:
        """How long finalized rows stay in Postgres after they are in the lake; None for ever."""
        return _seconds(self.retention)

    @property
    def lake_path(self) -> Path:
        """Where the lake's Parquet files lie, absolute."""
        return (self.lake or self.data_dir / "lake").absolute()

    @property
    def rpc_urls(self) -> list[str]:
        """The RPC urls, the preferred one first; they stand in for each other."""
        return split_urls(self.rpc_url.get_secret_value())

    @property
    def pubsub_url(self) -> str:
        """The PubSub url: as given, else the first RPC's host with ws for http and, as validators do, the next port."""
        if self.ws_url is not None:
            return self.ws_url.get_secret_value()
        return derived_ws_url(self.rpc_urls[0])


def split_urls(text: str) -> list[str]:
    """Return the urls of a list with commas; one at least, empty where there is none."""
    return [url.strip() for url in text.split(",") if url.strip()] or [""]


def _seconds(text: str) -> float | None:
    if text.strip().lower() == "off":
        return None
    matched = re.fullmatch(r"(\d{1,6})\s*([hdw])", text.strip().lower())
    if matched is None or int(matched[1]) == 0:
        raise ValueError(f"{text!r} is neither off nor a time such as 36h, 7d or 4w")
    return int(matched[1]) * {"h": 3_600.0, "d": 86_400.0, "w": 604_800.0}[matched[2]]


def derived_ws_url(rpc_url: str) -> str:
    """Return the PubSub url that goes with `rpc_url`: a validator's next port, or the same url at a provider."""
    scheme, _, rest = rpc_url.partition("://")
    host, slash, path = rest.partition("/")
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        host = f"{name}:{int(port) + 1}"
    return f"{'wss' if scheme == 'https' else 'ws'}://{host}{slash}{path}"
