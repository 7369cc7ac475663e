"""Metrics of the registry's contents, for Prometheus: aliases, loaded adapters, recalls, rollouts, quotas.

These figures name adapters and namespaces, so only a caller who may read everything gets them (a token with
the role viewer on `*`). At most `MAX_SERIES` series of each kind are shown: the aliases that moved last, the
versions that most workers have loaded, the largest users of storage. They are read at most every few seconds,
however often they are requested.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from adaptry.core.quotas import UNLIMITED
from adaptry.storage.catalog import gauge_values
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.gauge_values import GaugeValues

MAX_SERIES = 500
_SECONDS = 15.0


class DomainMetrics:
    """The metrics of one catalog. Safe for many threads: only one reads, the others wait."""

    def __init__(self, catalog: Catalog, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        self._text = ""

    def render(self) -> str:
        """Returns all metrics in Prometheus' text format. Raises `Unavailable`."""
        with self._lock:
            if self._clock() >= self._until:
                with self._catalog.read() as tx:
                    found = gauge_values.read(tx, MAX_SERIES)
                registry = CollectorRegistry()
                registry.register(_Figures(found))
                self._text = generate_latest(registry).decode()
                self._until = self._clock() + _SECONDS
            return self._text


class _Figures(Collector):
    """Shows what was read."""

    def __init__(self, found: GaugeValues) -> None:
        self._found = found

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self._found
        now = time.time()
        yield _gauge("adaptry_versions", "Versions of all adapters.", (), [((), found.versions)])
        yield _gauge("adaptry_aliases", "Aliases of all adapters.", (), [((), found.aliases)])
        alias = ("adapter", "alias")
        moved = [((one.adapter, one.alias), one) for one in found.moved_aliases]
        yield _gauge(
            "adaptry_alias_generation",
            f"How often each of the {MAX_SERIES} most recently moved aliases has moved (its generation).",
            alias,
            [(labels, one.generation) for labels, one in moved],
        )
        yield _gauge(
            "adaptry_alias_age_seconds",
            f"Seconds since the last move of each of the {MAX_SERIES} most recently moved aliases.",
            alias,
            [(labels, max(0.0, now - one.moved_at.timestamp())) for labels, one in moved],
        )
        yield _gauge(
            "adaptry_loaded_workers",
            f"Number of workers that have an adapter loaded, by digest, for the {MAX_SERIES} most widely"
            " loaded. Workers whose report has expired, or whose engine does not answer, are not counted.",
            ("digest",),
            [((digest,), count) for digest, count in found.loaded],
        )
        yield _gauge(
            "adaptry_open_recalls",
            "Quarantined or revoked versions that a worker still has loaded.",
            (),
            [((), found.open_recalls)],
        )
        yield _gauge(
            "adaptry_rollout_step",
            f"Step of the {MAX_SERIES} newest unfinished rollouts, by stage.",
            (*alias, "stage"),
            [((one.adapter, one.alias, one.stage), one.step) for one in found.rollouts],
        )
        yield from self._quotas()

    def _quotas(self) -> Iterator[GaugeMetricFamily]:
        found, labels = self._found, ("scope", "name")
        yield _gauge(
            "adaptry_stored_bytes",
            f"Bytes of stored files that count towards a namespace or a principal: the {MAX_SERIES} largest.",
            labels,
            [((subject.scope, subject.name), size) for subject, size, _ in found.used],
        )
        yield _gauge(
            "adaptry_stored_versions",
            f"Versions that count towards a namespace or a principal: the {MAX_SERIES} with the most bytes.",
            labels,
            [((subject.scope, subject.name), count) for subject, _, count in found.used],
        )
        for name in ("bytes", "versions"):
            limits = ((subject, getattr(one, name)) for subject, one in found.limits)
            yield _gauge(
                f"adaptry_quota_{name}",
                f"Limit on {name} that is set for a namespace or a principal; `*` is all others.",
                labels,
                [
                    ((subject.scope, subject.name), limit)
                    for subject, limit in limits
                    if limit is not None and limit < UNLIMITED
                ],
            )


def _gauge(
    name: str, help: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family
