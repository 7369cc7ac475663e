"""The evidence role over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter

from adaptry.core.evidence.values import EvidenceFile
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import Ref
from adaptry.registry.evidence import (
    Evidence,
    EvidenceAddition,
    EvidenceInfo,
    EvidencePart,
    WithdrawalRequest,
    WithdrawalResult,
)
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import idempotency_header, version_path
from adaptry.registry.records import Page

_ADDITION = TypeAdapter(EvidenceAddition)
_PAGE: TypeAdapter[Page[EvidenceInfo]] = TypeAdapter(Page[EvidenceInfo])
_INFO = TypeAdapter(EvidenceInfo)
_FILES: TypeAdapter[tuple[FileEntry, ...]] = TypeAdapter(tuple[FileEntry, ...])
_WITHDRAWN = TypeAdapter(WithdrawalResult)


@dataclass(frozen=True)
class HttpEvidence(Evidence):
    """The evidence of a server's registry."""

    server: Connection

    def add(self, ref: Ref, file: EvidenceFile) -> EvidenceAddition:
        body = file.model_dump(mode="json", exclude_defaults=True)
        path = version_path(ref, "evidence")
        return self.server.request_value(
            _ADDITION, "POST", path, body=body, headers=idempotency_header(), again=True
        )

    def list(
        self,
        ref: Ref,
        *,
        task: str | None = None,
        metric: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[EvidenceInfo]:
        query = {"task": task, "metric": metric, "cursor": cursor, "limit": limit}
        return self.server.request_value(_PAGE, "GET", version_path(ref, "evidence"), query=query)

    def get(self, id: int) -> EvidenceInfo:
        return self.server.request_value(_INFO, "GET", api_path("evidence", str(id)))

    def files(self, id: int) -> tuple[FileEntry, ...]:
        return self.server.request_value(_FILES, "GET", api_path("evidence", str(id), "files"))

    def read_file(self, id: int, part: EvidencePart, start: int = 0) -> Iterator[bytes]:
        return self.server.download(api_path("evidence", str(id), "files", part), start)

    def withdraw(self, id: int, withdrawal: WithdrawalRequest) -> WithdrawalResult:
        body, path = withdrawal.model_dump(mode="json"), api_path("evidence", str(id), "withdrawal")
        return self.server.request_value(
            _WITHDRAWN, "POST", path, body=body, headers=idempotency_header(), again=True
        )
