"""Limits how slowly a client may send a request's body, so that slow senders do not occupy upload slots."""

from __future__ import annotations

from adaptry_api.errors import HttpProblem

IDLE_SECONDS = 30.0
MIN_BYTES_PER_SECOND = 16 << 10
"""Minimum rate in bytes per second of a body that has taken longer than `IDLE_SECONDS`."""


class BodyPace:
    """Counts the received bytes of one body, and the seconds spent waiting for them. The time that the server
    takes to process them is not counted.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._silent = 0.0
        self._received = 0

    def add(self, size: int, seconds: float) -> None:
        """Counts `size` bytes (may be 0) that arrived after a wait of `seconds`. Raises `HttpProblem` (408)
        if the sender is too slow or silent for too long.
        """
        self._waited += seconds
        self._silent = 0.0 if size else self._silent + seconds
        is_slow = self._waited > IDLE_SECONDS and self._received < MIN_BYTES_PER_SECOND * self._waited
        if is_slow or self._silent >= IDLE_SECONDS:
            raise HttpProblem(
                408,
                f"the request's body arrived too slowly ({self._received:,} bytes in {self._waited:.0f} s)",
            )
        self._received += size
