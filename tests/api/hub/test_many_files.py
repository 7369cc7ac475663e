"""Files of a branch with very many files, which clients download one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.manifest import FileEntry
from adaptry_api.hub.computed_cache import HubCaches
from adaptry_api.hub.snapshots import MAX_CACHED_FILES, RepositoryDetails, Snapshot, repository_files
from adaptry_api.testing import Server

from .pushed import TONE, create, put

COUNT = MAX_CACHED_FILES + 10
CARDS = {f"checkpoint-{step}/README.md": b"# %d\n" % step for step in range(COUNT)}


def test_a_file_is_looked_up_without_reading_the_others() -> None:
    entries = [FileEntry(path=path, size=len(data), sha256=Digest.of(data)) for path, data in CARDS.items()]
    reads: list[str] = []

    def read(path: str, start: int) -> Iterator[bytes]:
        reads.append(path)
        yield CARDS[path][start:]

    now = datetime(2026, 1, 1, tzinfo=UTC)
    files = repository_files(entries, read, HubCaches())
    snapshot = Snapshot(TONE, "0" * 40, files, read, lambda: RepositoryDetails(now, now))
    assert snapshot.file("checkpoint-7/README.md").oid == git_id(b"# 7\n")
    assert reads == ["checkpoint-7/README.md"]


def test_every_file_has_its_own_bytes_and_git_id(server: Server) -> None:
    create(server)
    server.call("POST", f"/api/models/{TONE}/branch/run", {})
    put(server, CARDS, "run")
    for path, data in CARDS.items():
        answer = server.call("GET", f"/{TONE}/resolve/run/{path}")
        assert (answer.body, answer.headers["etag"]) == (data, f'"{git_id(data)}"')
    listed = server.call("GET", f"/api/models/{TONE}/tree/run?recursive=true").json
    found = {entry["path"]: entry["oid"] for entry in listed if entry["type"] == "file"}
    assert found == {path: git_id(data) for path, data in CARDS.items()}


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
