"""`adaptry jobs watch`: a table that is refreshed on a terminal; elsewhere, a line for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import click

from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobInfo
from adaptry_cli.output import format_size, print_err, print_json_line, print_out
from adaptry_cli.tables import lay_out, table_lines, terminal_width
from adaptry_cli.times import format_when

JOB_COLUMNS = ("job", "kind", "state", "progress", "namespace", "by", "submitted")
JOB_CUT = ("by",)
JOB_DROP = ("by", "namespace", "submitted", "kind")
_MAX_JOBS = 200
_UP_AND_CLEAR = "\x1b[{lines}A\x1b[J"


def job_row(job: JobInfo) -> tuple[str, ...]:
    """A job's cells, in the order of `JOB_COLUMNS`."""
    return (
        job.id,
        job.kind,
        job.state,
        progress_text(job),
        job.namespace,
        job.submitted_by,
        format_when(job.submitted_at),
    )


def progress_text(job: JobInfo) -> str:
    """`42% of 1.2 GB`; empty for a job that has not begun."""
    if job.stage is None or job.state == "queued":
        return ""
    return f"{100 * job.stage.done // max(1, job.stage.total)} % of {format_size(job.stage.total)}"


def watched_jobs(registry: Registry, ids: Sequence[str]) -> tuple[JobInfo, ...]:
    """The named jobs, or all that are queued or running, newest first."""
    if ids:
        return tuple(registry.jobs.get(id) for id in ids)
    running = registry.jobs.list("running", None, _MAX_JOBS).items
    return (*registry.jobs.list("queued", None, _MAX_JOBS).items, *running)


def watch(
    registry: Registry, ids: Sequence[str], as_json: bool, pause: Callable[[], None]
) -> tuple[JobInfo, ...]:
    """Shows jobs until all of them have ended; returns them as they ended."""
    jobs = watched_jobs(registry, ids)
    if not jobs:
        print_err("no job is queued or running")
        return ()
    names = [job.id for job in jobs]
    if all(job.state == "queued" for job in jobs):
        print_err(f"waiting for a runner; `adaptry jobs show {names[0]}` shows what is missing")
    show = _lines_of_changes(as_json) if as_json or not sys.stdout.isatty() else _table_in_place()
    while True:
        show(jobs)
        if not any(job.is_open for job in jobs):
            return jobs
        pause()
        jobs = watched_jobs(registry, names)


def _lines_of_changes(as_json: bool) -> Callable[[Sequence[JobInfo]], None]:
    shown: dict[str, tuple[str, ...]] = {}

    def show(jobs: Sequence[JobInfo]) -> None:
        for job in jobs:
            now = (job.state, progress_text(job))
            if shown.get(job.id) == now:
                continue
            shown[job.id] = now
            if as_json:
                print_json_line(job)
            else:
                print_out(
                    "  ".join(filter(None, (job.id, job.kind, *now, (job.error and job.error.message) or "")))
                )
                sys.stdout.flush()

    return show


def _table_in_place() -> Callable[[Sequence[JobInfo]], None]:
    drawn = 0

    def show(jobs: Sequence[JobInfo]) -> None:
        nonlocal drawn
        lines = list(_table(jobs))
        if drawn:
            click.echo(_UP_AND_CLEAR.format(lines=drawn), nl=False, file=sys.stdout, color=True)
        for line in lines:
            click.echo(line, file=sys.stdout, color=True)
        drawn = len(lines)

    return show


def _table(jobs: Sequence[JobInfo]) -> Iterator[str]:
    rows = [job_row(job) for job in jobs]
    layout = lay_out(JOB_COLUMNS, rows, terminal_width(), cut=JOB_CUT, drop=JOB_DROP)
    yield from table_lines(JOB_COLUMNS, rows, layout)
    for job in jobs:
        if job.error:
            yield f"{job.id} failed: {' '.join(job.error.message.split())}"


def seconds_between(seconds: float) -> Callable[[], None]:
    """The number of seconds between two requests."""
    return lambda: time.sleep(seconds)
