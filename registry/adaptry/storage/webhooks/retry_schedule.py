"""The retry schedule of messages: at most eight attempts within a day, at growing intervals with jitter.

Pure functions of values; the caller passes times and the random number.
"""

from __future__ import annotations

from datetime import datetime, timedelta

PAUSES = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 25200.0, 28800.0)
"""Seconds between one try and the next: 22.6 hours together."""
MAX_ATTEMPTS = len(PAUSES) + 1
EXPIRY = timedelta(hours=24)
HTTP_GONE = 410
"""The status with which a receiver refuses further messages."""
_JITTER = 0.85, 1.05


def next_try(attempt: int, created_at: datetime, now: datetime, random: float) -> datetime | None:
    """The time of the next attempt after attempt number `attempt` (from 1) failed; None if it was the last.

    `random` is from 0 to 1. All attempts are within a day of `created_at`.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    low, high = _JITTER
    at = now + timedelta(seconds=PAUSES[attempt - 1] * (low + (high - low) * random))
    return at if at < created_at + EXPIRY else None
