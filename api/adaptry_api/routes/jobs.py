"""Jobs: submitted, read, cancelled and retried here; runners carry them out, never the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request, Response

from adaptry.registry import protocol
from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(protocol.PREFIX, "jobs")
JobId = Annotated[str, Path(max_length=64)]


@ROUTES.post("/jobs", status_code=201)
def submit(body: JobOrder, registry: IdempotentRegistry) -> JobInfo:
    """The job will have the caller's rights. It waits until a runner comes."""
    return registry.jobs.submit(body)


@ROUTES.get("/jobs")
def list_all(
    registry: CallersRegistry,
    state: Annotated[JobState | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobInfo]:
    return registry.jobs.list(state, cursor, limit)


@ROUTES.get("/jobs/{job}", response_model=JobInfo)
def show(request: Request, job: JobId, registry: CallersRegistry) -> Response:
    return etag_response(request, registry.jobs.get(job))


@ROUTES.get("/jobs/{job}/log")
def log(job: JobId, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[LogLine]:
    """Oldest first."""
    return registry.jobs.log(job, cursor, limit)


@ROUTES.post("/jobs/{job}/cancel")
def cancel(job: JobId, registry: CallersRegistry) -> JobInfo:
    return registry.jobs.cancel(job)


@ROUTES.post("/jobs/{job}/retry")
def retry(job: JobId, registry: CallersRegistry) -> JobInfo:
    """Queues a job that failed or was cancelled again; parts that were finished are kept."""
    return registry.jobs.retry(job)
