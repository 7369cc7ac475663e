"""What the server has done since it started, in the text form Prometheus reads.

Labels are methods, route templates and statuses: never a name of a tenant or of anything it owns.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict

from adaptry import __version__

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counters of one process; safe to add to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self._received = 0
        self._sent = 0

    def record(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """One request that is over: its route's template, and the bytes of its bodies."""
        with self._lock:
            self._requests[method if method in METHODS else "other", route, status] += 1
            self._seconds[route] += seconds
            self._buckets[route][bisect_left(BOUNDS, seconds)] += 1
            self._received += received
            self._sent += sent

    def render(self) -> str:
        """Everything, in Prometheus' text format 0.0.4."""
        with self._lock:
            lines = ["# TYPE adaptry_info gauge", f'adaptry_info{{version="{__version__}"}} 1']
            lines.append("# TYPE adaptry_requests_total counter")
            for (method, route, status), count in sorted(self._requests.items()):
                labels = f'method="{method}",route="{route}",status="{status}"'
                lines.append(f"adaptry_requests_total{{{labels}}} {count}")
            lines.append("# TYPE adaptry_request_seconds histogram")
            for route, buckets in sorted(self._buckets.items()):
                lines += _histogram(route, buckets, self._seconds[route])
            lines.append("# TYPE adaptry_received_bytes_total counter")
            lines.append(f"adaptry_received_bytes_total {self._received}")
            lines.append("# TYPE adaptry_sent_bytes_total counter")
            lines.append(f"adaptry_sent_bytes_total {self._sent}")
        return "\n".join(lines) + "\n"


def _histogram(route: str, buckets: list[int], seconds: float) -> list[str]:
    lines: list[str] = []
    total = 0
    for bound, count in zip((*BOUNDS, "+Inf"), buckets, strict=True):
        total += count
        lines.append(f'adaptry_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
    lines.append(f'adaptry_request_seconds_sum{{route="{route}"}} {seconds:.6f}')
    lines.append(f'adaptry_request_seconds_count{{route="{route}"}} {total}')
    return lines
