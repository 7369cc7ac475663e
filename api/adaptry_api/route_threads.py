"""Threads for routes that may wait long, so that they never take the threads of all other routes.

The catalog has one writer at a time, so routes that write may wait, each in its thread, for as long as
another process holds the lock. Searches may be slow, above all those whose database is busy. In one pool,
forty such requests would leave no thread for reads; and in the pool that all of the process shares, none for
looking up the tokens of other callers. In each pool, tenants take threads in turn (`fair_threads`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any, Literal, TypeVar, cast
from urllib.parse import unquote

from starlette.types import Scope

from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.fair_threads import FairThreads

_WRITERS = (24, 20)
"""Threads for writes of a process, and how many of them one tenant gets; enough to fill a group of commits
(`catalog.group_commit`)."""
_SEARCHES = (6, 4)
"""Threads for searches. They leave connections to PostgreSQL to other reads: a process has ten for prepared
reads (`postgres_readers`), and twelve for those with a session.
"""
_READS = (40, 10)
"""Threads for other reads: one tenant leaves two of the connections for reads with a session to others."""
_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_KIND = "adaptry_threads"
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
Result = TypeVar("Result")
Kind = Literal["writers", "searches", "reads"]


@dataclass(frozen=True, slots=True)
class RouteThreads:
    """The threads of a process for routes that change something, for searches, and for other reads."""

    writers: FairThreads
    searches: FairThreads
    reads: FairThreads

    @classmethod
    def of_process(cls) -> RouteThreads:
        return cls(FairThreads(*_WRITERS), FairThreads(*_SEARCHES), FairThreads(*_READS))


_REQUEST: ContextVar[tuple[RouteThreads, Scope]] = ContextVar("threads and scope of the request")


def use_route_threads(threads: RouteThreads, scope: Scope) -> None:
    """Uses these threads for the rest of this request."""
    _REQUEST.set((threads, scope))


async def run_in_own_threads(kind: Kind, work: Callable[[], Result]) -> Result:
    """Runs `work` in threads of this kind when it is the turn of the request's tenant, and returns its
    result.
    """
    threads, scope = _REQUEST.get()
    pool: FairThreads = getattr(threads, kind)
    return await pool.run(tenant_of(scope), work)


def tenant_of(scope: Scope) -> str:
    """The namespace in the request's address, if the caller has a right there that names it; otherwise the
    caller's own: that of a service account, or the user. So strangers never use up a namespace's threads.

    Rights by a pattern, such as `*`, do not count: they cover any name, so a caller could be as many tenants
    as it requests names. A user's key differs from that of a namespace of the same name, which may belong to
    someone else.
    """
    identity = cast(Identity, scope.get("state", {}).get("identity", ANONYMOUS))
    namespace = unquote(scope.get("path_params", {}).get("namespace", ""))  # the Hub's path, as sent
    if identity.is_named_in(namespace):
        return namespace
    owner, slash, _ = identity.name.partition("/")
    return owner if slash else f"user {owner}"


def searches(endpoint: Endpoint) -> Endpoint:
    """Marks a plain function of a route that searches."""
    setattr(endpoint, _KIND, "searches")
    return endpoint


def reads(endpoint: Endpoint) -> Endpoint:
    """Marks a plain function that changes nothing, although its method is not GET."""
    setattr(endpoint, _KIND, "reads")
    return endpoint


# `Any`: the endpoint's own parameters, as FastAPI passes them.
def in_own_threads(endpoint: Callable[..., Any], methods: Collection[str]) -> Callable[..., Any]:
    """The endpoint, run in the threads of its kind if it is a plain function."""
    if inspect.iscoroutinefunction(endpoint) or inspect.isgeneratorfunction(endpoint):
        return endpoint
    kind: Kind = getattr(endpoint, _KIND, "reads" if _METHODS.isdisjoint(methods) else "writers")

    @functools.wraps(endpoint)
    async def run(**arguments: Any) -> Any:
        return await run_in_own_threads(kind, functools.partial(endpoint, **arguments))

    return run
