"""Jobs: the list, and a job with its progress and log, both kept up to date; cancelling and retrying one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, cast, get_args
from urllib.parse import quote, urlencode

from fastapi import Path, Query, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response, StreamingResponse

from adaptry.core.errors import AdaptryError, Invalid
from adaptry.core.identity import Identity
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo
from adaptry.registry.records import Page
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.denials import set_denial_reason, set_form_action
from adaptry_api.errors import status_of
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.live import LivePart, stream_part
from adaptry_api.pages.page_responses import render, wants_html
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.text_csv import csv_file
from adaptry_api.route_threads import run_in_own_threads

ROUTES = page_router()
JOBS = "/-/jobs"
_PAGE_SIZE = 50
_TAIL = 200
_PAGE_OF_LOG = 200
_POLL_SECONDS = 2.0
_Id = Annotated[str, Path(max_length=64)]
_State = Annotated[JobState | None, Query()]


class JobsPage(BaseModel):
    """Jobs, newest first, and the runners that take them."""

    state: JobState | None = None
    jobs: Page[JobInfo]
    runners: tuple[RunnerInfo, ...] = ()


class JobPage(BaseModel):
    """A job and the end of its log; `is_whole` if there is nothing before it. `may_run`: whether the visitor
    may cancel it, and submit its task as their own job; `may_retry`: whether they may also retry it.
    """

    job: JobInfo
    log: tuple[LogLine, ...] = ()
    is_whole: bool = True
    may_run: bool = False
    may_retry: bool = False


class LogTail:
    """The last lines of a job's log. Reading it again fetches only the last page of the log."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._cursor: str | None = None
        self._before: deque[LogLine] = deque(maxlen=_TAIL)
        self._count = 0

    def look(self, registry: Registry) -> tuple[tuple[LogLine, ...], bool]:
        """The lines, and whether they are all."""
        while (page := registry.jobs.log(self._id, self._cursor, _PAGE_OF_LOG)).next:
            self._before.extend(page.items)
            self._count += len(page.items)
            self._cursor = page.next
        lines = (*self._before, *page.items)[-_TAIL:]
        return lines, len(lines) == self._count + len(page.items)


@ROUTES.get(JOBS, response_model=None)
def show_jobs(
    request: Request,
    registry: VisitorsRegistry,
    state: Annotated[str, Query(max_length=16)] = "",
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """Jobs in one state or all."""
    page = _jobs(registry, _state(state), cursor)
    if format == "csv":
        columns = (
            "id",
            "kind",
            "namespace",
            "state",
            "submitted_by",
            "submitted_at",
            "started_at",
            "finished_at",
        )
        rows = ([getattr(one, column) for column in columns] for one in page.jobs.items)
        return csv_file("jobs.csv", columns, rows)
    names = {
        "states": get_args(JobState),
        "is_live": cursor is None,
        "here": lambda **changes: _address({"state": page.state, **changes}),
    }
    return render(request, "jobs.html", page, names)


@ROUTES.get(f"{JOBS}/live", response_model=None)
async def stream_jobs(
    request: Request, registry: VisitorsRegistry, state: Annotated[str, Query(max_length=16)] = ""
) -> Response:
    """Streams the list each time it has changed."""
    wanted = _state(state)
    return stream_part(
        request, LivePart("jobs_part.html", lambda registry, _: _jobs(registry, wanted, None), _POLL_SECONDS)
    )


@ROUTES.get(f"{JOBS}/{{id}}", response_model=None)
def show_job(request: Request, id: _Id, registry: VisitorsRegistry, identity: Visitor) -> Response:
    """A job."""
    return _show(request, _job(registry, identity, id, LogTail(id)))


@ROUTES.post(f"{JOBS}/{{id}}", response_model=None)
async def change_job(request: Request, id: _Id, registry: VisitorsRegistry, identity: Visitor) -> Response:
    """Cancels or retries a job, or submits its task as the visitor's own job."""
    do = (await read_form(request)).get("do", "")
    set_form_action(request.scope, do)
    return await run_in_own_threads("writers", partial(_change, request, id, registry, identity, do))


@ROUTES.get(f"{JOBS}/{{id}}/live", response_model=None)
async def stream_job(request: Request, id: _Id, registry: VisitorsRegistry) -> Response:
    """Streams the job and its log each time they have changed, until the job has ended."""
    tail = LogTail(id)
    part = LivePart(
        "job_part.html",
        lambda registry, identity: _job(registry, identity, id, tail),
        _POLL_SECONDS,
        lambda value: not cast(JobPage, value).job.is_open,
    )
    return stream_part(request, part)


@ROUTES.get(f"{JOBS}/{{id}}/log", response_model=None)
def show_log(id: _Id, registry: VisitorsRegistry) -> Response:
    """The whole log as plain text."""
    registry.jobs.get(id)
    return StreamingResponse(_log_lines(registry, id), media_type="text/plain; charset=utf-8")


def job_address(id: str) -> str:
    """The page of a job."""
    return f"{JOBS}/{quote(id, safe='')}"


def _show(request: Request, page: JobPage, problem: str = "", status: int = 200) -> Response:
    is_asked = request.query_params.get("confirm") == "cancel" and page.job.is_open and page.may_run
    names = {"problem": problem, "is_asked": is_asked, "here": job_address(page.job.id)}
    return render(request, "job.html", page, names, status)


def _change(request: Request, id: str, registry: Registry, identity: Identity, do: str) -> Response:
    actions: dict[str, Callable[[str], JobInfo]] = {
        "cancel": registry.jobs.cancel,
        "retry": registry.jobs.retry,
        "submit": partial(_submit_again, registry),
    }
    if do not in actions:
        raise Invalid("the form names no action of this page; load the page again")
    try:
        changed = actions[do](id)
    except AdaptryError as error:
        if not wants_html(request):
            raise
        set_denial_reason(request.scope, error)
        page = _job(registry, identity, id, LogTail(id))
        return _show(request, page, error.public_message, status_of(error))
    return RedirectResponse(job_address(changed.id), 303)


def _submit_again(registry: Registry, id: str) -> JobInfo:
    """The task of another user's job, as a new job of the visitor."""
    job = registry.jobs.get(id)
    order = JobOrder(kind=job.kind, task=job.task, needs=job.needs, priority=job.priority)
    return registry.jobs.submit(order)


def _jobs(registry: Registry, state: JobState | None, cursor: str | None) -> JobsPage:
    return JobsPage(
        state=state, jobs=registry.jobs.list(state, cursor, _PAGE_SIZE), runners=registry.jobs.runners()
    )


def _job(registry: Registry, identity: Identity, id: str, tail: LogTail) -> JobPage:
    job = registry.jobs.get(id)
    lines, is_whole = tail.look(registry)
    may_run = identity.may_in("job.run", job.namespace) if job.namespace else identity.may_administer
    is_own = identity.name == job.submitted_by and identity.limit is None  # a job's limit is not shown
    may_retry = may_run and (is_own or identity.may_administer)
    return JobPage(job=job, log=lines, is_whole=is_whole, may_run=may_run, may_retry=may_retry)


def _log_lines(registry: Registry, id: str) -> Iterator[str]:
    cursor, is_first = None, True
    while cursor or is_first:
        page, is_first = registry.jobs.log(id, cursor, _PAGE_OF_LOG), False
        yield "".join(f"{one.at:%Y-%m-%dT%H:%M:%SZ} {one.step:8} {one.text}\n" for one in page.items)
        cursor = page.next


def _state(text: str) -> JobState | None:
    if text and text not in get_args(JobState):
        raise Invalid(f"not a state of a job: {text!a} (one of {', '.join(get_args(JobState))})")
    return cast(JobState, text) if text else None


def _address(values: dict[str, str | None]) -> str:
    written = urlencode({name: value for name, value in values.items() if value})
    return f"{JOBS}?{written}" if written else JOBS
