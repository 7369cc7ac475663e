"""Numbers as options. `--help` shows `N`, or `1-64` where there is a smallest and a largest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


class WholeNumber(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """A whole number from `least` to `most`, of at most 63 bits, like a database's. (`Any`: click's own.)"""

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self.least, self.most = least, most
        self.name = _range_name(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{str(value)[:40]!r} is not a whole number", param, ctx)
        if not _is_inside(number, self.least, self.most):
            self.fail(f"{number} is not {_range_text(self.least, self.most)}", param, ctx)
        if number >= 1 << 63:
            self.fail(f"{number} is too large", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name


class DecimalNumber(click.ParamType):  # type: ignore[type-arg]  # as above
    """A finite number from `least` to `most`. (`Any`: click's own.)"""

    def __init__(self, least: float | None = None, most: float | None = None) -> None:
        self.least, self.most = least, most
        self.name = _range_name(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{str(value)[:40]!r} is not a number", param, ctx)
        if not _is_inside(number, self.least, self.most):
            self.fail(f"{number:g} is not {_range_text(self.least, self.most)}", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name


def _range_name(least: float | None, most: float | None) -> str:
    return (
        "N"
        if least is None or most is None
        else f"{least:g}-{most:g}"
        if most < 1e6
        else f"{least:g}-{most:.0f}"
    )


def _range_text(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"from {least:g} to {most:.10g}"
    return f"{least:g} or more" if least is not None else f"{most:.10g} or less"


def _is_inside(number: float, least: float | None, most: float | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def limit_option(command: Command) -> Command:
    return click.option(
        "--limit",
        type=WholeNumber(1),
        default=50,
        show_default=True,
        help="Maximum number of entries to show.",
    )(command)
