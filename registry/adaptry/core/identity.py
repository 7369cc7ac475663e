"""The caller's identity and rights, as pure rules over values.

A caller who may not read a thing gets `NotFound`, as if it did not exist. A caller who may read it but not
change it gets `PermissionDenied`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Self

from adaptry.core.access.actions import Action
from adaptry.core.access.conditions import NOTHING_KNOWN, Facts
from adaptry.core.access.decision import Decision, Target, decide
from adaptry.core.access.grants import Grant, Limit
from adaptry.core.access.resources import ALL_NAMES, Resource, common_names, matches
from adaptry.core.access.roles import strongest_role
from adaptry.core.errors import Invalid, NotFound, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.core.visibility import BaseVisibility as BaseVisibility
from adaptry.core.visibility import Visibility as Visibility


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller's name in records, its grants, and the limit of the token in use.

    `principal` is the number of a stored principal, and `token` that of the token in use; the embedded
    registry's user has neither. `external` is the number of the user at an identity provider whose
    confirmation keeps a session or token valid. An anonymous identity has no grants: it reads public
    adapters, if the server allows anonymous access.
    """

    name: str
    grants: tuple[Grant, ...] = ()
    limit: Limit | None = None
    principal: int | None = None
    token: int | None = None
    external: int | None = None

    @classmethod
    def with_role(cls, name: str, role: str, resources: Iterable[str]) -> Self:
        """An identity with one role on each of the resources."""
        return cls(name, tuple(Grant(role, Resource.parse(text)) for text in resources))

    def decide(
        self, action: Action, namespace: str, name: str | None = None, facts: Facts = NOTHING_KNOWN
    ) -> Decision:
        """Whether the caller may do `action` to an adapter, or to a whole namespace, and why."""
        return decide(self.grants, self.limit, action, Target(namespace, name, facts))

    def may(self, action: Action, name: AdapterName, facts: Facts = NOTHING_KNOWN) -> bool:
        return self.decide(action, name.namespace, name.name, facts).is_allowed

    def may_in(self, action: Action, namespace: str, facts: Facts = NOTHING_KNOWN) -> bool:
        """Whether the caller may do `action` in the whole namespace."""
        return self.decide(action, namespace, None, facts).is_allowed

    def may_retry(self, submitter: Identity) -> bool:
        """Whether the caller may restart a job, which has the rights of `submitter`. They must be the same
        user, and the submitter's token must have allowed nothing beyond the limits of the caller's. Otherwise
        the caller would create versions in another user's name, or with more rights than the caller's token
        has.
        """
        if self.may_administer:
            return True
        return self.name == submitter.name and (self.limit is None or self.limit.includes(submitter.limit))

    def may_somewhere(self, action: Action) -> bool:
        """Whether a grant and the token's limit allow the action on anything, conditions aside."""
        granted = any(one.is_administration or action in one.actions for one in self.grants)
        return granted and (self.limit is None or self.limit.allows_somewhere(action))

    def readable_names(self, namespace: str) -> frozenset[str]:
        """The names of private adapters in the namespace that the caller may read, as in `Resource.names`."""
        granted = _names_in(namespace, (one.resource for one in self._reading))
        if self.limit is None or self.limit.resources is None:
            return granted
        limited = _names_in(namespace, self.limit.resources)
        common = (common_names(one, other) for one in granted for other in limited)
        return frozenset(names for names in common if names is not None)

    def is_named_in(self, namespace: str) -> bool:
        """Whether the caller may read something private in the namespace, through a right that names it. A
        right for a pattern such as `*` does not count, since it covers any name.
        """
        is_named = any(one.resource.namespaces == namespace for one in self.grants)
        return is_named and bool(self.readable_names(namespace))

    def has_namespace(self, namespace: str) -> bool:
        """Whether the caller may read everything in the namespace."""
        return ALL_NAMES in self.readable_names(namespace)

    def may_read(self, name: AdapterName, visibility: Visibility) -> bool:
        if visibility == "public":
            return True
        return any(matches(name.name, names) for names in self.readable_names(name.namespace))

    def may_read_base(self, owners: Iterable[str], visibility: BaseVisibility) -> bool:
        """Whether the caller may read a base; `owners` are the namespaces of its names."""
        if visibility == "public" or self.reads_everything:
            return True
        if visibility == "internal":
            return self.is_member
        return any(self.has_namespace(owner) for owner in owners)

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller is anonymous: neither a stored principal nor an identity with grants."""
        return self.principal is None and not self.grants

    def within_limit(self, action: Action, namespace: str) -> frozenset[str]:
        """The names in the namespace, as in `Resource.names`, on which the token's limit allows the action,
        whatever the grants allow.
        """
        return frozenset((ALL_NAMES,)) if self.limit is None else self.limit.names_in(action, namespace)

    @property
    def is_member(self) -> bool:
        """Whether the caller may read anything that is not public."""
        return bool(self._reading) and bool(self.limit is None or self.limit.resources != ())

    @property
    def reads_everything(self) -> bool:
        granted = any(one.resource.is_everything for one in self._reading)
        return granted and (self.limit is None or self.limit.includes_everything)

    @property
    def read_resources(self) -> Sequence[Resource]:
        """Resources that cover everything that the caller may read; they may also cover unreadable
        adapters."""
        if self.limit is not None and self.limit.resources is not None:
            return self.limit.resources if self._reading else ()
        return tuple(dict.fromkeys(one.resource for one in self._reading))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The resources in `read_resources`, as text."""
        return tuple(map(str, self.read_resources))

    @property
    def role(self) -> str:
        """The strongest role of the caller on any resource, as a summary for people."""
        if self.limit is not None and self.limit.permissions is not None:
            return strongest_role(self.limit.permissions)
        return strongest_role(tuple(one.permission for one in self.grants))

    @property
    def may_report(self) -> bool:
        """Whether the caller may send worker reports."""
        return self.may_somewhere("worker.report")

    @property
    def may_administer(self) -> bool:
        """Whether the caller is an administrator, who may do every action, including those on principals and
        on data without a namespace.
        """
        granted = any(one.is_administration for one in self.grants)
        limit = self.limit
        return granted and (limit is None or (limit.allows_somewhere("admin") and limit.includes_everything))

    @property
    def _reading(self) -> tuple[Grant, ...]:
        return tuple(one for one in self.grants if "read" in one.actions)


def _names_in(namespace: str, resources: Iterable[Resource]) -> frozenset[str]:
    return frozenset(one.names for one in resources if fnmatchcase(namespace, one.namespaces))


LOCAL = Identity.with_role("local", "admin", ("*",))
ANONYMOUS = Identity("anonymous")
_RESERVED = frozenset({LOCAL.name, ANONYMOUS.name, "mirror", "server"})


def is_reserved(name: str) -> bool:
    """Whether records use the name for an author that is not a stored principal."""
    return name.lower() in _RESERVED


def require_unreserved(name: str) -> None:
    """Raises `Invalid` for a name that no principal can have."""
    if is_reserved(name):
        raise Invalid(f"{name} is a reserved name ({', '.join(sorted(_RESERVED))}); choose another")


def require_read(identity: Identity, name: AdapterName, visibility: Visibility) -> None:
    """Raises `NotFound` with the same message as for an adapter that does not exist."""
    if not identity.may_read(name, visibility):
        error = NotFound(f"no adapter {name}")
        error.is_hidden = True
        raise error


def require_base_write(identity: Identity) -> None:
    """Raises `NotFound` for anonymous callers, and `PermissionDenied` for others who are not
    administrators."""
    if not identity.is_member:
        raise NotFound("no such base")
    if not identity.may_administer:
        raise PermissionDenied(
            f"{identity.name} may not change bases, which every namespace shares; ask an administrator"
        )


def require(identity: Identity, action: Action, name: AdapterName, facts: Facts = NOTHING_KNOWN) -> None:
    """Raises `PermissionDenied`, whether the adapter exists or not; call `require_read` first to hide it."""
    decision = identity.decide(action, name.namespace, name.name, facts)
    if not decision.is_allowed:
        raise PermissionDenied(
            f"{identity.name} may not change {name} ({action}): {decision.reason}; ask an owner of"
            f" {name.namespace!r}"
        )
