"""The role of a registry that receives files, in sessions that can be resumed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.registry.files import Owner

if TYPE_CHECKING:
    from adaptry.registry.records import Page, UploadInfo, UploadSession


class Uploads(ABC):
    """Upload sessions: one for each file that is sent."""

    @abstractmethod
    def open(self, owner: Owner, digest: Digest | None, size: int, earlier: str | None = None) -> UploadInfo:
        """Opens a session for a file of `size` bytes, or resumes an idle one for the same bytes.

        Without a `digest`, the file of an adapter may be sent while it is hashed. Once the digest is known,
        `finish` takes it; or opening the upload again with it and with the `earlier` session's id gives that
        session the digest, so that it can be resumed by digest. A registry that requires the digest first
        raises `Conflict`; one of an older version raises `Invalid`.

        Raises `Busy` while the namespace has too many active uploads, `Conflict` if the adapter
        would have a base's name, `Unavailable` while the same bytes are being deleted, `TooLarge`,
        `StorageFull`.
        """

    @abstractmethod
    def append(
        self, upload: UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> UploadInfo:
        """Streams bytes to the position `offset`; bytes that arrived before an interruption are kept.

        `length` is the total size of the chunks in bytes, if known; a server then receives them faster.

        Raises `OffsetMismatch` (with the right offset), `Conflict` (someone else is writing), `NotFound`
        (expired), `TooLarge` (more than was announced), `StorageFull`.
        """

    @abstractmethod
    def finish(self, upload: UploadInfo, digest: Digest | None = None) -> None:
        """Verifies and publishes the file; repeating this has no effect. `digest` is needed if the upload was
        opened without one.

        Raises `DigestMismatch` (then nothing is kept), `Conflict` if bytes are missing or the upload has
        another digest, `Unavailable` while the same bytes are being deleted, and `Invalid` if the digest is
        unknown, or if a registry of an older version is given one.
        """

    def put_all(self, owner: AdapterName, contents: Sequence[bytes]) -> None:
        """Stores several small files of an adapter, over HTTP at most `MAX_FILES` with `MAX_SENT` bytes in
        total. A registry on this machine waits for its disk once for all of them.

        May be repeated, and may include files that the adapter has. Raises `TooLarge`, `QuotaExceeded`,
        `Busy`, `Unavailable`, `StorageFull`, `PermissionDenied` and `Conflict` as `open` does.
        """
        for data in contents:
            session = self.open(owner, Digest.of(data), len(data))
            if session.offset < len(data):
                session = self.append(session, session.offset, [data[session.offset :]])
            self.finish(session)

    def ingest(
        self, owner: AdapterName, content: Content, progress: Progress = no_progress
    ) -> Mapping[str, Digest] | None:
        """Stores the files of an adapter in one pass over their bytes, and returns their digests by path.

        None if the registry does not, so that the caller has to hash and send the files: because its
        files are on another machine, because `owner` seems to have the files already, or because they are
        being deleted.

        Raises `QuotaExceeded`, `Busy`, `StorageFull`, `ReadOnly`, `PermissionDenied` and `Conflict` as `open`
        does.
        """
        return None

    @abstractmethod
    def list(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[UploadSession]:
        """Open sessions of the namespaces that the caller may write to, or of one of them; for
        administrators, also those of bases. In no particular order.
        """

    @abstractmethod
    def drop(self, id: str) -> None:
        """Ends an open session and discards its bytes. A client that is sending gets `NotFound`, and may
        start again.

        Raises `NotFound` if it is not open, or the caller may not drop it.
        """
