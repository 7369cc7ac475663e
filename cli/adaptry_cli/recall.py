"""`adaptry recall status`: whether anyone may still be answered with a version that was withdrawn."""

from __future__ import annotations

import time

import click

from adaptry.core.refs import Ref
from adaptry.operations.recall_status import RecallStatus, recall_status
from adaptry.registry.interface import Registry
from adaptry.registry.state_warnings import state_warning
from adaptry_cli.arguments import REF
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import format_count, json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import format_when

_EVERY = 1.0


@click.group()
def recall() -> None:
    """See how far the recall of a version has come.

    `adaptry revoke` and `adaptry quarantine` begin one.
    """


@recall.command()
@click.argument("ref", metavar="NAME@VERSION", type=REF)
@click.option(
    "--wait", type=click.FloatRange(0), metavar="SECONDS", default=0.0, help="Wait so long for it to be done."
)
@registry_option
@json_option
@click.pass_context
def status(ctx: click.Context, registry: Registry, ref: Ref, wait: float, as_json: bool) -> None:
    """Say of every worker that has or had a version whether it has dropped it.

    Dropped is what was unloaded, whose files were removed, and which the engine refused when asked. The exit
    code is 1 while any worker may still answer with it: one that has not dropped it yet, or is lost.
    """
    found = recall_status(registry, ref)
    until = time.monotonic() + wait
    while found.is_recalled and not found.is_complete and time.monotonic() < until:
        time.sleep(min(_EVERY, max(0.0, until - time.monotonic())))
        found = recall_status(registry, ref)
    if as_json:
        print_json(found)
    else:
        _say(found)
    ctx.exit(0 if found.is_complete else NO)


def _say(found: RecallStatus) -> None:
    if found.lines:
        print_table(
            ("worker", "owner", "served as", "state", "since"),
            ((one.worker, one.owner, one.served_as, one.outcome, format_when(one.at)) for one in found.lines),
        )
    version = found.version
    if not found.is_recalled:
        print_err(
            f"{version.label} is {version.state}: nobody was asked to drop it (adaptry revoke"
            f" {version.label} --reason TEXT)"
        )
        return
    print_err(state_warning(version) or "")
    if not found.lines:
        print_err("no worker that the registry knows of has or had it")
        return
    clean = sum(one.is_clean for one in found.lines)
    print_err(f"dropped in {clean} of {format_count(len(found.lines), 'place')} that had it")
