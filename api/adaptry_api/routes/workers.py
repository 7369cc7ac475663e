"""Workers: each reports what its engine has loaded, and gets what to unload and the rollout's next worker."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from adaptry.registry import protocol
from adaptry.registry.records import Page
from adaptry.registry.workers import ReportReply, ResidentInfo, WorkerInfo, WorkerReport
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response
from adaptry_api.routes.parameters import Cursor, Limit, PathRef

ROUTES = guarded_router(protocol.PREFIX, "workers")
ONE = "/workers/{worker}"
Owner = Annotated[
    str | None,
    Query(description="Whose worker is meant, where several owners have one of that name.", max_length=96),
]


class WorkerReportRequest(WorkerReport, extra="forbid"):
    """Everything about a worker now."""


@ROUTES.post("/workers")
def report(body: WorkerReportRequest, registry: CallersRegistry) -> ReportReply:
    """Takes a token of the role `worker`, or an administrator's; the same report again changes nothing."""
    return registry.workers.report(body)


@ROUTES.get("/workers")
def list_all(registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[WorkerInfo]:
    return registry.workers.list(cursor, limit)


@ROUTES.get(ONE, response_model=WorkerInfo)
def show(request: Request, worker: str, registry: CallersRegistry, owner: Owner = None) -> Response:
    return etag_response(request, registry.workers.get(worker, owner))


@ROUTES.delete(ONE, status_code=204)
def forget(worker: str, registry: CallersRegistry, owner: Owner = None) -> None:
    """Records that a worker is gone and serves nothing."""
    registry.workers.forget(worker, owner)


@ROUTES.get("/adapters/{namespace}/{name}/versions/{selector}/residents")
def residents(ref: PathRef, registry: CallersRegistry) -> tuple[ResidentInfo, ...]:
    """Every worker that has or had the version."""
    return registry.workers.residents(ref)
