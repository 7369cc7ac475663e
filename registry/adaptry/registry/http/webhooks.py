"""The webhooks role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.records import Page
from adaptry.registry.webhooks import (
    CreatedSecret,
    SecretRotation,
    WebhookDelivery,
    WebhookInfo,
    WebhookRequest,
    Webhooks,
)

_WEBHOOK = TypeAdapter(WebhookInfo)
_WEBHOOKS: TypeAdapter[tuple[WebhookInfo, ...]] = TypeAdapter(tuple[WebhookInfo, ...])
_CREATED = TypeAdapter(CreatedSecret)
_DELIVERY = TypeAdapter(WebhookDelivery)
_DELIVERIES: TypeAdapter[Page[WebhookDelivery]] = TypeAdapter(Page[WebhookDelivery])


@dataclass(frozen=True)
class HttpWebhooks(Webhooks):
    """The webhooks of a server's registry."""

    server: Connection

    def add(self, request: WebhookRequest) -> CreatedSecret:
        body = request.model_dump(mode="json")
        return self.server.request_value(_CREATED, "POST", api_path("webhooks"), body=body)

    def list(self, namespace: str | None = None) -> tuple[WebhookInfo, ...]:
        query = {"namespace": namespace}
        return self.server.request_value(_WEBHOOKS, "GET", api_path("webhooks"), query=query)

    def get(self, id: int) -> WebhookInfo:
        return self.server.request_value(_WEBHOOK, "GET", _path(id))

    def set_enabled(self, id: int, is_enabled: bool) -> WebhookInfo:
        body = {"is_enabled": is_enabled}
        return self.server.request_value(_WEBHOOK, "PATCH", _path(id), body=body, again=True)

    def remove(self, id: int) -> None:
        self.server.request_bytes("DELETE", _path(id))

    def test(self, id: int) -> WebhookDelivery:
        return self.server.request_value(_DELIVERY, "POST", _path(id, "test"))

    def rotate(self, id: int, rotation: SecretRotation) -> CreatedSecret:
        body = rotation.model_dump(mode="json")
        return self.server.request_value(_CREATED, "POST", _path(id, "secret"), body=body)

    def deliveries(self, id: int, cursor: str | None = None, limit: int = 50) -> Page[WebhookDelivery]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_DELIVERIES, "GET", _path(id, "deliveries"), query=query)

    def redeliver(self, id: int, message: str) -> WebhookDelivery:
        path = _path(id, "deliveries", message, "redelivery")
        return self.server.request_value(_DELIVERY, "POST", path, again=True)


def _path(id: int, *parts: str) -> str:
    return api_path("webhooks", str(id), *parts)
