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
        description="Namespace of the schedule; required if several namespaces have a schedule of this name.",
        max_length=96,
    ),
]


@ROUTES.get("/schedules")
def list_schedules(registry: CallersRegistry) -> tuple[ScheduleInfo, ...]:
    """List the schedules."""
    return registry.jobs.schedules()


@ROUTES.put("/schedules/{schedule}")
def set_schedule(schedule: ScheduleName, body: NewSchedule, registry: CallersRegistry) -> ScheduleInfo:
    """Create or replace a schedule, which submits a job at set times.

    Its jobs run with the rights that the caller has now.
    """
    return registry.jobs.schedule(schedule, body.cron, body.order)


@ROUTES.delete("/schedules/{schedule}", status_code=204)
def delete_schedule(
    schedule: ScheduleName, registry: CallersRegistry, namespace: ScheduleNamespace = None
) -> None:
    """Delete a schedule; jobs that were already submitted continue."""
    registry.jobs.unschedule(schedule, namespace)
