"""Merged models computed on demand: `acme/tone.merged` is `acme/tone` merged into its base, a whole
checkpoint.

Its revisions are those of the adapter: an alias, a version, or a commit with a version's weights. A commit's
id has 24 digits of the version's digest and 16 digits of a hash of everything else that determines its files'
bytes. So a commit id always means the same bytes; an id whose bytes this server would compute differently is
not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from adaptry.compute.sidecar_client.inputs import MergedFile, ModelDescription, ModelInputs
from adaptry.core.digest import Digest
from adaptry.core.errors import RevisionNotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import MERGED, Number, Ref
from adaptry.registry.commit_info import CommitInfo
from adaptry.registry.records import AdapterInfo, VersionInfo
from adaptry.registry.state_warnings import require_usable
from adaptry_api.hub import gitids
from adaptry_api.hub.adapters import adapter_even_empty, has_commit, state_warnings
from adaptry_api.hub.repo_lookup import HubReader, Repository
from adaptry_api.hub.snapshots import ListedFiles, RepositoryDetails, RepositoryFile, Snapshot

_OWN_ID = re.compile(r"([0-9a-f]{24})([0-9a-f]{16})")


class MergedRepository(Repository):
    """The merged models of an adapter; `info` is the state at lookup."""

    def __init__(self, reader: HubReader, id: str, info: AdapterInfo) -> None:
        self.id = id
        self._reader = reader
        self.info = info

    def snapshot(self, revision: str) -> Snapshot:
        """The files of the merged model. Raises `RevisionNotFound`, `CheckFailed` if the version cannot be
        merged, or `Withdrawn`.
        """
        commit = self._commit(revision)
        number = commit.number or commit.carries
        if number is None:
            raise RevisionNotFound(
                f"{self.info.name} has no complete adapter at {revision[:80]!a}, so there is no merged model"
            )
        version = self._reader.registry.versions.get(Ref(self.info.name, Number(number)))
        require_usable(version)
        merged_models = self._reader.merged_models
        inputs = merged_models.inputs_of(self._reader.registry, version)
        merged = _MergedVersion(version, inputs, merged_models.describe(inputs))
        if _OWN_ID.fullmatch(revision) and revision not in (merged.id, commit.id):
            raise self._absent(revision)

        def read(path: str, start: int) -> Iterator[bytes]:
            return merged_models.read(inputs, merged.model, path, start)

        return Snapshot(
            self.id,
            merged.id,
            ListedFiles(_hub_file(file) for file in merged.model.files),
            read,
            lambda: self._about(merged, commit),
            lambda: state_warnings(version),
        )

    def _commit(self, revision: str) -> CommitInfo:
        """The adapter's commit that the revision selects."""
        registry, name = self._reader.registry, self.info.name
        try:
            return registry.commits.get(name, revision)
        except RevisionNotFound:
            own = _OWN_ID.fullmatch(revision)
            if own is None:
                raise
        try:
            return registry.commits.get(name, own[1])
        except RevisionNotFound:
            raise self._absent(revision) from None

    def _absent(self, revision: str) -> RevisionNotFound:
        return RevisionNotFound(
            f"{self.id} no longer has the commit {revision[:12]}: the server now computes other bytes"
            " (another release, another base folder). Pass a version of"
            f" {self.info.name} as the revision, such as v1"
        )

    def _about(self, merged: _MergedVersion, commit: CommitInfo) -> RepositoryDetails:
        base = merged.inputs.base_name
        named = (f"base_model:{base}", f"base_model:finetune:{base}") if "/" in base else ()
        return RepositoryDetails(
            created_at=self.info.created_at,
            updated_at=commit.at,
            is_private=self.info.visibility == "private",
            tags=("transformers", "safetensors", "merged", *named, f"adapter:{merged.inputs.adapter}"),
            library="transformers",
            card={"library_name": "transformers", **({"base_model": base} if named else {})},
        )


def merged_repository(reader: HubReader, id: str) -> Repository | None:
    """The merged model of that name, if its adapter has a commit and the caller may read it."""
    found = merged_even_empty(reader, id)
    return found if found is not None and has_commit(reader.registry.commits, found.info) else None


def merged_even_empty(reader: HubReader, id: str) -> MergedRepository | None:
    """Like `merged_repository`, for an adapter that may be empty; its merged model then has no revision."""
    if not id.lower().endswith(MERGED):
        return None
    found = adapter_even_empty(reader, id[: -len(MERGED)])
    return MergedRepository(reader, id, found.info) if found is not None else None


@dataclass(frozen=True, slots=True)
class _MergedVersion:
    version: VersionInfo
    inputs: ModelInputs
    model: ModelDescription

    @property
    def id(self) -> str:
        return self.version.digest.hex[:24] + self.model.identity.hex[:16]


def _hub_file(file: MergedFile) -> RepositoryFile:
    """A weights file that was never computed in full has an id derived from its inputs, not a hash of its
    bytes.
    """
    if file.sha256 is None:
        return RepositoryFile(file.name, file.size, file.tag.short_id)
    if file.blob_id is not None and not gitids.is_large(file.name, file.size):
        return RepositoryFile(file.name, file.size, file.blob_id)
    return RepositoryFile(file.name, file.size, _pointer_id(file.sha256, file.size), file.sha256.hex)


def _pointer_id(sha256: Digest, size: int) -> str:
    return gitids.blob_id(gitids.pointer(sha256, size))
