"""`HttpRegistry`: every method of the registry interface as one call of the REST API."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, TypeAdapter

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, ProtocolMismatch
from adaptry.core.http import check_url, open_pool
from adaptry.core.manifest import SCHEMA, FileEntry
from adaptry.core.refs import AdapterName, Ref, format_selector, parse_stored_alias
from adaptry.registry import protocol
from adaptry.registry.http.commits import HttpCommits
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection, api_path
from adaptry.registry.http.events import HttpEvents
from adaptry.registry.http.jobs import HttpJobs
from adaptry.registry.http.paths import idempotency_header, owner_path
from adaptry.registry.http.presigned import DirectUploader
from adaptry.registry.http.workers import HttpWorkers
from adaptry.registry.interface import Owner, Registry
from adaptry.registry.records import (
    AdapterEdit,
    AdapterInfo,
    AliasInfo,
    BaseEdit,
    BaseInfo,
    Event,
    MetricInfo,
    Page,
    PushOptions,
    PushResult,
    StateChange,
    TensorInspection,
    UploadInfo,
    UploadSession,
    VersionDetail,
    VersionInfo,
)


class _Has(BaseModel):
    is_here: bool


class ServerInfo(BaseModel):
    """What a server says of itself, and whom it takes us for."""

    version: str
    api: int
    manifest_schema: int
    identity: str
    role: str
    namespaces: tuple[str, ...] = ()


_SERVER_INFO = TypeAdapter(ServerInfo)
_ADAPTER = TypeAdapter(AdapterInfo)
_ADAPTERS = TypeAdapter(Page[AdapterInfo])
_ALIAS = TypeAdapter(AliasInfo)
_ALIASES: TypeAdapter[tuple[AliasInfo, ...]] = TypeAdapter(tuple[AliasInfo, ...])
_BASE = TypeAdapter(BaseInfo)
_BASES = TypeAdapter(Page[BaseInfo])
_BASES_LIKE: TypeAdapter[tuple[BaseInfo, ...]] = TypeAdapter(tuple[BaseInfo, ...])
_BASE_RECORD = TypeAdapter(BaseRecord)
_DETAIL = TypeAdapter(dict[str, Any])  # `Any`: looked at once, before it is a `VersionDetail`
_EVENTS = TypeAdapter(Page[Event])
_HAS = TypeAdapter(_Has)
_METRICS: TypeAdapter[tuple[MetricInfo, ...]] = TypeAdapter(tuple[MetricInfo, ...])
_PUSHED = TypeAdapter(PushResult)
_TENSORS = TypeAdapter(Page[TensorInspection])
_UPLOAD = TypeAdapter(UploadInfo)
_UPLOAD_SESSIONS = TypeAdapter(Page[UploadSession])
_VERSION = TypeAdapter(VersionInfo)
_VERSIONS = TypeAdapter(Page[VersionInfo])


class HttpRegistry(HttpCommits, HttpEvents, HttpWorkers, HttpJobs, Registry):
    """The registry of the server at `url`. One may be used by many threads.

    `ca_bundle` is a file or folder of certificates to trust besides the system's; `proxy` an address, else
    HTTPS_PROXY, HTTP_PROXY and NO_PROXY decide. Raises `Invalid` for an address or a token that is none.
    """

    def __init__(
        self, url: str, token: str | None = None, ca_bundle: str | None = None, proxy: str | None = None
    ) -> None:
        self.url = check_url(url)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Invalid("the token has characters that no token has; was something else copied with it?")
        self._server = Connection(self.url, token, open_pool(self.url, ca_bundle, proxy))
        self._direct = DirectUploader(self._server)

    @property
    def is_on_this_machine(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return host == "localhost" or host == "::1" or host.startswith("127.")

    def close(self) -> None:
        """Lets go of the connections that were kept; the next call makes new ones."""
        self._server.pool.clear()

    def __repr__(self) -> str:
        return f"HttpRegistry({self.url!r})"

    def about(self) -> ServerInfo:
        """The server's versions and our identity there. Raises `Unauthenticated`, `ProtocolMismatch`."""
        return self._server.request_value(_SERVER_INFO, "GET", api_path())

    # Adapters

    def create_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        body = {"name": str(name), **_given(edit)}
        return self._server.request_value(
            _ADAPTER, "POST", api_path("adapters"), body=body, headers=idempotency_header(), again=True
        )

    def adapter(self, name: AdapterName) -> AdapterInfo:
        return self._server.request_value(_ADAPTER, "GET", owner_path(name))

    def adapters(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[AdapterInfo]:
        query = {"namespace": namespace, "cursor": cursor, "limit": limit}
        return self._server.request_value(_ADAPTERS, "GET", api_path("adapters"), query=query)

    def edit_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        return self._server.request_value(_ADAPTER, "PATCH", owner_path(name), body=_given(edit), again=True)

    def rename_adapter(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        return self._server.request_value(_ADAPTER, "POST", owner_path(name, "rename"), body={"to": str(to)})

    def delete_adapter(self, name: AdapterName) -> None:
        self._server.request_bytes("DELETE", owner_path(name))

    # Bytes

    def has_file(self, owner: Owner, digest: Digest) -> bool:
        return self._server.request_value(_HAS, "GET", owner_path(owner, "blobs", str(digest))).is_here

    def open_upload(self, owner: Owner, digest: Digest, size: int) -> UploadInfo:
        body = {"digest": str(digest), "size": size}
        return self._server.request_value(
            _UPLOAD, "POST", owner_path(owner, "uploads"), body=body, again=True
        )

    def append_upload(self, upload: UploadInfo, offset: int, chunks: Iterable[bytes]) -> UploadInfo:
        if upload.direct and upload.direct[0].start == offset:
            return self._direct.send(upload, chunks, self._append)
        return self._append(upload, offset, chunks)

    def _append(self, upload: UploadInfo, offset: int, chunks: Iterable[bytes]) -> UploadInfo:
        headers = {protocol.OFFSET_HEADER: str(offset), protocol.SIZE_HEADER: str(upload.size)}
        return self._server.upload(_UPLOAD, api_path("uploads", upload.id), chunks, headers)

    def finish_upload(self, upload: UploadInfo) -> None:
        self._server.request_bytes(
            "POST",
            api_path("uploads", upload.id, "finish"),
            body={"offset": upload.offset, "size": upload.size},
            again=True,
            patience=VERIFY_SECONDS,
        )

    def upload_sessions(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[UploadSession]:
        query = {"namespace": namespace, "cursor": cursor, "limit": limit}
        return self._server.request_value(_UPLOAD_SESSIONS, "GET", api_path("uploads"), query=query)

    def drop_upload(self, id: str) -> None:
        self._server.request_bytes("DELETE", api_path("uploads", id))

    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        parts = ("revisions", str(revision), "files", *path.split("/"))
        return self._server.download(owner_path(name, *parts), start)

    # Revisions and versions

    def put_revision(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        body = {
            "manifest": base64.b64encode(manifest).decode(),
            "options": options.model_dump(mode="json"),
        }
        path = owner_path(name, "revisions")
        return self._server.request_value(
            _PUSHED, "POST", path, body=body, again=True, patience=VERIFY_SECONDS
        )

    def version(self, ref: Ref) -> VersionInfo:
        return self._server.request_value(_VERSION, "GET", _version_path(ref))

    def detail(self, ref: Ref) -> VersionDetail:
        document = self._server.request_value(_DETAIL, "GET", _version_path(ref, "detail"))
        schema = document.get("manifest", {}).get("schema", SCHEMA)
        if isinstance(schema, int) and schema > SCHEMA:
            raise ProtocolMismatch(
                f"{ref} has a manifest of schema {schema} and this adaptry reads schema {SCHEMA}: upgrade"
                " adaptry here"
            )
        return VersionDetail.model_validate(document)

    def versions(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.request_value(_VERSIONS, "GET", owner_path(name, "versions"), query=query)

    def search(self, query: str, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        asked = {"q": query, "cursor": cursor, "limit": limit}
        return self._server.request_value(_VERSIONS, "GET", api_path("search"), query=asked)

    def count_download(self, ref: Ref) -> None:
        self._server.request_bytes("POST", _version_path(ref, "downloads"))

    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        query = {"cursor": cursor, "limit": limit}
        path = _version_path(ref, "tensors")
        return self._server.request_value(_TENSORS, "GET", path, query=query, patience=VERIFY_SECONDS)

    # States

    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        path = owner_path(name, "revisions", str(revision), "state")
        body, seen = change.model_dump(mode="json"), {"If-Match": f'"{was}"'}
        return self._server.request_value(_VERSION, "PUT", path, body=body, headers=seen, again=True)

    # Aliases and history

    def aliases(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        return self._server.request_value(_ALIASES, "GET", owner_path(name, "aliases"))

    def move_alias(self, name: AdapterName, alias: str, to: Digest, was: int | None) -> AliasInfo:
        seen = {"If-None-Match": "*"} if was is None else {"If-Match": f'"{was}"'}
        path = owner_path(name, "aliases", parse_stored_alias(alias))
        return self._server.request_value(
            _ALIAS, "PUT", path, body={"to": str(to)}, headers=seen, again=False
        )

    def remove_alias(self, name: AdapterName, alias: str, was: int) -> None:
        path = owner_path(name, "aliases", parse_stored_alias(alias))
        self._server.request_bytes("DELETE", path, headers={"If-Match": f'"{was}"'})

    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.request_value(_EVENTS, "GET", owner_path(name, "history"), query=query)

    # Metrics

    def log_metrics(self, ref: Ref, metrics: Mapping[str, float]) -> None:
        body = {"metrics": dict(metrics)}
        self._server.request_bytes(
            "POST", _version_path(ref, "metrics"), body=body, headers=idempotency_header(), again=True
        )

    def metrics(self, ref: Ref) -> tuple[MetricInfo, ...]:
        return self._server.request_value(_METRICS, "GET", _version_path(ref, "metrics"))

    # Bases

    def put_base(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        body = {"record": record.model_dump(mode="json"), "names": list(names)}
        path = api_path("bases")
        return self._server.request_value(_BASE, "POST", path, body=body, again=True, patience=VERIFY_SECONDS)

    def base(self, key: str) -> BaseInfo:
        return self._server.request_value(_BASE, "GET", api_path("bases", "find"), query={"key": key})

    def base_record(self, id: Digest) -> BaseRecord:
        return self._server.request_value(_BASE_RECORD, "GET", owner_path(id, "record"))

    def bases(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.request_value(_BASES, "GET", api_path("bases"), query=query)

    def bases_like(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        return self._server.request_value(_BASES_LIKE, "GET", api_path("bases", "like", str(architecture)))

    def store_base(self, id: Digest, files: tuple[FileEntry, ...]) -> BaseInfo:
        body = {"files": [entry.model_dump(mode="json") for entry in files]}
        path = owner_path(id, "files")
        return self._server.request_value(_BASE, "PUT", path, body=body, again=True, patience=VERIFY_SECONDS)

    def edit_base(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        body = edit.model_dump(mode="json", exclude_none=True)
        return self._server.request_value(_BASE, "PATCH", owner_path(id), body=body, again=True)

    def read_base_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return self._server.download(owner_path(id, "files", *path.split("/")), start)


def _version_path(ref: Ref, *parts: str) -> str:
    return owner_path(ref.name, "versions", format_selector(ref.selector), *parts)


def _given(edit: AdapterEdit) -> dict[str, object]:
    """What was said; what was not stays as it is on the server."""
    return edit.model_dump(mode="json", exclude_none=True)
