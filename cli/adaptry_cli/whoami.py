"""`adaptry whoami`: the caller's identity and role."""

from __future__ import annotations

import click

from adaptry.core.identity import LOCAL
from adaptry.core.settings import is_server
from adaptry.storage.connect import resolve_folder
from adaptry_cli.command import command
from adaptry_cli.connection import settings_for
from adaptry_cli.output import json_option, print_json
from adaptry_cli.tables import print_facts


@command()
@click.option("--registry", "where", metavar="URL|DIR", help="The registry to ask.")
@json_option
def whoami(where: str | None, as_json: bool) -> None:
    """Show your identity and role.

    Shows your name, your role, and the namespaces that it is valid for. In an embedded registry, everyone who
    can open its folder is an administrator.
    """
    settings = settings_for(where)
    if settings.registry and is_server(settings.registry):
        found = server_identity(settings.registry, settings.token)
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


def server_identity(server: str, token: str | None) -> dict[str, object]:
    """The identity of the token on the server. Raises `Unauthenticated`, `Unavailable`."""
    from adaptry.registry.http import HttpRegistry

    settings = settings_for(server)
    about = HttpRegistry(server, token, settings.ca_bundle, settings.proxy).about()
    return {
        "identity": about.identity,
        "role": about.role,
        "namespaces": list(about.namespaces),
        "server": about.version,
    }
