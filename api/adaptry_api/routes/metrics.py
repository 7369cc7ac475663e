"""Metrics of a version: appended, never overwritten."""

from __future__ import annotations

from pydantic import BaseModel, Field

from adaptry.registry import protocol
from adaptry.registry.records import MetricInfo, MetricValue
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import PathRef

ROUTES = guarded_router(
    f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/versions/{{selector}}/metrics", "metrics"
)


class MetricsRequest(BaseModel, extra="forbid"):
    """Values by metric."""

    metrics: dict[str, MetricValue] = Field(max_length=64)


@ROUTES.get("")
def list_metrics(ref: PathRef, registry: CallersRegistry) -> tuple[MetricInfo, ...]:
    """List every value ever logged for a version, oldest first."""
    return registry.metrics.list(ref)


@ROUTES.post("", status_code=204)
def log_metrics(ref: PathRef, body: MetricsRequest, registry: IdempotentRegistry) -> None:
    """Log values for a version's metrics.

    Values are added; a metric's current value is the last one logged.
    """
    registry.metrics.log(ref, body.metrics)
