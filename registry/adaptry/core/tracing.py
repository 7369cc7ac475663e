"""Spans and durations of what a process does, for OpenTelemetry. Nothing is imported or measured until
`install` is called, which only `core.telemetry` does.

A span contains no tenant names and no tokens, and only the class of an error: traces go to another system.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeVar

Value = str | int | float | bool
Attributes = Mapping[str, Value]
Headers = Mapping[str, str]
Kind = Literal["internal", "server", "client"]
Result = TypeVar("Result")

HTTP_SECONDS = "http.server.request.duration"
DATABASE_SECONDS = "db.client.operation.duration"
BUCKET_SECONDS = "adaptry.bucket.operation.duration"
STEP_SECONDS = "adaptry.job.step.duration"
"""Histograms in seconds; the first two are of OpenTelemetry's semantic conventions."""


class Span(Protocol):
    """A running operation."""

    def rename(self, name: str) -> None:
        """Replaces the name. The total number of different names must be small."""

    def set(self, attributes: Attributes) -> None:
        """Adds attributes with few different values; they also become the histogram's."""

    def detail(self, attributes: Attributes) -> None:
        """Adds attributes with many different values, such as ids."""

    def fail(self, error: BaseException) -> None:
        """Marks the span as failed. Only the error's class is recorded."""


class Tracer(Protocol):
    """The interface that `install` takes; `core.telemetry` implements it for OpenTelemetry."""

    def span(
        self, name: str, kind: Kind, attributes: Attributes, seconds: str | None, parent: Headers | None
    ) -> AbstractContextManager[Span]:
        """A span for the duration of the block, which is also recorded in the histogram `seconds`.

        `parent` are headers of W3C Trace Context that name the span's parent.
        """

    def headers(self) -> dict[str, str]:
        """The headers that make another program's work a part of the current span."""


class _NoSpan:
    def rename(self, name: str) -> None:
        pass

    def set(self, attributes: Attributes) -> None:
        pass

    def detail(self, attributes: Attributes) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        pass


_NO_SPAN = nullcontext(_NoSpan())
_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Sends the spans of this process to `tracer` from now on; None: nowhere."""
    global _tracer  # noqa: PLW0603  (one process has one, as in OpenTelemetry itself)
    _tracer = tracer


def is_enabled() -> bool:
    return _tracer is not None


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    seconds: str | None = None,
    parent: Headers | None = None,
) -> AbstractContextManager[Span]:
    """Like `Tracer.span`; without a tracer, it costs a fraction of a microsecond."""
    if _tracer is None:
        return _NO_SPAN
    return _tracer.span(name, kind, attributes or {}, seconds, parent)


def headers() -> dict[str, str]:
    """Like `Tracer.headers`; empty without a tracer."""
    return _tracer.headers() if _tracer is not None else {}


def in_this_span(call: Callable[[], Result]) -> Callable[[], Result]:
    """Wraps a call that runs on another thread, so that its spans become children of the current span."""
    if _tracer is None:
        return call
    return functools.partial(contextvars.copy_context().run, call)
