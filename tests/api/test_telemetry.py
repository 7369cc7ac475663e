"""Traces and metrics, from the request to the database; nothing is exported unless it is configured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adaptry.adapters.adapter import Adapter
from adaptry.core import telemetry, tracing
from adaptry.core.errors import MissingDependency
from adaptry.core.refs import AdapterName
from adaptry.core.telemetry import OpenTelemetryTracer, start_from_environment
from adaptry.operations.transfer import push
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

CALLER = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{CALLER}-b7ad6b7169203331-01"


class Collected:
    """The data that this process exports, in memory. A request's span ends after its response was sent, so
    tests read spans after their server has stopped.
    """

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers, meters = TracerProvider(), MeterProvider([self.reader])
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracing.install(OpenTelemetryTracer(tracers, meters))

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def of_trace(self, trace: str) -> list[ReadableSpan]:
        wanted = int(trace, 16)
        return [one for one in self.spans() if one.context and one.context.trace_id == wanted]

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [point for metric in found for point in metric.data.data_points]  # type: ignore[misc]


@pytest.fixture
def collected() -> Iterator[Collected]:
    yield Collected()
    tracing.install(None)


def test_a_request_and_its_database_calls_are_one_trace_with_the_caller(
    collected: Collected, tmp_path: Path, tone: Adapter
) -> None:
    with running_server(ServerSettings(data=tmp_path)) as server:
        push(server.registry(), tone, AdapterName.parse("acme/tone"))
        address = "/api/v1/adapters/acme/tone/versions/1"
        answer = server.call("GET", address, headers={"traceparent": TRACEPARENT})
        missing = server.call("GET", "/api/v1/adapters/acme/none", headers={"traceparent": TRACEPARENT})
        server.call("GET", "/healthz")

    by_name = {one.name: one for one in collected.of_trace(CALLER)}
    request = by_name["GET /api/v1/adapters/{namespace}/{name}/versions/{selector}"]
    assert request.attributes is not None and request.parent is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["adaptry.request"] == answer.headers["Request-Id"]
    children = [one for one in collected.of_trace(CALLER) if one.parent and _is_child(one, request)]
    assert {one.name for one in children} == {"catalog read"}
    assert {dict(one.attributes or {})["db.system.name"] for one in children} == {"sqlite"}
    assert missing.status == 404
    names = {
        (dict(point.attributes or {}).get("http.route"), point.count)
        for point in collected.points(tracing.HTTP_SECONDS)
    }
    assert ("/healthz", 1) in names
    assert sum(point.count for point in collected.points(tracing.DATABASE_SECONDS)) > 3


def test_calls_of_a_bucket_are_part_of_the_request_that_makes_them(
    collected: Collected, tmp_path: Path, tone: Adapter, s3_place: str
) -> None:
    with running_server(ServerSettings(data=tmp_path, blobs=s3_place)) as server:
        push(server.registry(), tone, AdapterName.parse("acme/tone"))

    spans = collected.spans()
    servers = {
        one.context.trace_id for one in spans if one.context and one.name.startswith(("PATCH", "POST"))
    }
    calls = [one for one in spans if one.name.startswith("S3 ") and one.context]
    within = [one for one in calls if one.context and one.context.trace_id in servers]
    assert {"S3 PutObject", "S3 HeadObject"} <= {one.name for one in within}
    assert all(dict(one.attributes or {})["rpc.service"] == "S3" for one in calls)
    assert all("tone" not in str(dict(one.attributes or {})) for one in calls)
    assert collected.points(tracing.BUCKET_SECONDS)


def _is_child(one: ReadableSpan, of: ReadableSpan) -> bool:
    assert one.parent is not None and of.context is not None
    return one.parent.span_id == of.context.span_id


def test_traces_name_no_tenant_and_no_token(collected: Collected, tmp_path: Path, tone: Adapter) -> None:
    with running_server(ServerSettings(data=tmp_path)) as server:
        push(server.registry(), tone, AdapterName.parse("acme/tone"))
        server.call("GET", f"/api/v1/adapters/acme/none?grant={server.admin}", token=server.admin)
        server.call("GET", "/acme/nothing/at/all")

    spans = collected.spans()
    said = " ".join(
        f"{one.name} {dict(one.attributes or {})} {one.events} {one.status.description}" for one in spans
    )
    assert len(spans) > 10
    assert "acme" not in said and "tone" not in said
    assert server.admin not in said


def test_without_a_variable_nothing_of_the_extra_is_imported() -> None:
    """FastAPI imports OpenTelemetry's API if it is installed; the SDK and exporters need the extra."""
    code = (
        "import sys, adaptry.core.telemetry as telemetry, adaptry.storage.connect\n"
        "telemetry.start_from_environment('x', {})()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "import adaptry_api.app\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exp'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n[]\n"


def test_a_variable_without_the_extra_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingDependency, match=r"pip install 'adaptry\[otel\]'"):
        start_from_environment("x", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}
    telemetry.start_from_environment("x", disabled)()
