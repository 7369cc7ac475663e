"""Threads for routes that change something, so that readers always have threads of their own.

The catalog has one writer at a time, so routes that write may wait, each in its thread, for as long as
another process holds the lock. In the pool that all routes share, forty such requests would leave no thread
for reads, nor for looking up the tokens of other callers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any

import anyio
from anyio import to_thread

WRITERS = 24
"""Threads for writes of a process; enough to fill a group of commits (`catalog.group_commit`)."""
_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_LIMITER: ContextVar[anyio.CapacityLimiter] = ContextVar("writer threads")


def use_writer_threads(limiter: anyio.CapacityLimiter) -> None:
    """For the rest of this request."""
    _LIMITER.set(limiter)


# `Any`: the endpoint's own parameters, as FastAPI passes them.
def in_writer_threads(endpoint: Callable[..., Any], methods: Collection[str]) -> Callable[..., Any]:
    """The endpoint, run in these threads if it is a plain function that changes something."""
    if inspect.iscoroutinefunction(endpoint) or not _METHODS.intersection(methods):
        return endpoint

    @functools.wraps(endpoint)
    async def run(**arguments: Any) -> Any:
        return await to_thread.run_sync(functools.partial(endpoint, **arguments), limiter=_LIMITER.get())

    return run
