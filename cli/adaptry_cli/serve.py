"""`adaptry serve`: a registry's folder as a server."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from adaptry.core.errors import MissingDependency
from adaptry_cli.connection import folder_of
from adaptry_cli.out import print_err, print_out
from adaptry_cli.server_options import server_options
from adaptry_cli.storage_options import storage_options
from adaptry_cli.work import runner_process

if TYPE_CHECKING:
    from adaptry_api.serve import ServerAddress

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_ONLY_HERE = ("127.0.0.1", "::1", "localhost")


@click.command()
@storage_options
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8750, show_default=True, help="0 takes a free one."
)
@server_options
@click.option("--work", "is_working", is_flag=True, help="Also run jobs, in a process beside the server.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Server processes.")
def serve(data: Path | None, host: str, port: int, is_working: bool, workers: int, **options: Any) -> None:
    """Serve the registry over HTTP.

    Prints the address once it is reachable. Every caller needs a token; the first one, an administrator's, is
    written to a file in the registry's folder, and its path is printed.
    """
    # (`Any`: each of the options has its field's type.)
    try:
        from adaptry_api.serve import serve as run
    except ModuleNotFoundError as error:
        raise MissingDependency(f"the server needs {error.name}: pip install 'adaptry[server]'") from error
    from adaptry.core.settings import secret_or_env
    from adaptry_api.settings import ServerSettings

    folder = folder_of(data, "what is served is a folder")
    settings = ServerSettings(
        data=folder, upstream_token=secret_or_env("ADAPTRY_HUB_UPSTREAM_TOKEN"), **options
    )
    with runner_process(folder, settings.catalog, settings.blobs) if is_working else contextlib.nullcontext():
        run(settings, host, port, workers=workers, announce=_announce)


def _announce(started: ServerAddress) -> None:
    """The address as it can be used: one that stands for every interface is none to connect to."""
    port = urlsplit(started.url).port
    host = urlsplit(started.url).hostname or ""
    here, there = started.url, started.url
    if host in _EVERY_INTERFACE:
        here, there = f"http://{_EVERY_INTERFACE[host]}:{port}", f"http://{socket.gethostname()}:{port}"
    print_out(here)
    print_err(f"the administrator's token is in {started.token_file}")
    print_err(f"use it from elsewhere: adaptry login {there}, then ADAPTRY_URL={there}")
    if host not in _ONLY_HERE:
        print_err(
            "warns: tokens and files go over the network unencrypted; beyond a network you trust, put a proxy"
            " with TLS in front"
        )
    print_err("Ctrl-C stops the server")
