"""The jobs role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import idempotency_header
from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo, ScheduleInfo
from adaptry.registry.jobs import Jobs
from adaptry.registry.records import Page

_JOB = TypeAdapter(JobInfo)
_JOBS = TypeAdapter(Page[JobInfo])
_LOG = TypeAdapter(Page[LogLine])
_SCHEDULE = TypeAdapter(ScheduleInfo)
_SCHEDULES: TypeAdapter[tuple[ScheduleInfo, ...]] = TypeAdapter(tuple[ScheduleInfo, ...])
_RUNNERS: TypeAdapter[tuple[RunnerInfo, ...]] = TypeAdapter(tuple[RunnerInfo, ...])


@dataclass(frozen=True)
class HttpJobs(Jobs):
    """Each method is one call."""

    server: Connection

    def submit(self, order: JobOrder) -> JobInfo:
        body = order.model_dump(mode="json")
        return self.server.request_value(
            _JOB, "POST", api_path("jobs"), body=body, headers=idempotency_header(), again=True
        )

    def get(self, id: str) -> JobInfo:
        return self.server.request_value(_JOB, "GET", api_path("jobs", id))

    def list(
        self, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[JobInfo]:
        query = {"state": state, "cursor": cursor, "limit": limit}
        return self.server.request_value(_JOBS, "GET", api_path("jobs"), query=query)

    def cancel(self, id: str) -> JobInfo:
        return self.server.request_value(_JOB, "POST", api_path("jobs", id, "cancel"), again=True)

    def retry(self, id: str) -> JobInfo:
        return self.server.request_value(_JOB, "POST", api_path("jobs", id, "retry"))

    def log(self, id: str, cursor: str | None = None, limit: int = 50) -> Page[LogLine]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_LOG, "GET", api_path("jobs", id, "log"), query=query)

    def runners(self) -> tuple[RunnerInfo, ...]:
        return self.server.request_value(_RUNNERS, "GET", api_path("runners"))

    def schedule(self, name: str, cron: str, order: JobOrder) -> ScheduleInfo:
        body = {"cron": cron, "order": order.model_dump(mode="json")}
        return self.server.request_value(_SCHEDULE, "PUT", api_path("schedules", name), body=body, again=True)

    def schedules(self) -> tuple[ScheduleInfo, ...]:
        return self.server.request_value(_SCHEDULES, "GET", api_path("schedules"))

    def unschedule(self, name: str, namespace: str | None = None) -> None:
        self.server.request_bytes("DELETE", api_path("schedules", name), query={"namespace": namespace})
