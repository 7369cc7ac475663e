"""Code shared by the commands about people and permissions: opening the registry, and tables.

They work on a server's registry and on the folder that it serves. In the folder, every user who can open it
is an administrator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from adaptry.core.errors import NotFound
from adaptry.core.settings import is_server
from adaptry.registry.access import GrantInfo, PrincipalInfo, Subject
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.connection import connect_to, folder_of, settings_for
from adaptry_cli.storage_options import catalog_option, data_option
from adaptry_cli.tables import print_table
from adaptry_cli.times import format_when


def administered_registry(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--registry`, `--data` and `--catalog`, and passes `registry`. (`Any`: each has its arguments.)"""

    @click.option("--registry", "where", metavar="URL|DIR", help="The registry to administer.")
    @data_option
    @catalog_option
    @functools.wraps(command)
    def connected(
        *args: Any, where: str | None, data: Path | None, catalog: str | None, **options: Any
    ) -> Any:
        return command(*args, registry=open_administered(where, data, catalog), **options)

    return connected


def open_administered(
    where: str | None = None, data: Path | None = None, catalog: str | None = None
) -> Registry:
    """The server's registry, or the one in a folder, which must exist. Closed with the command."""
    place = settings_for(where).registry
    if data is None and place is not None and is_server(place):
        return connect_to(where)
    from adaptry.storage.connect import is_registry, open_local, resolve_folder

    folder = resolve_folder(place) if data is None and place is not None else folder_of(data, "")
    if not is_registry(folder):
        raise NotFound(f"no registry in {folder}; `adaptry serve --data {folder}` creates one and serves it")
    registry = open_local(folder, catalog=catalog)
    click.get_current_context().call_on_close(registry.close)
    return registry


def subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument NAME and `--group`, and passes both. (`Any`: each command has its arguments.)"""
    group = click.option("--group", "is_group", is_flag=True, help="NAME is a group.")
    return click.argument("name")(group(command))


def subject(name: str, is_group: bool) -> Subject:
    return validate_options(Subject, **{"group" if is_group else "principal": name})


def print_principals(principals: Iterable[PrincipalInfo]) -> None:
    print_table(
        ("name", "kind", "created", "by", "disabled"),
        (
            (
                one.name,
                one.kind,
                format_when(one.created_at),
                one.created_by,
                format_when(one.disabled_at) if one.disabled_at else "",
            )
            for one in principals
        ),
        empty="none yet; `adaptry user create` and `adaptry service-account create` create them",
    )


def print_grants(grants: Iterable[GrantInfo]) -> None:
    print_table(
        ("id", "to", "permission", "resource", "if", "granted", "by"),
        (
            (
                str(one.id),
                one.principal or f"group {one.group}",
                one.permission,
                one.resource,
                " and ".join(one.conditions),
                format_when(one.created_at),
                one.created_by,
            )
            for one in grants
        ),
        right=("id",),
        empty="no grants; `adaptry grant add` and `adaptry member set` add some",
    )
