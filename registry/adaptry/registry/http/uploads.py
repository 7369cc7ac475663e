"""The uploads role over HTTP: through the server, or directly to its bucket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry import protocol
from adaptry.registry.files import Owner
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection, api_path
from adaptry.registry.http.paths import owner_path
from adaptry.registry.http.presigned import DirectUploader
from adaptry.registry.records import Page, UploadInfo, UploadSession
from adaptry.registry.uploads import Uploads

_UPLOAD = TypeAdapter(UploadInfo)
_UPLOAD_SESSIONS = TypeAdapter(Page[UploadSession])


@dataclass(frozen=True)
class HttpUploads(Uploads):
    """The uploads of a server's registry."""

    server: Connection
    direct: DirectUploader

    def open(self, owner: Owner, digest: Digest | None, size: int, earlier: str | None = None) -> UploadInfo:
        body: dict[str, object] = {"size": size}
        if digest is not None:
            body["digest"] = str(digest)
        if earlier is not None:  # older servers know neither
            body["earlier"] = earlier
        return self.server.request_value(
            _UPLOAD, "POST", owner_path(owner, "uploads"), body=body, again=digest is not None
        )

    def append(
        self, upload: UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> UploadInfo:
        if upload.direct and upload.direct[0].start == offset:
            return self.direct.send(upload, chunks, self._append)
        return self._append(upload, offset, chunks, length)

    def _append(
        self, upload: UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> UploadInfo:
        headers = {protocol.OFFSET_HEADER: str(offset), protocol.SIZE_HEADER: str(upload.size)}
        return self.server.upload(_UPLOAD, api_path("uploads", upload.id), chunks, headers, length)

    def finish(self, upload: UploadInfo, digest: Digest | None = None) -> None:
        body: dict[str, object] = {"offset": upload.offset, "size": upload.size}
        if digest is not None:  # older servers do not know it
            body["digest"] = str(digest)
        self.server.request_bytes(
            "POST", api_path("uploads", upload.id, "finish"), body=body, again=True, timeout=VERIFY_SECONDS
        )

    def put_all(self, owner: AdapterName, contents: Sequence[bytes]) -> None:
        data = protocol.join_parts(contents)
        try:
            self.server.request_bytes(
                "POST", owner_path(owner, "blobs"), data=data, again=True, timeout=VERIFY_SECONDS
            )
        except NotFound:  # an older server, or the caller may not see the adapter
            super().put_all(owner, contents)

    def list(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[UploadSession]:
        query = {"namespace": namespace, "cursor": cursor, "limit": limit}
        return self.server.request_value(_UPLOAD_SESSIONS, "GET", api_path("uploads"), query=query)

    def drop(self, id: str) -> None:
        self.server.request_bytes("DELETE", api_path("uploads", id))
