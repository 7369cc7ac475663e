"""Imports many adapters from a hub, by author, filter or collection. A repeated run continues where it
stopped.

First it plans, by comparing the hub with the registry; then it imports one adapter after another. Failures
are reported and retried in the next run. Adapters whose commit on the hub is unchanged are not downloaded
again.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.errors import AdaptryError, Invalid, NotFound, StorageFull, Unauthenticated
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.hf_import.adapters import (
    COMMIT,
    REPOSITORY,
    ImportedAdapter,
    adapter_format,
    push_from_hub,
)
from adaptry.operations.hf_import.hub_client import HubClient, HubRepoInfo
from adaptry.operations.hf_import.hub_names import HubRef
from adaptry.registry.interface import Registry
from adaptry.registry.versions import Versions

_NO_ADAPTER = "has no adapter in a known format"
_ALREADY_IMPORTED = "is already imported"


@dataclass(frozen=True, slots=True)
class ImportSelection:
    """The repositories to import: those of an author, found by a search, with all of the tags, of a
    collection, or one by name.
    """

    ref: HubRef | None = None
    author: str | None = None
    search: str | None = None
    filters: tuple[str, ...] = ()
    collection: str | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class ImportCandidate:
    """A repository and its name in the registry. `skipped` is the reason why it is not imported, or empty."""

    ref: HubRef
    name: AdapterName | None
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result for one candidate: the imported adapter, or the error."""

    candidate: ImportCandidate
    imported: ImportedAdapter | None = None
    error: AdaptryError | None = None


def plan_import(
    versions: Versions, hub: HubClient, selection: ImportSelection, namespace: str | None = None
) -> Iterator[ImportCandidate]:
    """The candidates, for `namespace` or the owner's name on the hub. Raises the errors of `HubClient`."""
    for listed in _listed(hub, selection):
        ref = HubRef(listed.repository, listed.commit)
        try:
            name = _name(listed.repository, namespace)
        except Invalid as error:
            yield ImportCandidate(ref, None, error.message)
            continue
        if adapter_format(listed.files) is None:
            yield ImportCandidate(ref, name, _NO_ADAPTER)
        else:
            yield ImportCandidate(ref, name, _ALREADY_IMPORTED if _is_here(versions, name, ref) else "")


def run_import(
    registry: Registry,
    hub: HubClient,
    plan: Iterator[ImportCandidate],
    progress: Progress = no_progress,
) -> Iterator[ImportResult]:
    """Imports the plan's candidates and yields the result of each, including skipped ones. An error affects
    only its candidate.

    Raises `StorageFull` and `Unauthenticated`, which end the run.
    """
    for candidate in plan:
        if candidate.skipped or candidate.name is None:
            yield ImportResult(candidate)
            continue
        try:
            taken = push_from_hub(registry, hub, candidate.ref, candidate.name, progress=progress)
        except (StorageFull, Unauthenticated):
            raise  # all others would fail too
        except AdaptryError as error:
            yield ImportResult(candidate, error=error)
        else:
            yield ImportResult(candidate, taken)


def _listed(hub: HubClient, selection: ImportSelection) -> Iterator[HubRepoInfo]:
    if selection.ref is not None:
        yield _one(hub, selection.ref)
    elif selection.collection is not None:
        for repository in hub.collection(selection.collection):
            yield _one(hub, HubRef(repository))
    else:
        yield from hub.list_models(selection.author, selection.search, selection.filters, selection.limit)


def _one(hub: HubClient, ref: HubRef) -> HubRepoInfo:
    revision = hub.resolve(ref)
    return HubRepoInfo(revision.repository, revision.commit, tuple(sorted(revision.files)))


def _name(repository: str, namespace: str | None) -> AdapterName:
    owner, slash, name = repository.rpartition("/")
    if not slash and namespace is None:
        raise Invalid(f"{repository} has no owner on the hub: pass the namespace to import it into")
    return AdapterName.parse(f"{namespace or owner}/{name}")


def _is_here(versions: Versions, name: AdapterName, ref: HubRef) -> bool:
    """Whether the newest version was imported from this commit."""
    try:
        found = versions.detail(Ref(name)).manifest.provenance
    except NotFound:
        return False
    return (found.get(REPOSITORY), found.get(COMMIT)) == (ref.repository, ref.revision)
