"""Renamed options: former names still work, but help, error messages and completion do not mention them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class RenamedOption(click.Option):
    """`click.option("--new", cls=RenamedOption, former="--old")`, or a tuple of former names. (`Any`:
    click's options.)
    """

    def __init__(self, declarations: Sequence[str], *, former: str | tuple[str, ...], **options: Any) -> None:
        super().__init__(declarations, **options)
        self.former = (former,) if isinstance(former, str) else former

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown = self.opts
        self.opts = [*shown, *self.former]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown
