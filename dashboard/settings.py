"""
What the dashboard is told before it starts.

`capstan dashboard` reads flags and environment, checks them, and hands them to the Streamlit process as
CAPSTAN_DASHBOARD_* variables. `from_environment` is the only place of the pages that reads them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from indexer.errors import SettingsError

PREFIX = "CAPSTAN_DASHBOARD_"
DEFAULT_RPC_URL = "http://127.0.0.1:8899"
DEFAULT_DATA_DIR = Path(".data")
EXPLORER_OF_MAINNET = "https://explorer.solana.com/tx/{signature}"
EXPLORER_TEMPLATE = "https://explorer.solana.com/tx/{signature}?cluster=custom&customUrl={rpc_url}"


@dataclass(frozen=True, kw_only=True)
class DashboardSettings:
    """
    Where the data is and where links lead.

    Attributes:
        database_url: PostgreSQL; None means the embedded one under `data_dir`. May hold a password: not in the repr.
        data_dir: folder of the embedded database, and of the lake where `lake` is not given.
        lake: folder of the lake's data files.
        explorer_url: link for a transaction; `{signature}` stands for its base58 text.
    """

    database_url: str | None = field(default=None, repr=False)
    data_dir: Path = DEFAULT_DATA_DIR
    lake: Path = DEFAULT_DATA_DIR / "lake"
    explorer_url: str = ""

    def __post_init__(self) -> None:
        """Raise SettingsError for a link that is none: it would be a dead or a hostile one on every page."""
        url = self.explorer_url
        if "{signature}" not in url:
            raise SettingsError(f"The explorer link {url!r} has no {{signature}} in it: say where it belongs.")
        if urlsplit(url).scheme not in {"http", "https"}:
            raise SettingsError(f"The explorer link {url!r} does not start with http:// or https://.")

    def explorer_link(self, signature: str) -> str:
        """Return the link for one transaction, `signature` in base58."""
        return self.explorer_url.replace("{signature}", quote(signature, safe=""))

    def to_environment(self) -> dict[str, str]:
        """Return the variables the Streamlit process is started with."""
        named = {
            "DATABASE_URL": self.database_url or "",
            "DATA_DIR": str(self.data_dir.absolute()),
            "LAKE": str(self.lake.absolute()),
            "EXPLORER_URL": self.explorer_url,
        }
        return {PREFIX + name: value for name, value in named.items()}


def explorer_url_for(rpc_url: str) -> str:
    """
    Return the default explorer link: Solana's own explorer, looking at the node that is indexed here.

    An url with a user, a path or a query may carry a key, and a link shows it to everybody: then the explorer is left
    to look at its own cluster.
    """
    parts = urlsplit(rpc_url)
    if parts.username or parts.password or parts.path not in {"", "/"} or parts.query or parts.fragment:
        return EXPLORER_OF_MAINNET
    return EXPLORER_TEMPLATE.replace("{rpc_url}", quote(rpc_url, safe=""))


def from_environment(environment: Mapping[str, str] | None = None) -> DashboardSettings:
    """
    Return the settings of this Streamlit process.

    Raises:
        SettingsError: an explorer link that is none.
    """
    env = os.environ if environment is None else environment
    data_dir = Path(env.get(PREFIX + "DATA_DIR") or DEFAULT_DATA_DIR)
    return DashboardSettings(
        database_url=env.get(PREFIX + "DATABASE_URL") or None,
        data_dir=data_dir,
        lake=Path(env.get(PREFIX + "LAKE") or data_dir / "lake"),
        explorer_url=env.get(PREFIX + "EXPLORER_URL") or explorer_url_for(DEFAULT_RPC_URL),
    )
