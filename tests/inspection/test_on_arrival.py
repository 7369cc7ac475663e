"""Inspection of uploads while they arrive: how many run concurrently, and what happens to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

from adaptry.adapters.inspection.process import LARGE
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit, UploadInfo
from adaptry.storage.local import LocalRegistry
from adaptry_api.testing import until

TONE = AdapterName.parse("acme/tone")
ALLOWED = 8


def open_files(uploads: Sequence[UploadInfo]) -> int:
    """The number of open descriptors of the uploads' files in this process."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue  # the descriptor of this listing
    return sum(any(upload.id in name for upload in uploads) for name in found)


def test_at_most_eight_uploads_are_inspected_as_they_arrive_and_all_are_stored(
    registry: LocalRegistry,
) -> None:
    registry.adapters.create(TONE, AdapterEdit())
    files = [bytes([number]) * LARGE for number in range(ALLOWED + 3)]
    uploads = [registry.uploads.open(TONE, Digest.of(data), len(data)) for data in files[:-1]]
    begun, rest = Barrier(len(uploads) + 1, timeout=60), Event()

    def pieces(data: bytes) -> Iterator[bytes]:
        yield data[: LARGE // 2]
        begun.wait()
        rest.wait(60)
        yield data[LARGE // 2 :]

    with ThreadPoolExecutor(len(uploads)) as threads:
        sent = [
            threads.submit(registry.uploads.append, upload, 0, pieces(data))
            for upload, data in zip(uploads, files, strict=False)
        ]
        try:
            begun.wait()
            assert open_files(uploads) == len(uploads) + ALLOWED  # each inspection opens the file again
        finally:
            rest.set()
        assert [upload.result().offset for upload in sent] == [LARGE] * len(uploads)
    for upload, data in zip(uploads, files, strict=False):
        registry.uploads.finish(upload)
        assert registry.files.has(TONE, Digest.of(data))
    until(lambda: open_files(uploads), lambda count: count == 0)

    last = registry.uploads.open(TONE, Digest.of(files[-1]), LARGE)
    seen: list[int] = []

    def observed() -> Iterator[bytes]:
        seen.append(open_files([last]))
        yield files[-1]

    registry.uploads.append(last, 0, observed())
    assert seen == [2]  # a slot is free again
