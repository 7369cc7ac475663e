"""Schedules: jobs that are submitted at set times."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field

from adaptry.registry import protocol
from adaptry.registry.job_types.records import JobOrder, ScheduleInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router

ROUTES = guarded_router(protocol.PREFIX, "jobs")


class NewSchedule(BaseModel, extra="forbid"):
    """A cron expression and the job to submit."""

    cron: Annotated[str, Field(max_length=256)]
    order: JobOrder


ScheduleName = Annotated[str, Path(max_length=64)]
ScheduleNamespace = Annotated[
    str | None,
    Query(
        description="Namespace of the schedule; needed when several namespaces have one of that name.",
        max_length=96,
    ),
]


@ROUTES.get("/schedules")
def list_schedules(registry: CallersRegistry) -> tuple[ScheduleInfo, ...]:
    return registry.jobs.schedules()


@ROUTES.put("/schedules/{schedule}")
def schedule(schedule: ScheduleName, body: NewSchedule, registry: CallersRegistry) -> ScheduleInfo:
    """The job is submitted at each of these times, with the rights that the caller has now."""
    return registry.jobs.schedule(schedule, body.cron, body.order)


@ROUTES.delete("/schedules/{schedule}", status_code=204)
def unschedule(
    schedule: ScheduleName, registry: CallersRegistry, namespace: ScheduleNamespace = None
) -> None:
    registry.jobs.unschedule(schedule, namespace)
