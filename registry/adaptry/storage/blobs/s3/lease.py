"""A lease: an object that says that someone writes to a staging, until it is not renewed any more.

It spares people wasted work. Nothing rests on it: a lease that lapsed in the hands of a slow sender, or that
two took on a server without conditions, does no harm, since segments are never written twice.
"""

from __future__ import annotations

import secrets
import time

from adaptry.core.errors import NotFound
from adaptry.storage.blobs.s3.objects import S3Objects

LAPSES = 90.0
"""Seconds after which a lease that nobody renewed is anyone's."""
_RENEW = 20.0


class Lease:
    """One that is held."""

    def __init__(self, objects: S3Objects, name: str, token: bytes) -> None:
        self._objects = objects
        self._name = name
        self._token = token
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Renews it if that is due; called while bytes come."""
        if time.monotonic() - self._renewed > _RENEW:
            self._objects.put(self._name, self._token)
            self._renewed = time.monotonic()

    def release(self) -> None:
        self._objects.delete([self._name])


def acquire_lease(objects: S3Objects, name: str) -> Lease | None:
    """The lease, or None while someone else has it."""
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
    """Whether someone renewed it not long ago, by the server's clock."""
    age = objects.age(name)
    return age is not None and age < LAPSES
