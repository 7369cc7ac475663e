"""The publishers role over HTTP: issuers and publishers."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import owner_path
from adaptry.registry.publishers import (
    IssuerInfo,
    IssuerRequest,
    PublisherInfo,
    PublisherRequest,
    Publishers,
)

_ISSUER = TypeAdapter(IssuerInfo)
_ISSUERS: TypeAdapter[tuple[IssuerInfo, ...]] = TypeAdapter(tuple[IssuerInfo, ...])
_PUBLISHER = TypeAdapter(PublisherInfo)
_PUBLISHERS: TypeAdapter[tuple[PublisherInfo, ...]] = TypeAdapter(tuple[PublisherInfo, ...])


@dataclass(frozen=True)
class HttpPublishers(Publishers):
    """The issuers and publishers of a server's registry."""

    server: Connection

    def add_issuer(self, request: IssuerRequest) -> IssuerInfo:
        body = request.model_dump(mode="json")
        return self.server.request_value(_ISSUER, "POST", api_path("issuers"), body=body)

    def list_issuers(self) -> tuple[IssuerInfo, ...]:
        return self.server.request_value(_ISSUERS, "GET", api_path("issuers"))

    def remove_issuer(self, name: str) -> None:
        self.server.request_bytes("DELETE", api_path("issuers", name))

    def add(self, name: AdapterName, request: PublisherRequest) -> PublisherInfo:
        body = request.model_dump(mode="json", exclude_none=True)
        return self.server.request_value(
            _PUBLISHER, "POST", owner_path(name, "publishers"), body=body, again=True
        )

    def list(self, name: AdapterName) -> tuple[PublisherInfo, ...]:
        return self.server.request_value(_PUBLISHERS, "GET", owner_path(name, "publishers"))

    def remove(self, name: AdapterName, id: int) -> None:
        self.server.request_bytes("DELETE", owner_path(name, "publishers", str(id)))
