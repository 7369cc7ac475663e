"""`adaptry uploads ls` and `rm`: list open uploads, and discard abandoned ones."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry_cli.arguments import NAMESPACE
from adaptry_cli.command import group
from adaptry_cli.connection import cleanup_registry_option, registry_option
from adaptry_cli.output import format_count, format_size, json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when


@group()
def uploads() -> None:
    """List and discard open uploads.

    A namespace may have 64 open uploads. An interrupted upload stays open for a day, so that its client can
    continue it. When the limit is reached, uploads that have been idle for two minutes (15 if they go
    directly to a bucket) are discarded to make room.
    """


@uploads.command("ls")
@click.argument("namespace", required=False, type=NAMESPACE)
@registry_option
@exact_times_option
@json_option
def list_open(registry: Registry, namespace: str | None, as_json: bool) -> None:
    """List the open uploads of the namespaces you may write to, the longest idle first."""
    found = sorted(
        iter_items(lambda cursor: registry.uploads.list(namespace, cursor, 200)),
        key=lambda one: one.active_at,
    )
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "for", "file", "received", "size", "by", "last active", "in use"),
        (
            (
                one.id,
                one.owner,
                one.digest.brief,
                format_size(one.offset),
                format_size(one.size),
                one.created_by,
                format_when(one.active_at),
                "yes" if one.is_held else "",
            )
            for one in found
        ),
        right=("received", "size"),
        drop=("file", "by", "in use", "last active"),
    )
    if not found:
        print_err("no open uploads")


@uploads.command("rm")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@cleanup_registry_option
@json_option
def drop(registry: Registry, ids: tuple[str, ...], as_json: bool) -> None:
    """Discard open uploads, by the ids that `uploads ls` shows.

    The bytes received so far are discarded. A client that is still sending has to start again.
    """
    for id in ids:
        registry.uploads.drop(id)
    print_done({"dropped": list(ids)}, f"discarded {format_count(len(ids), 'upload')}", as_json)
