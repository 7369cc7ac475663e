"""Telemetry of a job: the runner exports its steps, and the step's process continues the same trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adaptry.core import tracing
from adaptry.storage.local import LocalRegistry
from adaptry.testing.runners import MERGE, RunnerProcess


@dataclass
class Collector:
    """An OTLP receiver on this machine: spans by the name of their service, and names of metrics."""

    url: str
    spans: list[tuple[str, str, bytes]] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/metrics":
            for of_process in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in of_process.scope_metrics:
                    self.metrics |= {metric.name for metric in scope.metrics}
            return
        for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                each.value.string_value
                for each in of_service.resource.attributes
                if each.key == "service.name"
            )
            for scope in of_service.scope_spans:
                self.spans += [(service, span.name, span.trace_id) for span in scope.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, decompress(body) if self.headers["Content-Encoding"] else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.heavy
def test_a_step_and_its_process_are_in_one_trace(busy: LocalRegistry, data: Path) -> None:
    busy.jobs.submit(MERGE)
    with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        assert RunnerProcess(data, "--once", environ=environ).wait() == 0

    steps = {trace for service, name, trace in collector.spans if name == "job step"}
    assert steps
    assert {service for service, name, _ in collector.spans if name == "job step"} == {"adaptry-runner"}
    children = {(service, name) for service, name, trace in collector.spans if trace in steps}
    assert {("adaptry-job", "job step process"), ("adaptry-job", "catalog write")} <= children
    assert {tracing.STEP_SECONDS, tracing.DATABASE_SECONDS} <= collector.metrics
