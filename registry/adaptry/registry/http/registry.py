"""`HttpRegistry`: every method of the waist as one call of the REST API."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, TypeAdapter

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.errors import Incompatible, Invalid
from adaptry.core.http import check_url, open_pool
from adaptry.core.manifest import SCHEMA, FileEntry
from adaptry.core.refs import AdapterName, Ref, format_selector, parse_stored_alias
from adaptry.registry import protocol
from adaptry.registry.http.commits import RemoteChains
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection, path_of
from adaptry.registry.http.events import RemoteFeed
from adaptry.registry.http.jobs import RemoteJobs
from adaptry.registry.http.paths import once_key, path_to
from adaptry.registry.http.presigned import DirectWriting
from adaptry.registry.http.workers import RemoteResidency
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
    Pushed,
    PushOptions,
    StateChange,
    TensorInspection,
    Upload,
    UploadSession,
    VersionDetail,
    VersionInfo,
)


class _Has(BaseModel):
    is_here: bool


class About(BaseModel):
    """What a server says of itself, and whom it takes us for."""

    version: str
    api: int
    manifest_schema: int
    identity: str
    role: str
    namespaces: tuple[str, ...] = ()


_ABOUT = TypeAdapter(About)
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
_PUSHED = TypeAdapter(Pushed)
_TENSORS = TypeAdapter(Page[TensorInspection])
_UPLOAD = TypeAdapter(Upload)
_UPLOAD_SESSIONS = TypeAdapter(Page[UploadSession])
_VERSION = TypeAdapter(VersionInfo)
_VERSIONS = TypeAdapter(Page[VersionInfo])


class HttpRegistry(RemoteChains, RemoteFeed, RemoteResidency, RemoteJobs, Registry):
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
        self._direct = DirectWriting(self._server)

    @property
    def is_on_this_machine(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return host == "localhost" or host == "::1" or host.startswith("127.")

    def close(self) -> None:
        """Lets go of the connections that were kept; the next call makes new ones."""
        self._server.pool.clear()

    def __repr__(self) -> str:
        return f"HttpRegistry({self.url!r})"

    def about(self) -> About:
        """The server's versions and our identity there. Raises `Unauthenticated`, `Incompatible`."""
        return self._server.ask(_ABOUT, "GET", path_of())

    # Adapters

    def create_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        body = {"name": str(name), **_given(edit)}
        return self._server.ask(
            _ADAPTER, "POST", path_of("adapters"), body=body, headers=once_key(), again=True
        )

    def adapter(self, name: AdapterName) -> AdapterInfo:
        return self._server.ask(_ADAPTER, "GET", path_to(name))

    def adapters(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[AdapterInfo]:
        query = {"namespace": namespace, "cursor": cursor, "limit": limit}
        return self._server.ask(_ADAPTERS, "GET", path_of("adapters"), query=query)

    def edit_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        return self._server.ask(_ADAPTER, "PATCH", path_to(name), body=_given(edit), again=True)

    def rename_adapter(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        return self._server.ask(_ADAPTER, "POST", path_to(name, "rename"), body={"to": str(to)})

    def delete_adapter(self, name: AdapterName) -> None:
        self._server.tell("DELETE", path_to(name))

    # Bytes

    def has_file(self, owner: Owner, digest: Digest) -> bool:
        return self._server.ask(_HAS, "GET", path_to(owner, "blobs", str(digest))).is_here

    def open_upload(self, owner: Owner, digest: Digest, size: int) -> Upload:
        body = {"digest": str(digest), "size": size}
        return self._server.ask(_UPLOAD, "POST", path_to(owner, "uploads"), body=body, again=True)

    def append_upload(self, upload: Upload, offset: int, chunks: Iterable[bytes]) -> Upload:
        if upload.direct and upload.direct[0].start == offset:
            return self._direct.send(upload, chunks, self._append)
        return self._append(upload, offset, chunks)

    def _append(self, upload: Upload, offset: int, chunks: Iterable[bytes]) -> Upload:
        headers = {protocol.OFFSET_HEADER: str(offset), protocol.SIZE_HEADER: str(upload.size)}
        return self._server.send(_UPLOAD, path_of("uploads", upload.id), chunks, headers)

    def finish_upload(self, upload: Upload) -> None:
        self._server.tell(
            "POST",
            path_of("uploads", upload.id, "finish"),
            body={"offset": upload.offset, "size": upload.size},
            again=True,
            patience=VERIFY_SECONDS,
        )

    def upload_sessions(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[UploadSession]:
        query = {"namespace": namespace, "cursor": cursor, "limit": limit}
        return self._server.ask(_UPLOAD_SESSIONS, "GET", path_of("uploads"), query=query)

    def drop_upload(self, id: str) -> None:
        self._server.tell("DELETE", path_of("uploads", id))

    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        parts = ("revisions", str(revision), "files", *path.split("/"))
        return self._server.receive(path_to(name, *parts), start)

    # Revisions and versions

    def put_revision(self, name: AdapterName, manifest: bytes, options: PushOptions) -> Pushed:
        body = {
            "manifest": base64.b64encode(manifest).decode(),
            "options": options.model_dump(mode="json"),
        }
        path = path_to(name, "revisions")
        return self._server.ask(_PUSHED, "POST", path, body=body, again=True, patience=VERIFY_SECONDS)

    def version(self, ref: Ref) -> VersionInfo:
        return self._server.ask(_VERSION, "GET", _version_path(ref))

    def detail(self, ref: Ref) -> VersionDetail:
        document = self._server.ask(_DETAIL, "GET", _version_path(ref, "detail"))
        schema = document.get("manifest", {}).get("schema", SCHEMA)
        if isinstance(schema, int) and schema > SCHEMA:
            raise Incompatible(
                f"{ref} has a manifest of schema {schema} and this adaptry reads schema {SCHEMA}: upgrade adaptry here"
            )
        return VersionDetail.model_validate(document)

    def versions(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.ask(_VERSIONS, "GET", path_to(name, "versions"), query=query)

    def search(self, query: str, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        asked = {"q": query, "cursor": cursor, "limit": limit}
        return self._server.ask(_VERSIONS, "GET", path_of("search"), query=asked)

    def count_download(self, ref: Ref) -> None:
        self._server.tell("POST", _version_path(ref, "downloads"))

    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        query = {"cursor": cursor, "limit": limit}
        path = _version_path(ref, "tensors")
        return self._server.ask(_TENSORS, "GET", path, query=query, patience=VERIFY_SECONDS)

    # States

    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        path = path_to(name, "revisions", str(revision), "state")
        body, seen = change.model_dump(mode="json"), {"If-Match": f'"{was}"'}
        return self._server.ask(_VERSION, "PUT", path, body=body, headers=seen, again=True)

    # Aliases and history

    def aliases(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        return self._server.ask(_ALIASES, "GET", path_to(name, "aliases"))

    def move_alias(self, name: AdapterName, alias: str, to: Digest, was: int | None) -> AliasInfo:
        seen = {"If-None-Match": "*"} if was is None else {"If-Match": f'"{was}"'}
        path = path_to(name, "aliases", parse_stored_alias(alias))
        return self._server.ask(_ALIAS, "PUT", path, body={"to": str(to)}, headers=seen, again=False)

    def remove_alias(self, name: AdapterName, alias: str, was: int) -> None:
        path = path_to(name, "aliases", parse_stored_alias(alias))
        self._server.tell("DELETE", path, headers={"If-Match": f'"{was}"'})

    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.ask(_EVENTS, "GET", path_to(name, "history"), query=query)

    # Metrics

    def log_metrics(self, ref: Ref, metrics: Mapping[str, float]) -> None:
        body = {"metrics": dict(metrics)}
        self._server.tell("POST", _version_path(ref, "metrics"), body=body, headers=once_key(), again=True)

    def metrics(self, ref: Ref) -> tuple[MetricInfo, ...]:
        return self._server.ask(_METRICS, "GET", _version_path(ref, "metrics"))

    # Bases

    def put_base(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        body = {"record": record.model_dump(mode="json"), "names": list(names)}
        path = path_of("bases")
        return self._server.ask(_BASE, "POST", path, body=body, again=True, patience=VERIFY_SECONDS)

    def base(self, key: str) -> BaseInfo:
        return self._server.ask(_BASE, "GET", path_of("bases", "find"), query={"key": key})

    def base_record(self, id: Digest) -> BaseRecord:
        return self._server.ask(_BASE_RECORD, "GET", path_to(id, "record"))

    def bases(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self._server.ask(_BASES, "GET", path_of("bases"), query=query)

    def bases_like(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        return self._server.ask(_BASES_LIKE, "GET", path_of("bases", "like", str(architecture)))

    def store_base(self, id: Digest, files: tuple[FileEntry, ...]) -> BaseInfo:
        body = {"files": [entry.model_dump(mode="json") for entry in files]}
        path = path_to(id, "files")
        return self._server.ask(_BASE, "PUT", path, body=body, again=True, patience=VERIFY_SECONDS)

    def edit_base(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        body = edit.model_dump(mode="json", exclude_none=True)
        return self._server.ask(_BASE, "PATCH", path_to(id), body=body, again=True)

    def read_base_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return self._server.receive(path_to(id, "files", *path.split("/")), start)


def _version_path(ref: Ref, *parts: str) -> str:
    return path_to(ref.name, "versions", format_selector(ref.selector), *parts)


def _given(edit: AdapterEdit) -> dict[str, object]:
    """What was said; what was not stays as it is on the server."""
    return edit.model_dump(mode="json", exclude_none=True)
