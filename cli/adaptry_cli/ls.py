"""`adaptry ls`: the adapters that the caller may read, or the versions of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adaptry.core.refs import AdapterName, parse_namespace
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import ADAPTER_OR_NAMESPACE
from adaptry_cli.command import command
from adaptry_cli.connection import reading_registry_option
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when

if TYPE_CHECKING:
    from adaptry.registry.quick_values import ListedAdapter, ListedPage
    from adaptry.registry.records import AdapterInfo, Page, VersionInfo


@command()
@click.argument("what", metavar="[NAMESPACE|NAME]", required=False, type=ADAPTER_OR_NAMESPACE)
@click.option(
    "--sort",
    "order",
    metavar="KEY",
    help=(
        "Adapters: name (the default), updated, downloads, versions. Versions: newest (the default),"
        " downloads, rank, size, metric.NAME. Names are sorted alphabetically, all other keys largest or"
        " newest first."
    ),
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@limit_option
@reading_registry_option
@exact_times_option
@json_option
def ls(
    registry: Registry, what: str | None, order: str | None, reverse: bool, limit: int, as_json: bool
) -> None:
    """List adapters, or the versions of one.

    Without an argument, lists the adapters that you may read. With a namespace, lists its adapters. With
    NAMESPACE/NAME, lists the versions of that adapter, newest first.
    """
    if what and "/" in what:
        _list_versions(registry, AdapterName.parse(what), order, reverse, limit, as_json)
    else:
        namespace = parse_namespace(what) if what else None
        _list_adapters(registry, namespace, order, reverse, limit, as_json)


def _list_versions(
    registry: Registry, name: AdapterName, order: str | None, reverse: bool, limit: int, as_json: bool
) -> None:
    def page(cursor: str | None, count: int) -> Page[VersionInfo]:
        return registry.versions.list(name, cursor, count, sort=order or "newest", reverse=reverse)

    from adaptry_cli.version_table import print_versions

    versions = collect_pages(page, limit)
    print_versions(registry.bases, versions, as_json)
    if not versions:
        from adaptry.operations.empty_adapter import no_version_message

        print_err(no_version_message(name))


def _list_adapters(
    registry: Registry, namespace: str | None, order: str | None, reverse: bool, limit: int, as_json: bool
) -> None:
    is_by_name = not as_json and order in (None, "name") and not reverse

    def page(cursor: str | None, count: int) -> Page[AdapterInfo] | ListedPage:
        listed = registry.try_list(namespace, cursor, count) if is_by_name else None
        if listed is not None:
            return listed
        return registry.adapters.list(namespace, cursor, count, sort=order or "name", reverse=reverse)

    adapters: list[AdapterInfo | ListedAdapter] = collect_pages(page, limit)
    if as_json:
        print_json(adapters)
    elif adapters:
        print_table(
            ("adapter", "versions", "latest", "visibility", "downloads", "updated", "description"),
            map(_adapter_row, adapters),
            right=("versions", "latest", "downloads"),
            cut=("description",),
            drop=("visibility", "downloads", "description", "versions", "updated", "latest"),
        )
    else:
        where = f"in {namespace}" if namespace else "in this registry"
        print_err(f"no adapters {where} yet; `adaptry push ./DIR {namespace or 'namespace'}/name` stores one")


def _adapter_row(info: AdapterInfo | ListedAdapter) -> tuple[str, ...]:
    return (
        str(info.name),
        str(info.versions),
        "" if info.latest is None else str(info.latest),
        info.visibility,
        str(info.downloads),
        format_when(info.updated_at),
        info.description.split("\n")[0],
    )
