"""The bases role over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.registry.base_info import BaseEdit, BaseInfo
from adaptry.registry.bases import MAX_KEY, Bases, unknown_base
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection, api_path
from adaptry.registry.http.paths import owner_path
from adaptry.registry.records import Page

_BASE = TypeAdapter(BaseInfo)
_BASES = TypeAdapter(Page[BaseInfo])
_BASES_LIKE: TypeAdapter[tuple[BaseInfo, ...]] = TypeAdapter(tuple[BaseInfo, ...])
_BASE_RECORD = TypeAdapter(BaseRecord)


@dataclass(frozen=True)
class HttpBases(Bases):
    """The bases of a server's registry."""

    server: Connection

    def put(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        body = {"record": record.model_dump(mode="json"), "names": list(names)}
        path = api_path("bases")
        return self.server.request_value(_BASE, "POST", path, body=body, again=True, timeout=VERIFY_SECONDS)

    def get(self, key: str) -> BaseInfo:
        if len(key) > MAX_KEY:  # the server refuses it, or closes the connection if it is very long
            raise unknown_base(key)
        return self.server.request_value(_BASE, "GET", api_path("bases", "find"), query={"key": key})

    def record(self, id: Digest) -> BaseRecord:
        return self.server.request_value(_BASE_RECORD, "GET", owner_path(id, "record"))

    def list(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_BASES, "GET", api_path("bases"), query=query)

    def of_architecture(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        return self.server.request_value(_BASES_LIKE, "GET", api_path("bases", "like", str(architecture)))

    def store(self, id: Digest, files: tuple[FileEntry, ...]) -> BaseInfo:
        body = {"files": [entry.model_dump(mode="json") for entry in files]}
        path = owner_path(id, "files")
        return self.server.request_value(_BASE, "PUT", path, body=body, again=True, timeout=VERIFY_SECONDS)

    def edit(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        body = edit.model_dump(mode="json", exclude_none=True)
        return self.server.request_value(_BASE, "PATCH", owner_path(id), body=body, again=True)

    def read_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return self.server.download(owner_path(id, "files", *path.split("/")), start)
