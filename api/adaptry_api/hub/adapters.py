"""Adapters as repositories, whose revisions are branches, aliases, tags, versions and commit ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise

from adaptry.adapters.formats import detect_format
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef, NotFound
from adaptry.core.lifecycle import may_read_files
from adaptry.core.manifest import EMPTY, FileEntry
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.registry.commit_info import CommitInfo
from adaptry.registry.commits import Commits
from adaptry.registry.files import FileReader
from adaptry.registry.records import AdapterInfo, VersionInfo
from adaptry.registry.state_warnings import state_warning, withdrawn_error
from adaptry_api.hub.base_claim import is_base_name
from adaptry_api.hub.card import Card
from adaptry_api.hub.repo_lookup import HubReader, Repository
from adaptry_api.hub.snapshots import Read, RepositoryDetails, Snapshot, card_of, repository_files

_LIBRARIES = {
    "peft": "peft",
    "adapterhub": "adapter-transformers",
    "mlx": "mlx",
    "diffusers": "diffusers",
    "kohya": "diffusers",
    "torchtune": "torchtune",
}
_PAGE = 200
_MAX_COMMITS = 1000
"""Maximum number of commits searched for the one that changed a file."""


class AdapterRepository(Repository):
    """An adapter as a repository; `info` is its state at lookup."""

    def __init__(self, reader: HubReader, info: AdapterInfo) -> None:
        self.id = str(info.name)
        self._reader = reader
        self.info = info

    @property
    def has_commit(self) -> bool:
        return has_commit(self._reader.registry.commits, self.info)

    def snapshot(self, revision: str) -> Snapshot:
        registry, name = self._reader.registry, self.info.name
        commit = registry.commits.get(name, revision)
        files = self._files(commit)
        read = self._reading(commit)
        carried = cache(lambda: self._carried(commit))
        return Snapshot(
            self.id,
            commit.id,
            repository_files(files, read, self._reader.caches),
            read,
            lambda: self._about(commit, files, carried()),
            lambda: state_warnings(carried()),
            lambda: last_commits(registry.commits, name, revision),
            self._counted(commit, files),
            self._version(commit),
            commit.number is not None,
            require_available=lambda: self._require_given(carried()),
            depends_on_catalog=True,
        )

    def _require_given(self, version: VersionInfo | None) -> None:
        if version and not may_read_files(
            self._reader.identity, self.info.name, version.state, datetime.now(UTC)
        ):
            raise withdrawn_error(version)

    def _files(self, commit: CommitInfo) -> tuple[FileEntry, ...]:
        """The snapshot of a commit that the registry has just returned."""

        def look_up() -> tuple[FileEntry, ...]:
            return self._reader.registry.commits.tree(self.info.name, commit.digest).files

        return self._reader.caches.trees.get_or_compute(commit.digest, look_up)

    def _counted(self, commit: CommitInfo, files: tuple[FileEntry, ...]) -> str | None:
        """Downloading a version's weights counts as a download; its other files do not count."""
        format = detect_format(entry.path for entry in files)
        return format.weights if format and (commit.number or commit.carries) else None

    def _version(self, commit: CommitInfo) -> Ref | None:
        """The version that has the same weights as the commit."""
        number = commit.number or commit.carries
        return Ref(self.info.name, Number(number)) if number else None

    def details(self, revision: str) -> RepositoryDetails:
        """The details that the snapshot has, without reading the list of files. Raises `RevisionNotFound`."""
        commit = self._reader.registry.commits.get(self.info.name, revision)
        return self._about(commit, self._files(commit), self._carried(commit))

    def _about(
        self, commit: CommitInfo, files: tuple[FileEntry, ...], version: VersionInfo | None
    ) -> RepositoryDetails:
        entries = {entry.path: entry for entry in files}
        card = card_of(entries, self._reading(commit), self._reader.caches)
        return adapter_details(self.info, entries, card, version, commit)

    def _reading(self, commit: CommitInfo) -> Read:
        @cache
        def reader() -> FileReader:
            return self._reader.registry.files.readers([(self.info.name, commit.digest)])[0]

        def read(path: str, start: int) -> Iterator[bytes]:
            return reader()(path, start)

        return read

    def _carried(self, commit: CommitInfo) -> VersionInfo | None:
        version = self._version(commit)
        return self._reader.registry.versions.get(version) if version else None


def has_commit(commits: Commits, info: AdapterInfo) -> bool:
    """Whether any branch or tag has files; if none has, a base of the same name is found instead."""
    return info.versions > 0 or any(found.digest != EMPTY.digest for found in commits.references(info.name))


def adapter_repository(reader: HubReader, id: str) -> Repository | None:
    """The adapter of that name, if it has a commit and the caller may read it."""
    found = adapter_even_empty(reader, id)
    return found if found is not None and found.has_commit else None


def adapter_even_empty(reader: HubReader, id: str) -> AdapterRepository | None:
    """The adapter of that name, empty or not."""
    with suppress(InvalidRef, NotFound):
        return AdapterRepository(reader, reader.registry.adapters.get(AdapterName.parse(id)))
    return None


def adapter_details(
    info: AdapterInfo,
    entries: Mapping[str, FileEntry],
    card: Card,
    version: VersionInfo | None,
    commit: CommitInfo,
) -> RepositoryDetails:
    """The registry's facts, merged with the card's; in the tags, the registry's base comes first."""
    format = detect_format(entries)
    library = _LIBRARIES[format.name] if format else card.data.get("library_name")
    named = (version.base_name,) if version and version.base_name else card.base_models
    bases = tuple(filter(is_base_name, named))
    tags = [library or "peft", "safetensors", *([version.method] if version else [])]
    for base in bases:
        tags += [f"base_model:{base}", f"base_model:adapter:{base}"]
    known = next(iter(bases), None)
    config = {"base_model_name_or_path": known} if known else {}
    pipeline = card.data.get("pipeline_tag")
    return RepositoryDetails(
        created_at=info.created_at,
        updated_at=max(info.updated_at, commit.at),
        is_private=info.visibility == "private",
        downloads=info.downloads,
        tags=tuple(dict.fromkeys([*tags, *info.tags, *card.tags])),
        bases=bases,
        library=library or "peft",
        pipeline=pipeline if isinstance(pipeline, str) else None,
        card={"library_name": library or "peft", **card.data, **({"base_model": known} if known else {})},
        config={"peft": config} if version else {},
    )


def state_warnings(version: VersionInfo | None) -> tuple[str, ...]:
    """The warning for downloads of a version that is no longer active."""
    warning = state_warning(version) if version else None
    return (warning,) if warning else ()


def last_commits(commits: Commits, name: AdapterName, revision: str) -> dict[str, CommitInfo]:
    """The last commit up to `revision` that changed each file, by path."""
    settled: dict[str, CommitInfo] = {}
    now: dict[str, Digest] | None = None
    for commit, before in pairwise(_steps(commits, name, revision)):
        assert commit is not None
        now = _hashes(commits, name, commit) if now is None else now
        earlier = _hashes(commits, name, before) if before else {}
        for path, sha256 in now.items():
            if path not in settled and earlier.get(path) != sha256:
                settled[path] = commit
        if len(settled) == len(now):
            break
    return settled


def _steps(commits: Commits, name: AdapterName, revision: str) -> Iterator[CommitInfo | None]:
    """Commits, newest first, then None for the empty tree before the first."""
    cursor: str | None = None
    for _ in range(_MAX_COMMITS // _PAGE):
        page = commits.list(name, revision, cursor, _PAGE)
        yield from page.items
        cursor = page.next
        if cursor is None:
            break
    yield None


def _hashes(commits: Commits, name: AdapterName, commit: CommitInfo) -> dict[str, Digest]:
    return {entry.path: entry.sha256 for entry in commits.tree(name, commit.digest).files}
