"""`adaptry token create`, `ls` and `revoke`: who may use the server that serves a folder."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import click

from adaptry.core.errors import NotFound
from adaptry.core.identity import Role
from adaptry.storage import tokens
from adaptry.storage.connect import is_registry, open_local
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.connection import folder_of
from adaptry_cli.out import json_option, print_err, print_json, print_out
from adaptry_cli.storage_options import catalog_option, data_option
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import format_when


def _folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """(`Any`: the arguments are each command's own.)"""
    return data_option(catalog_option(command))


@click.group()
def token() -> None:
    """Create, list and revoke a server's tokens.

    Works on the folder that `adaptry serve` serves, on its machine, also while it runs.
    """


@token.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(get_args(Role)), default="reader", show_default=True, help="What it may do."
)
@click.option(
    "--namespace", "namespaces", multiple=True, metavar="GLOB", help="Where it holds; may be repeated."
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is good for."
)
@click.option(
    "--hf",
    is_flag=True,
    help="Print the token with the prefix `hf_`, which JavaScript clients of the Hub require.",
)
@_folder_options
@json_option
def create(
    name: str,
    role: Role,
    namespaces: tuple[str, ...],
    days: int,
    hf: bool,
    data: Path | None,
    catalog: str | None,
    as_json: bool,
) -> None:
    """Create a token, and print it: this once.

    NAME is the person or program that will use it; the history shows it with every change made with the
    token. The token is valid with and without the prefix `hf_`.
    """
    require_usage(
        bool(namespaces), "give --namespace GLOB (acme, team-*, or * for all): where the token holds"
    )
    expires = datetime.now(UTC) + timedelta(days=days)
    secret = tokens.create_token(_opened(data, catalog).catalog, name, role, namespaces, expires)
    if hf:
        secret = tokens.to_hub_token(secret)
    if as_json:
        print_json({"token": secret, "name": name, "role": role, "expires_at": expires.isoformat()})
        return
    print_out(secret)
    print_err(f"{role} in {', '.join(namespaces)} until {format_when(expires)}; it cannot be shown again")


@token.command()
@_folder_options
@json_option
def ls(data: Path | None, catalog: str | None, as_json: bool) -> None:
    """List tokens, without their secrets."""
    found = tokens.list_tokens(_opened(data, catalog).catalog)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "role", "namespaces", "ends in", "created", "expires", "revoked"),
        (
            (
                str(one.id),
                one.name,
                one.role,
                ", ".join(one.namespaces),
                one.last_four,
                format_when(one.created_at),
                format_when(one.expires_at) if one.expires_at else "never",
                format_when(one.revoked_at) if one.revoked_at else "",
            )
            for one in found
        ),
        right=("id",),
    )


@token.command()
@click.argument("id", type=int)
@_folder_options
def revoke(id: int, data: Path | None, catalog: str | None) -> None:
    """End a token, by the id that `token ls` shows."""
    tokens.revoke_token(_opened(data, catalog).catalog, id)
    print_err(f"token {id} opens nothing from now on")


def _opened(data: Path | None, catalog: str | None) -> LocalRegistry:
    folder = folder_of(data, "tokens are made on the server's own machine, in its folder")
    if not is_registry(folder):
        raise NotFound(f"no registry in {folder}; `adaptry serve --data {folder}` makes one and serves it")
    registry = open_local(folder, catalog=catalog)
    click.get_current_context().call_on_close(registry.close)
    return registry
