"""The plugin's own metrics in vLLM's `/metrics`: which versions are loaded, whether the registry answers, and
the maximum age of the served versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adaptry.integrations.serving.vllm.resolver import AdapterResolver


class ResolverMetrics:
    """A collector for prometheus_client, which vLLM depends on."""

    def __init__(self, resolver: AdapterResolver, engine: str) -> None:
        self._resolver = resolver
        self._engine = engine

    def collect(self) -> Iterator[Any]:
        """The metrics. (`Any`: prometheus_client is not installed when types are checked.)"""
        from prometheus_client.core import GaugeMetricFamily

        from adaptry.integrations.serving.worker.adapter_metrics import adapter_metrics

        resolver = self._resolver
        oldest = resolver.oldest_confirmation_age.total_seconds()
        longest = resolver.lookup.last_known.max_age.total_seconds()
        yield from adapter_metrics(resolver.use.versions(), "vllm")
        for name, text, value in (
            (
                "adaptry_registry_up",
                "Whether the registry answered the last call (1) or not (0).",
                0.0 if resolver.lookup.is_away else 1.0,
            ),
            (
                "adaptry_oldest_confirmation_age_seconds",
                "Seconds since the registry last confirmed the target of a served name; the largest value"
                " over all names.",
                oldest,
            ),
            (
                "adaptry_max_confirmation_age_seconds",
                "Seconds for which names are served without the registry (ADAPTRY_OFFLINE_HOURS).",
                longest,
            ),
            (
                "adaptry_oldest_meaning_seconds",
                "Former name of adaptry_oldest_confirmation_age_seconds.",
                oldest,
            ),
            (
                "adaptry_max_meaning_age_seconds",
                "Former name of adaptry_max_confirmation_age_seconds.",
                longest,
            ),
            (
                "adaptry_reporting",
                "Whether the registry accepts this worker's reports (1) or not (0).",
                0.0 if resolver.cannot_report else 1.0,
            ),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["model_name"])
            gauge.add_metric([self._engine], value)
            yield gauge


def register_metrics(resolver: AdapterResolver, engine: str) -> None:
    """Adds the metrics to prometheus_client's registry, if it is installed."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    REGISTRY.register(ResolverMetrics(resolver, engine))
