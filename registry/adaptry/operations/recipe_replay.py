"""Writes the recipe that a version records in the form that `adaptry combine --recipe` reads.

A version records its inputs by digest only, since names may move. The recipe names them by an adapter and the
digest (`acme/tone@sha256:…`), so that it makes the same version again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, NotFound, Unsupported
from adaptry.core.recipe_summary import summarise_recipe
from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry

Json = Mapping[str, Any]  # (`Any`: JSON.)


def replayable_recipe(registry: Registry, ref: Ref) -> dict[str, Any]:
    """The document of a recipe file that makes this version again.

    Raises `NotFound` if an input is not in the registry, or may not be read; `Unsupported` if the version was
    not combined from adapters, or from one in a folder; `Invalid` if the recipe is not one of ours.
    """
    detail = registry.versions.detail(ref)
    recorded = detail.manifest.recipe or {}
    if recorded.get("operation") != "combine":
        made = "was not derived from another adapter"
        if recorded:
            made = f"was made by `{summarise_recipe(recorded)}`"
        raise Unsupported(f"{detail.version.label} {made}; only combinations have a recipe file")
    try:
        sources = [
            _source(registry, number, entry) for number, entry in enumerate(recorded["inputs"], start=1)
        ]
        kept = {key: value for key, value in recorded.items() if key not in _TRANSLATED}
        kept["inputs"] = [
            {"source": source, "weight": entry["weight"]}
            for source, entry in zip(sources, recorded["inputs"], strict=True)
        ]
        named = _Names(recorded["inputs"], sources)
        if "modules" in recorded:
            kept["modules"] = [_override(module, named) for module in recorded["modules"]]
        if "whole_weights" in recorded:
            kept["whole_weights"] = named.source(recorded["whole_weights"])
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"the recipe of {detail.version.label} was not written by `adaptry combine`") from error
    return kept


_TRANSLATED = ("operation", "inputs", "modules", "whole_weights")


def _source(registry: Registry, number: int, entry: Json) -> str:
    """The source by which a recipe names this input: any of its names, with its digest. Raises `NotFound`,
    `Unsupported`, and `ValueError` if the entry is not one of ours.
    """
    if "revision" not in entry:
        raise Unsupported(
            f"input {number} was a folder (weights {entry['weights']}), which no ref names; push the folder,"
            " and write a recipe with its name"
        )
    try:
        digest = Digest.parse(entry["revision"])
    except Invalid as error:
        raise ValueError("not a digest") from error
    found = registry.versions.search(f"digest:{digest} state:*", None, 1).items
    if not found:
        raise NotFound(f"input {number}, {digest}, is not in this registry, or you may not read it")
    return str(found[0].revision_ref)


class _Names:
    """Translates the digests of inputs in other fields of a recipe."""

    def __init__(self, entries: list[Json], sources: list[str]) -> None:
        self._entries: list[object] = [
            {key: value for key, value in entry.items() if key != "weight"} for entry in entries
        ]
        self._sources = sources

    def source(self, recorded: object) -> object:
        """The source of the input; a text such as `none` is returned unchanged. Raises `ValueError`."""
        if isinstance(recorded, str):
            return recorded
        return self._sources[self._entries.index(recorded)]


def _override(module: Json, named: _Names) -> dict[str, Any]:
    """A module's entry in the recipe, with inputs named by their sources. Raises `TypeError` or `ValueError`
    if the module is not one of ours.
    """
    found = dict(module)
    if weights := found.get("weights"):
        found["weights"] = {str(named.source(entry)): weight for entry, weight in weights}
    return found
