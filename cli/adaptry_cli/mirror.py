"""`adaptry mirror`: copy versions from another registry, once or continuously."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import click

from adaptry.core.errors import Unavailable
from adaptry.core.settings import read_secret
from adaptry.operations.mirror.actions import MirrorResult
from adaptry.operations.mirror.plan import MirrorPlan, MirrorSelection, plan_mirror, require_distinct
from adaptry.operations.mirror.sync import sync_continuously, sync_once
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import FOLDER, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import connect_to, creating_registry_option, settings_for
from adaptry_cli.durations import DURATION
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import format_count, json_option, print_err, print_json, print_out, progress

_RETRY_DELAY = 5.0
"""Seconds before a registry that did not answer is tried again."""


@command()
@click.argument("query", default="")
@click.option("--from", "source", metavar="URL|DIR", required=True, help="The registry to copy from.")
@click.option(
    "--from-token-file",
    metavar="FILE",
    type=FOLDER,
    help="A file with a token for the source. Default: the token that other commands would use for it.",
)
@click.option("--aliases", is_flag=True, help="Also move aliases to match the source.")
@click.option("--parents", is_flag=True, help="Also copy the versions that a version was made from.")
@click.option(
    "--bases/--no-bases", default=True, show_default=True, help="Register the bases of the copied versions."
)
@click.option(
    "--base-files", is_flag=True, help="Also copy the weights of bases, where the source stores them."
)
@click.option(
    "--delete",
    is_flag=True,
    help="Delete mirrored adapters that the source does not have. Not for a registry that mirrors several"
    " sources.",
)
@click.option(
    "--every", type=DURATION, metavar="DURATION", help="Repeat, with this pause between rounds: 30s, 5m."
)
@click.option("--follow", "is_following", is_flag=True, help="Keep running, and copy changes as they happen.")
@click.option("--dry-run", is_flag=True, help="Show what would be copied; change nothing.")
@creating_registry_option
@json_option
def mirror(
    registry: Registry,
    query: str,
    source: str,
    from_token_file: Path | None,
    aliases: bool,
    parents: bool,
    bases: bool,
    base_files: bool,
    delete: bool,
    every: timedelta | None,
    is_following: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy versions from another registry, once or continuously.

    Copies the versions that QUERY finds at the source (without a QUERY, all of them), with their numbers,
    metrics and states. Later rounds copy new versions and apply changes: a version that was revoked at the
    source is revoked here. An interrupted round can be run again. The exit code is 1 if a version or change
    was refused.
    """
    require_usage(not base_files or bases, "--base-files copies the weights of bases; leave out --no-bases")
    require_usage(
        sum((every is not None, is_following, dry_run)) <= 1,
        "pass only one of --every, --follow and --dry-run",
    )
    require_usage(
        every is None or bool(every),
        "--every 0 would repeat without a pause; --follow copies changes as they happen",
    )
    there = source_registry(source, from_token_file)
    choice = MirrorSelection(
        query=query, aliases=aliases, bases=bases, base_files=base_files, parents=parents, delete=delete
    )
    if dry_run:
        require_distinct(there.events, registry.events)
        _print_plan(plan_mirror(there, registry, choice), as_json)
        return
    if is_following:
        _follow(there, registry, choice, as_json)
    while True:
        failed = _round(there, registry, choice, as_json, forgiving=every is not None)
        if every is None:
            click.get_current_context().exit(NO if failed else 0)
        threading.Event().wait(every.total_seconds())


def source_registry(where: str, token_file: Path | None) -> Registry:
    """The registry at `where`, with the token in `token_file`, if given."""
    if token_file is None:
        return connect_to(where)
    from adaptry.storage.connect import connect

    settings = replace(settings_for(where), token=read_secret(token_file, "--from-token-file"))
    registry = connect(where, settings, create_missing=False)
    click.get_current_context().call_on_close(registry.close)
    return registry


def _round(
    there: Registry, here: Registry, choice: MirrorSelection, as_json: bool, *, forgiving: bool
) -> bool:
    """Copies one round; returns whether anything was refused. With `forgiving`, only prints a message if a
    registry does not answer.
    """
    try:
        require_distinct(there.events, here.events)
        with progress() as bars:
            followed = sync_once(there, here, choice, progress=bars)
    except Unavailable as error:
        if not forgiving:
            raise
        print_err(f"will try again: {error.message}")
        return True
    print_sync_result(followed, as_json)
    return bool(followed.failures)


def _follow(there: Registry, here: Registry, choice: MirrorSelection, as_json: bool) -> NoReturn:
    """Copies until it is stopped; a registry that does not answer is tried again, from the beginning."""
    while True:
        try:
            require_distinct(there.events, here.events)
            for followed in sync_continuously(there, here, choice):
                if followed.is_change or followed.failures:
                    print_sync_result(followed, as_json)
        except Unavailable as error:
            print_err(f"will try again: {error.message}")
        threading.Event().wait(_RETRY_DELAY)


def print_sync_result(followed: MirrorResult, as_json: bool) -> None:
    """Prints the actions of a round, one per line."""
    if as_json:
        print_json(followed)
        return
    for failure in followed.failures:
        print_err(f"refused: {failure.what}: {failure.reason}")
    for ref in followed.withheld:
        print_err(f"not copied: {ref} is withdrawn at the source")
    for name in followed.gone:
        print_err(f"deleted there: {name} (--delete deletes it here too)")
    for word, refs in (
        ("copied", followed.copied),
        ("updated", followed.updated),
        ("moved", followed.pointed),
        ("deleted", followed.deleted),
    ):
        for ref in refs:
            print_out(f"{word} {ref}")
    print_err(f"{format_count(len(followed.copied), 'version')} copied, {len(followed.updated)} updated")


def _print_plan(decided: MirrorPlan, as_json: bool) -> None:
    lines = {
        "copy": [one.label for one in decided.copy],
        "update": [one.label for one in decided.update],
        "point": [f"{name}@{alias.alias}" for name, alias in decided.point],
        "gone": [str(name) for name in decided.delete],
        "withheld": [one.label for one in decided.withheld],
    }
    if as_json:
        print_json(lines)
        return
    for word, refs in lines.items():
        for ref in refs:
            print_out(f"{word} {ref}")
