"""`adaptry gc`: what nobody needs goes out of a registry."""

from __future__ import annotations

from datetime import timedelta

import click

from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.connection import cleanup_registry_option
from adaptry_cli.durations import DURATION
from adaptry_cli.out import format_count, format_size, json_option, print_answer, progress


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option(
    "--grace",
    type=DURATION,
    default="24h",
    show_default=True,
    metavar="SPAN",
    help="How long something must have been needless: 30m, 24h, 7d; 0 is at once.",
)
@cleanup_registry_option
@json_option
def gc(registry: Registry, dry_run: bool, grace: timedelta, as_json: bool) -> None:
    """Delete files that no version needs any more.

    What is left of deleted adapters and of pushes that died. What is found is marked, and goes when it is
    found again after the grace; pushes may go on meanwhile. Works on a registry's folder, on the machine of
    its server, also while that runs.
    """
    from adaptry.storage.maintenance.gc import collect_garbage

    require_usage(
        isinstance(registry, LocalRegistry),
        "a sweep runs on the server's own machine, in its folder (--registry DIR); through its address it is"
        " a job: adaptry jobs submit gc",
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
        f" ({format_size(swept.waiting_bytes)}) found for the first time"
    )
    print_answer(swept, gone + (waiting if swept.waiting else ""), as_json)
