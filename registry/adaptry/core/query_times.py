"""Times in a query: `2026-01-31`, `2026-01`, `2026-01-31T12:00Z`, or how long ago, such as `7d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from adaptry.core.errors import InvalidQuery

_SPAN = re.compile(r"(\d{1,9})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_MAX_DURATION = timedelta(days=36_500)
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_EXAMPLES = "write 2026-01-31, 2026-01, 2026-01-31T12:00Z, or how long ago, such as 7d (m, h, d, w)"
FIRST = datetime(1, 1, 2, tzinfo=UTC)
LAST = datetime(9999, 12, 30, tzinfo=UTC)
"""The limits of times, so that no zone can push one beyond the calendar."""


def is_span(text: str) -> bool:
    """Whether the text is relative to now."""
    return _SPAN.fullmatch(text) is not None


def period(text: str, now: datetime) -> tuple[datetime, datetime]:
    """The period that a text names: from its first moment to the first moment after it, in UTC; a time of day
    or a span before `now` is a single moment, with both equal. Raises `InvalidQuery`.
    """
    if match := _SPAN.fullmatch(text):
        moment = _before(now, int(match[1]), _UNITS[match[2]], text)
        return moment, moment
    try:
        if match := _DATE.fullmatch(text):
            return _limited(_days(*match.groups()))
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return _limited((moment.astimezone(UTC), moment.astimezone(UTC)))
    except (ValueError, OverflowError):
        raise InvalidQuery(f"not a date: {text[:40]!r} ({_EXAMPLES})") from None


def _before(now: datetime, count: int, unit: timedelta, text: str) -> datetime:
    if count > _MAX_DURATION // unit:
        raise InvalidQuery(f"{text[:40]!r} is more than a hundred years; write a date instead")
    return max(now - count * unit, FIRST)


def _days(year: str, month: str | None, day: str | None) -> tuple[datetime, datetime]:
    """The first moments of a year, month or day, and of the following one."""
    start = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
    if day:
        return start, start + timedelta(days=1)
    if month:
        return start, (start + timedelta(days=31)).replace(day=1)
    return start, start.replace(year=start.year + 1)


def _limited(found: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    return max(found[0], FIRST), min(max(found[1], FIRST), LAST)
