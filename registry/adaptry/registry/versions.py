"""The role of a registry that admits versions, finds them, and manages their states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName, Ref

if TYPE_CHECKING:
    from adaptry.adapters.weight_statistics import MeasuredWeights, WeightDistance, WeightStatistics
    from adaptry.registry.records import (
        Page,
        PushOptions,
        PushResult,
        StateChange,
        TensorInspection,
        VersionDetail,
        VersionInfo,
    )

MAX_SENT = 8 << 20
"""Maximum size in bytes of an adapter that is pushed in one request. Larger ones are uploaded file by file,
and an interrupted upload continues.
"""


Found = TypeVar("Found")


class Versions(ABC):
    """Versions of adapters, by refs."""

    @abstractmethod
    def put(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        """Admits a revision whose files are uploaded: derives its spec, runs the checks, numbers it.

        A known digest returns the existing version. Raises `InvalidManifest`, `InvalidConfig`,
        `InvalidWeights`, `NotFound` (a file is missing), `CheckFailed` (the checks block and there is no
        reason to force), `PermissionDenied`.
        """

    @abstractmethod
    def put_with_files(
        self, name: AdapterName, manifest: bytes, options: PushOptions, files: Sequence[bytes]
    ) -> PushResult:
        """Like `put`, with the bytes of all files in the manifest's order, in one step.

        For adapters of at most `MAX_SENT` bytes. Files that the adapter has already are sent again. Nothing
        is stored unless the revision is admitted. May be repeated after a lost answer. Raises the errors of
        `put`, and `DigestMismatch`, `TooLarge`, `QuotaExceeded`, `StorageFull`, and `NotFound` from a server
        that is too old for it.
        """

    @abstractmethod
    def get(self, ref: Ref) -> VersionInfo:
        """The version that a ref selects now. Raises `NotFound`, and `Conflict` for an ambiguous digest
        prefix.
        """

    @abstractmethod
    def detail(self, ref: Ref) -> VersionDetail:
        """Like `get`, with manifest, spec and report."""

    def details(self, refs: Sequence[Ref]) -> tuple[VersionDetail, ...]:
        """The details of several versions, in the order of their refs. A registry on this machine reads them
        together.
        """
        return tuple(self.detail(ref) for ref in refs)

    def detail_json(self, ref: Ref) -> bytes:
        """The result of `detail` as JSON. A registry on this machine inserts a long spec without decoding
        it.
        """
        return self.detail(ref).model_dump_json(by_alias=True).encode()

    @abstractmethod
    def list(
        self,
        name: AdapterName,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        """The versions of an adapter in an order (`sort_keys`). Raises `NotFound`, `Invalid` for an unknown
        sort key.
        """

    @abstractmethod
    def search(
        self,
        query: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        """Versions that match (`query.GRAMMAR`), in an order (`sort_keys`). Raises `InvalidQuery`, and
        `Invalid` for an unknown sort key.

        Without a `state:` term, only active and deprecated versions are found. A request reads a limited
        number of rows, so if few versions match, a page may have fewer than `limit` items, or none, and still
        have a `next`.
        """

    def search_json(
        self,
        query: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> bytes:
        """The page of `search` as JSON. A registry on this machine keeps the JSON of versions."""
        page = self.search(query, cursor, limit, sort=sort, reverse=reverse)
        return page.model_dump_json(by_alias=True).encode()

    @abstractmethod
    def count_download(self, ref: Ref) -> None:
        """Counts one download, however many files it has."""

    @abstractmethod
    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        """The inspection of each tensor of a version, in the order of its files.

        Weights are inspected at admission. Those of an older version are inspected now, once, and the
        findings are added to the version's report. Raises `NotFound`, `Unavailable` if this fails.
        """

    @abstractmethod
    def weight_statistics(self, ref: Ref) -> WeightStatistics:
        """The statistics of a version's updates by module, as a `weight-statistics` job stored them.

        Raises `NotFound`, including for a version that no job has measured.
        """

    @abstractmethod
    def weight_distance(self, ref: Ref, other: Ref) -> WeightDistance:
        """The distance between the updates of two versions, as a `weight-statistics` job stored it.

        Raises `NotFound`, including if no job has compared the two.
        """

    def measured_weights(self, refs: Sequence[Ref]) -> tuple[MeasuredWeights, ...]:
        """The statistics of each version, and its distance from the first one, where a job stored them.

        A registry on this machine reads them together. Raises `NotFound` for an unknown version.
        """
        from adaptry.adapters.weight_statistics import MeasuredWeights  # imports pydantic

        found = [self.get(ref).revision_ref for ref in refs]
        return tuple(
            MeasuredWeights(
                statistics=_if_found(partial(self.weight_statistics, ref)),
                distance=_if_found(partial(self.weight_distance, found[0], ref)),
            )
            for ref in found
        )

    @abstractmethod
    def bind_base(self, name: AdapterName, revision: Digest, base: Digest) -> VersionDetail:
        """Records that a version was trained on a registered base, and checks it against that base.

        This is for versions that do not declare a base by content: their config has a path on the training
        machine, an unknown name, or nothing. The revision and its digest do not change. May be repeated.
        Raises `Conflict` for a version that declares another base or was verified on another one,
        `CheckFailed` if it does not fit, `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        """Compare-and-swap: changes only if the generation of the version's `last_state_change` is `was` (0:
        it has none).

        A version that is already in the state does not change, whatever `was` is; the result lists its
        aliases. Raises `Conflict` with the current state, or for an invalid successor, `NotFound`,
        `PermissionDenied`.
        """


def _if_found(read: Callable[[], Found]) -> Found | None:
    try:
        return read()
    except NotFound:
        return None
