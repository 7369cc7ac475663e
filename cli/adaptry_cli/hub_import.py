"""`adaptry import`: import many adapters from a hub at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adaptry.operations.hf_import.hub_names import HubRef
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import NAMESPACE, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import creating_registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.out import format_count, json_option, print_err, print_json, print_out, progress

if TYPE_CHECKING:
    from adaptry.operations.hf_import.bulk_import import ImportResult, ImportSelection


@command("import")
@click.argument("source", metavar="hf:AUTHOR|hf:ORG/NAME", required=False)
@click.option("--search", metavar="TEXT", help="Only adapters whose name contains TEXT.")
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
    limit: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import adapters from a hub.

    Imports all adapters of an author, one by name, those of a collection, or those that --search and --filter
    find. Repositories without an adapter are skipped. A repository whose newest commit is already imported is
    not fetched again, so an interrupted import can be run again. HF_ENDPOINT and HF_TOKEN choose the hub and
    the account. The exit code is 1 if an adapter could not be imported.
    """
    from adaptry.operations.hf_import import bulk_import
    from adaptry.operations.hf_import.hub_client import open_hub

    require_usage(
        bool(source or search or filters or collection),
        "choose what to import: hf:AUTHOR, hf:ORG/NAME, --collection, --search or --filter",
    )
    hub = open_hub()
    plan = bulk_import.plan_import(
        registry.versions, hub, _selection(source, search, filters, collection, limit), namespace
    )
    shown: list[dict[str, object]] = []
    taken = failed = passed = 0
    with progress() as bars:
        for done in (
            map(bulk_import.ImportResult, plan)
            if dry_run
            else bulk_import.run_import(registry, hub, plan, progress=bars)
        ):
            shown.append(_shown(done))
            failed += done.error is not None
            passed += bool(done.candidate.skipped)
            taken += done.error is None and not done.candidate.skipped
            if not as_json:
                _print_outcome(done)
    if as_json:
        print_json(shown)
    print_err(
        f"{format_count(taken, 'adapter')} {'to import' if dry_run else 'imported'}, {passed} skipped,"
        f" {failed} failed"
    )
    ctx.exit(NO if failed else 0)


def _selection(
    source: str | None, search: str | None, filters: tuple[str, ...], collection: str | None, limit: int
) -> ImportSelection:
    """One word after `hf:` is an author, two are a repository."""
    from adaptry.operations.hf_import.bulk_import import ImportSelection

    if source is None:
        return ImportSelection(search=search, filters=filters, collection=collection, limit=limit)
    require_usage(collection is None, "pass hf:… or --collection, not both")
    ref = HubRef.parse(source)
    if "/" not in ref.repository:
        require_usage(
            ref.revision is None,
            f"{source} is an author; only a repository (hf:ORG/NAME@REVISION) has revisions",
        )
        return ImportSelection(author=ref.repository, search=search, filters=filters, limit=limit)
    require_usage(
        not (search or filters),
        f"{source} is one repository; --search and --filter are for an author's repositories",
    )
    return ImportSelection(ref=ref)


def _print_outcome(done: ImportResult) -> None:
    ref = f"hf:{done.candidate.ref.repository}"
    if done.error:
        print_err(f"{ref} failed: {done.error.message}")
    elif done.candidate.skipped:
        print_err(f"{ref} {done.candidate.skipped}")
    elif done.imported:
        version = done.imported.pushed.version
        print_out(f"{version.label} {version.digest}")
    else:
        print_out(f"{ref} {done.candidate.name}")


def _shown(done: ImportResult) -> dict[str, object]:
    """For programs: the repository and commit, the adapter, and the outcome."""
    version = done.imported.pushed.version if done.imported else None
    return {
        "repository": done.candidate.ref.repository,
        "commit": done.candidate.ref.revision,
        "name": str(done.candidate.name) if done.candidate.name else None,
        "number": version.number if version else None,
        "digest": str(version.digest) if version else None,
        "passed_over": done.candidate.skipped or None,
        "error": done.error.message if done.error else None,
    }
