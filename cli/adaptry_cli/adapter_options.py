"""`adaptry create`, `edit`, `rename` and `delete`: adapters as names with a description, not their versions."""

from __future__ import annotations

import sys

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, AdapterInfo
from adaptry_cli.arguments import NAME, require_usage, validate_options
from adaptry_cli.connection import creating_registry_option, freeing_registry_option, registry_option
from adaptry_cli.out import format_count, json_option, print_answer, print_out

_description = click.option("--description", help="What the adapter is for.")
_tags = click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated.")
_visibility = click.option(
    "--public/--private", "is_public", default=None, help="Who may read it: everybody, or its namespace."
)


@click.command()
@click.argument("name", type=NAME)
@_description
@_tags
@_visibility
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

    A push creates its adapter by itself; this is for describing one beforehand. It is private unless --public is
    given. The name of a deleted adapter goes on with its numbering.
    """
    edit = _edit(description, tags or None, is_public)
    _answer(registry.create_adapter(name, edit), as_json)


@click.command()
@click.argument("name", type=NAME)
@_description
@_tags
@click.option("--no-tags", is_flag=True, help="Take all tags away.")
@_visibility
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

    What is not given stays as it is; tags that are given replace those there were.
    """
    require_usage(not (tags and no_tags), "--tag and --no-tags contradict each other")
    change = _edit(description, tags if tags or no_tags else None, is_public)
    require_usage(
        change != AdapterEdit(),
        "nothing to change: give --description, --tag, --no-tags, --public or --private",
    )
    _answer(registry.edit_adapter(name, change), as_json)


@click.command()
@click.argument("name", type=NAME)
@click.argument("to", metavar="NEW", type=NAME)
@registry_option
@json_option
def rename(registry: Registry, name: AdapterName, to: AdapterName, as_json: bool) -> None:
    """Give an adapter another name.

    Versions, aliases and history go along; the old name means nothing from then on.
    """
    _answer(registry.rename_adapter(name, to), as_json)


@click.command()
@click.argument("name", type=NAME)
@click.option("--yes", is_flag=True, help="Do not ask.")
@freeing_registry_option
def delete(registry: Registry, name: AdapterName, yes: bool) -> None:
    """Delete an adapter.

    It must have no aliases left. Only its namespace can use the name again, and version numbers go on from there.
    """
    info = registry.adapter(name)
    if not yes:
        require_usage(
            sys.stdin.isatty(),
            f"deleting {name} takes {format_count(info.versions, 'version')} away; --yes says so",
        )
        click.confirm(f"Delete {name} with {format_count(info.versions, 'version')}?", abort=True, err=True)
    registry.delete_adapter(name)
    print_out(str(name))


def _edit(description: str | None, tags: tuple[str, ...] | None, is_public: bool | None) -> AdapterEdit:
    visibility = None if is_public is None else "public" if is_public else "private"
    return validate_options(AdapterEdit, description=description, tags=tags, visibility=visibility)


def _answer(info: AdapterInfo, as_json: bool) -> None:
    print_answer(info, str(info.name), as_json)
