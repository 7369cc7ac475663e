"""Repositories of the upstream Hub, if one is configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adaptry.core.errors import InvalidRef, RevisionNotFound, Unavailable
from adaptry.core.refs import parse_base_name
from adaptry_api.hub.adapters import adapter_even_empty
from adaptry_api.hub.repo_lookup import HubReader, Repository
from adaptry_api.hub.snapshots import ListedFiles, RepositoryDetails, RepositoryFile, Snapshot

if TYPE_CHECKING:
    from adaptry_api.hub.upstream import UpstreamHub, UpstreamHubInfo


class UpstreamRepository(Repository):
    """A repository of the upstream Hub, under its name there."""

    def __init__(self, id: str, upstream: UpstreamHub) -> None:
        self.id = id
        self._upstream = upstream

    def snapshot(self, revision: str) -> Snapshot:
        info = self._upstream.info(self.id, revision)
        if info is None:
            raise RevisionNotFound(f"{self.id} no longer exists")
        files = {file.rfilename: file for file in info.siblings}

        def read(path: str, start: int) -> Iterator[bytes]:
            return self._upstream.read(self.id, info.sha, files[path], start)

        shown = (
            RepositoryFile(file.rfilename, file.size, file.blobId, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings
        )
        return Snapshot(self.id, info.sha, ListedFiles(shown), read, lambda: _about(info), is_remote=True)


def upstream_repository(reader: HubReader, id: str) -> Repository | None:
    """The upstream repository of that name; only for callers with a namespace on this server."""
    if reader.upstream is None or not reader.identity.is_member:
        return None
    try:
        name = parse_base_name(id)
    except InvalidRef:
        return None
    try:
        is_there = reader.upstream.info(name, "main") is not None
    except Unavailable:
        if adapter_even_empty(reader, id) is None:
            raise
        return None  # an empty adapter of this server: no upstream look-up
    return UpstreamRepository(name, reader.upstream) if is_there else None


def _about(info: UpstreamHubInfo) -> RepositoryDetails:
    return RepositoryDetails(
        created_at=info.createdAt,
        updated_at=info.lastModified,
        is_private=info.private,
        downloads=info.downloads,
        tags=info.tags,
        library=info.library_name,
        pipeline=info.pipeline_tag,
        card=info.cardData or {},
        config=info.config or {},
    )
