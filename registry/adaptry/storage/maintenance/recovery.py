"""Recovers a registry without a working administrator, for users who can open its folder."""

from __future__ import annotations

from datetime import timedelta

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Conflict
from adaptry.core.refs import parse_namespace
from adaptry.registry.access import CreatedToken
from adaptry.storage import tokens
from adaptry.storage.catalog import events, grants, principals
from adaptry.storage.catalog.audit_log.sequencer import replace_key
from adaptry.storage.local import LocalRegistry

VALID_FOR = timedelta(days=1)
_EVENT = "access.recovered"


def recover_access(registry: LocalRegistry, name: str, namespace: str | None = None) -> CreatedToken:
    """Makes the user `name` an administrator, or the owner of `namespace`, with a new token for a day.

    The user is created if missing and enabled if disabled; an event records it, in the same transaction.
    Raises `Conflict` for a service account or a worker, `Invalid`, `InvalidRef`.
    """
    if namespace is not None:
        parse_namespace(namespace)
    grant = Grant("owner", Resource(namespace)) if namespace else Grant("admin", Resource("*"))
    now, by = registry.clock(), registry.identity.name
    with registry.catalog.write() as tx:
        found = principals.find(tx, name)
        if found is not None and found.info.kind != "user":
            raise Conflict(f"{name} is a {found.info.kind}; name a user")
        if found is None:
            tokens.check_name(name)
        user = found or principals.insert(tx, "user", name, None, now, by)
        principals.set_disabled(tx, user, None)
        grants.add(tx, user, grant, now, by)
        issued = tokens.issue(tx, user, tokens.free_name(tx, user, "recovery"), None, now + VALID_FOR, by)
        detail = {"user": name, "permission": grant.permission, "resource": grant.resource}
        events.record(tx, _EVENT, at=now, by=by, detail=detail)
    return CreatedToken(
        id=issued.id, principal=name, name=issued.name, secret=issued.secret, expires_at=now + VALID_FOR
    )


def replace_log_key(registry: LocalRegistry) -> None:
    """Lets the next process that seals the audit log sign it with the key that it has."""
    with registry.context.write() as tx:
        replace_key(tx, registry.clock())
