"""Lineage: what a version was made from, and what was made from it, as a tree of revisions.

Revisions name their parents by digest. A digest is shown under every name that the caller may read; a parent
without one (pushed elsewhere, deleted, or not readable) is shown as the digest only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.recipe_summary import summarise_recipe, unregistered_inputs
from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import Value, VersionDetail, VersionInfo
from adaptry.registry.versions import Versions

MOST = 200
"""Revisions in one tree; it says where it was cut."""
KEPT = "kept_energy"
"""The metric under which a version keeps the share of its updates' energy that its making kept."""
_PAGE = 200


class LineageNode(Value):
    """A revision in a tree.

    `refs`: its versions here, as `acme/tone@3`, in name order; empty where there is none to see. `made`: its
    recipe in one line. `kept`: the share of energy that its making kept, where that was recorded. `outside`:
    inputs that were no revision, by the digests of their weights. `relatives`: its parents, or its children.
    `is_repeated`: its relatives are shown where the tree had it first. `is_cut`: it has relatives that are
    not shown, the tree being full.
    """

    digest: Digest
    refs: tuple[str, ...] = ()
    made: str = ""
    kept: float | None = None
    outside: tuple[Digest, ...] = ()
    relatives: tuple[LineageNode, ...] = ()
    is_repeated: bool = False
    is_cut: bool = False


def ancestor_tree(registry: Registry, ref: Ref | str, most: int = MOST) -> LineageNode:
    """The version that `ref` means now, its parents, theirs and so on. Raises `NotFound`."""
    return _tree(registry, ref, most, lambda detail: detail.manifest.parents)


def descendant_tree(registry: Registry, ref: Ref | str, most: int = MOST) -> LineageNode:
    """The version that `ref` means now, what was made from it, and so on, oldest first. Raises `NotFound`."""

    def children(detail: VersionDetail) -> Iterable[Digest]:
        found = _versions(registry.versions, f"parent:{detail.version.digest} state:*", most + 1)
        return dict.fromkeys(version.digest for version in reversed(found))

    return _tree(registry, ref, most, children)


def _tree(registry: Registry, ref: Ref | str, most: int, related: _Related) -> LineageNode:
    detail = registry.versions.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    return _Walk(registry, related, most).node(detail.version.digest)


_Related = Callable[[VersionDetail], Iterable[Digest]]


@dataclass
class _Walk:
    """One walk over revisions: each is expanded once, and at most `remaining` of them."""

    registry: Registry
    related: _Related
    remaining: int
    seen: set[Digest] = field(default_factory=set)

    def node(self, digest: Digest) -> LineageNode:
        versions = _versions(self.registry.versions, f"digest:{digest} state:*", _PAGE)
        detail = self._detail(versions)
        if detail is None:
            return LineageNode(digest=digest)
        recipe = detail.manifest.recipe
        shown = LineageNode(
            digest=digest,
            refs=tuple(version.label for version in _in_order(versions)),
            made=summarise_recipe(recipe),
            kept=next((version.metrics[KEPT] for version in versions if KEPT in version.metrics), None),
            outside=unregistered_inputs(recipe),
        )
        related = tuple(self.related(detail))
        if digest in self.seen:
            return shown.model_copy(update={"is_repeated": bool(related)})
        self.seen.add(digest)
        relatives: list[LineageNode] = []
        for each in related:
            if self.remaining <= 1:
                return shown.model_copy(update={"relatives": tuple(relatives), "is_cut": True})
            self.remaining -= 1
            relatives.append(self.node(each))
        return shown.model_copy(update={"relatives": tuple(relatives)})

    def _detail(self, versions: Iterable[VersionInfo]) -> VersionDetail | None:
        for version in versions:
            try:
                return self.registry.versions.detail(version.revision_ref)
            except NotFound:  # deleted since it was found
                continue
        return None


def _versions(versions: Versions, query: str, most: int) -> list[VersionInfo]:
    """The newest matching versions, up to the limit."""
    found: list[VersionInfo] = []
    cursor: str | None = None
    while len(found) < most:
        page = versions.search(query, cursor, min(_PAGE, most - len(found)))
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    return found


def _in_order(versions: Iterable[VersionInfo]) -> list[VersionInfo]:
    return sorted(versions, key=lambda version: (version.name, version.number))
