"""`adaptry delete`: delete an adapter."""

from __future__ import annotations

import sys

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import NAME, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import cleanup_registry_option
from adaptry_cli.output import format_count, json_option, print_answer


@command()
@click.argument("name", type=NAME)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@cleanup_registry_option
@json_option
def delete(registry: Registry, name: AdapterName, yes: bool, as_json: bool) -> None:
    """Delete an adapter and all of its versions.

    Remove its aliases first. Only its namespace can use the name again, and version numbers continue from
    there.
    """
    info = registry.adapters.get(name)
    if not yes:
        require_usage(
            sys.stdin.isatty(),
            f"this deletes {name} with {format_count(info.versions, 'version')}; pass --yes to confirm",
        )
        click.confirm(f"Delete {name} with {format_count(info.versions, 'version')}?", abort=True, err=True)
    registry.adapters.delete(name)
    print_answer({"deleted": str(name)}, str(name), as_json)
