"""A local registry that is a pull-through cache of another one, the upstream.

A read fetches first what is missing or outdated here. Listings and searches show only what is here. Writes
are not passed on, but a version that was withdrawn upstream cannot be pushed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, NotFound
from adaptry.core.hub_revision import parse_hub_revision
from adaptry.core.identity import Identity
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, ByDigest, Label, Latest, Number, Ref
from adaptry.registry.commits import MAIN
from adaptry.registry.records import (
    AdapterInfo,
    AliasInfo,
    CommitInfo,
    CommitNote,
    CommitResult,
    Page,
    PushOptions,
    PushResult,
    VersionDetail,
    VersionInfo,
)
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.idempotency import IdempotencyKey

Answer = TypeVar("Answer")


class UpstreamRegistry(Protocol):
    """What a pull-through registry needs of the registry behind it. `operations.mirroring.upstream.Origin` is
    one.
    """

    def fetch(self, ref: Ref) -> AdaptryError | None: ...

    def fetch_aliases(self, name: AdapterName) -> AdaptryError | None: ...

    def require_not_withdrawn(self, name: AdapterName, revision: Digest) -> None: ...

    def close(self) -> None: ...


class PullThroughRegistry(LocalRegistry):
    """`with_pull_through(registry, upstream)` makes one. Fetches nothing for an identity without the
    namespace here.
    """

    upstream: UpstreamRegistry

    def on_behalf_of(
        self, identity: Identity, idempotency_key: IdempotencyKey | None = None
    ) -> PullThroughRegistry:
        return with_pull_through(super().on_behalf_of(identity, idempotency_key), self.upstream)

    def close(self) -> None:
        self.upstream.close()
        super().close()

    def adapter(self, name: AdapterName) -> AdapterInfo:
        return self._after(Ref(name, Latest()), lambda: super(PullThroughRegistry, self).adapter(name))

    def version(self, ref: Ref) -> VersionInfo:
        return self._after(ref, lambda: super(PullThroughRegistry, self).version(ref))

    def detail(self, ref: Ref) -> VersionDetail:
        return self._after(ref, lambda: super(PullThroughRegistry, self).detail(ref))

    def versions(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        return self._after(
            Ref(name, Latest()), lambda: super(PullThroughRegistry, self).versions(name, cursor, limit)
        )

    def aliases(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        if self.identity.has_namespace(name.namespace):
            self.upstream.fetch_aliases(name)
        return self._after(Ref(name, Latest()), lambda: super(PullThroughRegistry, self).aliases(name))

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        return self._after(
            Ref(name, ByDigest(revision.hex)), lambda: super(PullThroughRegistry, self).tree(name, revision)
        )

    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return self._after(
            Ref(name, ByDigest(revision.hex)),
            lambda: super(PullThroughRegistry, self).read_file(name, revision, path, start),
        )

    def put_revision(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        self._let_in(name, manifest)
        return super().put_revision(name, manifest, options)

    def put_commit(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        self._let_in(name, manifest)
        return super().put_commit(name, branch, manifest, note, parent)

    def commit(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        return self._after(
            _ref(name, revision), lambda: super(PullThroughRegistry, self).commit(name, revision)
        )

    def _let_in(self, name: AdapterName, manifest: bytes) -> None:
        """Fetches the version first if upstream has it, with its state there. Raises `Withdrawn`."""
        if self.identity.may_write(name):
            revision = Digest.of(manifest)
            self.upstream.fetch(Ref(name, ByDigest(revision.hex)))
            self.upstream.require_not_withdrawn(name, revision)

    def _after(self, ref: Ref, read: Callable[[], Answer]) -> Answer:
        problem = self.upstream.fetch(ref) if self.identity.has_namespace(ref.name.namespace) else None
        try:
            return read()
        except NotFound as error:
            if problem is None:
                raise
            raise problem from error


def with_pull_through(registry: LocalRegistry, upstream: UpstreamRegistry) -> PullThroughRegistry:
    """The registry as it is, with `upstream` behind it."""
    made = PullThroughRegistry.__new__(PullThroughRegistry)
    vars(made).update(vars(registry))
    made.upstream = upstream
    return made


def _ref(name: AdapterName, revision: str) -> Ref:
    """The version that a revision name may mean."""
    revision_name = parse_hub_revision(revision)
    if revision in (MAIN, "latest"):
        return Ref(name, Latest())
    if revision_name.number is not None:
        return Ref(name, Number(revision_name.number))
    if revision_name.prefix is not None and len(revision_name.prefix) >= 12:
        return Ref(name, ByDigest(revision_name.prefix))
    return Ref(name, Label(revision_name.name))
