"""Webhooks, and the log of their deliveries."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from adaptry.registry import protocol
from adaptry.registry.records import Page
from adaptry.registry.webhooks import (
    CreatedSecret,
    SecretRotation,
    WebhookChange,
    WebhookDelivery,
    WebhookInfo,
    WebhookRequest,
)
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/webhooks", "webhooks")
ONE = "/{id}"
Id = Annotated[int, Path(ge=1, lt=2**31)]
Message = Annotated[str, Path(max_length=64, description="The message's `webhook-id`.")]


@ROUTES.post("", status_code=201)
def add_webhook(registry: CallersRegistry, body: WebhookRequest) -> CreatedSecret:
    """Add a webhook, which receives a namespace's events.

    Requires `webhook.manage` in the namespace. The webhook receives only events that the caller may read. The
    response contains the secret that messages are signed with, which is not shown again.
    """
    return registry.webhooks.add(body)


@ROUTES.get("")
def list_webhooks(
    registry: CallersRegistry,
    namespace: Annotated[
        str | None, Query(max_length=96, description="Only webhooks of this namespace.")
    ] = None,
) -> tuple[WebhookInfo, ...]:
    """List the webhooks that the caller manages, oldest first."""
    return registry.webhooks.list(namespace)


@ROUTES.get(ONE)
def get_webhook(registry: CallersRegistry, id: Id) -> WebhookInfo:
    """Get a webhook, without its secret."""
    return registry.webhooks.get(id)


@ROUTES.patch(ONE)
def enable_webhook(registry: CallersRegistry, id: Id, body: WebhookChange) -> WebhookInfo:
    """Disable a webhook, or enable it again.

    An enabled webhook receives new events, not those that it missed.
    """
    return registry.webhooks.set_enabled(id, body.is_enabled)


@ROUTES.delete(ONE, status_code=204)
def remove_webhook(registry: CallersRegistry, id: Id) -> None:
    """Delete a webhook and the log of its messages."""
    registry.webhooks.remove(id)


@ROUTES.post(f"{ONE}/test", status_code=202)
def test_webhook(registry: CallersRegistry, id: Id) -> WebhookDelivery:
    """Send a test message to a webhook, once.

    The list of messages shows the receiver's response.
    """
    return registry.webhooks.test(id)


@ROUTES.post(f"{ONE}/secret")
def rotate_webhook_secret(registry: CallersRegistry, id: Id, body: SecretRotation) -> CreatedSecret:
    """Replace a webhook's secret.

    Messages are signed with both secrets for some hours, so that receivers can switch.
    """
    return registry.webhooks.rotate(id, body)


@ROUTES.get(f"{ONE}/deliveries")
def list_webhook_deliveries(
    registry: CallersRegistry, id: Id, cursor: Cursor = None, limit: Limit = 50
) -> Page[WebhookDelivery]:
    """List the messages to a webhook, newest first.

    Each has the result of its last attempt.
    """
    return registry.webhooks.deliveries(id, cursor, limit)


@ROUTES.post(f"{ONE}/deliveries/{{message}}/redelivery", status_code=202)
def redeliver_webhook_message(registry: CallersRegistry, id: Id, message: Message) -> WebhookDelivery:
    """Send a message to a webhook again, with the same id."""
    return registry.webhooks.redeliver(id, message)
