"""`adaptry open`: show an adapter's page, or the first page, in a browser."""

from __future__ import annotations

import webbrowser
from urllib.parse import quote

import click

from adaptry.core.errors import Invalid
from adaptry.core.refs import Latest, Ref
from adaptry.core.settings import is_server
from adaptry_cli.arguments import REF
from adaptry_cli.command import command
from adaptry_cli.connection import connect_to, settings_for
from adaptry_cli.output import print_err, print_out


@command("open")
@click.argument("ref", type=REF, required=False)
@click.option("--registry", "where", metavar="URL", help="The server whose page to open.")
@click.option("--print", "only_print", is_flag=True, help="Print the address; open no browser.")
def open_page(ref: Ref | None, where: str | None, only_print: bool) -> None:
    """Open an adapter's page in a browser.

    Prints the page's address and opens it. Without a ref, that is the server's first page. With a version or
    an alias, the page shows the version that it selects now.
    """
    settings = settings_for(where)
    server = settings.registry
    if not server or not is_server(server):
        raise Invalid(
            "pages are shown by a server: run `adaptry serve`, then set ADAPTRY_URL to the address that it"
            " prints"
        )
    address = server.rstrip("/") + ("/" if ref is None else _page_of(ref, where))
    print_out(address)
    if not only_print and not webbrowser.open(address):
        print_err("no browser was found; open the address yourself")


def _page_of(ref: Ref, where: str | None) -> str:
    """The path of a ref's page. Raises `NotFound`."""
    with connect_to(where) as registry:
        if isinstance(ref.selector, Latest):
            return f"/{quote(str(registry.adapters.get(ref.name).name))}"
        version = registry.versions.get(ref)
        return f"/{quote(str(version.name))}?version={version.number}"
