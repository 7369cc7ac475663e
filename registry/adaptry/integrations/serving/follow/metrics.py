"""A worker's metrics in Prometheus' text format, from the state after its last pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Info, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adaptry import __version__
from adaptry.integrations.serving.follow.residency import Residency
from adaptry.integrations.serving.worker.adapter_metrics import adapter_metrics


class WorkerMetrics(Collector):
    """Metrics of one worker, in a separate collector registry. `residency` returns the latest state."""

    def __init__(self, residency: Callable[[], Residency], clock: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types for it
        self.residency = residency
        self._clock = clock
        self._registry = CollectorRegistry()
        Info("adaptry", "Version of the worker.", registry=self._registry).info({"version": __version__})
        self._registry.register(self)

    def render(self) -> str:
        """All metrics, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        now = self.residency()
        yield from adapter_metrics(now.versions, now.engine)
        yield _gauge("adaptry_engine_up", "Whether the engine answered in the last pass.", now.is_engine_up)
        yield _gauge(
            "adaptry_registry_up", "Whether the registry answered its last request.", now.is_registry_up
        )
        if now.registry_answered_at is not None:
            age = max(0.0, self._clock() - now.registry_answered_at)
            yield _gauge(
                "adaptry_registry_contact_age_seconds", "Time since the registry last answered.", age
            )
        yield _gauge("adaptry_open_recalls", "Recalls that this worker has not proved yet.", now.open_recalls)
        yield _gauge("adaptry_unserved_names", "Names not served as they should be.", len(now.problems))
        yield _gauge("adaptry_slots_used", "Names that have an adapter loaded.", now.slots_used)
        if now.slots is not None:
            free = max(0, now.slots - now.slots_used)
            yield _gauge("adaptry_slots_free", "Number of slots that are free (--slots).", free)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
