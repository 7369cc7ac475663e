"""`adaptry login`: save a token for a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from adaptry.core import credentials
from adaptry.core.errors import Invalid, Unavailable
from adaptry_cli.arguments import FOLDER
from adaptry_cli.command import command
from adaptry_cli.connection import require_server, settings_for
from adaptry_cli.output import json_option, print_err, print_json, print_out
from adaptry_cli.whoami import server_identity

_WHOLE = 4096  # more characters than any token has


@command()
@click.argument("url", required=False)
@click.option("--token-file", metavar="FILE", type=FOLDER, help="Read the token from this file.")
@click.option(
    "--publish",
    "adapter",
    metavar="NAMESPACE/NAME",
    help="In a CI job: log in with the job's ID token, to push to this adapter for 15 minutes.",
)
@click.option("--browser", "in_browser", is_flag=True, help="Sign in with a browser, on any machine.")
@click.option("--with-token", is_flag=True, help="Ask for the token, or read it from stdin.")
@json_option
def login(
    url: str | None,
    token_file: Path | None,
    adapter: str | None,
    in_browser: bool,
    with_token: bool,
    as_json: bool,
) -> None:
    """Save a token for a server.

    In a terminal, prints an address and a code: open the address in a browser, here or on any other machine,
    and approve the code. Elsewhere, reads the token from stdin. The token is tested first, then saved in a
    file that only you can read. An invitation code (`adaptry user invite`), entered with --with-token, is
    first exchanged for a token. URL is the server's address. Default: ADAPTRY_URL.
    """
    server = require_server(url)
    if sum((adapter is not None, token_file is not None, in_browser, with_token)) > 1:
        raise click.UsageError("pass only one of --publish, --token-file, --browser and --with-token")
    if adapter is not None:
        token = _job_token(server, adapter)
    elif in_browser or (token_file is None and not with_token and sys.stdin.isatty()):
        token = _browser_token(server, is_required=in_browser) or _read_token(server, None)
    else:
        token = _read_token(server, token_file)
    if token.startswith(credentials.INVITATION):
        token = _accept(server, token)
    identity = server_identity(server, token)
    path = credentials.save_token(server, token)
    if as_json:
        print_json({**identity, "url": server, "saved_in": str(path)})
        return
    print_out(str(identity["identity"]))
    print_err(f"saved the token for {server} in {path}")
    if (settings_for(None).registry or "").rstrip("/") != server.rstrip("/"):
        print_err(f"then use the server: export ADAPTRY_URL={server}")


def _job_token(server: str, adapter: str) -> str:
    """The token of the CI job that runs this command. Raises `Invalid`, `Unauthenticated`, `Unavailable`."""
    from adaptry_cli.ci_login import job_token

    settings = settings_for(server)
    return job_token(server, adapter, os.environ, settings.ca_bundle, settings.proxy)


def _browser_token(server: str, *, is_required: bool) -> str | None:
    """The token that a user approves in a browser; unless it is required, None from a server that cannot
    issue one. Raises `Unauthenticated`, `Unavailable`.
    """
    from adaptry_cli.device_login import begin_sign_in, wait_for_token

    settings = settings_for(server)
    begun = begin_sign_in(server, settings.ca_bundle, settings.proxy)
    if begun is not None:
        return wait_for_token(server, begun, settings.ca_bundle, settings.proxy)
    if is_required:
        raise Unavailable(f"{server} has no sign-in with a browser; log in with --with-token")
    return None


def _accept(server: str, code: str) -> str:
    """The token that an invitation's code is exchanged for. Raises `Unauthenticated`."""
    from adaptry.registry.http import HttpRegistry

    settings = settings_for(server)
    invited = HttpRegistry(server, None, settings.ca_bundle, settings.proxy)
    return invited.accept_invitation(code).secret


def _read_token(server: str, file: Path | None) -> str:
    if file is not None:
        try:
            text = file.expanduser().read_text()
        except OSError as error:
            raise Invalid(f"cannot read a token from {file}: {error.strerror}") from error
    elif sys.stdin.isatty():
        text = click.prompt("Token", hide_input=True, err=True)
    else:
        text = sys.stdin.read(_WHOLE)
    token = text.strip()
    if not token and file is None:
        raise Invalid(
            f"no token on stdin; pass one, or sign in with a browser: adaptry login {server} --browser"
        )
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Invalid(
            "not a token: a token is one word that begins with adr_, as `adaptry token create` printed it"
        )
    return token
