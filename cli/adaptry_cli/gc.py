"""`adaptry gc`: delete a registry's unused files."""

from __future__ import annotations

from datetime import timedelta

import click

from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import cleanup_registry_option
from adaptry_cli.durations import DURATION
from adaptry_cli.output import format_count, format_size, json_option, print_answer, progress


@command()
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; change nothing.")
@click.option(
    "--grace",
    type=DURATION,
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long a file must have been unused: 30m, 24h, 7d; 0 deletes at once.",
)
@cleanup_registry_option
@json_option
def gc(registry: Registry, dry_run: bool, grace: timedelta, as_json: bool) -> None:
    """Delete files that no version needs.

    These are files of deleted adapters and of interrupted pushes. An unused file is first marked, and deleted
    by a run after the grace period if it is still unused. Pushes may continue. Works in the registry's
    folder, on the server's machine, even while the server runs.
    """
    from adaptry.storage.maintenance.gc import collect_garbage

    require_usage(
        isinstance(registry, LocalRegistry),
        "gc runs on the server's machine, on the registry's folder (--registry DIR); through a server, run"
        " `adaptry jobs submit gc`",
    )
    assert isinstance(registry, LocalRegistry)
    with progress() as bars:
        swept = collect_garbage(registry, grace=grace, dry_run=dry_run, progress=bars)
    gone = (
        f"{'would delete' if dry_run else 'deleted'} {format_count(swept.deleted, 'file')}"
        f" ({format_size(swept.bytes)})"
    )
    waiting = (
        f"; {format_count(swept.waiting, 'file')}"
        f" ({format_size(swept.waiting_bytes)}) unused, to be deleted after the grace period"
    )
    print_answer(swept, gone + (waiting if swept.waiting else ""), as_json)
