"""Many adapters of a hub taken over: by author, filter or collection; repeatable, going on where it stopped.

First the plan, which is what the hub has and what is here already; then one by one. What fails is told and
left for the next time; what came from the commit that the hub has now is not fetched again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adaptry.core.errors import AdaptryError, Invalid, NotFound, StorageFull, Unauthenticated
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

_NO_ADAPTER = "holds no adapter that we read"
_HERE = "is here already"


@dataclass(frozen=True, slots=True)
class ImportSelection:
    """Which repositories: those of an author, that a search finds, that have all of the tags, of a
    collection; one by name."""

    ref: HubRef | None = None
    author: str | None = None
    search: str | None = None
    filters: tuple[str, ...] = ()
    collection: str | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class ImportCandidate:
    """A repository and what it is to become. `skipped` says why it is not taken; empty where it is."""

    ref: HubRef
    name: AdapterName | None
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """How one candidate went: what became of it, or the error."""

    candidate: ImportCandidate
    imported: ImportedAdapter | None = None
    error: AdaptryError | None = None


def plan_import(
    versions: Versions, hub: HubClient, selection: ImportSelection, namespace: str | None = None
) -> Iterator[ImportCandidate]:
    """What would be taken over, into `namespace` or the one named as on the hub. Raises as `HubClient`."""
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
            yield ImportCandidate(ref, name, _HERE if _is_here(versions, name, ref) else "")


def run_import(
    registry: Registry,
    hub: HubClient,
    plan: Iterator[ImportCandidate],
    progress: Progress = no_progress,
) -> Iterator[ImportResult]:
    """Takes over what the plan says, and reports each, also skipped ones. An error ends only one.

    Raises `StorageFull` and `Unauthenticated`, which do end it.
    """
    for candidate in plan:
        if candidate.skipped or candidate.name is None:
            yield ImportResult(candidate)
            continue
        try:
            taken = push_from_hub(registry, hub, candidate.ref, candidate.name, progress=progress)
        except (StorageFull, Unauthenticated):
            raise  # the next ones would fare no better
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
        raise Invalid(f"{repository} has no owner on the hub: say the namespace it is to go to")
    return AdapterName.parse(f"{namespace or owner}/{name}")


def _is_here(versions: Versions, name: AdapterName, ref: HubRef) -> bool:
    """Whether the newest version came from this very commit."""
    try:
        found = versions.detail(Ref(name)).manifest.provenance
    except NotFound:
        return False
    return (found.get(REPOSITORY), found.get(COMMIT)) == (ref.repository, ref.revision)
