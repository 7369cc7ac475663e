"""`adaptry copy`: copy a version, or a whole adapter, to another name or registry."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName, Latest, Ref, parse_alias
from adaptry.operations import transfer as verbs
from adaptry.operations.empty_adapter import explain_empty_adapter
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions
from adaptry_cli.arguments import NAME, REF, require_usage, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import connect_to, registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import json_option, progress
from adaptry_cli.push import print_pushed
from adaptry_cli.warnings import print_state_warning


@command()
@click.argument("ref", type=REF)
@click.argument("name", type=NAME, required=False)
@click.option("--to-registry", metavar="URL|DIR", help="The registry to copy into. Default: the same one.")
@click.option("--alias", metavar="ALIAS", help="An alias to point at the copy.")
@click.option(
    "--all-versions",
    is_flag=True,
    help="Copy all versions of the adapter, with their numbers, metrics and states.",
)
@registry_option
@json_option
def copy(
    registry: Registry,
    ref: Ref,
    name: AdapterName | None,
    to_registry: str | None,
    alias: str | None,
    all_versions: bool,
    as_json: bool,
) -> None:
    """Copy a version to another name or registry.

    The copy has the same files and digest. Without NAME, it keeps its name. With --all-versions, the whole
    adapter is copied to another registry. `adaptry mirror` copies the versions that a query finds, and can
    keep following them.
    """
    require_usage(name is not None or to_registry is not None, "pass a NAME, --to-registry, or both")
    if all_versions:
        is_whole = isinstance(ref.selector, Latest) and name is None and alias is None
        require_usage(
            is_whole, "--all-versions takes the name of an adapter, and takes no NAME and no --alias"
        )
        _copy_whole(registry, ref.name, to_registry, as_json)
        return
    destination = connect_to(to_registry, create_missing=True) if to_registry else registry
    options = validate_options(PushOptions, alias=parse_alias(alias) if alias else None)
    with explain_empty_adapter(registry.adapters, ref), progress() as bars:
        print_state_warning(registry.versions.get(ref))
        pushed = verbs.copy(registry, ref, destination, name or ref.name, options=options, progress=bars)
    print_pushed(pushed, as_json)


def _copy_whole(registry: Registry, name: AdapterName, to_registry: str | None, as_json: bool) -> None:
    from adaptry.operations.mirror.plan import MirrorSelection
    from adaptry.operations.mirror.sync import sync_once
    from adaptry_cli.mirror import print_sync_result

    with progress() as bars:
        followed = sync_once(
            registry,
            connect_to(to_registry, create_missing=True),
            MirrorSelection(names=(name,)),
            progress=bars,
        )
    print_sync_result(followed, as_json)
    click.get_current_context().exit(NO if followed.failures else 0)
