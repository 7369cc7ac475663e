"""The id of the current request, for records of its effects.

A server sets it for each request, and threads that answer the request inherit it. A step of a job has the
job's id. Elsewhere, there is no id.
"""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("adaptry_request_id", default=None)
