"""The part of `HttpRegistry` about jobs."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.registry.http.connection import Connection, path_of
from adaptry.registry.http.paths import once_key
from adaptry.registry.jobs import JobBoard
from adaptry.registry.jobs_values.records import (
    JobInfo,
    JobOrder,
    JobState,
    LogLine,
    RunnerInfo,
    ScheduleInfo,
)
from adaptry.registry.records import Page

_JOB = TypeAdapter(JobInfo)
_JOBS = TypeAdapter(Page[JobInfo])
_LOG = TypeAdapter(Page[LogLine])
_SCHEDULE = TypeAdapter(ScheduleInfo)
_SCHEDULES: TypeAdapter[tuple[ScheduleInfo, ...]] = TypeAdapter(tuple[ScheduleInfo, ...])
_RUNNERS: TypeAdapter[tuple[RunnerInfo, ...]] = TypeAdapter(tuple[RunnerInfo, ...])


class RemoteJobs(JobBoard):
    """Each method is one call."""

    _server: Connection

    def submit_job(self, order: JobOrder) -> JobInfo:
        body = order.model_dump(mode="json")
        return self._server.ask(_JOB, "POST", path_of("jobs"), body=body, headers=once_key(), again=True)

    def job(self, id: str) -> JobInfo:
        return self._server.ask(_JOB, "GET", path_of("jobs", id))

    def jobs(
        self, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[JobInfo]:
        query = {"state": state, "cursor": cursor, "limit": limit}
        return self._server.ask(_JOBS, "GET", path_of("jobs"), query=query)

    def cancel_job(self, id: str) -> JobInfo:
        return self._server.ask(_JOB, "POST", path_of("jobs", id, "cancel"), again=True)

    def retry_job(self, id: str) -> JobInfo:
        return self._server.ask(_JOB, "POST", path_of("jobs", id, "retry"))

    def job_log(self, id: str, cursor: str | None = None, limit: int = 50) -> Page[LogLine]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.ask(_LOG, "GET", path_of("jobs", id, "log"), query=query)

    def runners(self) -> tuple[RunnerInfo, ...]:
        return self._server.ask(_RUNNERS, "GET", path_of("runners"))

    def schedule_job(self, name: str, cron: str, order: JobOrder) -> ScheduleInfo:
        body = {"cron": cron, "order": order.model_dump(mode="json")}
        return self._server.ask(_SCHEDULE, "PUT", path_of("schedules", name), body=body, again=True)

    def schedules(self) -> tuple[ScheduleInfo, ...]:
        return self._server.ask(_SCHEDULES, "GET", path_of("schedules"))

    def unschedule_job(self, name: str, namespace: str | None = None) -> None:
        self._server.tell("DELETE", path_of("schedules", name), query={"namespace": namespace})
