"""`adaptry ls`: the adapters that the caller may read, or the versions of one."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterInfo
from adaptry_cli.connection import registry_option
from adaptry_cli.inputs import no_version_message
from adaptry_cli.out import (
    collect_pages,
    json_option,
    limit_option,
    print_err,
    print_json,
)
from adaptry_cli.tables import print_table
from adaptry_cli.version_table import print_versions
from adaptry_cli.version_text import format_when


@click.command()
@click.argument("what", metavar="[NAMESPACE|NAME]", required=False)
@limit_option
@registry_option
@json_option
def ls(registry: Registry, what: str | None, limit: int, as_json: bool) -> None:
    """List adapters, or the versions of one.

    Without an argument: all adapters that you may read. With a namespace: its adapters. With namespace/name:
    the versions of that adapter, newest first.
    """
    if what and "/" in what:
        name = AdapterName.parse(what)
        versions = collect_pages(lambda cursor, many: registry.versions.list(name, cursor, many), limit)
        print_versions(versions, as_json)
        if not versions:
            print_err(no_version_message(name))
        return
    adapters = collect_pages(lambda cursor, many: registry.adapters.list(what, cursor, many), limit)
    if as_json:
        print_json(adapters)
    elif adapters:
        print_table(
            ("adapter", "versions", "latest", "visibility", "downloads", "updated", "description"),
            map(_adapter_row, adapters),
            right=("versions", "latest", "downloads"),
        )
    else:
        where = f"in {what}" if what else "here"
        print_err(f"no adapters {where} yet; `adaptry push DIR {what or 'namespace'}/name` puts one in")


def _adapter_row(info: AdapterInfo) -> tuple[str, ...]:
    return (
        str(info.name),
        str(info.versions),
        "" if info.latest is None else str(info.latest),
        info.visibility,
        str(info.downloads),
        format_when(info.updated_at),
        info.description.split("\n")[0][:60],
    )
