"""Abandoned upload sessions make room for new ones; active ones do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import Busy, NotFound
from adaptry.core.refs import AdapterName
from adaptry.registry.records import UploadInfo
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.abandoned_uploads import IDLE, IDLE_DIRECT
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.storage.local.uploads import DIRECT

TONE = AdapterName.parse("acme/tone")
OTHER = AdapterName.parse("other/tone")
DATA = b"x" * 1000
DIGEST = Digest.of(DATA)
At = Callable[..., LocalRegistry]


@pytest.fixture
def at(tmp_path: Path) -> At:
    """The same registry, used this much later; a time in the past makes no staging look old."""
    opened = open_local(tmp_path / "registry")

    def later(later: timedelta = timedelta(0), *, presigns: bool = False) -> LocalRegistry:
        return LocalRegistry(
            RegistryContext(
                opened.catalog,
                opened.blobs,
                clock=lambda: datetime.now(UTC) + later,
                presign_uploads=presigns,
            )
        )

    return later


def filled(registry: LocalRegistry, name: AdapterName = TONE, size: int = 100) -> list[UploadInfo]:
    """As many sessions as a namespace may have, each with one byte that has arrived."""
    opened = [
        registry.uploads.open(name, Digest.of(bytes([number])), size + number)
        for number in range(MAX_OPEN_UPLOADS)
    ]
    return [registry.uploads.append(one, 0, [b"x"]) for one in opened]


def still_open(registry: LocalRegistry) -> set[str]:
    return {one.id for page in ("acme", "other") for one in registry.uploads.list(page, None, 200).items}


def test_the_longest_idle_upload_makes_room_and_its_bytes_go(at: At) -> None:
    dead = filled(at())
    at(timedelta(seconds=1)).uploads.append(dead[0], 1, [b"y"])  # the oldest is in use again

    at(IDLE + timedelta(seconds=2)).uploads.open(TONE, DIGEST, len(DATA))

    assert {one.id for one in dead} - still_open(at()) == {dead[1].id}
    assert dead[1].id not in set(at().blobs.stagings())


def test_a_client_between_two_requests_keeps_its_upload(at: At) -> None:
    paused = filled(at())
    with pytest.raises(Busy):
        at(IDLE - timedelta(seconds=10)).uploads.open(TONE, DIGEST, len(DATA))
    assert {one.id for one in paused} == still_open(at())


def test_an_upload_in_use_is_never_abandoned(at: At) -> None:
    held, next_oldest, *_ = filled(at())
    with at().blobs.staging(held.id):
        at(2 * IDLE).uploads.open(TONE, DIGEST, len(DATA))
    assert held.id in still_open(at())
    assert next_oldest.id not in still_open(at())


def test_bytes_sent_directly_to_a_bucket_keep_an_upload_alive(at: At) -> None:
    registry = at()
    uploads = filled(registry)
    assert isinstance(registry.blobs, LocalBlobs)
    soon = datetime.now(UTC) + 2 * IDLE
    for one in uploads:
        os.utime(registry.blobs.folder / "tmp" / one.id, (soon.timestamp(), soon.timestamp()))
    with pytest.raises(Busy):
        at(2 * IDLE).uploads.open(TONE, DIGEST, len(DATA))


def test_direct_uploads_to_a_bucket_have_a_longer_idle_limit(at: At) -> None:
    filled(at(), size=DIRECT)
    with pytest.raises(Busy):
        at(IDLE_DIRECT - timedelta(seconds=10), presigns=True).uploads.open(TONE, DIGEST, len(DATA))
    at(IDLE_DIRECT + timedelta(seconds=10), presigns=True).uploads.open(TONE, DIGEST, len(DATA))


def test_abandoned_uploads_of_other_namespaces_are_kept(at: At) -> None:
    theirs = filled(at(), OTHER)
    filled(at())
    at(2 * IDLE).uploads.open(TONE, DIGEST, len(DATA))
    assert {one.id for one in theirs} <= still_open(at())


def test_a_client_whose_upload_was_dropped_can_start_again(at: At) -> None:
    dead = filled(at())
    at(2 * IDLE).uploads.open(TONE, DIGEST, len(DATA))
    registry = at(2 * IDLE)
    with pytest.raises(NotFound, match="open it again"):
        registry.uploads.append(dead[0], 1, [b"y"])
    with pytest.raises(NotFound):
        registry.uploads.finish(dead[0])


def test_uploads_continue_after_a_day_of_abandoned_ones(tmp_path: Path) -> None:
    """64 broken uploads are followed by as many new ones, each of which replaces one of them."""
    registry = open_local(tmp_path / "registry")
    past = LocalRegistry(
        RegistryContext(
            registry.catalog, registry.blobs, clock=lambda: datetime.now(UTC) - timedelta(minutes=5)
        )
    )
    dead = [past.uploads.open(TONE, Digest.of(bytes([number])), 1) for number in range(MAX_OPEN_UPLOADS)]
    for number in range(MAX_OPEN_UPLOADS):
        registry.uploads.open(TONE, Digest.of(b"new" + bytes([number])), 1)
    assert not {one.id for one in dead} & still_open(registry)
    with pytest.raises(Busy):
        registry.uploads.open(TONE, DIGEST, len(DATA))
