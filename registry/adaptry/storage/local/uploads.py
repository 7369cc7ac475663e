"""The uploads role of a local registry: the owner's files, and upload sessions.

A session's row has the expected file, its staging in the blob store the received bytes. After an
interruption, received bytes are kept until the session has been idle for a day, or is abandoned and its slot
is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from adaptry.adapters.content import Content
from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    Busy,
    Conflict,
    DigestMismatch,
    Invalid,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unavailable,
)
from adaptry.core.failpoints import reach
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_FILE
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.registry import records
from adaptry.registry.files import Owner
from adaptry.registry.uploads import Uploads
from adaptry.storage.blobs import StagedBlob
from adaptry.storage.catalog import adapters, cursors, damage, files, inspections, pending_deletes
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.files import UploadSessionRecord
from adaptry.storage.local.context import RegistryContext, require_no_base
from adaptry.storage.local.files import require_base_visible
from adaptry.storage.local.ingestion import Ingestion
from adaptry.storage.local.quotas import QuotaRefusal, refuse_session
from adaptry.storage.local.small_files import SmallFiles, store_files

DIRECT = 8 << 20
"""Minimum size in bytes for presigned uploads: smaller files are faster through the server, with one request
to the bucket.
"""
PART = 16 << 20
_ADDRESS_SECONDS = 3600
_GONE = "no such upload, or it was idle for too long; open it again"
_NOT_LISTED = "no such open upload; `adaptry uploads ls` shows the open ones"


@dataclass(frozen=True)
class LocalUploads(Uploads):
    """The uploads of a local registry."""

    context: RegistryContext

    def open(
        self, owner: Owner, digest: Digest | None, size: int, earlier: str | None = None
    ) -> records.UploadInfo:
        if not 0 <= size <= MAX_FILE:
            raise TooLarge(f"the file has {size:,} bytes; the limit is {MAX_FILE >> 30} GiB")
        self.context.upload_cleanup.run_once(self.context.catalog, self.context.blobs, self.context.clock())
        session = self._opened(owner, digest, size, earlier)
        while isinstance(session, QuotaRefusal) and self._make_room(session):
            session = self._opened(owner, digest, size, earlier)
        if isinstance(session, QuotaRefusal):
            raise session.error
        reach("uploads.after_open")
        return self._begun(session)

    def _make_room(self, refused: QuotaRefusal) -> bool:
        """Drops an abandoned session of a name that has reached its limit; returns whether this made room."""
        if not isinstance(refused.error, Busy):
            return False
        from adaptry.storage.local import abandoned_uploads  # used only at the limit

        direct_from = DIRECT if self.context.presign_uploads else None
        return abandoned_uploads.drop_abandoned(
            self.context.catalog, self.context.blobs, refused.subject, self.context.clock(), direct_from
        )

    def _opened(
        self, owner: Owner, digest: Digest | None, size: int, earlier: str | None
    ) -> UploadSessionRecord | QuotaRefusal:
        """An idle session for the same bytes or a new one; otherwise the reason why none may be opened."""
        from adaptry.storage.local import unhashed_uploads  # used only by servers

        now, key = self.context.clock(), self.context.blobs.new_key()
        with self.context.write(
            is_durable=False
        ) as tx:  # if a power failure undoes the session, the client opens another
            self._require_writing(tx, owner)
            if isinstance(owner, AdapterName) and adapters.find(tx, owner) is None:
                require_no_base(tx, owner)  # refused before gigabytes are sent
            if digest is None:
                unhashed_uploads.require_worthwhile(self.context, tx, owner, size)
                digest = unhashed_uploads.placeholder(key)
            if pending_deletes.is_deleting(tx, digest):
                raise Unavailable("these bytes are being deleted; wait a moment and send them again")
            if earlier and (named := unhashed_uploads.name(tx, owner, digest, size, earlier)):
                return named
            for session in files.unfinished_sessions(tx, owner, digest, size):
                # Do not share a session that another client may have just opened.
                if self.context.blobs.staged_size(session.id) and not self.context.blobs.is_held(session.id):
                    files.touch(tx, session.id, now)
                    return session
            refused = refuse_session(self.context, tx, owner, digest, size)
            if refused is not None:
                return refused
            self.context.blobs.require_room(size)
            by = self.context.identity.name
            return files.open_session(tx, key, owner, digest, size, now, by)

    def append(
        self, upload: records.UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> records.UploadInfo:
        session = self._session(upload.id)
        if session.is_finished:
            return self._upload(session)
        with self.context.blobs.staging(session.id) as staged:
            self._append(session, staged, offset, _at_most(session.size - offset, chunks))
            with self.context.write(is_durable=False) as tx:
                is_open = files.touch(tx, session.id, self.context.clock())
            if not is_open:
                staged.discard()
                raise NotFound(_GONE)
        return self._upload(session)

    def _append(
        self, session: UploadSessionRecord, staged: StagedBlob, offset: int, chunks: Iterable[bytes]
    ) -> None:
        """Stores the chunks, and hashes and inspects them as they arrive, so that admission need not read
        them again.
        """
        from adaptry.storage.local.inspection_on_arrival import inspection_on_arrival  # used only by servers

        digests = self.context.incremental_digests
        weights = digests.resume(session.id, offset, session.size)
        with inspection_on_arrival(self.context, session, staged, weights) as inspection:
            try:
                with BackgroundHasher(weights.update if weights else None) as hasher:
                    staged.append(offset, _hash_stream(chunks, hasher, inspection.advance))
                inspection.advance()
            finally:
                if weights:
                    digests.put(session.id, weights, staged.offset)
            if staged.offset == session.size:
                inspection.keep(digests, session.id)

    def finish(self, upload: records.UploadInfo, digest: Digest | None = None) -> None:
        from adaptry.storage.local import unhashed_uploads  # used only by servers

        session = self._session(upload.id)
        if digest is None and unhashed_uploads.is_unnamed(session):
            raise Invalid("this upload was opened without the file's digest: finish it with the digest")
        if digest not in (None, session.digest):
            session = self._named(session, digest)
        if session.is_finished:
            return
        with self.context.blobs.staging(session.id) as staged:
            if staged.offset < session.size:
                if self._session(upload.id).is_finished:  # finished by its previous holder
                    return
                raise Conflict(
                    f"{session.size - staged.offset:,} of {session.size:,} bytes are missing; continue at"
                    f" {staged.offset}"
                )
            with self.context.catalog.read_prepared() as tx:
                is_damaged = damage.damage_reason(tx, session.digest) is not None
            # A replacement of damaged bytes must neither count as a copy of them nor delete them.
            if is_damaged:
                self.context.blobs.set_aside(session.digest)
            try:
                staged.publish(session.digest)
            except DigestMismatch:
                with self.context.write() as tx:
                    files.close_session(tx, session.id)
                raise
            reach("uploads.after_publish")
            digests = self.context.incremental_digests.pop(session.id)
            weights = digests.digest() if digests else None
            inspection = self.context.incremental_digests.pop_inspection(session.id)
            with self.context.write() as tx:
                # A sweep keeps the bytes of open sessions; those of a lapsed session may be gone by now.
                if files.find_session(tx, session.id) is None:
                    raise NotFound("the upload was idle for too long; open it again")
                if weights:
                    files.store_weights_digest(tx, session.digest, weights)
                if inspection:
                    inspections.store(tx, session.digest, inspections.EncodedInspection.of(inspection))
                files.add_owned(tx, session.owner, session.digest, session.size, session.created_by)
                damage.clear_damage(tx, session.digest)
                files.finish_session(tx, session.id, self.context.clock())

    def _named(self, session: UploadSessionRecord, digest: Digest) -> UploadSessionRecord:
        """Gives this digest to the session that was waiting for it, and returns the session. Raises
        `Conflict`, `Unavailable`.
        """
        from adaptry.storage.local import unhashed_uploads

        with self.context.write(is_durable=False) as tx:
            if pending_deletes.is_deleting(tx, digest):
                raise Unavailable("these bytes are being deleted; wait a moment and send them again")
            named = unhashed_uploads.name(tx, session.owner, digest, session.size, session.id)
        if named is None:
            raise Conflict("this upload is for a file with another digest; open an upload for this file")
        return named

    def put_all(self, owner: AdapterName, contents: Sequence[bytes]) -> None:
        sent = SmallFiles(self.context, owner, {Digest.of(data): data for data in contents})
        with self.context.catalog.read() as tx:
            self._require_writing(tx, owner)
            if adapters.find(tx, owner) is None:
                sent.require_free_name(tx)
            lacking = sent.lacking(tx)
        store_files(self.context, lacking)
        reach("uploads.after_publish")
        with self.context.write() as tx:
            self._require_writing(tx, owner)
            sent.add_ownership(tx, lacking)
            files.clear_unneeded(tx, owner, sent.data)

    def ingest(
        self, owner: AdapterName, content: Content, progress: Progress = no_progress
    ) -> Mapping[str, Digest] | None:
        self.context.catalog.require_writable()
        ingestion = Ingestion(self.context, owner, content, progress)
        with self.context.catalog.read_prepared() as tx:
            self._require_pushing(tx, owner)
            if adapters.find(tx, owner) is None:
                require_no_base(tx, owner)
            if not ingestion.is_worthwhile(tx):
                return None
        try:
            stored = ingestion.store()
            with self.context.write() as tx:
                self._require_writing(tx, owner)
                ingestion.add_ownership(tx, stored)
        except Unavailable:  # a sweep deletes or deleted them: the caller's other path tries again
            return None
        return {path: file.digest for path, file in stored.items()}

    def list(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> records.Page[records.UploadSession]:
        cursors.check_limit(limit)
        about = f"uploads {namespace or ''}"
        after = "" if cursor is None else cursors.decode(cursor, about)
        with self.context.catalog.read() as tx:
            seen = [tenant for tenant in files.open_tenants(tx) if self._may_manage(tenant)]
            chosen = seen if namespace is None else [tenant for tenant in seen if tenant == namespace]
            found = files.open_page(tx, chosen, after, limit + 1)
        following = cursors.encode(found[limit - 1].id, about) if len(found) > limit else None
        return records.Page(items=tuple(map(self._shown, found[:limit])), next=following)

    def drop(self, id: str) -> None:
        session = self._session(id, _NOT_LISTED)
        if session.is_finished:
            raise NotFound(_NOT_LISTED)
        with self.context.write() as tx:
            files.close_session(tx, session.id)
            name = session.owner if isinstance(session.owner, AdapterName) else None
            target = AuditTarget(str(session.owner), name.namespace if name else None)
            was = {"digest": session.digest, "size": session.size}
            self.context.record(tx, "upload.drop", target, before=was)
        with (
            suppress(Conflict),
            self.context.blobs.staging(session.id) as staged,
        ):  # otherwise its sender notices at the end, and discards it
            staged.discard()

    def _may_manage(self, tenant: str) -> bool:
        if tenant == files.BASES:
            return self.context.identity.may_administer
        return self.context.identity.may_in("push", tenant, Facts(now=self.context.clock()))

    def _shown(self, session: UploadSessionRecord) -> records.UploadSession:
        written = self.context.blobs.last_write(session.id)
        return records.UploadSession(
            id=session.id,
            owner=str(session.owner),
            digest=session.digest,
            size=session.size,
            offset=self.context.blobs.staged_size(session.id),
            created_by=session.created_by,
            active_at=max(session.touched_at, written or session.touched_at),
            is_held=self.context.blobs.is_held(session.id),
        )

    def _session(self, id: str, if_missing: str = _GONE) -> UploadSessionRecord:
        """The session, if it exists and the caller may write to its owner. Raises `NotFound`.

        Other callers do not learn that it exists.
        """
        with suppress(PermissionDenied, NotFound):
            with self.context.catalog.read_prepared() as reads:
                session = files.find_session(reads, id)
                if session is not None and isinstance(session.owner, AdapterName):
                    self._require_pushing(reads, session.owner)
                    return session
            if session is not None:
                with self.context.catalog.read() as tx:
                    self._require_writing(tx, session.owner)
                return session
        raise NotFound(if_missing)

    def _begun(self, session: UploadSessionRecord) -> records.UploadInfo:
        """The session, with presigned URLs if the file is large enough."""
        upload = self._upload(session)
        if not self.context.presign_uploads or session.size < DIRECT:
            return upload
        return upload.model_copy(update={"direct": tuple(self._parts(upload))})

    def _parts(self, upload: records.UploadInfo) -> Iterator[records.DirectPart]:
        for start in range(upload.offset, upload.size, PART):
            size = min(PART, upload.size - start)
            address = self.context.blobs.upload_url(upload.id, start, size, _ADDRESS_SECONDS)
            if address is None:
                return
            yield records.DirectPart(
                start=start, size=size, address=address.url, headers=dict(address.headers)
            )

    def _upload(self, session: UploadSessionRecord) -> records.UploadInfo:
        offset = session.size if session.is_finished else self.context.blobs.staged_size(session.id)
        return records.UploadInfo(id=session.id, offset=offset, size=session.size)

    def _require_writing(self, tx: Transaction, owner: Owner) -> None:
        if isinstance(owner, Digest):
            require_base_visible(self.context, tx, owner)
            self.context.require_base_write()
        else:
            self._require_pushing(tx, owner)

    def _require_pushing(self, tx: Reads, name: AdapterName) -> None:
        is_known = adapters.find(tx, name) is not None
        if is_known and self.context.may("evidence.add", name):
            return  # a results file; if no evidence uses it, it is swept
        self.context.require("push", name)
        if not is_known:  # refused now, before the bytes of the push are sent
            adapters.require_distinct_name(tx, name)


def _hash_stream(
    chunks: Iterable[bytes], hasher: BackgroundHasher, on_written: Callable[[], None]
) -> Iterator[bytes]:
    for chunk in chunks:
        hasher.update(memoryview(chunk))
        yield chunk
        on_written()


def _at_most(size: int, chunks: Iterable[bytes]) -> Iterable[bytes]:
    """The chunks, up to the announced size. Raises `TooLarge`."""
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            raise TooLarge("more bytes than the upload announced; the file may have changed")
        yield chunk
