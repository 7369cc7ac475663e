"""`adaptry rename`: give an adapter another name."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry_cli.adapter_options import (
    print_adapter,
)
from adaptry_cli.arguments import NAME
from adaptry_cli.connection import registry_option
from adaptry_cli.out import json_option


@click.command()
@click.argument("name", type=NAME)
@click.argument("to", metavar="NEW", type=NAME)
@registry_option
@json_option
def rename(registry: Registry, name: AdapterName, to: AdapterName, as_json: bool) -> None:
    """Give an adapter another name.

    Versions, aliases and history go along; the old name means nothing from then on.
    """
    print_adapter(registry.adapters.rename(name, to), as_json)
