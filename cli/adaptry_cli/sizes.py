"""Amounts of bytes as options: `5GB`, `512MiB`."""

from __future__ import annotations

from typing import Any

import click

from adaptry.core.byte_sizes import parse_bytes


class _Size(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """(`Any`: click's own.)"""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else parse_bytes(value)


SIZE = _Size()
