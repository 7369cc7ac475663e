"""The part of `HttpRegistry` about workers and rollouts."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref, format_selector, parse_stored_alias
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import idempotency_header, owner_path
from adaptry.registry.records import Page
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan, RolloutsApi
from adaptry.registry.workers import ReportReply, ResidentInfo, WorkerInfo, WorkerReport, WorkersApi

_RESIDENTS: TypeAdapter[tuple[ResidentInfo, ...]] = TypeAdapter(tuple[ResidentInfo, ...])
_ROLLOUT = TypeAdapter(RolloutInfo)
_ROLLOUTS: TypeAdapter[tuple[RolloutInfo, ...]] = TypeAdapter(tuple[RolloutInfo, ...])
_REPORT_REPLY = TypeAdapter(ReportReply)
_WORKER = TypeAdapter(WorkerInfo)
_WORKERS = TypeAdapter(Page[WorkerInfo])


class HttpWorkers(WorkersApi, RolloutsApi):
    """A report may be sent again; starting and changing a rollout carry a key or a generation."""

    _server: Connection

    def report(self, report: WorkerReport) -> ReportReply:
        # An older server takes no field that it does not know.
        body = report.model_dump(mode="json", exclude=None if report.recalled else {"recalled"})
        return self._server.request_value(_REPORT_REPLY, "POST", api_path("workers"), body=body, again=True)

    def worker(self, name: str, owner: str | None = None) -> WorkerInfo:
        return self._server.request_value(_WORKER, "GET", api_path("workers", name), query={"owner": owner})

    def workers(self, cursor: str | None = None, limit: int = 50) -> Page[WorkerInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.request_value(_WORKERS, "GET", api_path("workers"), query=query)

    def forget_worker(self, name: str, owner: str | None = None) -> None:
        self._server.request_bytes("DELETE", api_path("workers", name), query={"owner": owner})

    def residents(self, ref: Ref) -> tuple[ResidentInfo, ...]:
        path = owner_path(ref.name, "versions", format_selector(ref.selector), "residents")
        return self._server.request_value(_RESIDENTS, "GET", path)

    def start_rollout(self, name: AdapterName, alias: str, to: Digest, plan: RolloutPlan) -> RolloutInfo:
        body = {"alias": alias, "to": str(to), **plan.model_dump(mode="json")}
        path = owner_path(name, "rollouts")
        return self._server.request_value(
            _ROLLOUT, "POST", path, body=body, headers=idempotency_header(), again=True
        )

    def rollouts(self, name: AdapterName) -> tuple[RolloutInfo, ...]:
        return self._server.request_value(_ROLLOUTS, "GET", owner_path(name, "rollouts"))

    def change_rollout(self, name: AdapterName, alias: str, change: RolloutChange, was: int) -> RolloutInfo:
        path = owner_path(name, "rollouts", parse_stored_alias(alias))
        body, seen = change.model_dump(mode="json"), {"If-Match": f'"{was}"'}
        return self._server.request_value(_ROLLOUT, "PATCH", path, body=body, headers=seen, again=False)
