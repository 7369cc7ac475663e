"""A proxy for PostgreSQL that cuts a connection around its COMMIT: before the server gets it, during its
execution, or before its response arrives.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from adaptry.testing.fault_proxy import PIECE, FaultDirection, FaultProxy, reset

When = Literal["before", "during", "after"]
_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED\x00"
"""Only writers send it; readers end their transactions by COMMIT too."""
_COMMIT = b"COMMIT\x00"


class CommitProxy(FaultProxy):
    """`cut_commit` cuts the COMMIT that follows this many others; `cuts` counts the COMMITs that were cut."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.cuts = 0
        self._when: When | None = None
        self._passing = 0
        self._swallowing: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut_commit(self, when: When, passing: int = 0) -> None:
        self._when, self._passing = when, passing

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        way: FaultDirection,
    ) -> None:
        try:
            while data := await reader.read(PIECE):
                if way == "down" and to in self._swallowing:
                    raise ConnectionResetError  # the server has committed, and its response is lost
                if way == "up" and _BEGIN in data:
                    self._writers.add(to)
                when = self._strikes(data) if to in self._writers else None
                if when == "before":
                    raise ConnectionResetError
                if when == "after":
                    self._swallowing.add(back)
                to.write(data)
                await to.drain()
                if when == "during":
                    raise ConnectionResetError
            to.write_eof()
        except OSError:
            reset(to)
            reset(back)
        finally:
            self._swallowing.discard(to)
            self._writers.discard(to)

    def _strikes(self, data: bytes) -> When | None:
        if self._when is None or _COMMIT not in data:
            return None
        if self._passing:
            self._passing -= 1
            return None
        when, self._when = self._when, None
        self.cuts += 1
        return when
