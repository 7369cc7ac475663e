"""The server's metrics since its start, in Prometheus' text format.

Labels are methods, route templates and statuses, never the name of a tenant or of anything that it owns.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from adaptry import __version__

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Metrics of one app, in a separate collector registry. Safe for many threads."""

    def __init__(self) -> None:
        # Leaves out the `_created` series, which only have the start time of other series.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types for it
        self._all = every = CollectorRegistry()
        Info("adaptry", "Version of the server.", registry=every).info({"version": __version__})
        self._requests = Counter(
            "adaptry_requests", "Requests that are over.", ("method", "route", "status"), registry=every
        )
        self._seconds = Histogram(
            "adaptry_request_seconds", "Duration of a request.", ("route",), buckets=BOUNDS, registry=every
        )
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._received = Counter("adaptry_received_bytes", "Bytes of requests' bodies.", registry=every)
        self._sent = Counter("adaptry_sent_bytes", "Bytes of answers' bodies.", registry=every)
        self._shares = Counter(
            "adaptry_request_limit_shares",
            "How often this process shared its request counts with the registry's other processes.",
            ("result",),
            registry=every,
        )

    def record(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Counts one finished request: its route's template, and the bytes of its bodies."""
        labels = (method if method in METHODS else "other", route, str(status))
        found = self._children.get(labels)
        if found is None:  # looking one up takes longer than counting
            found = self._children[labels] = (self._requests.labels(*labels), self._seconds.labels(route))
        count, duration = found
        count.inc()
        duration.observe(seconds)
        if received:
            self._received.inc(received)
        self._sent.inc(sent)

    def record_share(self, is_done: bool) -> None:
        """Counts one attempt to share request counts with other processes."""
        self._shares.labels("done" if is_done else "failed").inc()

    def render(self) -> str:
        """All metrics, in Prometheus' text format 0.0.4."""
        return generate_latest(self._all).decode()
