"""`adaptry rename`: rename an adapter."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry_cli.adapter_options import (
    print_adapter,
)
from adaptry_cli.arguments import NAME
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option


@command()
@click.argument("name", type=NAME)
@click.argument("to", metavar="NEW", type=NAME)
@registry_option
@json_option
def rename(registry: Registry, name: AdapterName, to: AdapterName, as_json: bool) -> None:
    """Rename an adapter.

    Versions, aliases and history move with it. The old name is free afterwards.
    """
    print_adapter(registry.adapters.rename(name, to), as_json)
