"""Stored bases as repositories: loaders request an adapter's base by name from the same server.

Read-only. A base has one commit, named by its files. If an adapter has the same name, the adapter is found.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound, RevisionNotFound
from adaptry.registry.base_info import BaseInfo
from adaptry_api.hub.repo_lookup import HubReader, Repository
from adaptry_api.hub.snapshots import ListedFiles, RepositoryDetails, Snapshot, card_of, repository_file

_MIN_PREFIX = 7


class BaseRepository(Repository):
    """A base under one of its names."""

    def __init__(self, reader: HubReader, id: str, info: BaseInfo) -> None:
        self.id = id
        self._reader = reader
        self._info = info

    def snapshot(self, revision: str) -> Snapshot:
        commit = _commit_id(self._info)
        is_meant = revision in ("main", "refs/heads/main") or (
            len(revision) >= _MIN_PREFIX and commit.startswith(revision)
        )
        if not is_meant:
            raise RevisionNotFound(
                f"{self.id} is a base, which has only the revision main, not {revision[:80]!a}; pass"
                " an adapter's revision for the adapter only (PeftModel.from_pretrained, or adapter_kwargs)"
            )
        files = ListedFiles(
            repository_file(entry, self._read, self._reader.caches) for entry in self._info.stored
        )
        return Snapshot(self.id, commit, files, self._read, self._about)

    def _read(self, path: str, start: int) -> Iterator[bytes]:
        return self._reader.registry.bases.read_file(self._info.id, path, start)

    def _about(self) -> RepositoryDetails:
        info = self._info
        card = card_of({entry.path: entry for entry in info.stored}, self._read, self._reader.caches)
        kind = (info.model_type,) if info.model_type else ()
        return RepositoryDetails(
            created_at=info.created_at,
            updated_at=info.created_at,
            is_private=info.visibility == "private",
            tags=(*kind, *card.tags),
            library="transformers",
            card=card.data,
            config={"model_type": info.model_type} if info.model_type else {},
        )


def base_repository(reader: HubReader, id: str) -> Repository | None:
    """The base of that name, if its weights are stored."""
    try:
        info = reader.registry.bases.get(id)
    except (NotFound, Conflict):
        return None
    return BaseRepository(reader, id, info) if info.is_stored and id in info.names else None


def _commit_id(info: BaseInfo) -> str:
    files = [entry.model_dump(mode="json") for entry in sorted(info.stored, key=lambda entry: entry.path)]
    return Digest.of(strictjson.canonical({"base": str(info.id), "files": files})).short_id
