"""Numbers as options. `--help` shows `N`, or `1-64` where there is a smallest and a largest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


class WholeNumber(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """A whole number from `minimum` to `maximum`, of at most 63 bits, like a database's. (`Any`:
    click's own.)
    """

    def __init__(self, minimum: int | None = None, maximum: int | None = None) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.name = _range_name(minimum, maximum)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{str(value)[:40]!r} is not a whole number", param, ctx)
        if not _is_inside(number, self.minimum, self.maximum):
            self.fail(f"{number} is not {_range_text(self.minimum, self.maximum)}", param, ctx)
        if number >= 1 << 63:
            self.fail(f"{number} is too large", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name


class DecimalNumber(click.ParamType):  # type: ignore[type-arg]  # as above
    """A finite number from `minimum` to `maximum`. (`Any`: click's own.)"""

    def __init__(self, minimum: float | None = None, maximum: float | None = None) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.name = _range_name(minimum, maximum)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{str(value)[:40]!r} is not a number", param, ctx)
        if not _is_inside(number, self.minimum, self.maximum):
            self.fail(f"{number:g} is not {_range_text(self.minimum, self.maximum)}", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name


def _range_name(minimum: float | None, maximum: float | None) -> str:
    return (
        "N"
        if minimum is None or maximum is None
        else f"{minimum:g}-{maximum:g}"
        if maximum < 1e6
        else f"{minimum:g}-{maximum:.0f}"
    )


def _range_text(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f"from {minimum:g} to {maximum:.10g}"
    return f"{minimum:g} or more" if minimum is not None else f"{maximum:.10g} or less"


def _is_inside(number: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or number >= minimum) and (maximum is None or number <= maximum)


def limit_option(command: Command) -> Command:
    return click.option(
        "--limit",
        type=WholeNumber(1),
        default=50,
        show_default=True,
        help="Maximum number of entries to show.",
    )(command)
