"""Lineage: the ancestors and descendants of a version, as a tree of revisions.

Revisions name their parents by digest. A digest is shown under every name that the caller may read; a parent
without one (pushed elsewhere, deleted, or not readable) is shown as the digest only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import field

from adaptry.core.digest import Digest
from adaptry.core.display import escape_controls, format_share, html_text, short_repr, shorten
from adaptry.core.errors import NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.recipe_summary import summarise_recipe, unregistered_inputs
from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import Value, VersionDetail, VersionInfo
from adaptry.registry.versions import Versions

MAX_NODES = 200
"""Maximum number of revisions in a tree; a truncated tree is marked."""
KEPT_ENERGY = "kept_energy"
"""The metric for the share of the updates' energy that a derivation kept."""
_PAGE = 200
_SHOWN = 12


class LineageNode(Value):
    """A revision in a tree.

    `refs`: its versions in this registry, such as `acme/tone@3`, in name order, but the requested one first;
    empty if none is visible.
    `recipe_summary`: its recipe in one line. `kept_energy`: the share of energy that its derivation kept, if
    recorded. `unregistered_inputs`: inputs that were not revisions, by the digests of their weights.
    `relatives`: its parents, or its children. `is_repeated`: its relatives are shown at its first occurrence.
    `is_truncated`: it has relatives that are not shown, because the tree is full.
    """

    digest: Digest
    refs: tuple[str, ...] = ()
    recipe_summary: str = ""
    kept_energy: float | None = None
    unregistered_inputs: tuple[Digest, ...] = ()
    relatives: tuple[LineageNode, ...] = ()
    is_repeated: bool = False
    is_truncated: bool = False

    def __repr__(self) -> str:
        """The tree, up to twelve lines; `print` shows all of it."""
        lines = list(self.lines())
        left = [f"… and {len(lines) - _SHOWN:,} more lines"] if len(lines) > _SHOWN else []
        shown = [shorten(line, 160) for line in lines[:_SHOWN]]
        return "\n".join([short_repr(self, self._name()), *(f"  {line}" for line in [*shown, *left])])

    def __str__(self) -> str:
        return "\n".join(map(escape_controls, self.lines()))

    def _repr_html_(self) -> str:
        below = [each._repr_html_() for each in self.relatives]
        below += [html_text(note) for note in self._notes()]
        inside = "".join(f"<li>{each}</li>" for each in below)
        return f"<div>{html_text(self._text())}{f'<ul>{inside}</ul>' if inside else ''}</div>"

    def lines(self, first: str = "", others: str = "") -> Iterator[str]:
        """The lines of the tree; `first` is the prefix of the first line, `others` of all further lines."""
        yield first + self._text()
        notes = self._notes()
        last = len(self.relatives) + len(notes) - 1
        for place, each in enumerate(self.relatives):
            yield from each.lines(*_branches(others, is_last=place == last))
        for place, note in enumerate(notes, len(self.relatives)):
            yield _branches(others, is_last=place == last)[0] + note

    def _notes(self) -> list[str]:
        notes = [f"a folder, weights {digest.brief}" for digest in self.unregistered_inputs]
        return [*notes, *(["… and more"] if self.is_truncated else [])]

    def _name(self) -> str:
        if not self.refs:
            return self.digest.brief
        first, *others = self.refs
        return f"{first} (identical to {', '.join(others)})" if others else first

    def _text(self) -> str:
        if not self.refs:
            return f"{self.digest.brief}  not in this registry"
        kept = "" if self.kept_energy is None else f"energy kept {format_share(self.kept_energy)}"
        parts = (self._name(), self.recipe_summary, kept, "(as above)" if self.is_repeated else "")
        return "  ".join(filter(None, parts))


def _branches(others: str, *, is_last: bool) -> tuple[str, str]:
    return (f"{others}└─ ", f"{others}   ") if is_last else (f"{others}├─ ", f"{others}│  ")


def ancestor_tree(registry: Registry, ref: Ref | str, maximum: int = MAX_NODES) -> LineageNode:
    """The version that `ref` selects now, its parents, their parents and so on. Raises `NotFound`."""
    return _tree(registry, ref, maximum, lambda detail: detail.manifest.parents)


def descendant_tree(registry: Registry, ref: Ref | str, maximum: int = MAX_NODES) -> LineageNode:
    """The version that `ref` selects now, its children, their children and so on, oldest first. Raises
    `NotFound`.
    """

    def children(detail: VersionDetail) -> Iterable[Digest]:
        found = _versions(registry.versions, f"parent:{detail.version.digest} state:*", maximum + 1)
        return dict.fromkeys(version.digest for version in reversed(found))

    return _tree(registry, ref, maximum, children)


def _tree(registry: Registry, ref: Ref | str, maximum: int, related: _Related) -> LineageNode:
    detail = registry.versions.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    root = _Traversal(registry, related, maximum, {detail.version.digest: detail}).node(detail.version.digest)
    own = detail.version.label
    return root.model_copy(update={"refs": tuple(sorted(root.refs, key=lambda ref: ref != own))})


_Related = Callable[[VersionDetail], Iterable[Digest]]


@dataclass
class _Traversal:
    """One traversal of revisions: each is read and expanded once, at most `remaining` in total."""

    registry: Registry
    related: _Related
    remaining: int
    details: dict[Digest, VersionDetail]
    seen: set[Digest] = field(default_factory=set)

    def node(self, digest: Digest) -> LineageNode:
        versions = _versions(self.registry.versions, f"digest:{digest} state:*", _PAGE)
        detail = self.details.get(digest) or self._detail(versions)
        if detail is None:
            return LineageNode(digest=digest)
        self.details[digest] = detail
        recipe = detail.manifest.recipe
        shown = LineageNode(
            digest=digest,
            refs=tuple(version.label for version in _in_order(versions)),
            recipe_summary=summarise_recipe(recipe),
            kept_energy=next(
                (version.metrics[KEPT_ENERGY] for version in versions if KEPT_ENERGY in version.metrics), None
            ),
            unregistered_inputs=unregistered_inputs(recipe),
        )
        related = tuple(self.related(detail))
        if digest in self.seen:
            return shown.model_copy(update={"is_repeated": bool(related)})
        self.seen.add(digest)
        relatives: list[LineageNode] = []
        for each in related:
            if self.remaining <= 1:
                return shown.model_copy(update={"relatives": tuple(relatives), "is_truncated": True})
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


def _versions(versions: Versions, query: str, maximum: int) -> list[VersionInfo]:
    """The newest matching versions, up to the limit."""
    found: list[VersionInfo] = []
    cursor: str | None = None
    while len(found) < maximum:
        page = versions.search(query, cursor, min(_PAGE, maximum - len(found)))
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    return found


def labels_of_revision(versions: Versions, digest: Digest) -> tuple[str, ...]:
    """The versions with this revision that the caller may read, such as `acme/tone@3`, in name order."""
    found = _versions(versions, f"digest:{digest} state:*", _PAGE)
    return tuple(version.label for version in _in_order(found))


def _in_order(versions: Iterable[VersionInfo]) -> list[VersionInfo]:
    return sorted(versions, key=lambda version: (version.name, version.number))
