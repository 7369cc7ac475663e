"""How a server stops: it reports not ready, ends requests that only wait, finishes running ones, accepts no
new ones.

After SIGTERM, `/readyz` answers 503. For `notice` seconds, all other requests are still answered, so that a
load balancer can notice and send requests elsewhere. Then the server accepts no more connections, event
streams end, and running requests have half a minute to finish. A second signal ends the notice at once.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DRAINING = "adaptry_draining"
"""Key of the server's `DrainState` in the state that uvicorn gives its protocols."""


class DrainState:
    """Whether the server is about to stop (`is_ready` no longer), and whether waits end (`has_begun`)."""

    def __init__(self) -> None:
        self.is_ready = True
        self.has_begun = False
        self._enders: list[Callable[[], None]] = []

    def on_begin(self, end: Callable[[], None]) -> None:
        """`end` is called in the event loop when waiting requests are to end."""
        self._enders.append(end)

    def begin(self) -> None:
        """Ends waiting requests. Called in the event loop; a second call does nothing."""
        self.is_ready = False
        if not self.has_begun:
            self.has_begun = True
            for end in self._enders:
                end()

    @contextmanager
    def delay_sigterm(self, notice: float) -> Iterator[None]:
        """Delays SIGTERM by the notice period during the block. (Only the main thread gets signals.)"""
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
