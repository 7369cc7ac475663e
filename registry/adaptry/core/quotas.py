"""Quotas: limits on storage and requests for namespaces and principals. Pure values and rules.

A limit is a number, or None if it is not set. A limit for a name has priority over one for all names
(`EVERY`), which has priority over the built-in limits. `UNLIMITED` lifts a limit that is set for every name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, NamedTuple

from adaptry.core.display import format_count, format_size
from adaptry.core.errors import AdaptryError, Busy, QuotaExceeded
from adaptry.core.lazy_dataclass import dataclass

QuotaScope = Literal["namespace", "principal"]

EVERY = "*"
"""The name under which the limits of all names of a scope are set."""
UNLIMITED = (1 << 53) - 1
"""As a limit: none. It is the largest whole number that every JSON reader keeps exactly."""
RESERVED_SECONDS = 30.0
"""Seconds after which a client should retry if open uploads have reserved the space."""


class QuotaSubject(NamedTuple):
    """The namespace or principal that a limit applies to."""

    scope: QuotaScope
    name: str

    def __str__(self) -> str:
        return f"the namespace {self.name}" if self.scope == "namespace" else self.name

    @property
    def arguments(self) -> str:
        """The arguments of `adaptry quota` for this name."""
        return self.name if self.scope == "namespace" else f"{self.name} --principal"


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """Stored bytes, versions, open uploads, and requests per minute."""

    bytes: int | None = None
    versions: int | None = None
    uploads: int | None = None
    requests: int | None = None

    def or_else(self, other: QuotaLimits) -> QuotaLimits:
        """These limits; limits that are not set are taken from `other`."""
        pairs = ((getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        return QuotaLimits(*(ours if ours is not None else theirs for ours, theirs in pairs))


@dataclass(frozen=True, slots=True)
class StoredUse:
    """The usage of a namespace or principal: bytes of files, number of versions, and the bytes that open
    uploads have `reserved`.
    """

    bytes: int = 0
    versions: int = 0
    reserved: int = 0
    uploads: int = 0


def refuse_bytes(
    subject: QuotaSubject, use: StoredUse, requested: int, limits: QuotaLimits
) -> AdaptryError | None:
    """Why `requested` more bytes may not be stored; None if they may.

    The error is `Busy` if only the reservations of open uploads are in the way, since they may be released.
    """
    limit = limits.bytes
    if limit is None or limit >= UNLIMITED or use.bytes + use.reserved + requested <= limit:
        return None
    if use.bytes + requested <= limit:
        return Busy(
            f"{subject} may store {format_size(limit)}, and open uploads have reserved the rest; try again"
            " when they have finished (`adaptry uploads ls` shows them, `adaptry uploads rm` discards one)",
            RESERVED_SECONDS,
        )
    return QuotaExceeded(
        f"{subject} may store {format_size(limit)} and has {max(0, limit - use.bytes):,} bytes left, but"
        f" {requested:,} are needed; delete what is no longer needed (`adaptry delete NAME`), or ask an"
        f" administrator for more (`adaptry quota set {subject.arguments} --bytes SIZE`)"
    )


def refuse_versions(
    subject: QuotaSubject, use: StoredUse, requested: int, limits: QuotaLimits
) -> AdaptryError | None:
    """Why `requested` more versions may not be pushed; None if they may."""
    limit = limits.versions
    if limit is None or use.versions + requested <= limit:
        return None
    return QuotaExceeded(
        f"{subject} has {format_count(use.versions, 'version')} and may have {limit:,}; delete adapters that"
        " are no longer needed (`adaptry delete NAME`), or ask an administrator for more (`adaptry quota set"
        f" {subject.arguments} --versions N`)"
    )


def refuse_upload(subject: QuotaSubject, use: StoredUse, limits: QuotaLimits) -> AdaptryError | None:
    """Why no upload may be opened now; None if an upload may be opened."""
    limit = limits.uploads
    if limit is None or use.uploads < limit:
        return None
    uploads, are = format_count(use.uploads, "upload"), "is" if use.uploads == 1 else "are"
    holder = f"{are} open in {subject.name}" if subject.scope == "namespace" else f"of {subject} {are} open"
    return Busy(
        f"{uploads} {holder} already; try again when some have finished (`adaptry uploads ls` shows them,"
        " `adaptry uploads rm` discards one)"
    )
