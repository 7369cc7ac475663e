"""The quotas role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.quotas import QuotaInfo, QuotaRequest, Quotas

_QUOTA = TypeAdapter(QuotaInfo)
_QUOTAS: TypeAdapter[tuple[QuotaInfo, ...]] = TypeAdapter(tuple[QuotaInfo, ...])


@dataclass(frozen=True)
class HttpQuotas(Quotas):
    """The quotas of a server's registry."""

    server: Connection

    def list(self, subject: QuotaSubject | None = None) -> tuple[QuotaInfo, ...]:
        query = {"scope": subject.scope, "name": subject.name} if subject else {}
        return self.server.request_value(_QUOTAS, "GET", api_path("quotas"), query=query)

    def set(self, request: QuotaRequest) -> QuotaInfo:
        body = request.model_dump()
        return self.server.request_value(_QUOTA, "PUT", api_path("quotas"), body=body, again=True)

    def remove(self, subject: QuotaSubject) -> None:
        query = {"scope": subject.scope, "name": subject.name}
        self.server.request_bytes("DELETE", api_path("quotas"), query=query)

    def require_room(self, name: AdapterName, size: int) -> None:
        """Does nothing: the server checks when an upload is opened, before any byte is sent."""
