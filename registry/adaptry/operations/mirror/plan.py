"""Plans a mirror run: compares two registries, one adapter at a time, and changes nothing.

New versions are those that the selection's query or names find. Adapters that were mirrored earlier are
compared as well, even if the query no longer finds them, so that their states, metrics and deletions are
mirrored too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, InvalidQuery, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.query import also, parse
from adaptry.core.refs import AdapterName
from adaptry.operations.mirror.apply import MIRRORED
from adaptry.registry.adapters import Adapters
from adaptry.registry.aliases import Aliases
from adaptry.registry.events import Events
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AliasInfo, Value, VersionInfo
from adaptry.registry.versions import Versions

_PAGE = 200


class MirrorSelection(Value):
    """The versions to mirror: those that `query` finds, or all versions of the adapters `names`.

    `aliases`: also point aliases as at the source. `bases`: register bases; with `base_files`, store their
    weights. `parents`: also copy the versions that a version was made from. `delete`: delete mirrored
    adapters that the source no longer has.
    """

    query: str = ""
    names: tuple[AdapterName, ...] = ()
    aliases: bool = False
    bases: bool = True
    base_files: bool = False
    parents: bool = False
    delete: bool = False


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """`copy`: missing versions, in order. `update`: versions whose state or metrics differ. `point`: aliases
    that differ. `delete`: adapters that the source no longer has. `withheld`: missing versions that are
    withdrawn, so cannot be copied."""

    copy: tuple[VersionInfo, ...] = ()
    update: tuple[VersionInfo, ...] = ()
    point: tuple[tuple[AdapterName, AliasInfo], ...] = ()
    delete: tuple[AdapterName, ...] = ()
    withheld: tuple[VersionInfo, ...] = ()


def plan_mirror(
    source: Registry,
    destination: Registry,
    selection: MirrorSelection,
    only: Collection[AdapterName] | None = None,
) -> MirrorPlan:
    """Compares the selection; with `only`, just these adapters of it. Raises `InvalidQuery`, and `NotFound`
    if the source lacks an adapter that was selected by name.
    """
    parse(selection.query)
    if selection.query and selection.names:
        raise InvalidQuery("pass a query or names of adapters, not both")
    wanted = _wanted(source, selection, only)
    names = sorted(wanted.keys() | _mirrored_names(destination.adapters, selection, only))
    found = [_plan_adapter(source, destination, name, wanted.get(name, set()), selection) for name in names]
    return MirrorPlan(
        copy=tuple(version for one in found for version in one.copy),
        update=tuple(version for one in found for version in one.update),
        point=tuple(pointed for one in found for pointed in one.point),
        delete=tuple(name for one in found for name in one.delete),
        withheld=tuple(version for one in found for version in one.withheld),
    )


def _plan_adapter(
    source: Registry,
    destination: Registry,
    name: AdapterName,
    wanted: set[Digest],
    selection: MirrorSelection,
) -> MirrorPlan:
    """The plan for one adapter."""
    try:
        there = {version.digest: version for version in list_versions(source.versions, name)}
    except NotFound:
        return MirrorPlan(delete=(name,))
    here = {version.digest: version for version in _versions_if_any(destination.versions, name)}
    lacking = sorted((there[one] for one in wanted & there.keys() - here.keys()), key=_order)
    return MirrorPlan(
        copy=tuple(version for version in lacking if version.state not in WITHDRAWN),
        update=tuple(
            version for digest, version in there.items() if digest in here and _differs(version, here[digest])
        ),
        point=tuple(_moved_aliases(source.aliases, destination.aliases, name, lacking, here))
        if selection.aliases
        else (),
        withheld=tuple(version for version in lacking if version.state in WITHDRAWN),
    )


def _moved_aliases(
    source_aliases: Aliases,
    destination_aliases: Aliases,
    name: AdapterName,
    lacking: Iterable[VersionInfo],
    here: Collection[Digest],
) -> Iterator[tuple[AdapterName, AliasInfo]]:
    """The source's aliases that point elsewhere here, if their version is here or about to be copied."""
    available = {*here, *(version.digest for version in lacking)}
    at = {one.alias: one.digest for one in destination_aliases.list(name)} if here else {}
    for one in source_aliases.list(name):
        if one.digest in available and at.get(one.alias) != one.digest:
            yield name, one


def require_distinct(source_events: Events, destination_events: Events) -> None:
    """Raises `Invalid` if the two are the same registry, or copies of it: the newest event of one is then
    also in the other.
    """
    end = source_events.read().seq
    last = source_events.read(max(0, end - 1)).items
    here = destination_events.read(max(0, end - 1)).items
    if last and last[0] in here:
        raise Invalid(
            "the source is this registry itself, or an unchanged copy of it: there is nothing to do"
        )


def search_versions(versions: Versions, query: str) -> Iterator[VersionInfo]:
    """All versions that a query finds, newest first."""
    return iter_items(lambda cursor: versions.search(query, cursor, _PAGE))


def ancestors(registry: Registry, versions: Iterable[VersionInfo]) -> Iterator[VersionInfo]:
    """The ancestors of these versions, under every readable name."""
    pending = list(versions)
    seen = {version.digest for version in pending}
    while pending:
        version = pending.pop()
        for parent in registry.commits.tree(version.name, version.digest).parents:
            if parent not in seen:
                seen.add(parent)
                found = list(search_versions(registry.versions, f"digest:{parent} state:*"))
                yield from found
                pending += found


def list_versions(versions: Versions, name: AdapterName) -> Iterator[VersionInfo]:
    """All versions of an adapter, newest first. Raises `NotFound`."""
    return iter_items(lambda cursor: versions.list(name, cursor, _PAGE))


def _wanted(
    source: Registry, selection: MirrorSelection, only: Collection[AdapterName] | None
) -> dict[AdapterName, set[Digest]]:
    found: dict[AdapterName, set[Digest]] = {}
    for name in selection.names:
        found[name] = {version.digest for version in list_versions(source.versions, name)}
    if selection.names:
        return found
    queries = (
        [selection.query]
        if only is None
        else [also(selection.query, f"name:{name}") for name in sorted(only)]
    )
    chosen = [version for query in queries for version in search_versions(source.versions, query)]
    if selection.parents:
        chosen += ancestors(source, chosen)
    for version in chosen:
        found.setdefault(version.name, set()).add(version.digest)
    return found


def mirrored_adapters(destination_adapters: Adapters) -> set[AdapterName]:
    """The adapters that mirroring has created."""
    adapters = iter_items(lambda cursor: destination_adapters.list(None, cursor, _PAGE))
    return {adapter.name for adapter in adapters if MIRRORED in adapter.tags}


def _mirrored_names(
    destination_adapters: Adapters, selection: MirrorSelection, only: Collection[AdapterName] | None
) -> set[AdapterName]:
    """The mirrored adapters to compare in this run."""
    if selection.names:
        return set()
    if only is not None:
        return {name for name in only if _is_mirrored(destination_adapters, name)}
    return mirrored_adapters(destination_adapters)


def _order(version: VersionInfo) -> tuple[bool, int]:
    """Sorts by number, but puts versions with a successor last, so that the successor is copied first."""
    return bool(version.last_state_change and version.last_state_change.successor), version.number


def _is_mirrored(destination_adapters: Adapters, name: AdapterName) -> bool:
    try:
        return MIRRORED in destination_adapters.get(name).tags
    except NotFound:
        return False


def _differs(there: VersionInfo, here: VersionInfo) -> bool:
    """Whether the state or metrics differ, as far as a listing shows them."""
    if there.state != here.state:
        return True
    if there.state != "active" and there.last_state_change and here.last_state_change:
        return there.last_state_change.reason not in here.last_state_change.reason
    return any(here.metrics.get(metric) != value for metric, value in there.metrics.items())


def _versions_if_any(versions: Versions, name: AdapterName) -> list[VersionInfo]:
    try:
        return list(list_versions(versions, name))
    except NotFound:
        return []
