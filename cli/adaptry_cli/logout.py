"""`adaptry logout`: delete the saved token for a server."""

from __future__ import annotations

import click

from adaptry.core import credentials
from adaptry.core.errors import NotFound
from adaptry_cli.command import command
from adaptry_cli.connection import require_server
from adaptry_cli.output import json_option, print_done


@command()
@click.argument("url", required=False)
@json_option
def logout(url: str | None, as_json: bool) -> None:
    """Delete the saved token for a server.

    The token itself stays valid; `adaptry token revoke` revokes it.
    """
    server = require_server(url)
    if not credentials.remove_token(server):
        raise NotFound(f"no token is saved for {server}")
    print_done({"url": server}, f"deleted the saved token for {server}", as_json)
