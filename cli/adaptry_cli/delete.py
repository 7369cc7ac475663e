"""`adaptry delete`: delete an adapter."""

from __future__ import annotations

import sys

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import NAME, require_usage
from adaptry_cli.connection import cleanup_registry_option
from adaptry_cli.out import format_count, print_out


@click.command()
@click.argument("name", type=NAME)
@click.option("--yes", is_flag=True, help="Do not ask.")
@cleanup_registry_option
def delete(registry: Registry, name: AdapterName, yes: bool) -> None:
    """Delete an adapter.

    It must have no aliases left. Only its namespace can use the name again, and version numbers go on from
    there.
    """
    info = registry.adapters.get(name)
    if not yes:
        require_usage(
            sys.stdin.isatty(),
            f"deleting {name} takes {format_count(info.versions, 'version')} away; --yes says so",
        )
        click.confirm(f"Delete {name} with {format_count(info.versions, 'version')}?", abort=True, err=True)
    registry.adapters.delete(name)
    print_out(str(name))
