"""The names of bases, which versions reference by id, for output."""

from __future__ import annotations

from adaptry.core.errors import Conflict, Invalid, NotFound
from adaptry.registry.bases import Bases
from adaptry.registry.records import VersionInfo


def base_title(bases: Bases, key: str) -> str:
    """A base's first name, or the beginning of its id if it has none; an unregistered key is returned
    unchanged."""
    try:
        info = bases.get(key)
    except (Conflict, Invalid, NotFound):
        return key
    return info.names[0] if info.names else info.id.brief


def with_base_names(bases: Bases, versions: list[VersionInfo]) -> list[VersionInfo]:
    """The versions, with names for bases that they reference only by id."""
    unnamed = {version.base_id for version in versions if version.base_id and not version.base_name}
    titles = {id: title if (title := base_title(bases, str(id))) != str(id) else id.brief for id in unnamed}
    return [
        version.model_copy(update={"base_name": titles[version.base_id]})
        if version.base_id in titles and not version.base_name
        else version
        for version in versions
    ]
