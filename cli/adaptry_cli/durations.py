"""Durations as people write them: `24h`, `30m`, `7d`, `0`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

from adaptry.core.errors import Invalid

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_SECONDS = 3650 * 86_400


class _Duration(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """(`Any`: click's own.)"""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        return value if isinstance(value, timedelta) else parse_duration(value)


DURATION = _Duration()


def parse_duration(text: str) -> timedelta:
    """Parses a duration such as `24h`. Raises `Invalid`."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    seconds = int(match[1]) * _UNITS[match[2] or "s"] if match else 0
    if not match or (seconds and not match[2]) or seconds > _MAX_SECONDS:
        raise Invalid(f"not a duration: {text[:40]!r} (write 90s, 30m, 24h, 7d, or 0; at most ten years)")
    return timedelta(seconds=seconds)
