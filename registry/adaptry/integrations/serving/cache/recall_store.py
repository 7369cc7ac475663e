"""Recalls on this machine: one small file per digest, which outlives processes, restarts and files."""

from __future__ import annotations

from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import Withdrawn
from adaptry.core.files.atomic_file import atomic_file
from adaptry.integrations.serving.cache.layout import CacheLayout
from adaptry.registry.records import VersionInfo


def recall(layout: CacheLayout, digest: Digest, reason: str) -> None:
    """Refuses a digest from now on; the recall is durable before this returns. Raises `StorageFull`,
    `Unavailable`.
    """
    with atomic_file(layout.recall_file(digest)) as file:
        file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {reason}".encode())


def unblock(layout: CacheLayout, digest: Digest) -> None:
    """Reverses a recall. No effect on a digest that is not recalled."""
    layout.recall_file(digest).unlink(missing_ok=True)


def recall_reason(layout: CacheLayout, digest: Digest) -> str | None:
    """A text with the time and reason of the digest's recall here; None if it is not recalled."""
    try:
        return layout.recall_file(digest).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def require_not_recalled(layout: CacheLayout, version: VersionInfo) -> None:
    """Raises `Withdrawn` if the version is recalled here."""
    if why := recall_reason(layout, version.digest):
        raise Withdrawn(
            f"{version.label} was recalled on this machine ({why}); to allow it again:"
            f" adaptry cache unblock {version.digest}"
        )
