"""OpenTelemetry behind `core.tracing`: needs the extra `otel`, and is configured by OpenTelemetry's own
variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adaptry import __version__
from adaptry.core import tracing
from adaptry.core.errors import MissingDependency
from adaptry.core.tracing import Attributes, Headers, Kind, Value

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_SWITCHES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)


def start_from_environment(service: str, environ: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Exports traces and metrics of this process if a variable sets the destination. Call the result to send
    the remaining data and stop. `OTEL_SERVICE_NAME` replaces the name of the service.

    Raises `MissingDependency` if a variable is set and the extra is not installed.
    """
    if not any(environ.get(name) for name in _SWITCHES) or environ.get("OTEL_SDK_DISABLED") == "true":
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and telemetry needs {error.name}: pip install"
            " 'adaptry[otel]'"
        ) from error
    names = {"service.name": environ.get("OTEL_SERVICE_NAME", service), "service.version": __version__}
    resource = Resource.create(names)
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
    tracing.install(OpenTelemetryTracer(tracers, meters))

    def stop() -> None:
        tracing.install(None)
        tracers.shutdown()
        meters.shutdown()

    return stop


@contextmanager
def exporting_telemetry(service: str) -> Iterator[None]:
    """Exports during the block, and has sent everything when it ends."""
    stop = start_from_environment(service)
    try:
        yield
    finally:
        stop()


class OpenTelemetryTracer:
    """Makes spans and histograms with the given providers."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer = tracers.get_tracer("adaptry", __version__)
        self._meter = meters.get_meter("adaptry", __version__)
        self._histograms: dict[str, Histogram] = {}

    @contextmanager
    def span(
        self, name: str, kind: Kind, attributes: Attributes, seconds: str | None, parent: Headers | None
    ) -> Iterator[OpenTelemetrySpan]:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract(dict(parent)) if parent is not None else None
        began = time.perf_counter()
        with self._tracer.start_as_current_span(
            name,
            context,
            SpanKind[kind.upper()],
            dict(attributes),
            # An error's text may name tenants.
            record_exception=False,
            set_status_on_exception=False,
        ) as current:
            found = OpenTelemetrySpan(current, dict(attributes))
            try:
                yield found
            except BaseException as error:
                found.fail(error)
                raise
            finally:
                if seconds is not None:
                    self._histogram(seconds).record(time.perf_counter() - began, found.measured)

    def headers(self) -> dict[str, str]:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carried: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carried)
        return carried

    def _histogram(self, name: str) -> Histogram:
        found = self._histograms.get(name)
        if found is None:
            found = self._histograms[name] = self._meter.create_histogram(name, "s")
        return found


class OpenTelemetrySpan:
    """A span, and the attributes of its measurement."""

    def __init__(self, span: Span, measured: dict[str, Value]) -> None:
        self._span = span
        self.measured = measured

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self.measured |= attributes
        self.detail(attributes)

    def detail(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode

        self.set({"error.type": type(error).__name__})
        self._span.set_status(Status(StatusCode.ERROR))
