"""`adaptry login`: keep a token for a server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from adaptry.core.errors import Invalid
from adaptry_cli import credentials
from adaptry_cli.arguments import FOLDER
from adaptry_cli.connection import require_server
from adaptry_cli.out import print_err, print_out
from adaptry_cli.whoami import server_identity

_WHOLE = 4096  # characters of a token, and more


@click.command()
@click.argument("url", required=False)
@click.option("--token-file", metavar="FILE", type=FOLDER, help="Read the token from this file.")
def login(url: str | None, token_file: Path | None) -> None:
    """Keep a token for a server.

    Asks for the token, or reads it from stdin or a file; it is tried before it is kept, in a file that only
    you can read. URL is the server's address, else ADAPTRY_URL.
    """
    server = require_server(url)
    token = _read_token(token_file)
    identity = server_identity(server, token)
    path = credentials.save_token(server, token)
    print_out(str(identity["identity"]))
    print_err(f"the token for {server} is kept in {path}")


def _read_token(file: Path | None) -> str:
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
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Invalid(
            "that is no token: it is one word, adr_ and so on, as `adaptry token create` printed it"
        )
    return token
