"""`adaptry jobs`: submit, watch, cancel and retry long-running jobs. `adaptry work` runs them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from adaptry.core.errors import AdaptryError, Invalid, NotFound, by_code
from adaptry.core.refs import Ref
from adaptry.jobs.queues import can_run
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import DEVICES, GIB, JobInfo, JobNeeds, JobOrder, JobState, LogLine
from adaptry.registry.job_types.tasks import TASKS, parse_task
from adaptry.registry.jobs import Jobs
from adaptry.registry.versions import Versions
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.durations import DURATION
from adaptry_cli.exit_codes import NO
from adaptry_cli.job_watch import JOB_COLUMNS, JOB_CUT, JOB_DROP, job_row, progress_text, seconds_between
from adaptry_cli.job_watch import watch as watch_jobs
from adaptry_cli.number_options import DecimalNumber, WholeNumber, limit_option
from adaptry_cli.output import (
    collect_pages,
    format_size,
    json_option,
    print_answer,
    print_done,
    print_err,
    print_json,
    print_json_line,
    print_out,
)
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.times import exact_times_option, format_when

_POLL_INTERVAL = 0.5  # seconds between two requests about a job that is waited for
_LINES = 200


@group()
def jobs() -> None:
    """Submit long-running jobs, and follow their progress."""


@jobs.command()
@click.argument("kind", metavar="TASK", type=click.Choice(list(TASKS)))
@click.argument("fields", metavar="FIELD=VALUE...", nargs=-1)
@click.option("--device", type=click.Choice(DEVICES), help="Run only on a runner with this device.")
@click.option("--tag", metavar="TAG", help="Run only on a runner with this tag.")
@click.option("--memory", metavar="SIZE", help="Memory that a step needs, such as 8GB. Default: 2 GiB.")
@click.option(
    "--timeout",
    type=DURATION,
    default="24h",
    show_default=True,
    help="Longest time that a step may take, such as 90m or 3d; after that, the job fails.",
)
@click.option(
    "--priority", type=WholeNumber(1, 9), default=5, show_default=True, help="1 runs first, 9 last."
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for the job and print its log. Fails if the job fails; the exit code is 1 if it found damage.",
)
@registry_option
@json_option
def submit(
    registry: Registry,
    kind: str,
    fields: tuple[str, ...],
    device: str | None,
    tag: str | None,
    memory: str | None,
    timeout: timedelta,
    priority: int,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit a job, and print its id.

    TASK is merge, combine, preview, convert, export, weight-statistics, evaluate, fingerprint, verify, gc or
    replicate; docs/jobs.md lists the fields of each. To give a FIELD several values, repeat it, as `inputs`
    in the example below. The job has your rights, and does not depend on this machine.
    """
    from adaptry.core.byte_sizes import parse_bytes

    needs = validate_options(
        JobNeeds,
        device=device,
        tag=tag,
        memory=parse_bytes(memory) if memory else 2 * GIB,
        timeout=int(timeout.total_seconds()),
    )
    order = validate_options(JobOrder, kind=kind, task=_task(kind, fields), needs=needs, priority=priority)
    job = registry.jobs.submit(order)
    _warn_of_missing_refs(registry.versions, order)
    if reason := _waits_for(registry.jobs, needs):
        print_err(f"the job waits: {reason}")
    if wait:
        print_err(f"waiting for {job.id}; Ctrl-C stops waiting, not the job")
        job = _waited(registry, job)
    print_answer(job, job.id, as_json)
    _raise_fault(job if wait else None)
    if job.result is not None and parse_task(job.kind, job.task).is_negative(job.result):
        click.get_current_context().exit(NO)


@jobs.command()
@click.argument("name")
@click.argument("cron", metavar="CRON")
@click.argument("kind", metavar="TASK", type=click.Choice(list(TASKS)))
@click.argument("fields", metavar="FIELD=VALUE...", nargs=-1)
@registry_option
@json_option
def schedule(
    registry: Registry, name: str, cron: str, kind: str, fields: tuple[str, ...], as_json: bool
) -> None:
    """Submit a job on a schedule.

    TASK and its fields are those of `adaptry jobs submit`. CRON is minute, hour, day, month and weekday in
    UTC, as in '30 2 * * *'. Runners submit the job; if none was running at the time, a runner that starts
    within a day submits it once.
    """
    order = validate_options(JobOrder, kind=kind, task=_task(kind, fields))
    print_answer(registry.jobs.schedule(name, cron, order), name, as_json)


@jobs.command()
@click.argument("name")
@click.option(
    "--namespace", metavar="NAMESPACE", help="Namespace of the schedule, if several have one of that name."
)
@registry_option
@json_option
def unschedule(registry: Registry, name: str, namespace: str | None, as_json: bool) -> None:
    """Delete a schedule."""
    registry.jobs.unschedule(name, namespace)
    print_done({"unscheduled": name}, f"{name} is no longer scheduled", as_json)


@jobs.command()
@registry_option
@json_option
def schedules(registry: Registry, as_json: bool) -> None:
    """List the schedules."""
    found = registry.jobs.schedules()
    if as_json:
        print_json(found)
        return
    print_table(
        ("schedule", "namespace", "when (UTC)", "kind", "task", "by", "held"),
        (
            (
                each.name,
                each.namespace,
                each.cron,
                each.order.kind,
                json.dumps(each.order.task, ensure_ascii=False),
                each.by,
                "token revoked" if each.is_held else "",
            )
            for each in found
        ),
        empty="no schedules; `adaptry jobs schedule` adds one",
    )


@jobs.command()
@click.option(
    "--state",
    type=click.Choice(["queued", "running", "done", "failed", "cancelled"]),
    help="Only jobs in this state.",
)
@limit_option
@registry_option
@exact_times_option
@json_option
def ls(registry: Registry, state: JobState | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    found = collect_pages(lambda cursor, count: registry.jobs.list(state, cursor, count), limit)
    if as_json:
        print_json(found)
        return
    print_table(JOB_COLUMNS, map(job_row, found), cut=JOB_CUT, drop=JOB_DROP)
    if not found:
        print_err("no jobs; `adaptry jobs submit` submits one")


@jobs.command()
@click.argument("ids", metavar="[JOB]...", nargs=-1)
@click.option(
    "--every",
    type=DecimalNumber(0.1, 3600),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="How often to refresh.",
)
@registry_option
@exact_times_option
@json_option
def watch(registry: Registry, ids: tuple[str, ...], every: float, as_json: bool) -> None:
    """Show the progress of jobs until they end.

    Without JOB, watches all jobs that are queued or running now. A terminal shows a table that is refreshed;
    a file or pipe gets a line for each change, and with --json an object. The exit code is 1 if a job failed
    or was cancelled.
    """
    jobs = watch_jobs(registry, ids, as_json, seconds_between(every))
    if any(job.state != "done" for job in jobs):
        click.get_current_context().exit(NO)


@jobs.command()
@click.argument("job")
@registry_option
@exact_times_option
@json_option
def show(registry: Registry, job: str, as_json: bool) -> None:
    """Show a job: its task, state, progress and result."""
    found = registry.jobs.get(job)
    if as_json:
        print_json(found)
        return
    needs = found.needs
    facts = [
        ("job", found.id),
        ("kind", found.kind),
        ("task", json.dumps(found.task, ensure_ascii=False)),
        ("state", found.state),
        ("failed", found.error.message if found.error else ""),
        ("progress", progress_text(found)),
        ("waits", _waits_for(registry.jobs, needs) if found.state == "queued" else ""),
        ("needs", ", ".join(filter(None, (needs.device, needs.tag, format_size(needs.memory))))),
        ("priority", str(found.priority)),
        ("timeout", f"{timedelta(seconds=needs.timeout)} for each step"),
        ("submitted", f"{format_when(found.submitted_at)} by {found.submitted_by}"),
        ("started", format_when(found.started_at) if found.started_at else ""),
        ("ended", format_when(found.finished_at) if found.finished_at else ""),
        ("attempts", str(found.attempts)),
        ("runners", ", ".join(found.runners)),
        ("result", json.dumps(found.result, ensure_ascii=False) if found.result else ""),
    ]
    print_facts((name, value) for name, value in facts if value)


@jobs.command()
@click.argument("job")
@click.option("--follow", is_flag=True, help="Keep printing until the job ends.")
@registry_option
@json_option
def logs(registry: Registry, job: str, follow: bool, as_json: bool) -> None:
    """Print the log of a job's steps; with --json, one object per line."""
    log = _Log(registry, job, print_json_line if as_json else _print_log_line)
    while True:
        found = registry.jobs.get(job)
        log.print_new()
        if not follow or not found.is_open:
            return
        time.sleep(_POLL_INTERVAL)


@jobs.command()
@click.argument("job")
@registry_option
@json_option
def cancel(registry: Registry, job: str, as_json: bool) -> None:
    """Cancel a job: it stops, and makes no further changes."""
    found = registry.jobs.cancel(job)
    print_done(found.model_dump(mode="json"), f"{found.id} is {found.state}", as_json)


@jobs.command()
@click.argument("job")
@registry_option
@json_option
def retry(registry: Registry, job: str, as_json: bool) -> None:
    """Queue a failed or cancelled job again; finished parts are kept.

    Only the job's submitter and administrators may do this, since the job has its submitter's rights. Others
    submit the same task as their own job.
    """
    found = registry.jobs.retry(job)
    print_done(
        found.model_dump(mode="json"),
        f"{found.id} is {found.state}; this is attempt {found.attempts}",
        as_json,
    )


def _warn_of_missing_refs(versions: Versions, order: JobOrder) -> None:
    """Warns of refs that do not exist yet: another job may make them, but more often they are misspelt."""
    for text in parse_task(order.kind, order.task).refs:
        try:
            versions.get(Ref.parse(text))
        except NotFound as error:
            print_err(f"warning: {error.message}; the job fails unless it exists when the job starts")


def _waits_for(jobs: Jobs, needs: JobNeeds) -> str:
    """Why no runner can take a job with these needs; empty if one can."""
    runners = jobs.runners()
    if not runners:
        return "no runner is running; `adaptry work` starts one, on this machine or another"
    if any(can_run(runner, needs) for runner in runners):
        return ""
    needed = [f"the device {needs.device}"] if needs.device else []
    needed += [f"the tag {needs.tag}"] if needs.tag else []
    return (
        f"no runner has {', '.join((*needed, f'{format_size(needs.memory)} of memory'))};"
        " `adaptry runners` lists them"
    )


def _waited(registry: Registry, job: JobInfo) -> JobInfo:
    log = _Log(registry, job.id, lambda line: print_err(f"{line.step}: {line.text}"))
    while job.is_open:
        time.sleep(_POLL_INTERVAL)
        job = registry.jobs.get(job.id)
        log.print_new()
    return job


class _Log:
    """Prints a job's log as it grows. Only the last page is read again."""

    def __init__(self, registry: Registry, job: str, line: Callable[[LogLine], object]) -> None:
        self._registry = registry
        self._job = job
        self._line = line
        self._page: str | None = None
        self._printed = 0  # the number of lines of that page

    def print_new(self) -> None:
        while True:
            page = self._registry.jobs.log(self._job, self._page, _LINES)
            for each in page.items[self._printed :]:
                self._line(each)
            self._printed = len(page.items)
            if page.next is None:
                return
            self._page, self._printed = page.next, 0


def _print_log_line(line: LogLine) -> None:
    print_out(f"{line.step}: {line.text}")


def _raise_fault(job: JobInfo | None) -> None:
    """Raises the error of a failed job, as if the work had been done in this process."""
    if job and job.error:
        raise by_code().get(job.error.code, AdaptryError)(job.error.message)
    if job and job.state == "cancelled":
        raise Invalid(f"{job.id} was cancelled")


def _task(kind: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """`base=org/model inputs=a inputs=b=0.5` as JSON. Raises `Invalid`. (`Any`: JSON.)"""
    model = TASKS[kind]
    task: dict[str, Any] = {}
    for text in fields:
        name, separator, value = text.partition("=")
        known = model.model_fields.get(name)
        if not separator or known is None:
            takes = ", ".join(model.model_fields)
            raise Invalid(f"not a field of {kind}: {text[:200]!r} (write NAME=VALUE; fields: {takes})")
        if "tuple" in str(known.annotation):
            task.setdefault(name, []).append(value)
        else:
            task[name] = _value(value, known.annotation)
    return task


def _value(text: str, kind: Any) -> Any:
    """The option as text if its field is a text, else parsed as JSON. (`Any`: a type, and JSON.)"""
    if kind is str or "AdapterName" in str(kind):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
