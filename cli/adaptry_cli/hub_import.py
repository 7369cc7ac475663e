"""Imports adapters from a hub, for `adaptry import hf:AUTHOR`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.operations.hf_import.hub_names import HubRef
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import require_usage
from adaptry_cli.output import format_count, print_err, print_json, print_out, progress

if TYPE_CHECKING:
    from adaptry.operations.hf_import.bulk_import import ImportResult, ImportSelection


def import_from_hub(
    registry: Registry, selection: ImportSelection, namespace: str | None, dry_run: bool, as_json: bool
) -> int:
    """Imports what is selected, and prints each result; returns how many failed."""
    from adaptry.operations.hf_import import bulk_import
    from adaptry.operations.hf_import.hub_client import open_hub

    hub = open_hub()
    plan = bulk_import.plan_import(registry.versions, hub, selection, namespace)
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
    return failed


def hub_selection(
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
    """The result as JSON for programs: the repository and commit, the adapter, and the outcome."""
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
