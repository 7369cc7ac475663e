"""The context of every role of a local registry: the stores, the identity, and the lookups that every method
begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from datetime import UTC, datetime

from pydantic import TypeAdapter

from adaptry.adapters.inspection.inspector import Inspector
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, CorruptData, NotFound, RevisionNotFound
from adaptry.core.identity import LOCAL, Identity, require_base_write, require_read, require_write
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Label, Latest, Number, Ref
from adaptry.registry.commits import MAIN
from adaptry.registry.records import AdapterEdit, VersionInfo
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import adapters, commits, damage, events, git_refs, shared_names
from adaptry.storage.catalog.access import ReadScope, read_scope
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.ref_resolution import resolve_ref
from adaptry.storage.catalog.version_info import Columns
from adaptry.storage.local.digest_cache import IncrementalDigests
from adaptry.storage.local.hidden_bases import hide_bases
from adaptry.storage.local.idempotency import Answer, IdempotencyKey
from adaptry.storage.local.stale_uploads import UploadCleanup


def utc_now() -> datetime:
    return datetime.now(UTC)


class RegistryContext:
    """The stores and the identity; `clock` is asked for every time that is recorded."""

    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        identity: Identity = LOCAL,
        *,
        require_known_base: bool = False,
        clock: Callable[[], datetime] = utc_now,
        incremental_digests: IncrementalDigests | None = None,
        idempotency_key: IdempotencyKey | None = None,
        presign_uploads: bool = False,
        inspector: Inspector | None = None,
    ) -> None:
        """With `require_known_base`, a push whose base is not registered is refused, not admitted as
        declared.

        With `presign_uploads`, clients upload large files straight to the bucket, at presigned URLs.
        With an `idempotency_key`, a request that is sent again with the same key creates nothing new.
        """
        self.catalog = catalog
        self.blobs = blobs
        self.identity = identity
        self.require_known_base = require_known_base
        self.clock = clock
        self.incremental_digests = incremental_digests or IncrementalDigests()
        self.presign_uploads = presign_uploads
        self.inspector = inspector or Inspector()
        self.upload_cleanup = UploadCleanup()
        self._idempotency_key = idempotency_key

    def on_behalf_of(
        self, identity: Identity, idempotency_key: IdempotencyKey | None = None
    ) -> RegistryContext:
        """The same stores for someone else, and perhaps for one request; costs nothing."""
        other = copy(self)
        other.identity, other._idempotency_key = identity, idempotency_key
        return other

    def close(self) -> None:
        self.inspector.close()
        self.catalog.close()

    def run_once(self, tx: Transaction, kind: TypeAdapter[Answer], action: Callable[[], Answer]) -> Answer:
        """What `action` answers; where the caller asked for this before, what it answered then."""
        if self._idempotency_key is None:
            return action()
        return self._idempotency_key.run(tx, self.identity.name, self.clock(), kind, action)

    def readable_adapter(self, tx: Transaction, name: AdapterName) -> AdapterRecord:
        """The adapter, if it is there and may be read. Raises `NotFound`, with the same words for both."""
        return self._seen(name, adapters.find(tx, name))

    def resolve(self, tx: Transaction, ref: Ref) -> Columns:
        """The version a ref means, if it may be read. Raises `NotFound`, `Conflict` (ambiguous)."""
        resolved = resolve_ref(tx, ref)
        self._seen(ref.name, resolved.adapter if resolved else None)
        found = resolved.version(ref.selector) if resolved else None
        if found is None and resolved and isinstance(ref.selector, Label):
            found = self._at_git_ref(tx, resolved.adapter, ref.selector.label)
        if found is None:
            if isinstance(ref.selector, Latest):
                raise NotFound(
                    f"{ref.name} has no active version; `adaptry history {ref.name}` shows what there was"
                )
            raise NotFound(f"no version {ref}; `adaptry history {ref.name}` shows what there is and was")
        return found

    def _at_git_ref(self, tx: Transaction, adapter: AdapterRecord, label: str) -> Columns | None:
        """The version that a branch or tag is at. Raises `NotFound` for one whose commit is none."""
        commit = commits.find_by_ref(tx, adapter, label)
        if commit is None:
            return None
        if commit.info.number is None:
            raise NotFound(
                f"{adapter.name}@{label} is at commit {commit.info.id[:12]}, which is no version; commit it"
                f" to main to make it one, or read it as it is with `hf download {adapter.name} --revision"
                f" {label}` from a server"
            )
        return self.resolve(tx, Ref(adapter.name, Number(commit.info.number)))

    def writable_adapter(self, tx: Transaction, name: AdapterName) -> AdapterRecord:
        """Raises `NotFound`, or `PermissionDenied` to who may only read it."""
        adapter = self.readable_adapter(tx, name)
        require_write(self.identity, name)
        return adapter

    def create_adapter_record(self, tx: Transaction, name: AdapterName, edit: AdapterEdit) -> AdapterRecord:
        """A new adapter under a name that no other has, with the first commit of its `main`. Raises
        `Conflict` if a base has the name.
        """
        require_no_base(tx, name)
        now, by = self.clock(), self.identity.name
        adapter = adapters.create(tx, name, edit, now)
        git_refs.put(tx, adapter, MAIN, "branch", commits.add_first(tx, adapter, now, by), now, by)
        detail = {"visibility": adapter.visibility}
        events.record(tx, "adapter.created", at=now, by=by, adapter=adapter, detail=detail)
        return adapter

    def require_own_name(self, tx: Transaction, adapter: AdapterRecord) -> None:
        """Before the first commit of an adapter. Raises `Conflict` if a base has its name, which the commit
        would hide.
        """
        if shared_names.is_empty(tx, adapter.name):
            require_no_base(tx, adapter.name)

    def stored_chunks(self, digest: Digest, start: int, what: str) -> Iterator[bytes]:
        """Stored bytes from `start` on, for a reader of the file that `what` names.

        Raises `CorruptData` where they are known to be damaged, or are lost.
        """
        with self.catalog.read() as tx:
            reason = damage.damage_reason(tx, digest)
        if reason is not None:
            raise _damaged(what, reason)
        try:
            return self.blobs.chunks(digest, start)
        except NotFound as error:
            raise _damaged(what, "its bytes are gone") from error

    def stored_size(self, digest: Digest, what: str) -> int:
        """Raises `CorruptData` where the bytes are lost."""
        try:
            return self.blobs.size(digest)
        except NotFound as error:
            raise _damaged(what, "its bytes are gone") from error

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        """As `Commits.tree`."""
        with self.catalog.read() as tx:
            adapter = self.readable_adapter(tx, name)
            tree = commits.tree(tx, adapter, revision)
        if tree is None:
            raise RevisionNotFound(f"{name} has no revision {revision.brief}")
        return tree

    def _seen(self, name: AdapterName, adapter: AdapterRecord | None) -> AdapterRecord:
        if adapter is None:
            raise NotFound(f"no adapter {name}")
        require_read(self.identity, name, adapter.visibility)
        return adapter

    def read_scope(self, tx: Transaction) -> ReadScope:
        return read_scope(tx, self.identity)

    def hide_base(self, tx: Transaction, version: VersionInfo) -> VersionInfo:
        """The version as the caller is shown it: with its base only if they may see that."""
        return hide_bases(tx, self.read_scope(tx), [version])[0] if version.base_id else version

    def require_base_write(self) -> None:
        """Raises as `identity.require_base_write`."""
        require_base_write(self.identity)


def require_no_base(tx: Transaction, name: AdapterName) -> None:
    """Raises `Conflict` if a base goes by that name: loaders ask for bases by name, and would be given the
    adapter.
    """
    if found := shared_names.base_of_name(tx, name):
        raise Conflict(
            f"{found} is the name of a base, which an adapter called {name} would hide from loaders; choose"
            f" another name for the adapter, such as {name}-lora"
        )


def require_sound(tx: Transaction, files: Mapping[str, Digest]) -> None:
    """Raises `CorruptData` where one of the files, each by what names it, is known to be damaged."""
    known = damage.all_damaged(tx)
    for what, digest in files.items():
        if digest in known:
            raise _damaged(what, known[digest])


def _damaged(what: str, reason: str) -> CorruptData:
    return CorruptData(
        f"{what} is damaged in the registry: {reason}. Push the same files again, or run `adaptry mend` on"
        " the registry's machine, with --from and a copy of it"
    )
