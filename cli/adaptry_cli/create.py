"""`adaptry create`: create an empty adapter."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry_cli.adapter_options import (
    adapter_edit,
    description_option,
    print_adapter,
    tags_option,
    visibility_option,
)
from adaptry_cli.arguments import NAME
from adaptry_cli.command import command
from adaptry_cli.connection import creating_registry_option
from adaptry_cli.output import json_option


@command()
@click.argument("name", type=NAME)
@description_option
@tags_option
@visibility_option
@creating_registry_option
@json_option
def create(
    registry: Registry,
    name: AdapterName,
    description: str | None,
    tags: tuple[str, ...],
    is_public: bool | None,
    as_json: bool,
) -> None:
    """Create an empty adapter.

    A push creates its adapter, so this is only needed to describe one beforehand. The adapter is private
    unless you pass --public. If the name belonged to a deleted adapter, the numbering of versions continues.
    """
    edit = adapter_edit(description, tags or None, is_public)
    print_adapter(registry.adapters.create(name, edit), as_json)
