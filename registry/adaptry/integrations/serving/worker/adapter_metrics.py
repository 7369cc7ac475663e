"""Prometheus metrics of the versions that an engine has loaded: the same series from every worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from adaptry.integrations.serving.worker.loaded_version import LoadedVersion

_LABELS = ("adapter", "version", "digest", "engine")


def adapter_metrics(versions: Iterable[LoadedVersion], engine: str) -> Iterator[Metric]:
    loaded = GaugeMetricFamily("adaptry_adapter_loaded", "1 for each loaded version.", labels=_LABELS)
    last_used = GaugeMetricFamily(
        "adaptry_adapter_last_used_timestamp_seconds",
        "Time of the version's last use, as far as it is known.",
        labels=_LABELS,
    )
    requests = CounterMetricFamily(
        "adaptry_adapter_requests", "Answers of the version.", labels=(*_LABELS, "status")
    )
    tokens = CounterMetricFamily(
        "adaptry_adapter_tokens", "Tokens of the version's answers.", labels=(*_LABELS, "kind")
    )
    for version in versions:
        labels = _labels(version, engine)
        loaded.add_metric(labels, 1)
        if version.last_used is not None:
            last_used.add_metric(labels, version.last_used)
        if version.usage is not None:
            for status, count in sorted(version.usage.requests.items()):
                requests.add_metric((*labels, str(status)), count)
            for kind, count in sorted(version.usage.tokens.items()):
                tokens.add_metric((*labels, kind.removesuffix("_tokens")), count)
    yield from (loaded, last_used, requests, tokens)


def _labels(version: LoadedVersion, engine: str) -> tuple[str, ...]:
    """The label values. `version` is empty if others loaded the version; its digest identifies it."""
    number = str(version.number) if version.number is not None else ""
    return version.adapter, number, version.digest.brief, engine
