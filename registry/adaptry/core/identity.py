"""Who is asking, and what they may do: pure rules over values.

Whoever may not read a thing is told that it does not exist; only who may read it and not change it is
told `PermissionDenied`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from adaptry.core.errors import NotFound, PermissionDenied
from adaptry.core.refs import AdapterName

Role = Literal["reader", "writer", "admin", "worker"]
"""A `worker` reads as a reader does, reports what its engine has loaded, and changes nothing else."""
Visibility = Literal["private", "public"]
BaseVisibility = Literal["private", "internal", "public"]
"""As an adapter's, with one more: an `internal` base is read by every token that holds any namespace."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A name for the records, a role, and the namespaces (globs) it holds in.

    An anonymous identity has no namespaces: it reads what is public, where the server lets it in at all.
    """

    name: str
    role: Role = "reader"
    namespaces: tuple[str, ...] = ()

    def has_namespace(self, namespace: str) -> bool:
        return any(fnmatchcase(namespace, glob) for glob in self.namespaces)

    def may_read(self, name: AdapterName, visibility: Visibility) -> bool:
        return visibility == "public" or self.has_namespace(name.namespace)

    def may_read_base(self, owners: Iterable[str], visibility: BaseVisibility) -> bool:
        """`owners` are the namespaces of the base's names."""
        if visibility == "public" or "*" in self.namespaces:
            return True
        if visibility == "internal":
            return bool(self.namespaces)
        return any(self.has_namespace(owner) for owner in owners)

    def may_write(self, name: AdapterName) -> bool:
        return self.role in ("writer", "admin") and self.has_namespace(name.namespace)

    def may_force(self, name: AdapterName) -> bool:
        """Pushes past findings that block, with a reason for the record."""
        return self.role == "admin" and self.has_namespace(name.namespace)

    def may_undo_recall(self, name: AdapterName) -> bool:
        """Takes back what protects others, such as a recall."""
        return self.role == "admin" and self.has_namespace(name.namespace)

    @property
    def may_report(self) -> bool:
        """Says what an engine has loaded."""
        return self.role in ("worker", "admin")

    @property
    def may_administer(self) -> bool:
        """Tokens, and what belongs to no namespace."""
        return self.role == "admin" and "*" in self.namespaces


LOCAL = Identity("local", "admin", ("*",))
ANONYMOUS = Identity("anonymous")


def require_read(identity: Identity, name: AdapterName, visibility: Visibility) -> None:
    """Raises `NotFound`, with the words of a thing that is not there."""
    if not identity.may_read(name, visibility):
        raise NotFound(f"no adapter {name}")


def require_base_write(identity: Identity) -> None:
    """Raises `NotFound` to the anonymous, and `PermissionDenied` to everyone else who is no administrator."""
    if not identity.namespaces:
        raise NotFound("no such base")
    if not identity.may_administer:
        raise PermissionDenied(
            f"{identity.name} may not change bases, which every namespace shares; ask an administrator"
        )


def require_write(identity: Identity, name: AdapterName) -> None:
    """Raises `PermissionDenied`, whether the adapter exists or not; call `require_read` first to hide it."""
    if not identity.may_write(name):
        raise PermissionDenied(
            f"{identity.name} may not change {name}; ask for a token that writes to {name.namespace!r}"
        )
