"""`adaptry logout`: forget the token for a server."""

from __future__ import annotations

import click

from adaptry.core.errors import NotFound
from adaptry_cli import credentials
from adaptry_cli.connection import require_server
from adaptry_cli.out import print_err


@click.command()
@click.argument("url", required=False)
def logout(url: str | None) -> None:
    """Forget the token for a server.

    The token itself stays good: `adaptry token revoke` ends it.
    """
    server = require_server(url)
    if not credentials.remove_token(server):
        raise NotFound(f"no token is kept for {server}")
    print_err(f"forgot the token for {server}")
