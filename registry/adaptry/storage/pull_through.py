"""A local registry that is a pull-through cache of another one, the upstream.

A read first fetches missing or outdated versions. Listings and searches show only local versions. Writes are
not passed on, but a version that was withdrawn upstream cannot be pushed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from adaptry.adapters.weight_statistics import MeasuredWeights, WeightDistance, WeightStatistics
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, NotFound
from adaptry.core.hub_revision import parse_hub_revision
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, ByDigest, Label, Latest, Number, Ref
from adaptry.registry.commit_info import CommitInfo, CommitNote, CommitResult
from adaptry.registry.commits import MAIN
from adaptry.registry.files import FileReader
from adaptry.registry.records import (
    AdapterInfo,
    AliasInfo,
    Page,
    PushOptions,
    PushResult,
    VersionDetail,
    VersionInfo,
)
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.adapters import LocalAdapters
from adaptry.storage.local.aliases import LocalAliases
from adaptry.storage.local.commits import LocalCommits
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.files import LocalFiles
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.local.versions import LocalVersions

Answer = TypeVar("Answer")


class UpstreamRegistry(Protocol):
    """The interface that a pull-through registry needs of its upstream
    (`operations.mirror.UpstreamMirror`).
    """

    def fetch(self, ref: Ref) -> AdaptryError | None: ...

    def fetch_aliases(self, name: AdapterName) -> AdaptryError | None: ...

    def require_not_withdrawn(self, name: AdapterName, revision: Digest) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Upstream:
    """The upstream registry, for one caller of this registry."""

    registry: UpstreamRegistry
    identity: Identity

    def after_fetch(self, ref: Ref, read: Callable[[], Answer]) -> Answer:
        """The result of `read` after `ref` was updated. Fetches nothing for an identity without rights in the
        namespace.
        """
        return self.after_fetching([ref], read)

    def after_fetching(self, refs: Sequence[Ref], read: Callable[[], Answer]) -> Answer:
        """Like `after_fetch`, for several refs."""
        readable = [ref for ref in dict.fromkeys(refs) if self.identity.may_read(ref.name, "private")]
        problems = [problem for ref in readable if (problem := self.registry.fetch(ref))]
        try:
            return read()
        except NotFound as error:
            if not problems:
                raise
            raise problems[0] from error

    def fetch_aliases(self, name: AdapterName) -> None:
        if self.identity.may_read(name, "private"):
            self.registry.fetch_aliases(name)

    def fetch_before_write(self, name: AdapterName, manifest: bytes) -> None:
        """First fetches the version and its state if upstream has it. Raises `Withdrawn`."""
        if self.identity.may("push", name):
            revision = Digest.of(manifest)
            self.registry.fetch(Ref.of_revision(name, revision))
            self.registry.require_not_withdrawn(name, revision)


@dataclass(frozen=True)
class _Adapters(LocalAdapters):
    upstream: _Upstream

    def get(self, name: AdapterName) -> AdapterInfo:
        return self.upstream.after_fetch(Ref(name, Latest()), lambda: super(_Adapters, self).get(name))


@dataclass(frozen=True)
class _Files(LocalFiles):
    upstream: _Upstream

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        ref = Ref.of_revision(name, revision)
        return self.upstream.after_fetch(ref, lambda: super(_Files, self).read(name, revision, path, start))

    def readers(self, revisions: Sequence[tuple[AdapterName, Digest]]) -> tuple[FileReader, ...]:
        refs = [Ref.of_revision(name, revision) for name, revision in revisions]
        return self.upstream.after_fetching(refs, lambda: super(_Files, self).readers(revisions))


@dataclass(frozen=True)
class _Versions(LocalVersions):
    upstream: _Upstream

    def get(self, ref: Ref) -> VersionInfo:
        return self.upstream.after_fetch(ref, lambda: super(_Versions, self).get(ref))

    def details(self, refs: Sequence[Ref]) -> tuple[VersionDetail, ...]:
        return self.upstream.after_fetching(refs, lambda: super(_Versions, self).details(refs))

    def detail_json(self, ref: Ref) -> bytes:
        return self.upstream.after_fetch(ref, lambda: super(_Versions, self).detail_json(ref))

    def list(
        self,
        name: AdapterName,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        return self.upstream.after_fetch(
            Ref(name, Latest()),
            lambda: super(_Versions, self).list(name, cursor, limit, sort=sort, reverse=reverse),
        )

    def weight_statistics(self, ref: Ref) -> WeightStatistics:
        return self.upstream.after_fetch(ref, lambda: super(_Versions, self).weight_statistics(ref))

    def weight_distance(self, ref: Ref, other: Ref) -> WeightDistance:
        return self.upstream.after_fetching(
            (ref, other), lambda: super(_Versions, self).weight_distance(ref, other)
        )

    def measured_weights(self, refs: Sequence[Ref]) -> tuple[MeasuredWeights, ...]:
        return self.upstream.after_fetching(refs, lambda: super(_Versions, self).measured_weights(refs))

    def put(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        self.upstream.fetch_before_write(name, manifest)
        return super().put(name, manifest, options)

    def put_with_files(
        self, name: AdapterName, manifest: bytes, options: PushOptions, files: Sequence[bytes]
    ) -> PushResult:
        self.upstream.fetch_before_write(name, manifest)
        return super().put_with_files(name, manifest, options, files)


@dataclass(frozen=True)
class _Aliases(LocalAliases):
    upstream: _Upstream

    def list(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        self.upstream.fetch_aliases(name)
        return self.upstream.after_fetch(Ref(name, Latest()), lambda: super(_Aliases, self).list(name))


@dataclass(frozen=True)
class _Commits(LocalCommits):
    upstream: _Upstream

    def get(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        ref = _ref(name, revision)
        return self.upstream.after_fetch(ref, lambda: super(_Commits, self).get(name, revision))

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        ref = Ref.of_revision(name, revision)
        return self.upstream.after_fetch(ref, lambda: super(_Commits, self).tree(name, revision))

    def put(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        self.upstream.fetch_before_write(name, manifest)
        return super().put(name, branch, manifest, note, parent)


class PullThroughRegistry(LocalRegistry):
    """A local registry with `upstream` behind it."""

    def __init__(self, context: RegistryContext, upstream: UpstreamRegistry) -> None:
        super().__init__(context)
        self.upstream = upstream
        behind = _Upstream(upstream, context.identity)
        self.adapters = _Adapters(context, behind)
        self.files = _Files(context, behind)
        self.versions = _Versions(context, behind)
        self.aliases = _Aliases(context, behind)
        self.commits = _Commits(context, behind)

    def on_behalf_of(
        self, identity: Identity, idempotency_key: IdempotencyKey | None = None
    ) -> PullThroughRegistry:
        return PullThroughRegistry(self.context.on_behalf_of(identity, idempotency_key), self.upstream)

    def close(self) -> None:
        self.upstream.close()
        super().close()


def _ref(name: AdapterName, revision: str) -> Ref:
    """The version that a revision name may refer to."""
    revision_name = parse_hub_revision(revision)
    if revision in (MAIN, "latest"):
        return Ref(name, Latest())
    if revision_name.number is not None:
        return Ref(name, Number(revision_name.number))
    if revision_name.prefix is not None and len(revision_name.prefix) >= 12:
        return Ref(name, ByDigest(revision_name.prefix))
    return Ref(name, Label(revision_name.name))
