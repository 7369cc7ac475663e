"""Checks whether quotas leave room for a change of a local registry.

Limits hold for stored principals. Work in the registry's own folder is not limited, except in the number of
open uploads of a namespace; its files count towards the limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.quotas import (
    QuotaLimits,
    QuotaSubject,
    StoredUse,
    refuse_bytes,
    refuse_upload,
    refuse_versions,
)
from adaptry.registry.files import Owner
from adaptry.storage.catalog import files, quotas, stored_use
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.local.context import RegistryContext

MAX_OPEN_UPLOADS = 64
"""Sessions that one namespace may have open at once, unless another limit is set; abandoned ones make room
for new ones.
"""
BUILT_IN = {"namespace": QuotaLimits(uploads=MAX_OPEN_UPLOADS), "principal": QuotaLimits()}
NO_LIMITS = QuotaLimits()


class QuotaRefusal(NamedTuple):
    """The name whose limit is reached, and the error."""

    subject: QuotaSubject
    error: AdaptryError


def refuse_session(
    context: RegistryContext, tx: Transaction, owner: Owner, digest: Digest, size: int
) -> QuotaRefusal | None:
    """Why the caller may open no upload of these bytes; None if they may."""
    is_owned = bool(files.sizes(tx, owner, [digest]))
    for subject, limits in limited(context, tx, files.tenant_of(owner)):
        use = stored_use.find(tx, subject)
        error = refuse_upload(subject, use, limits)
        if error is None and not is_owned:
            error = refuse_bytes(subject, _without(tx, use, owner, digest), size, limits)
        if error is not None:
            return QuotaRefusal(subject, error)
    return None


def require_version(context: RegistryContext, tx: Reads, namespace: str) -> None:
    """Raises `QuotaExceeded` if the caller may push no new version to the namespace."""
    for subject, limits in limited(context, tx, namespace):
        if limits.versions is not None:
            raise_if(refuse_versions(subject, stored_use.find(tx, subject), 1, limits))


def require_bytes(context: RegistryContext, tx: Reads, namespace: str, size: int) -> None:
    """Raises `QuotaExceeded` or `Busy` if the caller may not store `size` more bytes in the namespace."""
    for subject, limits in limited(context, tx, namespace):
        if limits.bytes is not None:
            raise_if(refuse_bytes(subject, stored_use.find(tx, subject), size, limits))


def require_namespace_within(context: RegistryContext, tx: Transaction, namespace: str) -> None:
    """Raises `QuotaExceeded` if the namespace exceeds its limits after an adapter was moved to it."""
    for subject, limits in limited(context, tx, namespace):
        if subject.scope == "namespace":
            use = stored_use.find(tx, subject)
            raise_if(refuse_bytes(subject, use, 0, limits) or refuse_versions(subject, use, 0, limits))


def limited(
    context: RegistryContext, tx: Reads, namespace: str
) -> Iterator[tuple[QuotaSubject, QuotaLimits]]:
    """The limits of the namespace and of the caller, if they have any."""
    identity = context.identity
    place = QuotaSubject("namespace", namespace)
    if identity.principal is None:
        yield place, BUILT_IN["namespace"]
        return
    for subject in (place, QuotaSubject("principal", identity.name)):
        limits = quotas.effective(tx, subject).or_else(BUILT_IN[subject.scope])
        if limits != NO_LIMITS:
            yield subject, limits


def _without(tx: Transaction, use: StoredUse, owner: Owner, digest: Digest) -> StoredUse:
    """The usage, without the bytes that another session has reserved for the same file."""
    reserved = files.reserved_bytes(tx, owner, digest)
    return StoredUse(use.bytes, use.versions, max(0, use.reserved - reserved), use.uploads)


def raise_if(refused: AdaptryError | None) -> None:
    if refused is not None:
        raise refused
