"""A worker's health and metrics over HTTP, for probes and Prometheus: `/healthz`, `/readyz`, `/metrics`.

Live: the process answers. Ready: the engine answered in the last pass, and everything that can be served has
been loaded since the worker's start. Without the registry the worker stays ready, because the engine keeps
serving.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from adaptry.integrations.serving.background_server import BackgroundServer
from adaptry.integrations.serving.follow.metrics import WorkerMetrics
from adaptry.integrations.serving.follow.residency import Residency


class MonitorServer(BackgroundServer):
    """Serves the state that `residency` returns at `host:port` (port 0: any)."""

    def __init__(self, host: str, port: int, residency: Callable[[], Residency]) -> None:
        """Raises `Invalid` if it cannot listen at the address."""
        metrics = WorkerMetrics(residency)
        super().__init__(host, port, type("MonitorRequest", (_MonitorRequest,), {"metrics": metrics}))


class _MonitorRequest(BaseHTTPRequestHandler):
    metrics: ClassVar[WorkerMetrics]
    protocol_version = "HTTP/1.1"
    timeout = 75.0

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/healthz":
                self._send(200, "application/json", '{"status": "live"}\n')
            case "/readyz":
                reasons = _unready_reasons(self.metrics.residency())
                body = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
                self._send(503 if reasons else 200, "application/json", f"{json.dumps(body)}\n")
            case "/metrics":
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            case _:
                self._send(
                    404,
                    "text/plain; charset=utf-8",
                    "not found: this server has /healthz, /readyz and /metrics\n",
                )

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing, because probes come every few seconds."""

    def version_string(self) -> str:
        return "adaptry"


def _unready_reasons(now: Residency) -> list[str]:
    reasons = [] if now.is_engine_up else ["the engine does not answer"]
    if not now.is_settled:
        reasons.append("not all versions that the aliases point at have been loaded yet")
    return reasons
