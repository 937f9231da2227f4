"""
The command `capstan dashboard`: check what can be checked, then become the Streamlit server.

The server runs in this very process, not in a child: a supervisor's signals reach it and nothing is left running when
it ends. Look and behaviour stand in `.streamlit/config.toml` beside `app.py`.
"""

import errno
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from dashboard.settings import DEFAULT_DATA_DIR, DEFAULT_RPC_URL, DashboardSettings, explorer_url_for
from indexer.console import reported, stop_with_parent
from indexer.errors import SettingsError

APP = Path(__file__).with_name("app.py")


def free_port(host: str, port: int) -> int:
    """
    Return `port`, or one that is free where it is 0.

    Raises:
        SettingsError: somebody listens there, or the address is not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As Streamlit's own server does: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} on {host} is in use: stop what listens there, or choose another with --port "
                "(0 picks a free one)."
            ) from error
        reason = error.strerror or str(error)
        raise SettingsError(
            f"The dashboard cannot listen on {host}:{port} ({reason}): check --host and --port."
        ) from error


def streamlit_arguments(*, host: str, port: int) -> list[str]:
    """Return what `streamlit` is called with. Flags win over a person's own ~/.streamlit, and these must."""
    flags = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
    }
    return ["run", str(APP), *(f"--{name}={value}" for name, value in flags.items())]


def dashboard(
    *,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8501,
    host: Annotated[str, typer.Option(help="Address to listen on. The pages have no login.")] = "127.0.0.1",
    database_url: Annotated[
        str | None,
        typer.Option(envvar="DATABASE_URL", show_envvar=True, help="PostgreSQL; else the embedded one."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="CAPSTAN_DATA_DIR", help="Folder of the embedded database and the lake.")
    ] = DEFAULT_DATA_DIR,
    lake: Annotated[
        Path | None,
        typer.Option(envvar="CAPSTAN_LAKE", help="Folder of the lake's files.", show_default="DATA_DIR/lake"),
    ] = None,
    rpc_url: Annotated[
        str, typer.Option(envvar="CAPSTAN_RPC_URL", help="Node that explorer links look at.")
    ] = DEFAULT_RPC_URL,
    explorer_url: Annotated[
        str | None,
        typer.Option(help="Link for a transaction, with {signature}.", show_default="explorer.solana.com"),
    ] = None,
) -> None:
    """Show what is indexed, as pages in a browser."""
    with reported():
        settings = DashboardSettings(
            database_url=database_url,
            data_dir=data_dir,
            lake=lake or data_dir / "lake",
            explorer_url=explorer_url or explorer_url_for(rpc_url),
        )
        arguments = streamlit_arguments(host=host, port=free_port(host, port))
        os.environ.update(settings.to_environment())
        stop_with_parent()

        # Late, so that a wrong flag is told at once: this import takes a second.
        from streamlit.web.cli import main as streamlit  # noqa: PLC0415

        streamlit(args=arguments, prog_name="streamlit")


if __name__ == "__main__":
    typer.run(dashboard)
