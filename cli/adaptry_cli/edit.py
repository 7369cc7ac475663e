"""`adaptry edit`: change an adapter's description, tags or visibility."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry_cli.adapter_options import (
    adapter_edit,
    description_option,
    print_adapter,
    tags_option,
    visibility_option,
)
from adaptry_cli.arguments import NAME, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option


@command()
@click.argument("name", type=NAME)
@description_option
@tags_option
@click.option("--no-tags", is_flag=True, help="Remove all tags.")
@visibility_option
@registry_option
@json_option
def edit(
    registry: Registry,
    name: AdapterName,
    description: str | None,
    tags: tuple[str, ...],
    no_tags: bool,
    is_public: bool | None,
    as_json: bool,
) -> None:
    """Change an adapter's description, tags or visibility.

    Only what you pass is changed. --tag replaces all tags.
    """
    require_usage(not (tags and no_tags), "pass either --tag or --no-tags, not both")
    change = adapter_edit(description, tags if tags or no_tags else None, is_public)
    require_usage(
        change != AdapterEdit(),
        "nothing to change: pass --description, --tag, --no-tags, --public or --private",
    )
    print_adapter(registry.adapters.edit(name, change), as_json)
