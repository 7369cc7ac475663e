"""Jobs: asked for, looked at, stopped and tried again here; runners carry them out, never the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, Field

from adaptry.registry import protocol
from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo, ScheduleInfo
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(protocol.PREFIX, "jobs")


class NewSchedule(BaseModel, extra="forbid"):
    """When, and what."""

    cron: Annotated[str, Field(max_length=256)]
    order: JobOrder


ScheduleName = Annotated[str, Path(max_length=64)]
ScheduleNamespace = Annotated[
    str | None,
    Query(description="Whose schedule, where several namespaces have one of that name.", max_length=96),
]
JobId = Annotated[str, Path(max_length=64)]


@ROUTES.post("/jobs", status_code=201)
def submit(body: JobOrder, registry: IdempotentRegistry) -> JobInfo:
    """The job will have the caller's rights. It waits until a runner comes."""
    return registry.submit_job(body)


@ROUTES.get("/jobs")
def list_all(
    registry: CallersRegistry,
    state: Annotated[JobState | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobInfo]:
    return registry.jobs(state, cursor, limit)


@ROUTES.get("/jobs/{job}", response_model=JobInfo)
def show(request: Request, job: JobId, registry: CallersRegistry) -> Response:
    return etag_response(request, registry.job(job))


@ROUTES.get("/jobs/{job}/log")
def log(job: JobId, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[LogLine]:
    """Oldest first."""
    return registry.job_log(job, cursor, limit)


@ROUTES.post("/jobs/{job}/cancel")
def cancel(job: JobId, registry: CallersRegistry) -> JobInfo:
    return registry.cancel_job(job)


@ROUTES.post("/jobs/{job}/retry")
def retry(job: JobId, registry: CallersRegistry) -> JobInfo:
    """Queues a job that failed or was cancelled again; parts that were finished are kept."""
    return registry.retry_job(job)


@ROUTES.get("/runners")
def list_runners(registry: CallersRegistry) -> tuple[RunnerInfo, ...]:
    return registry.runners()


@ROUTES.get("/schedules")
def list_schedules(registry: CallersRegistry) -> tuple[ScheduleInfo, ...]:
    return registry.schedules()


@ROUTES.put("/schedules/{schedule}")
def schedule(schedule: ScheduleName, body: NewSchedule, registry: CallersRegistry) -> ScheduleInfo:
    """The order is given whenever the time comes, with the rights that the caller has now."""
    return registry.schedule_job(schedule, body.cron, body.order)


@ROUTES.delete("/schedules/{schedule}", status_code=204)
def unschedule(
    schedule: ScheduleName, registry: CallersRegistry, namespace: ScheduleNamespace = None
) -> None:
    registry.unschedule_job(schedule, namespace)
