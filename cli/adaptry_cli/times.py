"""Moments as people read them: `2 h ago` on a terminal, the exact time with its zone everywhere else.

What is written into a file or a pipe is read later, when `2 h ago` would be false. `--exact-times` (or
ADAPTRY_EXACT_TIMES=1) shows exact times on a terminal too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

_IS_EXACT = "adaptry.exact_times"
_UNITS = ((86_400 * 365, "year"), (86_400 * 30, "month"), (86_400, "day"), (3600, "h"), (60, "min"))


def exact_times_option(command: Command) -> Command:
    """Adds `--exact-times`, which `format_when` obeys."""
    return click.option(
        "--exact-times",
        is_flag=True,
        expose_value=False,
        envvar="ADAPTRY_EXACT_TIMES",
        callback=_remember,
        help="Show exact times with their zone instead of '2 h ago'. Output to files and pipes always has"
        " them.",
    )(command)


def format_when(moment: datetime) -> str:
    """Relative on a terminal, unless `--exact-times` is given; else exact."""
    context = click.get_current_context(silent=True)
    is_exact = context is not None and context.meta.get(_IS_EXACT, False)
    if is_exact or not sys.stdout.isatty():
        return format_exact(moment)
    return format_relative(moment, datetime.now(UTC))


def format_exact(moment: datetime) -> str:
    """`2026-11-28 10:04:09+01:00`, in the reader's own time zone."""
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")


def format_relative(moment: datetime, now: datetime) -> str:
    """`just now`, `5 min ago`, `3 days ago`, `in 89 days`."""
    seconds = (now - moment).total_seconds()
    for unit, name in _UNITS:
        if abs(seconds) >= unit:
            count = int(abs(seconds) // unit)
            span = f"{count} {name}" + ("s" if count != 1 and name in ("day", "month", "year") else "")
            return f"{span} ago" if seconds > 0 else f"in {span}"
    return "just now" if seconds >= 0 else "in a moment"


def _remember(context: click.Context, option: click.Parameter, is_exact: bool) -> None:
    context.meta[_IS_EXACT] = is_exact
