"""Transfers drafts: commits on a branch that need not be versions, such as the checkpoints of a training
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptry.adapters.adapter import Adapter
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound
from adaptry.core.manifest import Manifest
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.base_recognition import BaseSource, RecognisedBase, recognise_base
from adaptry.operations.transfer.early_inspection import inspect_early
from adaptry.operations.transfer.files import hash_files, upload_missing
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.operations.transfer.revision_download import fetch_revision
from adaptry.registry.commit_info import CommitInfo, CommitNote
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit


def push_draft(
    registry: Registry,
    adapter: Adapter,
    name: AdapterName,
    branch: str,
    note: CommitNote,
    *,
    base: RecognisedBase | BaseSource | None = None,
    parents: tuple[Digest, ...] = (),
    provenance: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> CommitInfo:
    """Commits `adapter` to `branch`. A missing branch is created from `main`; a missing adapter is created
    too.

    Raises the errors of `Commits.put` (`CheckFailed` for NaN and infinity) and `upload`.
    """
    claim = recognise_base(registry.bases, adapter, base).claim
    with inspect_early(registry, adapter):
        manifest = Manifest.of(
            hash_files(adapter.content, progress),
            base=claim,
            parents=parents,
            provenance=provenance,
        )
    _make(registry, name, branch)
    upload_missing(registry, name, adapter.content, manifest, progress, retry)
    return registry.commits.put(name, branch, manifest.to_bytes(), note).commit


def fetch_draft(
    registry: Registry,
    name: AdapterName,
    word: str,
    folder: Path,
    *,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> CommitInfo:
    """Writes a revision (given by branch, tag or id) into the new folder `folder`.

    Raises `NotFound`, `RevisionNotFound`, `Withdrawn`, `Conflict` if the folder exists, `DigestMismatch`.
    """
    commit = registry.commits.get(name, word)
    fetch_revision(
        registry.files,
        name,
        commit.digest,
        registry.commits.tree(name, commit.digest).files,
        folder,
        False,
        progress,
        retry,
    )
    return commit


def _make(registry: Registry, name: AdapterName, branch: str) -> None:
    """Creates the branch, unless another process has just created it."""
    try:
        registry.adapters.get(name)
    except NotFound:
        try:
            registry.adapters.create(name, AdapterEdit())
        except Conflict:
            registry.adapters.get(name)
    if all(known.name != branch for known in registry.commits.references(name)):
        try:
            registry.commits.create_branch(name, branch)
        except Conflict:
            registry.commits.get(name, branch)
