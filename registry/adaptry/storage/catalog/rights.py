"""The rights of jobs and schedules: as text in the row, and their current values.

A stored principal's grants are read again at each use, so that rights revoked from a principal are revoked
from its jobs and schedules too. The limits of the token that submitted them stay.
"""

from __future__ import annotations

import json

from adaptry.core.access.conditions import Condition
from adaptry.core.access.grants import Grant, Limit
from adaptry.core.access.resources import Resource
from adaptry.core.identity import Identity
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.principals import current_grants, find


def encode_rights(identity: Identity) -> str:
    """Encodes all of an identity except its name."""
    limit = identity.limit
    return json.dumps(
        {
            "principal": identity.principal,
            "grants": [
                [one.permission, str(one.resource), list(map(str, one.conditions))] for one in identity.grants
            ],
            "limit": limit
            and {
                "permissions": limit.permissions,
                "resources": None if limit.resources is None else list(map(str, limit.resources)),
            },
        }
    )


def decode_rights(name: str, text: str) -> Identity:
    """The rights at submission. Raises `ValueError`, `LookupError`, `Invalid` for malformed text."""
    found = json.loads(text)
    limit = found["limit"]
    return Identity(
        name,
        tuple(
            Grant(permission, Resource.parse(resource), tuple(map(Condition.parse, conditions)))
            for permission, resource, conditions in found["grants"]
        ),
        limit
        and Limit(
            None if limit["permissions"] is None else tuple(limit["permissions"]),
            None if limit["resources"] is None else tuple(map(Resource.parse, limit["resources"])),
        ),
        found["principal"],
    )


def rights_of_name(tx: Transaction, name: str) -> Identity | None:
    """The current rights of the principal of that name; None if there is no such principal, as in a
    folder.
    """
    found = find(tx, name)
    return Identity(name, current_grants(tx, found.key), principal=found.key) if found else None


def current_rights(tx: Transaction, name: str, text: str) -> Identity:
    """The current rights of the principal whose rights were stored."""
    stored = decode_rights(name, text)
    if stored.principal is None:
        return stored
    return Identity(name, current_grants(tx, stored.principal), stored.limit, stored.principal)
