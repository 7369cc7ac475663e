"""The events role over HTTP. A long wait consists of several requests, each up to the server's limit."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import protocol
from adaptry.registry.events import Events, check_events_query
from adaptry.registry.http.connection import READ_SECONDS, Connection, api_path
from adaptry.registry.records import EventBatch

_EVENT_BATCH = TypeAdapter(EventBatch)


@dataclass(frozen=True)
class HttpEvents(Events):
    """The events of a server's registry."""

    server: Connection

    def read(
        self, after: int | None = None, limit: int = 50, wait: float = 0.0, adapters: Sequence[str] = ()
    ) -> EventBatch:
        check_events_query(after, wait, adapters)
        until = time.monotonic() + wait
        while True:
            left = max(0.0, until - time.monotonic())
            seconds = min(left, protocol.MAX_WAIT)
            news = self.server.request_value(
                _EVENT_BATCH,
                "GET",
                api_path("events"),
                query={
                    "after": after,
                    "limit": limit,
                    "wait": round(seconds, 3) or None,
                    "adapter": tuple(adapters),
                },
                timeout=seconds + READ_SECONDS,
            )
            is_early = news.seq != after and after is not None
            if news.items or is_early or left <= protocol.MAX_WAIT:
                return news
            after = news.seq
