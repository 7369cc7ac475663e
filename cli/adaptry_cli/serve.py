"""`adaptry serve`: serve a registry's folder over HTTP."""

from __future__ import annotations

import contextlib
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from adaptry.core.errors import MissingDependency
from adaptry_cli.command import command
from adaptry_cli.connection import folder_of
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import json_option, print_err, print_json_line, print_out
from adaptry_cli.server_options import server_options
from adaptry_cli.storage_options import storage_options
from adaptry_cli.work import runner_process

if TYPE_CHECKING:
    from adaptry_api.serve import ServerAddress
    from adaptry_api.settings import SsoSettings

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_ONLY_HERE = ("127.0.0.1", "::1", "localhost")


@command()
@storage_options
@click.option(
    "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen on."
)
@click.option(
    "--port",
    type=WholeNumber(0, 65535),
    metavar="PORT",
    default=8750,
    show_default=True,
    help="The port to listen on; 0 chooses a free one.",
)
@server_options
@click.option("--work", "is_working", is_flag=True, help="Also run jobs, in a second process.")
@click.option(
    "--workers", type=WholeNumber(1, 64), default=1, show_default=True, help="Number of server processes."
)
@json_option
def serve(
    data: Path | None, host: str, port: int, is_working: bool, workers: int, as_json: bool, **options: Any
) -> None:
    """Serve the registry over HTTP.

    When the server is ready, prints its address, and the command that logs in with the administrator's token.
    On a terminal, it also prints a link that signs in a browser on this machine; it works once, within a
    minute. Every caller needs a token; the first start writes an administrator's token to a file in the
    registry's folder.
    """
    # (`Any`: each of the options has its field's type.)
    try:
        from adaptry_api.serve import serve as run
    except ModuleNotFoundError as error:
        raise MissingDependency(f"the server needs {error.name}: pip install 'adaptry[server]'") from error
    from adaptry.core.settings import AdaptrySettings, secret_or_env
    from adaptry_api.settings import ServerSettings

    folder = folder_of(data, "only a folder can be served")
    sso = _sso(
        options.pop("sso_issuer"),
        options.pop("sso_client_id"),
        options.pop("sso_scopes"),
        options.pop("sso_groups_claim"),
    )
    settings = ServerSettings(
        data=folder,
        upstream_token=secret_or_env("ADAPTRY_HUB_UPSTREAM_TOKEN"),
        sso=sso,
        ca_bundle=AdaptrySettings.from_env().ca_bundle,
        **options,
    )
    runner = (
        runner_process(folder, settings.catalog, settings.blobs, settings.allow_outgoing)
        if is_working
        else contextlib.nullcontext()
    )
    with runner:
        run(
            settings,
            host,
            port,
            workers=workers,
            announce=lambda started: _announce(started, folder, as_json),
        )


def _sso(issuer: str | None, client_id: str | None, scopes: str, groups_claim: str) -> SsoSettings | None:
    """The identity provider. Raises `UsageError` if only one of its two options is passed."""
    from adaptry.core.settings import secret_or_env
    from adaptry_api.settings import SsoSettings

    if (issuer is None) != (client_id is None):
        raise click.UsageError("pass --sso-issuer and --sso-client-id together")
    if issuer is None or client_id is None:
        return None
    secret = secret_or_env("ADAPTRY_SSO_CLIENT_SECRET")
    return SsoSettings(issuer, client_id, secret, tuple(scopes.split()), groups_claim)


def _announce(started: ServerAddress, data: Path, as_json: bool) -> None:
    """Prints the address as clients can use it (not 0.0.0.0), how to log in, and, to a terminal on this
    machine, a link that signs a browser in.
    """
    port = urlsplit(started.url).port
    host = urlsplit(started.url).hostname or ""
    here, there = started.url, started.url
    if host in _EVERY_INTERFACE:
        here, there = f"http://{_EVERY_INTERFACE[host]}:{port}", f"http://{socket.gethostname()}:{port}"
    token_file = Path(started.token_file).absolute()
    if as_json:
        print_json_line({"url": here, "elsewhere": there, "token_file": str(token_file)})
        return
    print_out(here)
    if host in _ONLY_HERE and sys.stderr.isatty():
        from adaptry_api.serve import sign_in_link

        print_err(f"open in a browser (works once, within a minute): {sign_in_link(started, data)}")
    print_err(f"log in on this machine: adaptry login {here} --token-file {shlex.quote(str(token_file))}")
    if there != here:
        print_err(
            f"log in on another machine, with a copy of that file: adaptry login {there} --token-file FILE"
        )
    print_err(f"then use the server: export ADAPTRY_URL={here}")
    if host not in _ONLY_HERE:
        print_err(
            "warning: tokens and files are sent unencrypted; on an untrusted network, put a TLS proxy in"
            " front"
        )
    print_err("Ctrl-C stops the server")
