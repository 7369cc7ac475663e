"""The part of a local registry about bytes: what an owner has, and the sessions that bring more.

A session's row says what is awaited, its staging in the blob store how much has come. Interrupted at any
point, what arrived is kept until the session has been idle for a day, or is abandoned and in the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.core.errors import (
    Busy,
    Conflict,
    DigestMismatch,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unavailable,
)
from adaptry.core.failpoints import reach
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.identity import require_write
from adaptry.core.manifest import MAX_FILE
from adaptry.core.refs import AdapterName
from adaptry.registry.files import Owner
from adaptry.registry.records import DirectPart, Page, UploadInfo, UploadSession
from adaptry.registry.uploads import Uploads
from adaptry.storage.blobs import StagedBlob
from adaptry.storage.catalog import adapters, cursors, damage, files, pending_deletes
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.files import UploadSessionRecord
from adaptry.storage.local import abandoned_uploads
from adaptry.storage.local.context import RegistryContext, require_no_base
from adaptry.storage.local.files import require_base_visible

DIRECT = 8 << 20
"""Smaller files come sooner through us: they cost the bucket one request."""
PART = 16 << 20
_ADDRESS_SECONDS = 3600
MAX_OPEN_UPLOADS = 64
"""Sessions that one namespace may have open at once; abandoned ones make room for new ones."""


@dataclass(frozen=True)
class LocalUploads(Uploads):
    """The uploads of a local registry."""

    context: RegistryContext

    def open(self, owner: Owner, digest: Digest, size: int) -> UploadInfo:
        if not 0 <= size <= MAX_FILE:
            raise TooLarge(f"a file of {size:,} bytes; at most {MAX_FILE >> 30} GiB are stored")
        self.context.upload_cleanup.run_once(self.context.catalog, self.context.blobs, self.context.clock())
        session = self._opened(owner, digest, size)
        if session is None:
            direct_from = DIRECT if self.context.presign_uploads else None
            if abandoned_uploads.drop_abandoned(
                self.context.catalog, self.context.blobs, owner, 1, self.context.clock(), direct_from
            ):
                session = self._opened(owner, digest, size)
        if session is None:
            raise Busy(
                f"{MAX_OPEN_UPLOADS} uploads are open in {files.tenant_of(owner)} already; try again when"
                " some have finished (`adaptry uploads ls` shows them, `adaptry uploads rm` drops one)"
            )
        reach("uploads.after_open")
        return self._begun(session)

    def _opened(self, owner: Owner, digest: Digest, size: int) -> UploadSessionRecord | None:
        """An idle session for the same bytes, or a new one; None where the tenant has too many open."""
        now = self.context.clock()
        with self.context.catalog.write() as tx:
            self._require_writing(tx, owner)
            if isinstance(owner, AdapterName) and adapters.find(tx, owner) is None:
                require_no_base(tx, owner)  # said before gigabytes are sent for it
            if pending_deletes.is_deleting(tx, digest):
                raise Unavailable(
                    "these very bytes are being deleted just now; wait a moment and send them again"
                )
            for session in files.unfinished_sessions(tx, owner, digest, size):
                # Nothing is gained by sharing one that someone else may just have opened.
                if self.context.blobs.staged_size(session.id) and not self.context.blobs.is_held(session.id):
                    files.touch(tx, session.id, now)
                    return session
            if files.count_open_sessions(tx, owner) >= MAX_OPEN_UPLOADS:
                return None
            self.context.blobs.require_room(size)
            by = self.context.identity.name
            return files.open_session(tx, self.context.blobs.new_key(), owner, digest, size, now, by)

    def append(self, upload: UploadInfo, offset: int, chunks: Iterable[bytes]) -> UploadInfo:
        session = self._session(upload.id)
        if session.is_finished:
            return self._upload(session)
        with self.context.blobs.staging(session.id) as staged:
            self._append(session, staged, offset, _at_most(session.size - offset, chunks))
        with self.context.catalog.write_nondurable() as tx:
            files.touch(tx, session.id, self.context.clock())
        return self._upload(session)

    def _append(
        self, session: UploadSessionRecord, staged: StagedBlob, offset: int, chunks: Iterable[bytes]
    ) -> None:
        """Stores the chunks and weighs them as they pass, so that admitting them need not read them again."""
        weights = self.context.incremental_digests.resume(session.id, offset, session.size)
        try:
            with BackgroundHasher(weights.update if weights else None) as hasher:
                staged.append(offset, _hash_stream(chunks, hasher))
        finally:
            if weights:
                self.context.incremental_digests.put(session.id, weights, staged.offset)

    def finish(self, upload: UploadInfo) -> None:
        session = self._session(upload.id)
        if session.is_finished:
            return
        with self.context.blobs.staging(session.id) as staged:
            if staged.offset < session.size:
                if self._session(upload.id).is_finished:  # by whoever held it until now
                    return
                raise Conflict(
                    f"{session.size - staged.offset:,} of {session.size:,} bytes are missing; go on at"
                    f" {staged.offset}"
                )
            with self.context.catalog.read() as tx:
                is_damaged = damage.damage_reason(tx, session.digest) is not None
            if (
                is_damaged
            ):  # what replaces damaged bytes must not be taken for a copy of them, nor delete them
                self.context.blobs.set_aside(session.digest)
            try:
                staged.publish(session.digest)
            except DigestMismatch:
                with self.context.catalog.write() as tx:
                    files.close_session(tx, session.id)
                raise
            reach("uploads.after_publish")
            digests = self.context.incremental_digests.pop(session.id)
            weights = digests.digest() if digests else None
            with self.context.catalog.write() as tx:
                # Bytes whose session is open are spared by a sweep; those of one that lapsed may be gone by
                # now.
                if files.find_session(tx, session.id) is None:
                    raise NotFound("the upload was idle for too long; open it again")
                if weights:
                    files.store_weights_digest(tx, session.digest, weights)
                files.add_owned(tx, session.owner, session.digest, session.size)
                damage.clear_damage(tx, session.digest)
                files.finish_session(tx, session.id, self.context.clock())

    def list(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[UploadSession]:
        cursors.check_limit(limit)
        about = f"uploads {namespace or ''}"
        after = "" if cursor is None else cursors.decode(cursor, about)
        with self.context.catalog.read() as tx:
            seen = [tenant for tenant in files.open_tenants(tx) if self._may_manage(tenant)]
            chosen = seen if namespace is None else [tenant for tenant in seen if tenant == namespace]
            found = files.open_page(tx, chosen, after, limit + 1)
        following = cursors.encode(found[limit - 1].id, about) if len(found) > limit else None
        return Page(items=tuple(map(self._shown, found[:limit])), next=following)

    def drop(self, id: str) -> None:
        session = self._session(id)
        if session.is_finished:
            raise NotFound("no such upload is open; `adaptry uploads ls` shows those that are")
        with self.context.catalog.write() as tx:
            files.close_session(tx, session.id)
        with (
            suppress(Conflict),
            self.context.blobs.staging(session.id) as staged,
        ):  # else whoever sends it notices at the end
            staged.discard()

    def _may_manage(self, tenant: str) -> bool:
        if tenant == files.BASES:
            return self.context.identity.may_administer
        return self.context.identity.role in ("writer", "admin") and self.context.identity.has_namespace(
            tenant
        )

    def _shown(self, session: UploadSessionRecord) -> UploadSession:
        written = self.context.blobs.last_write(session.id)
        return UploadSession(
            id=session.id,
            owner=str(session.owner),
            digest=session.digest,
            size=session.size,
            offset=self.context.blobs.staged_size(session.id),
            created_by=session.created_by,
            active_at=max(session.touched_at, written or session.touched_at),
            is_held=self.context.blobs.is_held(session.id),
        )

    def _session(self, id: str) -> UploadSessionRecord:
        """The session, if it is there and the caller may write to its owner. Raises `NotFound`.

        Whoever may not is not told whose it is, nor that it is.
        """
        with self.context.catalog.read() as tx:
            session = files.find_session(tx, id)
            if session is not None:
                with suppress(PermissionDenied, NotFound):
                    self._require_writing(tx, session.owner)
                    return session
        raise NotFound("no such upload, or it was idle for too long; open it again")

    def _begun(self, session: UploadSessionRecord) -> UploadInfo:
        """The session, with addresses that lead past us if the file is large enough for them."""
        upload = self._upload(session)
        if not self.context.presign_uploads or session.size < DIRECT:
            return upload
        return upload.model_copy(update={"direct": tuple(self._parts(upload))})

    def _parts(self, upload: UploadInfo) -> Iterator[DirectPart]:
        for start in range(upload.offset, upload.size, PART):
            size = min(PART, upload.size - start)
            address = self.context.blobs.upload_url(upload.id, start, size, _ADDRESS_SECONDS)
            if address is None:
                return
            yield DirectPart(start=start, size=size, address=address.url, headers=dict(address.headers))

    def _upload(self, session: UploadSessionRecord) -> UploadInfo:
        offset = session.size if session.is_finished else self.context.blobs.staged_size(session.id)
        return UploadInfo(id=session.id, offset=offset, size=session.size)

    def _require_writing(self, tx: Transaction, owner: Owner) -> None:
        if isinstance(owner, Digest):
            require_base_visible(self.context, tx, owner)
            self.context.require_base_write()
            return
        require_write(self.context.identity, owner)
        if adapters.find(tx, owner) is None:  # said now, before the bytes of a push that would be refused
            adapters.require_distinct_name(tx, owner)


def _hash_stream(chunks: Iterable[bytes], hasher: BackgroundHasher) -> Iterator[bytes]:
    for chunk in chunks:
        hasher.update(memoryview(chunk))
        yield chunk


def _at_most(size: int, chunks: Iterable[bytes]) -> Iterable[bytes]:
    """The chunks, as long as they are no more than was announced. Raises `TooLarge`."""
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            raise TooLarge("more bytes than the upload announced; was the file written to meanwhile?")
        yield chunk
