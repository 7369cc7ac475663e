"""Workers: each reports its engine's adapters; the reply lists versions to unload and to roll out."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from adaptry.registry import protocol
from adaptry.registry.records import Page
from adaptry.registry.workers import (
    ReportReply,
    ResidentInfo,
    ResidentSummary,
    WorkerGoneRequest,
    WorkerInfo,
    WorkerReport,
)
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.routes.parameters import Cursor, Limit, PathRef

ROUTES = guarded_router(protocol.PREFIX, "workers")
ONE = "/workers/{worker}"
Owner = Annotated[
    str | None,
    Query(
        description="Owner of the worker; required if several owners have a worker of this name.",
        max_length=96,
    ),
]
_ServedAs = Annotated[str | None, Query(max_length=256, description="Only under this name of the engine.")]


class WorkerReportRequest(WorkerReport, extra="forbid"):
    """A worker's full status report."""


class WorkerGoneBody(WorkerGoneRequest, extra="forbid"):
    """Evidence that the engine no longer answers requests."""


@ROUTES.post("/workers")
def report_worker(body: WorkerReportRequest, registry: CallersRegistry) -> ReportReply:
    """Report what a worker's engine has loaded.

    The response lists what to unload, and the versions that a rollout assigns to this worker. Requires a
    token with the role `worker`, or an administrator's. Sending the same report again changes nothing.
    """
    return registry.workers.report(body)


@ROUTES.get("/workers")
def list_workers(registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[WorkerInfo]:
    """List the workers with each one's last report."""
    return registry.workers.list(cursor, limit)


@ROUTES.get(ONE, response_model=WorkerInfo)
def get_worker(request: Request, worker: str, registry: CallersRegistry, owner: Owner = None) -> Response:
    """Get a worker with its last report."""
    return etag_response(request, registry.workers.get(worker, owner))


@ROUTES.put(f"{ONE}/gone")
def declare_worker_gone(
    worker: str, body: WorkerGoneBody, registry: CallersRegistry, owner: Owner = None
) -> WorkerInfo:
    """Declare that a silent worker's engine is gone.

    Its loaded adapters stay on record, and recalls show who declared it gone, and why. The worker's next
    report ends the declaration. It requires the worker's own token, or an administrator's.
    """
    return registry.workers.declare_gone(worker, body, owner)


@ROUTES.delete(ONE, status_code=204)
def forget_worker(worker: str, registry: CallersRegistry, owner: Owner = None) -> None:
    """Delete the record of a worker that serves nothing or was declared gone.

    It is refused while a recall needs the record.
    """
    registry.workers.forget(worker, owner)


@ROUTES.get("/adapters/{namespace}/{name}/versions/{selector}/residents")
def list_residents(ref: PathRef, registry: CallersRegistry) -> tuple[ResidentInfo, ...]:
    """List the workers that have or had a version loaded."""
    return registry.workers.residents(ref)


@ROUTES.get("/adapters/{namespace}/{name}/versions/{selector}/residents/summary")
def summarize_residents(
    ref: PathRef, registry: CallersRegistry, limit: Limit = 20, served_as: _ServedAs = None
) -> ResidentSummary:
    """Count the workers that have or had a version loaded, and list some of them.

    Those that may serve the version are first, and those that proved that they dropped it are last.
    """
    return registry.workers.resident_summary(ref, limit, served_as)
