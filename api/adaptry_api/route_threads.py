"""Threads for routes that may wait long, so that all others always have threads of their own.

The catalog has one writer at a time, so routes that write may wait, each in its thread, for as long as
another process holds the lock. Searches may be slow, above all those whose database is busy. In the pool that
all routes share, forty such requests would leave no thread for other reads, nor for looking up the tokens of
other callers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from adaptry.core.lazy_dataclass import dataclass

_WRITERS = 24
"""Threads for writes of a process; enough to fill a group of commits (`catalog.group_commit`)."""
_SEARCHES = 6
"""Threads for searches of a process. They leave connections to PostgreSQL to other reads: a process has ten
for prepared reads (`postgres_readers`), and twelve for those with a session.
"""
_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_IS_SEARCH = "adaptry_is_search"
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class RouteThreads:
    """Limits on the threads of a process, for routes that change something and for searches."""

    writers: anyio.CapacityLimiter
    searches: anyio.CapacityLimiter

    @classmethod
    def of_process(cls) -> RouteThreads:
        return cls(anyio.CapacityLimiter(_WRITERS), anyio.CapacityLimiter(_SEARCHES))


_THREADS: ContextVar[RouteThreads] = ContextVar("threads of routes")


def use_route_threads(threads: RouteThreads) -> None:
    """For the rest of this request."""
    _THREADS.set(threads)


def searches(endpoint: Endpoint) -> Endpoint:
    """Marks a plain function of a route that searches."""
    setattr(endpoint, _IS_SEARCH, True)
    return endpoint


# `Any`: the endpoint's own parameters, as FastAPI passes them.
def in_own_threads(endpoint: Callable[..., Any], methods: Collection[str]) -> Callable[..., Any]:
    """The endpoint, run in these threads if it is a plain function that changes something or searches."""
    writes, is_search = not _METHODS.isdisjoint(methods), getattr(endpoint, _IS_SEARCH, False)
    if inspect.iscoroutinefunction(endpoint) or not (writes or is_search):
        return endpoint

    @functools.wraps(endpoint)
    async def run(**arguments: Any) -> Any:
        threads = _THREADS.get()
        limiter = threads.writers if writes else threads.searches
        return await to_thread.run_sync(functools.partial(endpoint, **arguments), limiter=limiter)

    return run
