"""The files role over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.files import Files, Owner
from adaptry.registry.http.connection import Connection
from adaptry.registry.http.paths import owner_path


class _PresenceResponse(BaseModel):
    is_here: bool


_PRESENCE = TypeAdapter(_PresenceResponse)


@dataclass(frozen=True)
class HttpFiles(Files):
    """The files of a server's registry."""

    server: Connection

    def has(self, owner: Owner, digest: Digest) -> bool:
        return self.server.request_value(_PRESENCE, "GET", owner_path(owner, "blobs", str(digest))).is_here

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        parts = ("revisions", str(revision), "files", *path.split("/"))
        return self.server.download(owner_path(name, *parts), start)
