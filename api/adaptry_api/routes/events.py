"""Events: by long polling, or as a stream of server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header, Query, Request, Response
from starlette.responses import StreamingResponse

from adaptry.core.errors import AdaptryError, Invalid
from adaptry.core.identity import Identity
from adaptry.registry import protocol
from adaptry.registry.events import NameFilter, check_events_query
from adaptry.registry.records import EventBatch
from adaptry.storage.catalog.cursors import check_limit
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import Caller, app_state_of, guarded_router
from adaptry_api.event_stream import Identify
from adaptry_api.routes.parameters import Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/events", "events")
STREAM = "text/event-stream"
_RETRY = 2000  # milliseconds after which a browser connects again
_BATCH = 200


@ROUTES.get(
    "",
    response_model=EventBatch,
    responses={200: {"content": {STREAM: {"schema": {"type": "string"}}}}},
)
async def list_events(
    request: Request,
    identity: Caller,
    after: Annotated[
        int | None,
        Query(description="The number of the last event received. Without it, only new events are sent."),
    ] = None,
    limit: Limit = 50,
    wait: Annotated[
        float,
        Query(
            description="Seconds to wait for the first event.",
            json_schema_extra={"maximum": protocol.MAX_WAIT},
        ),
    ] = 0.0,
    adapter: Annotated[list[str], Query(description="Globs of adapter names (acme/*).")] = [],  # noqa: B006
    about: Annotated[  # the former name, which running workers send until they are upgraded
        list[str], Query(include_in_schema=False)
    ] = [],  # noqa: B006
    last_event_id: Annotated[
        str | None, Header(description="Sent instead of `after` by a client that reconnects to a stream.")
    ] = None,
) -> Response | EventBatch:
    """List events, oldest first, or stream them.

    The events are about adapters that the caller may read. Pass the response's `seq` as `after` to get the
    next events; `wait` makes the request wait for one. With `Accept: text/event-stream`, the response is a
    stream of server-sent events, each with its number as `id`. It ends only when the caller disconnects, the
    token expires or the server stops.
    """
    state, shown = app_state_of(request), request.headers.get("authorization")

    async def identify() -> Identity:
        return await state.authenticator.identify(shown)

    names = (*adapter, *about)
    if not _wants_stream(request):
        check_limit(limit)
        check_events_query(after, wait, names)
        return await state.event_broadcaster.next_events(
            identify, after, limit, min(wait, protocol.MAX_WAIT), NameFilter(names)
        )
    begin = _number(last_event_id) if last_event_id is not None else after
    check_events_query(begin, 0, names)
    return StreamingResponse(
        _stream(state, identify, begin, NameFilter(names)),
        media_type=STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(
    state: AppState, identify: Identify, after: int | None, names: NameFilter
) -> AsyncIterator[bytes]:
    """Streams events until the caller disconnects, the token expires, or the server stops; a new connection
    can resume where this one ended.
    """
    yield b"retry: %d\n\n" % _RETRY
    wait = 0.0
    while not state.draining.has_begun:
        try:
            news = await state.event_broadcaster.next_events(identify, after, _BATCH, wait, names)
        except AdaptryError:
            return
        after, wait = news.seq, state.heartbeat
        yield state.event_broadcaster.texts.of(news)


def _wants_stream(request: Request) -> bool:
    return STREAM in request.headers.get("accept", "")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Invalid("Last-Event-ID must be the number of the last event received")
    return int(text)
