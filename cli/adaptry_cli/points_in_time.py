"""Points in time as options: `2026-11-28`, `2026-11-28T18:00Z`, or how long ago: `24h`, `7d`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from adaptry.core.errors import Invalid
from adaptry_cli.durations import parse_duration


class _PointInTime(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """(`Any`: click's own.)"""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        return value if isinstance(value, datetime) else _parse(value)


POINT_IN_TIME = _PointInTime()


def _parse(text: str) -> datetime:
    """Parses a time, in the user's own time zone unless the text names one. Raises `Invalid`."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now(UTC) - parse_duration(text)
    except Invalid as error:
        raise Invalid(
            f"not a time: {text[:40]!r} (write 2026-11-28, 2026-11-28T18:00Z, or how long ago: 30m, 24h, 7d)"
        ) from error
