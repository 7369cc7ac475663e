"""The metrics role over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref
from adaptry.registry.http.connection import Connection
from adaptry.registry.http.paths import idempotency_header, version_path
from adaptry.registry.metrics import Metrics
from adaptry.registry.records import MetricInfo

_METRICS: TypeAdapter[tuple[MetricInfo, ...]] = TypeAdapter(tuple[MetricInfo, ...])


@dataclass(frozen=True)
class HttpMetrics(Metrics):
    """The metrics of a server's registry."""

    server: Connection

    def log(self, ref: Ref, metrics: Mapping[str, float]) -> None:
        body = {"metrics": dict(metrics)}
        self.server.request_bytes(
            "POST", version_path(ref, "metrics"), body=body, headers=idempotency_header(), again=True
        )

    def list(self, ref: Ref) -> tuple[MetricInfo, ...]:
        return self.server.request_value(_METRICS, "GET", version_path(ref, "metrics"))
