"""The inbox role over HTTP: posted results."""

from __future__ import annotations

import base64

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref
from adaptry.registry.evidence import EvidenceAddition
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.inbox import AttachRequest, Inbox, KeptResults, PostedFile, PostRequest
from adaptry.registry.records import Page

_POSTED = TypeAdapter(PostedFile)
_FILES: TypeAdapter[tuple[PostedFile, ...]] = TypeAdapter(tuple[PostedFile, ...])
_KEPT_RESULTS = TypeAdapter(KeptResults)
_PAGE: TypeAdapter[Page[KeptResults]] = TypeAdapter(Page[KeptResults])
_ADDITION = TypeAdapter(EvidenceAddition)


@dataclass(frozen=True)
class HttpInbox(Inbox):
    """The posted results of a server's registry."""

    server: Connection

    def post(self, namespace: str, path: str, data: bytes) -> PostedFile:
        body = PostRequest(path=path, content=base64.b64encode(data).decode()).model_dump(mode="json")
        return self.server.request_value(_POSTED, "POST", _of_namespace(namespace), body=body, again=True)

    def posted(self, namespace: str) -> tuple[PostedFile, ...]:
        return self.server.request_value(_FILES, "GET", f"{_of_namespace(namespace)}/own")

    def list(self, namespace: str, cursor: str | None = None, limit: int = 50) -> Page[KeptResults]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_PAGE, "GET", _of_namespace(namespace), query=query)

    def get(self, id: int) -> KeptResults:
        return self.server.request_value(_KEPT_RESULTS, "GET", api_path("results", str(id)))

    def read(self, id: int) -> bytes:
        return self.server.request_bytes("GET", api_path("results", str(id), "file"))

    def attach(self, id: int, ref: Ref) -> EvidenceAddition:
        body = AttachRequest(ref=str(ref)).model_dump(mode="json")
        return self.server.request_value(
            _ADDITION, "POST", api_path("results", str(id), "attachment"), body=body
        )

    def discard(self, id: int) -> None:
        self.server.request_bytes("DELETE", api_path("results", str(id)))


def _of_namespace(namespace: str) -> str:
    return api_path("namespaces", namespace, "results")
