"""Options and output that commands for creating and editing adapters share."""

from __future__ import annotations

import click

from adaptry.registry.records import AdapterEdit, AdapterInfo
from adaptry_cli.arguments import validate_options
from adaptry_cli.output import print_answer

description_option = click.option("--description", help="A description of the adapter.")


tags_option = click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated.")


visibility_option = click.option(
    "--public/--private",
    "is_public",
    default=None,
    help="Who may read it: everyone, or only tokens of its namespace.",
)


def adapter_edit(
    description: str | None, tags: tuple[str, ...] | None, is_public: bool | None
) -> AdapterEdit:
    visibility = None if is_public is None else "public" if is_public else "private"
    return validate_options(AdapterEdit, description=description, tags=tags, visibility=visibility)


def print_adapter(info: AdapterInfo, as_json: bool) -> None:
    print_answer(info, str(info.name), as_json)
