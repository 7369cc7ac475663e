"""Runners: the processes that carry out jobs."""

from __future__ import annotations

from adaptry.registry import protocol
from adaptry.registry.job_types.records import RunnerInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router

ROUTES = guarded_router(protocol.PREFIX, "jobs")


@ROUTES.get("/runners")
def list_runners(registry: CallersRegistry) -> tuple[RunnerInfo, ...]:
    """List the runners, the processes that run jobs."""
    return registry.jobs.runners()
