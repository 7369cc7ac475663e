"""The role of a registry that admits versions of adapters, finds them, and holds their states."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.records import (
    Page,
    PushOptions,
    PushResult,
    StateChange,
    TensorInspection,
    VersionDetail,
    VersionInfo,
)


class Versions(ABC):
    """Versions of adapters, by refs."""

    @abstractmethod
    def put(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        """Admits a revision whose files are here: derives its spec, runs the checks, numbers it.

        A known digest gives its version back. Raises `InvalidManifest`, `InvalidConfig`, `InvalidWeights`,
        `NotFound` (a file is missing), `CheckFailed` (the checks block and there is no reason to force),
        `PermissionDenied`.
        """

    @abstractmethod
    def get(self, ref: Ref) -> VersionInfo:
        """What a ref means now. Raises `NotFound`, or `Conflict` for an ambiguous digest prefix."""

    @abstractmethod
    def detail(self, ref: Ref) -> VersionDetail:
        """As `version`, with manifest, spec and report."""

    @abstractmethod
    def list(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        """Newest first. Raises `NotFound`."""

    @abstractmethod
    def search(self, query: str, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        """Versions that match (`query.GRAMMAR`), newest first. Raises `InvalidQuery`.

        Without a `state:` term, those that are active or deprecated.
        """

    @abstractmethod
    def count_download(self, ref: Ref) -> None:
        """One pull, however many files."""

    @abstractmethod
    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        """What each tensor of a version holds, in the order of its files.

        Weights are inspected when they are admitted; those of a version from before that are inspected now,
        once, and what is found joins the version's report. Raises `NotFound`, `Unavailable` where that fails.
        """

    @abstractmethod
    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        """Compare-and-swap: changes only if the generation of the version's `standing` is `was` (0: it has
        none).

        A version that stands so already stays as it is, whatever `was` says; the answer names the aliases
        that are on it. Raises `Conflict` with the state found or for a successor that is none, `NotFound`,
        `PermissionDenied`.
        """
