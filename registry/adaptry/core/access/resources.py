"""Resources: the adapters that a grant or a token covers, as text with globs.

`*` is everything. `acme`, `team-*` are namespaces; `acme/tone` is one adapter and `acme/tone-*` all whose
names begin with `acme/tone-`. The part after the slash has no other globs, so that SQL can select by it
exactly as this module does.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

_NAMESPACES = lazy_pattern(r"[A-Za-z0-9._*?\[\]-]{1,96}")
_NAMES = lazy_pattern(r"(?=.)[A-Za-z0-9._-]{0,96}\*?")
_GLOB = lazy_pattern(r"[*?\[]")
ALL_NAMES = "*"


@dataclass(frozen=True, slots=True)
class Resource:
    """A glob of namespaces, and the names in them: all (`*`), one name, or a beginning and `*`."""

    namespaces: str
    names: str = ALL_NAMES

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a resource such as `acme/tone-*`. Raises `Invalid`."""
        namespaces, slash, names = text.partition("/")
        if not _NAMESPACES.fullmatch(namespaces) or (slash and not _NAMES.fullmatch(names)):
            raise Invalid(
                f"not a resource: {text[:80]!a} (such as acme, team-*, acme/tone, acme/tone-* or *)"
            )
        return cls(namespaces, names if slash else ALL_NAMES)

    def __str__(self) -> str:
        return self.namespaces if self.names == ALL_NAMES else f"{self.namespaces}/{self.names}"

    @property
    def is_everything(self) -> bool:
        return self.namespaces == "*" and self.names == ALL_NAMES

    @property
    def is_one_namespace(self) -> bool:
        """Whether the resource is in a single namespace, `namespaces`."""
        return _GLOB.search(self.namespaces) is None

    def covers(self, namespace: str, name: str | None) -> bool:
        """Whether the resource includes an adapter; with `name` None, whether it includes the whole
        namespace.
        """
        if not fnmatchcase(namespace, self.namespaces):
            return False
        return self.names == ALL_NAMES or (name is not None and matches(name, self.names))

    def contains(self, other: Resource) -> bool:
        """Whether the resource certainly includes all of `other`."""
        names = self.names == ALL_NAMES or common_names(self.names, other.names) == other.names
        if self.namespaces in ("*", other.namespaces):
            return names
        return other.is_one_namespace and fnmatchcase(other.namespaces, self.namespaces) and names


def matches(name: str, names: str) -> bool:
    """Whether an adapter's name, without its namespace, is among `names`."""
    return name.startswith(names[:-1]) if names.endswith("*") else name == names


def common_names(first: str, second: str) -> str | None:
    """The names in both resources, or None."""
    for narrow, wide in ((first, second), (second, first)):
        if wide.endswith("*") and narrow.startswith(wide[:-1]):
            return narrow
    return first if first == second else None
