"""`adaptry import`: import many adapters at once, from a hub or from a folder of training runs."""

from __future__ import annotations

import click
from click.core import ParameterSource

from adaptry.operations.hf_import.hub_names import is_hub_ref
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import BASE, NAMESPACE, require_usage, required_folder
from adaptry_cli.command import command
from adaptry_cli.connection import creating_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import json_option


@command("import")
@click.argument("source", metavar="DIR|hf:AUTHOR|hf:ORG/NAME", required=False)
@click.option("--search", metavar="TEXT", help="On a hub, only adapters whose name contains TEXT.")
@click.option(
    "--filter", "filters", multiple=True, metavar="TAG", help="Only adapters with this tag; may be repeated."
)
@click.option("--collection", metavar="ORG/SLUG", help="The adapters of a collection.")
@click.option(
    "--to",
    "namespace",
    metavar="NAMESPACE",
    type=NAMESPACE,
    help="The namespace to import into. Default: the namespace on the hub.",
)
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    type=BASE,
    help="The base model that all adapters in DIR were trained on. Default: the one that each config names.",
)
@click.option(
    "--limit",
    type=WholeNumber(1),
    default=1000,
    show_default=True,
    help="Maximum number of repositories to examine.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be imported; import nothing.")
@creating_registry_option
@json_option
@click.pass_context
def import_(
    ctx: click.Context,
    registry: Registry,
    source: str | None,
    search: str | None,
    filters: tuple[str, ...],
    collection: str | None,
    namespace: str | None,
    base: str | None,
    limit: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import adapters from a folder of training runs, or from a hub.

    From DIR, such as ./runs, each training run becomes an adapter, named after the path of its folder, and
    each of its checkpoints a version, in the order of steps, with its results files as evidence. `adaptry
    inspect DIR` shows what is there.

    From a hub, imports a single adapter, all adapters of an author or a collection, or those that --search
    and --filter find. Repositories without an adapter are skipped. HF_ENDPOINT and HF_TOKEN choose the hub
    and the account.

    Adapters that were already imported are skipped, so an interrupted import can be run again. The exit code
    is 1 if an adapter could not be imported.
    """
    if source is not None and not is_hub_ref(source):
        is_of_hub = bool(search or filters or collection)
        is_of_hub |= ctx.get_parameter_source("limit") is ParameterSource.COMMANDLINE
        require_usage(not is_of_hub, "--search, --filter, --collection and --limit apply only to a hub")
        require_usage(
            namespace is not None,
            f"choose the namespace to import into: adaptry import {source} --to NAMESPACE",
        )
        assert namespace is not None
        from adaptry_cli.folder_import import import_from_folder

        folder = required_folder(source)
        ctx.exit(NO if import_from_folder(registry, folder, namespace, base, dry_run, as_json) else 0)
    require_usage(
        base is None, "--base applies only to a folder; the config of an adapter on a hub names its base"
    )
    require_usage(
        bool(source or search or filters or collection),
        "choose what to import: ./DIR, hf:AUTHOR, hf:ORG/NAME, --collection, --search or --filter",
    )
    from adaptry_cli.hub_import import hub_selection, import_from_hub

    selection = hub_selection(source, search, filters, collection, limit)
    ctx.exit(NO if import_from_hub(registry, selection, namespace, dry_run, as_json) else 0)
