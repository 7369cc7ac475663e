"""The part of `HttpRegistry` about what happens: a long wait is several requests, each as long as a server lets one be."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import TypeAdapter

from adaptry.registry import protocol
from adaptry.registry.events import Feed, check_asked
from adaptry.registry.http.connection import READ_SECONDS, Connection, path_of
from adaptry.registry.records import News

_NEWS = TypeAdapter(News)


class RemoteFeed(Feed):
    """`events`."""

    _server: Connection

    def events(
        self, after: int | None = None, limit: int = 50, wait: float = 0.0, about: Sequence[str] = ()
    ) -> News:
        check_asked(after, wait, about)
        until = time.monotonic() + wait
        while True:
            left = max(0.0, until - time.monotonic())
            asked = min(left, protocol.LONGEST_WAIT)
            news = self._server.ask(
                _NEWS,
                "GET",
                path_of("events"),
                query={
                    "after": after,
                    "limit": limit,
                    "wait": round(asked, 3) or None,
                    "about": tuple(about),
                },
                patience=asked + READ_SECONDS,
            )
            is_early = news.seq != after and after is not None
            if news.items or is_early or left <= protocol.LONGEST_WAIT:
                return news
            after = news.seq
