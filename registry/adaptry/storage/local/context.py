"""The context of every role of a local registry: the stores, the identity, and the lookups with which every
method begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.inspection.inspector import Inspector
from adaptry.core.access.actions import Action
from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, CorruptData, NotFound, RevisionNotFound
from adaptry.core.identity import LOCAL, Identity, require, require_base_write, require_read
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Label, Latest, Number, Ref, require_value
from adaptry.registry.commits import MAIN
from adaptry.registry.records import AdapterEdit, VersionInfo
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import adapters, bases, commits, damage, events, git_refs, shared_names
from adaptry.storage.catalog.access import ReadScope, read_scope
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.audit_log.log_key import KEY_FILE, LogKey
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record, set_actor
from adaptry.storage.catalog.database import Catalog, Reads, Transaction
from adaptry.storage.catalog.ref_resolution import ResolvedRef, resolve_ref, resolve_refs
from adaptry.storage.catalog.version_info import Columns
from adaptry.storage.local.decision_cache import DecisionCache
from adaptry.storage.local.digest_cache import IncrementalDigests
from adaptry.storage.local.stale_uploads import UploadCleanup

if TYPE_CHECKING:
    from adaptry.storage.local.idempotency import Answer, IdempotencyKey
    from adaptry.storage.local.wide_adapters import DeriveWide


def utc_now() -> datetime:
    return datetime.now(UTC)


class RegistryContext:
    """The stores and the identity; `clock` gives every recorded time."""

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
        folder: Path | None = None,
        log_key: LogKey | None = None,
        seals_audit_on_read: bool = True,
    ) -> None:
        """With `require_known_base`, a push whose base is not registered is refused, not admitted as
        declared.

        With `presign_uploads`, clients upload large files directly to the bucket, by presigned URLs. With an
        `idempotency_key`, a repeated request with the same key creates nothing new. `folder` is the
        registry's folder, if it has one. `log_key` signs the audit log; by default, a key in that folder.
        A server seals the log continuously, so that its readers need not (`seals_audit_on_read`), and stores
        when tokens were used (`note_token_use`). It derives the data of adapters of very many tensors in
        another process (`derive_wide`).
        """
        self.catalog = catalog
        self.blobs = blobs
        self.identity = identity
        self.require_known_base = require_known_base
        self.clock = clock
        self.incremental_digests: IncrementalDigests = incremental_digests or IncrementalDigests()
        self.presign_uploads = presign_uploads
        self.inspector: Inspector = inspector or Inspector()
        self.folder = folder
        self.upload_cleanup: UploadCleanup = UploadCleanup()
        self.gate_decisions: DecisionCache = DecisionCache()
        self.log_key: LogKey = log_key or LogKey(folder / KEY_FILE if folder else None)
        self.seals_audit_on_read = seals_audit_on_read
        self.note_token_use: Callable[[Identity], object] = lambda identity: None
        self.derive_wide: DeriveWide | None = None
        self.after_close: Callable[[], object] = lambda: None
        self._idempotency_key = idempotency_key

    def on_behalf_of(
        self, identity: Identity, idempotency_key: IdempotencyKey | None = None
    ) -> RegistryContext:
        """A context with the same stores for another identity, optionally for one request; this costs
        nothing.
        """
        other = copy(self)
        other.identity, other._idempotency_key = identity, idempotency_key
        return other

    def close(self) -> None:
        self.inspector.close()
        self.catalog.close()
        self.after_close()

    @contextmanager
    def write(self, *, is_durable: bool = True) -> Iterator[Transaction]:
        """A transaction like `Catalog.write`, for which the audit log names the caller."""
        with self.catalog.write() if is_durable else self.catalog.write_nondurable() as tx:
            set_actor(tx, self.identity)
            yield tx

    def record(
        self,
        tx: Transaction,
        action: str,
        target: AuditTarget,
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> None:
        """Records a change of this transaction in the audit log, if the change has no event."""
        record(tx, action, target, self.clock(), before=before, after=after)

    def run_once(self, tx: Transaction, kind: type[Answer], action: Callable[[], Answer]) -> Answer:
        """The result of `action`; for a repeated request, the stored result."""
        if self._idempotency_key is None:
            return action()
        return self._idempotency_key.run(tx, self.identity.name, self.clock(), kind, action)

    def readable_adapter(self, tx: Reads, name: AdapterName) -> AdapterRecord:
        """The adapter, if it exists and may be read. Raises `NotFound` with the same message for both
        cases.
        """
        require_value(name)
        return self.require_readable(name, adapters.find(tx, name))

    def resolve(self, tx: Reads, ref: Ref) -> Columns:
        """The columns of the version that `ref` selects. Raises `NotFound`, and the errors of resolving the
        ref.
        """
        require_value(ref)
        return self._selected(tx, ref, resolve_ref(tx, ref))

    def resolve_all(self, tx: Reads, refs: Sequence[Ref]) -> list[Columns]:
        """The columns of the versions that several refs select, with one statement. Raises the errors of
        `resolve`.
        """
        for ref in refs:
            require_value(ref)
        return [
            self._selected(tx, ref, found) for ref, found in zip(refs, resolve_refs(tx, refs), strict=True)
        ]

    def _selected(self, tx: Reads, ref: Ref, resolved: ResolvedRef | None) -> Columns:
        self.require_readable(ref.name, resolved.adapter if resolved else None)
        found = resolved.version(ref.selector) if resolved else None
        if found is None and resolved and isinstance(ref.selector, Label):
            found = self._at_git_ref(tx, resolved.adapter, ref.selector.label)
        if found is None:
            if isinstance(ref.selector, Latest) and resolved:
                raise RevisionNotFound(_why_none_is_active(tx, resolved.adapter))
            raise NotFound(f"no version {ref}; `adaptry ls {ref.name}` lists all versions")
        return found

    def _at_git_ref(self, tx: Reads, adapter: AdapterRecord, label: str) -> Columns | None:
        """The version at a branch or tag, which never stands in for an alias with a policy.

        Raises `NotFound` if its commit is not a version.
        """
        commit = commits.find_by_ref(tx, adapter, label)
        if commit is None:
            return None
        from adaptry.storage.catalog import policies  # no other ref needs it

        if policies.in_force(tx, adapter, label):
            return None
        if commit.info.number is None:
            raise NotFound(
                f"{adapter.name}@{label} is at commit {commit.info.id[:12]}, which is not a version;"
                f" commit it to main to make it one, or use `hf download {adapter.name} --revision"
                f" {label}` from a server"
            )
        return self.resolve(tx, Ref(adapter.name, Number(commit.info.number)))

    def writable_adapter(
        self,
        tx: Transaction,
        name: AdapterName,
        action: Action,
        *,
        alias: str | None = None,
        state: str | None = None,
    ) -> AdapterRecord:
        """The adapter, if the caller may do `action` on it, for that alias or with that new state.

        Raises `NotFound`, or `PermissionDenied` for callers who may only read it.
        """
        adapter = self.readable_adapter(tx, name)
        self.require(action, name, alias=alias, state=state)
        return adapter

    def require(
        self, action: Action, name: AdapterName, *, alias: str | None = None, state: str | None = None
    ) -> None:
        """Raises `PermissionDenied` if the caller lacks the right, whether or not the adapter exists."""
        require(self.identity, action, name, Facts(alias, state, self.clock()))

    def may(self, action: Action, name: AdapterName) -> bool:
        return self.identity.may(action, name, Facts(now=self.clock()))

    def create_adapter_record(self, tx: Transaction, name: AdapterName, edit: AdapterEdit) -> AdapterRecord:
        """Creates an adapter under a free name, with the first commit of its `main`. Raises `Conflict` if a
        base has the name.
        """
        require_no_base(tx, name)
        now, by = self.clock(), self.identity.name
        adapter = adapters.create(tx, name, edit, now)
        git_refs.put(tx, adapter, MAIN, "branch", commits.add_first(tx, adapter, now, by), now, by)
        detail = {"visibility": adapter.visibility}
        events.record(tx, "adapter.created", at=now, by=by, adapter=adapter, detail=detail)
        return adapter

    def require_own_name(self, tx: Transaction, adapter: AdapterRecord) -> None:
        """Raises `Conflict` if a base has the adapter's name, which the commit would hide. Call it before the
        first commit of an adapter.
        """
        if shared_names.is_empty(tx, adapter.name):
            require_no_base(tx, adapter.name)

    def stored_chunks(self, digest: Digest, start: int, what: str) -> Iterator[bytes]:
        """Stored bytes from `start` on; `what` names the file in errors.

        Raises `CorruptData` if they are lost or known to be damaged.
        """
        with self.catalog.read_prepared() as tx:
            self.require_undamaged(tx, digest, what)
        return self.undamaged_chunks(digest, start, what)

    def require_undamaged(self, tx: Reads, digest: Digest, what: str) -> None:
        """Raises `CorruptData` if stored bytes are known to be damaged."""
        reason = damage.damage_reason(tx, digest)
        if reason is not None:
            raise damaged_error(what, reason)

    def undamaged_chunks(self, digest: Digest, start: int, what: str) -> Iterator[bytes]:
        """Like `stored_chunks`, for bytes that are not known to be damaged."""
        try:
            return self.blobs.chunks(digest, start)
        except NotFound as error:
            raise damaged_error(what, "its bytes are lost") from error

    def stored_size(self, digest: Digest, what: str) -> int:
        """The size of stored bytes. Raises `CorruptData` if they are lost."""
        try:
            return self.blobs.size(digest)
        except NotFound as error:
            raise damaged_error(what, "its bytes are lost") from error

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        """Implements `Commits.tree`."""
        with self.catalog.read_prepared() as tx:
            return self.tree_of(tx, self.readable_adapter(tx, name), revision)

    def tree_of(self, tx: Reads, adapter: AdapterRecord, revision: Digest) -> Manifest:
        """Like `tree`, for an adapter that may be read."""
        tree = commits.tree(tx, adapter, revision)
        if tree is None:
            raise no_revision(adapter.name, revision)
        return tree

    def require_readable(self, name: AdapterName, adapter: AdapterRecord | None) -> AdapterRecord:
        """The adapter found under `name`. Raises `NotFound` if it does not exist or may not be read."""
        if adapter is None:
            raise NotFound(f"no adapter {name}")
        require_read(self.identity, name, adapter.visibility)
        return adapter

    def read_scope(self, tx: Reads) -> ReadScope:
        return read_scope(tx, self.identity)

    def sees_base(self, tx: Reads, id: Digest | None) -> bool:
        """True if a version's base need not be hidden: the caller may see it, it is not registered, or the
        version has none.
        """
        if id is None or "*" in self.identity.namespaces:
            return True
        access = bases.access_of(tx, id)
        return access is None or access.allows(self.identity)

    def hide_base(self, tx: Transaction, version: VersionInfo) -> VersionInfo:
        """The version as the caller may see it: with its base only if the caller may see the base."""
        if version.base_id is None:
            return version
        from adaptry.storage.local.hidden_bases import hide_bases  # only readers of versions need it

        return hide_bases(tx, self.read_scope(tx), [version])[0]

    def require_base_write(self) -> None:
        """Raises the errors of `identity.require_base_write`."""
        require_base_write(self.identity)


def require_no_base(tx: Reads, name: AdapterName) -> None:
    """Raises `Conflict` if a base has that name: loaders request bases by name, and would get the adapter
    instead.
    """
    if found := shared_names.base_of_name(tx, name):
        raise Conflict(
            f"{found} is the name of a base, which an adapter called {name} would hide from loaders; choose"
            f" another name for the adapter, such as {name}-lora"
        )


def require_all_undamaged(tx: Reads, files: Mapping[str, Digest]) -> None:
    """Raises `CorruptData` if one of the files (digest and name) is known to be damaged."""
    known = damage.all_damaged(tx)
    for what, digest in files.items():
        if digest in known:
            raise damaged_error(what, known[digest])


def no_revision(name: AdapterName, revision: Digest) -> RevisionNotFound:
    return RevisionNotFound(f"{name} has no revision {revision.brief}")


def damaged_error(what: str, reason: str) -> CorruptData:
    return CorruptData(
        f"{what} is damaged in the registry: {reason}. Push the same files again, or run `adaptry repair` on"
        " the registry's machine, with --from and a copy of it"
    )


def _why_none_is_active(tx: Reads, adapter: AdapterRecord) -> str:
    """A message with the state of the newest version, who set it, and the reason."""
    from adaptry.registry.state_warnings import state_warning
    from adaptry.storage.catalog.shown_versions import newest_page  # no other ref needs it

    page = newest_page(tx, adapter.key, None, 1)
    if not page.items:
        return f"{adapter.name} has no version yet; push one (adaptry push FOLDER {adapter.name})"
    (newest,) = page.items
    change = newest.last_state_change
    by = f" (by {change.by})" if change else ""
    return (
        f"{adapter.name} has no active version: {state_warning(newest)}{by}; `adaptry ls {adapter.name}`"
        " lists all versions with their states"
    )
