"""The id of the request that is being answered, for records of what it did.

A server sets it for each request, and threads that answer the request inherit it. A step of a job has the
job's id. Everywhere else there is none.
"""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("adaptry_request_id", default=None)
