"""Operations on a bucket whose server misbehaves, each with its correct result.

An operation gets a `Case` with two blobs and two unfinished uploads, created without the fault, and returns
the server's answer, which the case compares with the truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch
from adaptry.storage.blobs import BlobStore
from adaptry.storage.blobs.s3 import S3Blobs
from adaptry.storage.blobs.s3.capabilities import find_missing_capabilities
from adaptry.storage.blobs.tiered import TieredBlobs

SEGMENT = 5 << 20
"""As small as S3's parts may be, so that two make a large blob."""

_RANDOM = random.Random(12)
SMALL, LARGE, FRESH, FRESH_LARGE, STAGED, DIRECT = (
    _RANDOM.randbytes(size) for size in (70_000, SEGMENT + 90_000, 50_000, SEGMENT + 40_000, 60_000, 55_000)
)
ABSENT = Digest.of(b"nobody has this")
OURS, OTHERS, NEW = "a" * 32, "b" * 32, "c" * 32


@dataclass
class Case:
    """One store behind the fault, and what is known to be in the bucket."""

    store: S3Blobs
    folder: Path
    acknowledged: dict[Digest, bytes] = field(default_factory=dict)

    def fill(self, healthy: S3Blobs) -> None:
        for data in (SMALL, LARGE):
            digest = Digest.of(data)
            if not healthy.has(digest):  # as most earlier cases have left them
                healthy.objects.put(f"sha256/{digest.hex[:2]}/{digest.hex}", data)
            self.acknowledged[digest] = data
        with healthy.staging(OURS) as staged:
            staged.append(0, [STAGED[:30_000]])
        address = healthy.upload_url(OTHERS, 0, len(DIRECT), 60).url
        assert urllib3.request("PUT", address, body=DIRECT).status == 200

    def put(self, data: bytes) -> None:
        self.store.put(Digest.of(data), [data])
        self.acknowledged[Digest.of(data)] = data

    def publish(self, key: str, data: bytes) -> None:
        with self.store.staging(key) as staged:
            if staged.offset < len(data):
                staged.append(staged.offset, [data[staged.offset :]])
            staged.publish(Digest.of(data))
        self.acknowledged[Digest.of(data)] = data

    def delete(self, data: bytes) -> None:
        self.acknowledged.pop(Digest.of(data), None)
        self.store.delete(Digest.of(data))

    @property
    def cached(self) -> BlobStore:
        return TieredBlobs(self.store, self.folder, 1 << 30)


def put_wrong(case: Case) -> bool:
    try:
        case.store.put(Digest.of(FRESH), [FRESH[:-1] + b"!"])
    except DigestMismatch:
        return True
    return False


def stop_in_the_middle(case: Case) -> int:
    with case.store.staging(NEW) as staged:
        staged.append(staged.offset, [FRESH_LARGE[staged.offset :]])
    return case.store.staged_size(NEW)


def discard(case: Case) -> int:
    with case.store.staging(OURS) as staged:
        staged.discard()
    return case.store.staged_size(OURS)


def held(case: Case) -> tuple[bool, bool]:
    with case.store.staging(OURS):
        return case.store.is_held(OURS), case.store.is_held(NEW)


def path_of(case: Case) -> bytes:
    cached = case.cached
    assert isinstance(cached, TieredBlobs)
    return cached.path_of(Digest.of(LARGE)).read_bytes()


def through_cache(case: Case) -> bytes:
    """Reads twice: the second read returns the data that the first one put into the cache."""
    cached = case.cached
    b"".join(cached.chunks(Digest.of(SMALL)))
    return b"".join(cached.chunks(Digest.of(SMALL)))


Operation = Callable[[Case], object]

OPERATIONS: dict[str, tuple[Operation, object]] = {
    "put_small": (lambda case: case.put(FRESH), None),
    "put_large": (lambda case: case.put(FRESH_LARGE), None),
    "put_empty": (lambda case: case.put(b""), None),
    "put_what_is_there": (lambda case: case.put(LARGE), None),
    "put_wrong": (put_wrong, True),
    "stop_in_the_middle": (stop_in_the_middle, len(FRESH_LARGE)),
    "go_on_and_publish": (lambda case: case.publish(OURS, STAGED), None),
    "publish_what_others_wrote": (lambda case: case.publish(OTHERS, DIRECT), None),
    "stage_and_publish": (lambda case: case.publish(NEW, FRESH_LARGE), None),
    "discard": (discard, 0),
    "has": (lambda case: case.store.has(Digest.of(SMALL)), True),
    "has_absent": (lambda case: case.store.has(ABSENT), False),
    "size": (lambda case: case.store.size(Digest.of(LARGE)), len(LARGE)),
    "read": (
        lambda case: case.store.read(Digest.of(LARGE), SEGMENT - 50, 100),
        LARGE[SEGMENT - 50 : SEGMENT + 50],
    ),
    "read_beyond": (lambda case: case.store.read(Digest.of(SMALL), len(SMALL), 100), b""),
    "read_all": (lambda case: b"".join(case.store.chunks(Digest.of(SMALL))), SMALL),
    "read_all_large": (lambda case: b"".join(case.store.chunks(Digest.of(LARGE))), LARGE),
    "read_on": (lambda case: b"".join(case.store.chunks(Digest.of(LARGE), 100_000)), LARGE[100_000:]),
    "delete": (lambda case: case.delete(SMALL), None),
    "delete_absent": (lambda case: case.store.delete(ABSENT), None),
    "digests": (lambda case: set(case.store.digests()), {Digest.of(SMALL), Digest.of(LARGE)}),
    "stagings": (lambda case: set(case.store.stagings()), {OURS, OTHERS}),
    "staged": (lambda case: case.store.staged_size(OURS), 30_000),
    "held": (held, (True, False)),
    "require_room": (lambda case: case.store.require_room(1), None),
    "tidy": (lambda case: case.store.tidy(), 0),
    "path_of": (path_of, LARGE),
    "through_cache": (through_cache, SMALL),
    "examine": (lambda case: find_missing_capabilities(case.store.location), ()),
}  # fmt: skip
