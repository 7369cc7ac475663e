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
def submit_job(body: JobOrder, registry: IdempotentRegistry) -> JobInfo:
    """Submit a job, which runs with the caller's rights.

    The job waits until a runner is free.
    """
    return registry.jobs.submit(body)


@ROUTES.get("/jobs")
def list_jobs(
    registry: CallersRegistry,
    state: Annotated[JobState | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobInfo]:
    """List jobs, newest first."""
    return registry.jobs.list(state, cursor, limit)


@ROUTES.get("/jobs/{job}", response_model=JobInfo)
def get_job(request: Request, job: JobId, registry: CallersRegistry) -> Response:
    """Get a job and the state of its stages."""
    return etag_response(request, registry.jobs.get(job))


@ROUTES.get("/jobs/{job}/log")
def get_job_log(
    job: JobId, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[LogLine]:
    """Get a job's log, oldest line first."""
    return registry.jobs.log(job, cursor, limit)


@ROUTES.post("/jobs/{job}/cancel")
def cancel_job(job: JobId, registry: CallersRegistry) -> JobInfo:
    """Cancel a job."""
    return registry.jobs.cancel(job)


@ROUTES.post("/jobs/{job}/retry")
def retry_job(job: JobId, registry: CallersRegistry) -> JobInfo:
    """Queue a failed or cancelled job again.

    Finished stages are not repeated. Only the job's submitter and administrators may do this, since the job
    has its submitter's rights. The caller's token must not have narrower limits than the job's token.
    """
    return registry.jobs.retry(job)
