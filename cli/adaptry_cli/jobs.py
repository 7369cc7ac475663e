"""`adaptry jobs`: submit long-running jobs, follow them, stop them, retry them. `adaptry work` runs them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click

from adaptry.core.errors import AdaptryError, Invalid, NotFound, by_code
from adaptry.core.refs import Ref
from adaptry.jobs.queues import can_run
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import DEVICES, GIB, JobInfo, JobNeeds, JobOrder, JobState
from adaptry.registry.job_types.tasks import TASKS, parse_task
from adaptry.registry.jobs import Jobs
from adaptry.registry.versions import Versions
from adaptry_cli.arguments import validate_options
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import (
    collect_pages,
    format_size,
    json_option,
    limit_option,
    print_answer,
    print_err,
    print_json,
    print_out,
)
from adaptry_cli.tables import print_facts, print_table
from adaptry_cli.version_text import format_when

_LOOK = 0.5  # seconds between two looks at a job that is waited for
_LINES = 200


@click.group()
def jobs() -> None:
    """Submit long-running jobs, and follow their progress."""


@jobs.command()
@click.argument("kind", type=click.Choice(list(TASKS)))
@click.argument("fields", metavar="FIELD=VALUE...", nargs=-1)
@click.option("--device", type=click.Choice(DEVICES), help="Only on a runner with this device.")
@click.option("--tag", metavar="TAG", help="Only on a runner with this tag.")
@click.option("--memory", metavar="SIZE", help="What a step takes, as in 8GB; default: 2 GiB.")
@click.option(
    "--priority", type=click.IntRange(1, 9), default=5, show_default=True, help="1 comes first, 9 last."
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for the job and print its log. Exit code 1 if it found damage; fails if the job fails.",
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
    priority: int,
    wait: bool,
    as_json: bool,
) -> None:
    """Ask for a job.

    Fields are NAME=VALUE; repeat one for a list: `adaptry jobs submit merge base=org/model
    inputs=acme/tone@3 inputs=acme/voice=0.5 to=acme/both`. The job has your rights, and needs nothing of this
    machine.
    """
    from adaptry.core.byte_sizes import parse_bytes

    needs = validate_options(
        JobNeeds, device=device, tag=tag, memory=parse_bytes(memory) if memory else 2 * GIB
    )
    order = validate_options(JobOrder, kind=kind, task=_task(kind, fields), needs=needs, priority=priority)
    job = registry.jobs.submit(order)
    _tell_of_missing(registry.versions, order)
    if reason := _waits_for(registry.jobs, needs):
        print_err(f"it waits: {reason}")
    if wait:
        job = _waited(registry, job)
    print_answer(job, job.id, as_json)
    _raise_fault(job if wait else None)
    if job.result is not None and parse_task(job.kind, job.task).is_negative(job.result):
        click.get_current_context().exit(NO)


@jobs.command()
@click.argument("name")
@click.argument("cron", metavar="CRON")
@click.argument("kind", type=click.Choice(list(TASKS)))
@click.argument("fields", metavar="FIELD=VALUE...", nargs=-1)
@registry_option
@json_option
def schedule(
    registry: Registry, name: str, cron: str, kind: str, fields: tuple[str, ...], as_json: bool
) -> None:
    """Ask for a job again and again.

    CRON is minute, hour, day, month and weekday in UTC: `adaptry jobs schedule nightly '30 2 * * *' verify`.
    Runners look at the clock; a time that passed while there were none is made up for within a day, once.
    """
    order = validate_options(JobOrder, kind=kind, task=_task(kind, fields))
    print_answer(registry.jobs.schedule(name, cron, order), name, as_json)


@jobs.command()
@click.argument("name")
@click.option("--namespace", help="Namespace of the schedule, if several have one of that name.")
@registry_option
def unschedule(registry: Registry, name: str, namespace: str | None) -> None:
    """Ask no more for a job that is scheduled."""
    registry.jobs.unschedule(name, namespace)
    print_err(f"{name} is no longer scheduled")


@jobs.command()
@registry_option
@json_option
def schedules(registry: Registry, as_json: bool) -> None:
    """List what is asked for again and again."""
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
    )


@jobs.command()
@click.option(
    "--state", type=click.Choice(["queued", "running", "done", "failed", "cancelled"]), help="Only these."
)
@limit_option
@registry_option
@json_option
def ls(registry: Registry, state: JobState | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    found = collect_pages(lambda cursor, count: registry.jobs.list(state, cursor, count), limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("job", "kind", "state", "how far", "of", "by", "when"),
        (
            (
                each.id,
                each.kind,
                each.state,
                _far(each),
                each.namespace,
                each.submitted_by,
                format_when(each.submitted_at),
            )
            for each in found
        ),
    )


@jobs.command()
@click.argument("job")
@registry_option
@json_option
def show(registry: Registry, job: str, as_json: bool) -> None:
    """Show what a job is, and what became of it."""
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
        ("how far", _far(found)),
        ("waits", _waits_for(registry.jobs, needs) if found.state == "queued" else ""),
        ("needs", ", ".join(filter(None, (needs.device, needs.tag, format_size(needs.memory))))),
        ("priority", str(found.priority)),
        ("asked for by", f"{found.submitted_by}, {format_when(found.submitted_at)}"),
        ("started", format_when(found.started_at) if found.started_at else ""),
        ("ended", format_when(found.finished_at) if found.finished_at else ""),
        ("tries", str(found.tries)),
        ("runners", ", ".join(found.runners)),
        ("result", json.dumps(found.result, ensure_ascii=False) if found.result else ""),
        ("failed", found.fault.message if found.fault else ""),
    ]
    print_facts((name, value) for name, value in facts if value)


@jobs.command()
@click.argument("job")
@click.option("--follow", is_flag=True, help="Go on until the job ends.")
@registry_option
def logs(registry: Registry, job: str, follow: bool) -> None:
    """Print the log of a job's steps."""
    log = _Log(registry, job, print_out)
    while True:
        found = registry.jobs.get(job)
        log.tell()
        if not follow or not found.is_open:
            return
        time.sleep(_LOOK)


@jobs.command()
@click.argument("job")
@registry_option
def cancel(registry: Registry, job: str) -> None:
    """Stop a job: from now on it changes nothing."""
    found = registry.jobs.cancel(job)
    print_err(f"{found.id} is {found.state}")


@jobs.command()
@click.argument("job")
@registry_option
def retry(registry: Registry, job: str) -> None:
    """Queue a job again that failed or was cancelled; parts that were finished are kept."""
    found = registry.jobs.retry(job)
    print_err(f"{found.id} is {found.state}, for the {found.tries}. time")


def _tell_of_missing(versions: Versions, order: JobOrder) -> None:
    """What it reads may come before it begins, as another job's result; more often it is misspelt."""
    for text in parse_task(order.kind, order.task).refs:
        try:
            versions.get(Ref.parse(text))
        except NotFound as error:
            print_err(f"warns: {error.message}; the job fails unless it is there when the job begins")


def _waits_for(jobs: Jobs, needs: JobNeeds) -> str:
    """Why a job would wait for ever as things are, or nothing."""
    runners = jobs.runners()
    if not runners:
        return "nobody runs jobs yet; `adaptry work` does, here or on another machine"
    if any(can_run(runner, needs) for runner in runners):
        return ""
    asked = [f"the device {needs.device}"] if needs.device else []
    asked += [f"the tag {needs.tag}"] if needs.tag else []
    return (
        f"no runner has {', '.join((*asked, format_size(needs.memory)))};"
        " `adaptry runners` shows what they have"
    )


def _waited(registry: Registry, job: JobInfo) -> JobInfo:
    log = _Log(registry, job.id, print_err)
    while job.is_open:
        time.sleep(_LOOK)
        job = registry.jobs.get(job.id)
        log.tell()
    return job


class _Log:
    """Prints a job's log as it grows. Of what was printed already, only the last page is read again."""

    def __init__(self, registry: Registry, job: str, line: Callable[[str], object]) -> None:
        self._registry = registry
        self._job = job
        self._line = line
        self._page: str | None = None
        self._told = 0  # lines of that page

    def tell(self) -> None:
        while True:
            page = self._registry.jobs.log(self._job, self._page, _LINES)
            for each in page.items[self._told :]:
                self._line(f"{each.step}: {each.text}")
            self._told = len(page.items)
            if page.next is None:
                return
            self._page, self._told = page.next, 0


def _raise_fault(job: JobInfo | None) -> None:
    """Raises what a job that was waited for failed with, as if it had been done here."""
    if job and job.fault:
        raise by_code().get(job.fault.code, AdaptryError)(job.fault.message)
    if job and job.state == "cancelled":
        raise Invalid(f"{job.id} was cancelled")


def _far(job: JobInfo) -> str:
    if job.stage is None or job.state == "queued":
        return ""
    return f"{100 * job.stage.done // max(1, job.stage.total)}% of {format_size(job.stage.total)}"


def _task(kind: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """`base=org/model inputs=a inputs=b=0.5` as JSON. Raises `Invalid`. (`Any`: JSON.)"""
    model = TASKS[kind]
    task: dict[str, Any] = {}
    for text in fields:
        name, separator, value = text.partition("=")
        known = model.model_fields.get(name)
        if not separator or known is None:
            takes = ", ".join(model.model_fields)
            raise Invalid(f"not a field of {kind}: {text[:200]!r} (write NAME=VALUE; there are {takes})")
        if "tuple" in str(known.annotation):
            task.setdefault(name, []).append(value)
        else:
            task[name] = _value(value, known.annotation)
    return task


def _value(text: str, kind: Any) -> Any:
    """Text where a text is meant, else what JSON makes of it. (`Any`: a type, and JSON.)"""
    if kind is str or "AdapterName" in str(kind):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
