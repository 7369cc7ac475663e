"""The changing part of a page, as server-sent events: sent again whenever its content has changed.

Not every change has an event (workers' reports and the progress of jobs have none). So the part is computed
again every few seconds, and immediately after an event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import urlsplit

from anyio import sleep
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from adaptry.core.errors import AdaptryError, Unauthenticated
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.events import NameFilter
from adaptry.registry.interface import Registry
from adaptry_api.auth_policy import app_state_of, visitor_now
from adaptry_api.pages.page_responses import render_text
from adaptry_api.route_threads import run_in_own_threads
from adaptry_api.routes.events import STREAM

OVER = "event: over\ndata: over\n\n"
"""The message after which a page does not connect again (`hx-sse:close="over"`)."""
SIGNED_OUT_PART = "signed_out_part.html"
_RETRY_DELAY = 1.0
"""Minimum number of seconds between two computations for one stream."""


@dataclass(frozen=True, slots=True)
class LivePart:
    """`look` computes the value that `template` shows as `page`, again after `every` seconds at the latest.
    `is_over` returns whether a value is the last one.
    """

    template: str
    look: Callable[[Registry, Identity], BaseModel]
    every: float = 4.0
    is_over: Callable[[BaseModel], bool] = lambda _: False


def stream_part(request: Request, part: LivePart) -> Response:
    """The answer that a page's part connects to."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_changes(request, part), media_type=STREAM, headers=headers)


async def _changes(request: Request, part: LivePart) -> AsyncIterator[str]:
    """Ends when the visitor leaves, or the server stops; browsers connect again. If the session ends, a last
    message replaces the part, which would otherwise look as if it were still updated.
    """
    state = app_state_of(request)

    async def identify() -> Identity:
        return await visitor_now(request)

    shown, after = "", None
    yield "retry: 3000\n\n"
    while not state.draining.has_begun:
        try:
            identity = await identify()
            value, now, message = await run_in_own_threads(
                "reads", partial(_current, part, state.registry(identity), identity, shown)
            )
            shown = now
            yield message
            if part.is_over(value):
                yield OVER
                return
            await sleep(_RETRY_DELAY)
            news = await state.event_broadcaster.next_events(identify, after, 1, part.every, NameFilter(()))
        except Unauthenticated:
            yield signed_out_messages(request)
            return
        except AdaptryError:
            return
        after = news.seq


def _current(
    part: LivePart, registry: Registry, identity: Identity, shown: str
) -> tuple[BaseModel, str, str]:
    """The value, its JSON, and the message to send if `shown` was sent before. In a thread: a part may be
    large.
    """
    value = part.look(registry, identity)
    now = value.model_dump_json()
    if now == shown:
        return value, now, ": unchanged\n\n"
    return value, now, message_of(render_text(part.template, {"page": value}))


def message_of(text: str) -> str:
    """A server-sent event of lines."""
    return "".join(f"data: {line}\n" for line in text.splitlines() if line.strip()) + "\n"


def signed_out_messages(request: Request) -> str:
    """The last messages of a stream whose session has ended."""
    return message_of(render_text(SIGNED_OUT_PART, {"next": page_around(request)})) + OVER


def page_around(request: Request) -> str:
    """The path and query of the page that a part belongs to, as htmx names it."""
    try:
        url = urlsplit(request.headers.get("hx-current-url", "/"))
    except ValueError:
        return "/"
    return f"{url.path or '/'}{'?' + url.query if url.query else ''}"
