"""`adaptry login`, `logout` and `whoami`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from adaptry.core.errors import Invalid, NotFound
from adaptry.core.identity import LOCAL
from adaptry.core.settings import is_server
from adaptry.storage.connect import resolve_folder
from adaptry_cli import credentials
from adaptry_cli.arguments import FOLDER, require_usage
from adaptry_cli.connection import settings_for
from adaptry_cli.out import json_option, print_err, print_json, print_out
from adaptry_cli.tables import print_facts

_WHOLE = 4096  # characters of a token, and more


@click.command()
@click.argument("url", required=False)
@click.option("--token-file", metavar="FILE", type=FOLDER, help="Read the token from this file.")
def login(url: str | None, token_file: Path | None) -> None:
    """Keep a token for a server.

    Asks for the token, or reads it from stdin or a file; it is tried before it is kept, in a file that only you can
    read. URL is the server's address, else ADAPTRY_URL.
    """
    server = _server(url)
    token = _read_token(token_file)
    identity = _identity(server, token)
    path = credentials.save_token(server, token)
    print_out(str(identity["identity"]))
    print_err(f"the token for {server} is kept in {path}")


@click.command()
@click.argument("url", required=False)
def logout(url: str | None) -> None:
    """Forget the token for a server.

    The token itself stays good: `adaptry token revoke` ends it.
    """
    server = _server(url)
    if not credentials.remove_token(server):
        raise NotFound(f"no token is kept for {server}")
    print_err(f"forgot the token for {server}")


@click.command()
@click.option("--registry", "where", metavar="URL|DIR", help="The registry to ask.")
@json_option
def whoami(where: str | None, as_json: bool) -> None:
    """Show who you are to the registry.

    Your name, your role, and the namespaces you hold it in. An embedded registry takes whoever can open its folder.
    """
    settings = settings_for(where)
    if settings.registry and is_server(settings.registry):
        found = _identity(settings.registry, settings.token)
    else:
        if settings.registry:
            resolve_folder(settings.registry)
        found = {"identity": LOCAL.name, "role": LOCAL.role, "namespaces": list(LOCAL.namespaces)}
    if as_json:
        print_json(dict(found))
        return
    print_facts(
        (name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in found.items()
    )


def _server(url: str | None) -> str:
    server = settings_for(url).registry
    require_usage(bool(server), "which server? give its URL, or set ADAPTRY_URL")
    assert server is not None
    require_usage(
        is_server(server), f"{server!r} is not a server's address (https://…); a folder needs no token"
    )
    return server


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


def _identity(server: str, token: str | None) -> dict[str, object]:
    """Who the server takes the token's holder for. Raises `Unauthenticated`, `Unavailable`."""
    from adaptry.registry.http import HttpRegistry

    settings = settings_for(server)
    about = HttpRegistry(server, token, settings.ca_bundle, settings.proxy).about()
    return {
        "identity": about.identity,
        "role": about.role,
        "namespaces": list(about.namespaces),
        "server": about.version,
    }
