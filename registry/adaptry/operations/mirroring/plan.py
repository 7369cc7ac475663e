"""What a mirror lacks: two registries compared, an adapter at a time, and nothing changed.

Found is what a query finds, or what is named; followed is also what a mirror made earlier, whatever finds it now: its
states, its metrics and its end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, InvalidQuery, NotFound
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.query import parse
from adaptry.core.refs import AdapterName
from adaptry.operations.mirroring.apply import MIRRORED
from adaptry.registry.interface import Registry
from adaptry.registry.paging import iter_items
from adaptry.registry.records import AliasInfo, Value, VersionInfo

_PAGE = 200


class MirrorSelection(Value):
    """What is mirrored: what `query` finds, or all versions of the adapters `names`.

    `aliases` are pointed as they are there; `bases` are registered, and with `base_files` stored; `parents`: what a version was made
    from comes along; `delete`: adapters that a mirror made and that are gone there are deleted here.
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
    """`copy` in the order in which they should come; `update`: what is here and not as it is there; `point`: aliases that are elsewhere there;
    `delete`: what is gone there; `withheld`: what nobody is given the files of, so that it cannot be copied."""

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
    """Compares; all that is chosen, or of these adapters `only`. Raises `InvalidQuery`, and `NotFound` for an adapter that was named and is not there."""
    parse(selection.query)
    if selection.query and selection.names:
        raise InvalidQuery("give a query or names of adapters, not both")
    wanted = _wanted(source, selection, only)
    names = sorted(wanted.keys() | _mirrored_names(destination, selection, only))
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
    """What of one adapter is not here, or not as it is there."""
    try:
        there = {version.digest: version for version in list_versions(source, name)}
    except NotFound:
        return MirrorPlan(delete=(name,))
    here = {version.digest: version for version in _versions_if_any(destination, name)}
    lacking = sorted((there[one] for one in wanted & there.keys() - here.keys()), key=_order)
    return MirrorPlan(
        copy=tuple(version for version in lacking if version.state not in WITHDRAWN),
        update=tuple(
            version for digest, version in there.items() if digest in here and _differs(version, here[digest])
        ),
        point=tuple(_moved_aliases(source, destination, name, lacking, here)) if selection.aliases else (),
        withheld=tuple(version for version in lacking if version.state in WITHDRAWN),
    )


def _moved_aliases(
    source: Registry,
    destination: Registry,
    name: AdapterName,
    lacking: Iterable[VersionInfo],
    here: Collection[Digest],
) -> Iterator[tuple[AdapterName, AliasInfo]]:
    """The aliases that point there at what is here, or comes, and here do not."""
    coming = {*here, *(version.digest for version in lacking)}
    at = {one.alias: one.digest for one in destination.aliases(name)} if here else {}
    for one in source.aliases(name):
        if one.digest in coming and at.get(one.alias) != one.digest:
            yield name, one


def require_distinct(source: Registry, destination: Registry) -> None:
    """Raises `Invalid` where both are one registry, by whatever addresses, or exact copies of one: its newest event is also the other's."""
    end = source.events().seq
    last = source.events(max(0, end - 1)).items
    here = destination.events(max(0, end - 1)).items
    if last and last[0] in here:
        raise Invalid(
            "what is to be mirrored is this very registry, or a copy of it in which nothing has happened since: there is "
            "nothing to do"
        )


def search_versions(registry: Registry, query: str) -> Iterator[VersionInfo]:
    """Everything that a query finds, newest first."""
    return iter_items(lambda cursor: registry.search(query, cursor, _PAGE))


def ancestors(registry: Registry, versions: Iterable[VersionInfo]) -> Iterator[VersionInfo]:
    """The versions that these were made from, and those before them, under every name that may be read."""
    pending = list(versions)
    seen = {version.digest for version in pending}
    while pending:
        version = pending.pop()
        for parent in registry.tree(version.name, version.digest).parents:
            if parent not in seen:
                seen.add(parent)
                found = list(search_versions(registry, f"digest:{parent} state:*"))
                yield from found
                pending += found


def list_versions(registry: Registry, name: AdapterName) -> Iterator[VersionInfo]:
    """All versions of an adapter, newest first. Raises `NotFound`."""
    return iter_items(lambda cursor: registry.versions(name, cursor, _PAGE))


def _wanted(
    source: Registry, selection: MirrorSelection, only: Collection[AdapterName] | None
) -> dict[AdapterName, set[Digest]]:
    found: dict[AdapterName, set[Digest]] = {}
    for name in selection.names:
        found[name] = {version.digest for version in list_versions(source, name)}
    if selection.names:
        return found
    queries = (
        [selection.query] if only is None else [f"{selection.query} name:{name}" for name in sorted(only)]
    )
    chosen = [version for query in queries for version in search_versions(source, query)]
    if selection.parents:
        chosen += ancestors(source, chosen)
    for version in chosen:
        found.setdefault(version.name, set()).add(version.digest)
    return found


def mirrored_adapters(destination: Registry) -> set[AdapterName]:
    """The adapters that a mirror made."""
    adapters = iter_items(lambda cursor: destination.adapters(None, cursor, _PAGE))
    return {adapter.name for adapter in adapters if MIRRORED in adapter.tags}


def _mirrored_names(
    destination: Registry, selection: MirrorSelection, only: Collection[AdapterName] | None
) -> set[AdapterName]:
    """The adapters that are looked at because a mirror made them."""
    if selection.names:
        return set()
    if only is not None:
        return {name for name in only if _is_mirrored(destination, name)}
    return mirrored_adapters(destination)


def _order(version: VersionInfo) -> tuple[bool, int]:
    """By number, but what is to be taken instead of a version comes before it."""
    return bool(version.standing and version.standing.successor), version.number


def _is_mirrored(destination: Registry, name: AdapterName) -> bool:
    try:
        return MIRRORED in destination.adapter(name).tags
    except NotFound:
        return False


def _differs(there: VersionInfo, here: VersionInfo) -> bool:
    """Whether more is said of it there, as far as a listing shows."""
    if there.state != here.state:
        return True
    if there.state != "active" and there.standing and here.standing:
        return there.standing.reason not in here.standing.reason
    return any(here.metrics.get(metric) != value for metric, value in there.metrics.items())


def _versions_if_any(registry: Registry, name: AdapterName) -> list[VersionInfo]:
    try:
        return list(list_versions(registry, name))
    except NotFound:
        return []
