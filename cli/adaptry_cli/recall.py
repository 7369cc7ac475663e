"""`adaptry recall status`: which workers may still serve a withdrawn version."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from adaptry.core.refs import Ref
from adaptry.operations.recall_status import RecallStatus, WorkerRecallStatus, recall_status
from adaptry.registry.interface import Registry
from adaptry.registry.state_warnings import state_warning
from adaptry_cli.arguments import REF
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.number_options import DecimalNumber
from adaptry_cli.output import format_count, json_option, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when
from adaptry_cli.worker_text import format_silence

_POLL_INTERVAL = 1.0


@group()
def recall() -> None:
    """Show the progress of a version's recall.

    `adaptry revoke` and `adaptry quarantine` start a recall.
    """


@recall.command()
@click.argument("ref", metavar="NAME@VERSION", type=REF)
@click.option(
    "--wait",
    type=DecimalNumber(0),
    metavar="SECONDS",
    default=0.0,
    help="Wait this long for the recall to be complete.",
)
@registry_option
@exact_times_option
@json_option
@click.pass_context
def status(ctx: click.Context, registry: Registry, ref: Ref, wait: float, as_json: bool) -> None:
    """Show which workers have dropped a withdrawn version.

    A worker has dropped a version when it is unloaded, its files are removed, and the engine refuses requests
    for it. The exit code is 1 while a worker may still serve it: one that has not dropped it yet, or that no
    longer reports, or whose engine does not answer, and that was not declared gone (`adaptry workers
    declare-gone`).
    """
    found = recall_status(registry, ref)
    until = time.monotonic() + wait
    while found.is_recalled and not found.is_complete and time.monotonic() < until:
        time.sleep(min(_POLL_INTERVAL, max(0.0, until - time.monotonic())))
        found = recall_status(registry, ref)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    ctx.exit(0 if found.is_complete else NO)


def _print_status(found: RecallStatus) -> None:
    if found.lines:
        print_table(
            ("worker", "owner", "served as", "state", "since"),
            (
                (one.worker, one.owner, one.served_as, _outcome_text(one), format_when(one.at))
                for one in found.lines
            ),
            cut=("state",),
            drop=("owner", "since"),
        )
    version = found.version
    if not found.is_recalled:
        print_err(
            f"{version.label} is {version.state}, so it is not recalled; `adaptry revoke {version.label}"
            " --reason"
            " TEXT` recalls it"
        )
        return
    print_err(state_warning(version) or "")
    if not found.lines:
        print_err(
            "no worker ever reported this version. It was downloaded"
            f" {format_count(version.downloads, 'time')}; the registry only knows engines whose worker"
            " reports to it, with a token that has the role `worker`"
        )
        return
    workers = _workers(found.lines)
    proved = workers - _workers(one for one in found.lines if not one.is_proved)
    print_err(f"removal proved: {len(proved)} of {format_count(len(workers), 'worker')} that had it")
    if declared := _workers(one for one in found.lines if one.outcome == "gone"):
        print_err(f"declared gone, without proof: {format_count(len(declared), 'worker')}")
    if unknown := {one.worker for one in found.lines if one.outcome == "unknown"}:
        print_err(
            f"{', '.join(sorted(unknown)[:5])} may still serve it: the worker no longer reports, or its"
            " engine does not answer. A worker that reports again receives the recall. If its engine is"
            " gone:"
            " adaptry workers declare-gone WORKER --reason TEXT"
        )


def _workers(lines: Iterable[WorkerRecallStatus]) -> set[tuple[str, str]]:
    """The distinct workers of some lines: a worker may have had the version under several names."""
    return {(one.owner, one.worker) for one in lines}


def _outcome_text(one: WorkerRecallStatus) -> str:
    if one.gone:
        return f"declared gone by {one.gone.by} ({one.gone.reason})"
    if one.outcome == "unknown" and not one.is_answering:
        return f"unknown: engine away; last: {one.last}"
    if one.outcome == "unknown" and one.reported_at:
        return f"unknown: {format_silence(one.reported_at)}; last: {one.last}"
    return one.outcome
