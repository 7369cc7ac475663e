"""A lease: an object that marks a staging as being written to, as long as it is renewed.

It only avoids duplicate work. If a slow sender's lease lapses, or two take it on a server without conditional
writes, no harm is done, since segments are never written twice.
"""

from __future__ import annotations

import secrets
import time

from adaptry.core.errors import NotFound
from adaptry.storage.blobs.s3.objects import S3Objects

LEASE_SECONDS = 90.0
"""Seconds without renewal after which anyone may take the lease."""
_RENEW = 20.0


class Lease:
    """A lease that this process holds."""

    def __init__(self, objects: S3Objects, name: str, token: bytes) -> None:
        self._objects = objects
        self._name = name
        self._token = token
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Renews it if due; called while bytes arrive."""
        if time.monotonic() - self._renewed > _RENEW:
            self._objects.put(self._name, self._token)
            self._renewed = time.monotonic()

    def release(self) -> None:
        self._objects.delete([self._name])


def acquire_lease(objects: S3Objects, name: str) -> Lease | None:
    """The lease, or None while another process holds it."""
    token = secrets.token_bytes(16)
    if objects.create(name, token):
        return Lease(objects, name, token)
    if is_leased(objects, name):
        return None
    objects.put(name, token)
    try:
        found, _ = objects.read(name, 0, len(token))
    except NotFound:
        return None
    return Lease(objects, name, token) if found == token else None


def is_leased(objects: S3Objects, name: str) -> bool:
    """Whether the lease was renewed recently, by the server's clock."""
    age = objects.age(name)
    return age is not None and age < LEASE_SECONDS
