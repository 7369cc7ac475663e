"""The workers role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref, format_selector
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import owner_path
from adaptry.registry.records import Page
from adaptry.registry.workers import (
    ReportReply,
    ResidentInfo,
    ResidentSummary,
    WorkerGoneRequest,
    WorkerInfo,
    WorkerReport,
    Workers,
)

_RESIDENTS: TypeAdapter[tuple[ResidentInfo, ...]] = TypeAdapter(tuple[ResidentInfo, ...])
_REPORT_REPLY = TypeAdapter(ReportReply)
_SUMMARY = TypeAdapter(ResidentSummary)
_WORKER = TypeAdapter(WorkerInfo)
_WORKERS = TypeAdapter(Page[WorkerInfo])


@dataclass(frozen=True)
class HttpWorkers(Workers):
    """The workers of a server's registry. A report may be sent again."""

    server: Connection

    def report(self, report: WorkerReport) -> ReportReply:
        try:
            return self._post(report)
        except Invalid:
            if report.max_age is None and report.base_id is None:
                raise
            return self._post(report.model_copy(update={"max_age": None, "base_id": None}))  # an older server

    def _post(self, report: WorkerReport) -> ReportReply:
        # An older server refuses unknown fields.
        unset = {name for name in ("recalled", "max_age", "base_id") if not getattr(report, name)}
        body = report.model_dump(mode="json", exclude=unset)
        return self.server.request_value(_REPORT_REPLY, "POST", api_path("workers"), body=body, again=True)

    def get(self, name: str, owner: str | None = None) -> WorkerInfo:
        return self.server.request_value(_WORKER, "GET", api_path("workers", name), query={"owner": owner})

    def list(self, cursor: str | None = None, limit: int = 50) -> Page[WorkerInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_WORKERS, "GET", api_path("workers"), query=query)

    def declare_gone(self, name: str, request: WorkerGoneRequest, owner: str | None = None) -> WorkerInfo:
        return self.server.request_value(
            _WORKER,
            "PUT",
            api_path("workers", name, "gone"),
            query={"owner": owner},
            body=request.model_dump(mode="json"),
        )

    def forget(self, name: str, owner: str | None = None) -> None:
        self.server.request_bytes("DELETE", api_path("workers", name), query={"owner": owner})

    def residents(self, ref: Ref) -> tuple[ResidentInfo, ...]:
        path = owner_path(ref.name, "versions", format_selector(ref.selector), "residents")
        return self.server.request_value(_RESIDENTS, "GET", path)

    def resident_summary(self, ref: Ref, limit: int = 20, served_as: str | None = None) -> ResidentSummary:
        path = owner_path(ref.name, "versions", format_selector(ref.selector), "residents", "summary")
        query = {"limit": limit, "served_as": served_as}
        return self.server.request_value(_SUMMARY, "GET", path, query=query)
