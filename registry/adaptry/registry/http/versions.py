"""The versions role over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from adaptry.adapters.weight_statistics import WeightDistance, WeightStatistics
from adaptry.core.digest import Digest
from adaptry.core.errors import ProtocolMismatch
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import SCHEMA
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry import protocol
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection, api_path
from adaptry.registry.http.paths import owner_path, sort_query, version_path
from adaptry.registry.records import (
    Page,
    PushOptions,
    PushResult,
    StateChange,
    TensorInspection,
    VersionDetail,
    VersionInfo,
)
from adaptry.registry.versions import Versions

_DISTANCE = TypeAdapter(WeightDistance)
_DETAIL = TypeAdapter(dict[str, Any])  # `Any`: checked once, before it becomes a `VersionDetail`
_PUSHED = TypeAdapter(PushResult)
_STATISTICS = TypeAdapter(WeightStatistics)
_TENSORS = TypeAdapter(Page[TensorInspection])
_VERSION = TypeAdapter(VersionInfo)
_VERSIONS = TypeAdapter(Page[VersionInfo])


@dataclass(frozen=True)
class HttpVersions(Versions):
    """The versions of a server's registry."""

    server: Connection

    def put(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        body, path = _document(manifest, options), owner_path(name, "revisions")
        return self.server.request_value(_PUSHED, "POST", path, body=body, again=True, timeout=VERIFY_SECONDS)

    def put_with_files(
        self, name: AdapterName, manifest: bytes, options: PushOptions, files: Sequence[bytes]
    ) -> PushResult:
        path = owner_path(name, "revisions", "with-files")
        data = protocol.join_parts([json.dumps(_document(manifest, options)).encode(), *files])
        return self.server.request_value(_PUSHED, "POST", path, data=data, again=True, timeout=VERIFY_SECONDS)

    def get(self, ref: Ref) -> VersionInfo:
        return self.server.request_value(_VERSION, "GET", version_path(ref))

    def detail(self, ref: Ref) -> VersionDetail:
        document = self.server.request_value(_DETAIL, "GET", version_path(ref, "detail"))
        schema = document.get("manifest", {}).get("schema", SCHEMA)
        if isinstance(schema, int) and schema > SCHEMA:
            raise ProtocolMismatch(
                f"{ref} has a manifest of schema {schema}, but this adaptry reads schema {SCHEMA}: upgrade"
                " adaptry here"
            )
        return VersionDetail.model_validate(document)

    def list(
        self,
        name: AdapterName,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        order = sort_query(None if sort == "newest" else sort, reverse)
        query = {"cursor": cursor, "limit": limit, **order}
        return self.server.request_value(_VERSIONS, "GET", owner_path(name, "versions"), query=query)

    def search(
        self,
        query: str,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        order = sort_query(None if sort == "newest" else sort, reverse)
        parameters = {"q": query, "cursor": cursor, "limit": limit, **order}
        return self.server.request_value(_VERSIONS, "GET", api_path("search"), query=parameters)

    def count_download(self, ref: Ref) -> None:
        self.server.request_bytes("POST", version_path(ref, "downloads"))

    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        query = {"cursor": cursor, "limit": limit}
        path = version_path(ref, "tensors")
        return self.server.request_value(_TENSORS, "GET", path, query=query, timeout=VERIFY_SECONDS)

    def weight_statistics(self, ref: Ref) -> WeightStatistics:
        return self.server.request_value(_STATISTICS, "GET", version_path(ref, "weight-statistics"))

    def weight_distance(self, ref: Ref, other: Ref) -> WeightDistance:
        path = version_path(ref, "weight-distance")
        return self.server.request_value(_DISTANCE, "GET", path, query={"other": str(other)})

    def bind_base(self, name: AdapterName, revision: Digest, base: Digest) -> VersionDetail:
        path = owner_path(name, "revisions", str(revision), "base")
        self.server.request_value(
            _VERSION, "PUT", path, body={"base": str(base)}, again=True, timeout=VERIFY_SECONDS
        )
        return self.detail(Ref.of_revision(name, revision))

    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        path = owner_path(name, "revisions", str(revision), "state")
        body, seen = change.model_dump(mode="json"), {"If-Match": f'"{was}"'}
        return self.server.request_value(_VERSION, "PUT", path, body=body, headers=seen, again=True)


def _document(manifest: bytes, options: PushOptions) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    return {
        "manifest": base64.b64encode(manifest).decode(),
        "options": options.model_dump(mode="json"),
    }
