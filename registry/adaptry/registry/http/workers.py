"""The part of `HttpRegistry` about workers and rollouts."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref, format_selector, parse_stored_alias
from adaptry.registry.http.connection import Connection, path_of
from adaptry.registry.http.paths import once_key, path_to
from adaptry.registry.records import Page
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan, Rollouts
from adaptry.registry.workers import Residency, ResidentInfo, Told, WorkerInfo, WorkerReport

_RESIDENTS: TypeAdapter[tuple[ResidentInfo, ...]] = TypeAdapter(tuple[ResidentInfo, ...])
_ROLLOUT = TypeAdapter(RolloutInfo)
_ROLLOUTS: TypeAdapter[tuple[RolloutInfo, ...]] = TypeAdapter(tuple[RolloutInfo, ...])
_TOLD = TypeAdapter(Told)
_WORKER = TypeAdapter(WorkerInfo)
_WORKERS = TypeAdapter(Page[WorkerInfo])


class RemoteResidency(Residency, Rollouts):
    """A report may be sent again; starting and changing a rollout carry a key or a generation."""

    _server: Connection

    def report(self, report: WorkerReport) -> Told:
        # An older server takes no field that it does not know.
        body = report.model_dump(mode="json", exclude=None if report.recalled else {"recalled"})
        return self._server.ask(_TOLD, "POST", path_of("workers"), body=body, again=True)

    def worker(self, name: str, owner: str | None = None) -> WorkerInfo:
        return self._server.ask(_WORKER, "GET", path_of("workers", name), query={"owner": owner})

    def workers(self, cursor: str | None = None, limit: int = 50) -> Page[WorkerInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.ask(_WORKERS, "GET", path_of("workers"), query=query)

    def forget_worker(self, name: str, owner: str | None = None) -> None:
        self._server.tell("DELETE", path_of("workers", name), query={"owner": owner})

    def residents(self, ref: Ref) -> tuple[ResidentInfo, ...]:
        path = path_to(ref.name, "versions", format_selector(ref.selector), "residents")
        return self._server.ask(_RESIDENTS, "GET", path)

    def start_rollout(self, name: AdapterName, alias: str, to: Digest, plan: RolloutPlan) -> RolloutInfo:
        body = {"alias": alias, "to": str(to), **plan.model_dump(mode="json")}
        path = path_to(name, "rollouts")
        return self._server.ask(_ROLLOUT, "POST", path, body=body, headers=once_key(), again=True)

    def rollouts(self, name: AdapterName) -> tuple[RolloutInfo, ...]:
        return self._server.ask(_ROLLOUTS, "GET", path_to(name, "rollouts"))

    def change_rollout(self, name: AdapterName, alias: str, change: RolloutChange, was: int) -> RolloutInfo:
        path = path_to(name, "rollouts", parse_stored_alias(alias))
        body, seen = change.model_dump(mode="json"), {"If-Match": f'"{was}"'}
        return self._server.ask(_ROLLOUT, "PATCH", path, body=body, headers=seen, again=False)
