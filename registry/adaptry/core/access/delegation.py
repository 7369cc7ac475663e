"""Rules for granting: a principal can grant or remove only rights that it has."""

from __future__ import annotations

from adaptry.core.access.actions import Action
from adaptry.core.access.conditions import Facts
from adaptry.core.access.grants import Grant
from adaptry.core.errors import PermissionDenied
from adaptry.core.identity import Identity


def require_delegation(identity: Identity, grant: Grant, facts: Facts) -> None:
    """Raises `PermissionDenied` if the caller may neither add nor remove such a grant.

    Administrators may; other principals may if the grant is within one namespace, in which they have
    `member.manage` and every action of the grant.
    """
    if identity.may_administer:
        return
    resource = grant.resource
    if not resource.is_one_namespace:
        raise PermissionDenied(
            f"{identity.name} may not grant anything on {resource}, which covers more than one namespace; ask"
            " an administrator"
        )
    needed: list[Action] = ["member.manage", *sorted(grant.actions)]
    for action in needed:
        decision = identity.decide(action, resource.namespaces, None, facts)
        if not decision.is_allowed:
            raise PermissionDenied(
                f"{identity.name} may not grant or remove {grant.permission} on {resource}: {decision.reason}"
            )
