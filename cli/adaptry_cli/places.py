"""Where a registry keeps what, as options of the commands that work on its folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adaptry.settings import said


def catalog_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--catalog`. (`Any`: the arguments are each command's own.)"""
    return click.option(
        "--catalog",
        default=lambda: said("ADAPTRY_CATALOG"),
        metavar="URL",
        help="Where a new registry has its rows: postgresql://USER@HOST/DATABASE, else SQLite in the folder, which "
        "remembers it. Also ADAPTRY_CATALOG, or a file with it in ADAPTRY_CATALOG_FILE.",
    )(command)
