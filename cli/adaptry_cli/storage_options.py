"""Options for the location of a registry's catalog and files, for commands that work on its folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adaptry.core.settings import secret_or_env
from adaptry_cli.arguments import FOLDER

data_option = click.option(
    "--data",
    metavar="DIR",
    type=FOLDER,
    help="The registry's folder. Default: the folder in ADAPTRY_URL, then the embedded registry's.",
)
catalog_option = click.option(
    "--catalog",
    default=lambda: secret_or_env("ADAPTRY_CATALOG"),
    metavar="URL",
    help=(
        "PostgreSQL for the catalog of a new registry, such as postgresql://USER@HOST/DATABASE (default:"
        " SQLite in the folder). The folder of an existing registry records the URL. Also ADAPTRY_CATALOG,"
        " or a file that ADAPTRY_CATALOG_FILE names."
    ),
)
blobs_option = click.option(
    "--blobs",
    envvar="ADAPTRY_BLOBS",
    metavar="URL",
    help=(
        "Where a new registry stores its files: s3://bucket/prefix. Default: the folder. The folder of an"
        " existing registry records it. Also ADAPTRY_BLOBS."
    ),
)


def storage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--data`, `--catalog` and `--blobs`. (`Any`: the arguments are each command's own.)"""
    return data_option(catalog_option(blobs_option(command)))
