"""How a server stops: it says that it will, ends what only waits, finishes what runs, and takes nothing new.

On SIGTERM `/readyz` says no from that moment on. For the `notice` that was asked for, everything else is
still answered, so that a balancer sees it and sends its requests elsewhere; then no connection is taken any
more, streams of events end, and requests that run have half a minute. A second signal cuts the notice short.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DRAINING = "adaptry_draining"
"""Where, in the state that uvicorn gives its protocols, the server's `DrainState` is."""


class DrainState:
    """Whether the server is about to stop (`is_ready` no longer), and whether waits end (`has_begun`)."""

    def __init__(self) -> None:
        self.is_ready = True
        self.has_begun = False
        self._enders: list[Callable[[], None]] = []

    def on_begin(self, end: Callable[[], None]) -> None:
        """`end` is called, in the event loop, when what waits is to end."""
        self._enders.append(end)

    def begin(self) -> None:
        """Ends what waits. Called in the event loop; again is nothing."""
        self.is_ready = False
        if not self.has_begun:
            self.has_begun = True
            for end in self._enders:
                end()

    @contextmanager
    def delay_sigterm(self, notice: float) -> Iterator[None]:
        """Within the block, SIGTERM takes effect after the notice. (Only the main thread gets signals.)"""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)

        def on_term(number: int, frame: FrameType | None) -> None:
            was_ready, self.is_ready = self.is_ready, False
            if callable(stop):
                if was_ready and notice:
                    loop.call_soon_threadsafe(loop.call_later, notice, stop, number, None)
                else:
                    stop(number, frame)

        signal.signal(signal.SIGTERM, on_term)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, stop)
