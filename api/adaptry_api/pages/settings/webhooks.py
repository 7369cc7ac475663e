"""Webhooks of a namespace, and the page of one: its deliveries, a new secret, a test, and redelivery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.core.errors import NotFound
from adaptry.registry.records import Page
from adaptry.registry.webhooks import (
    CreatedSecret,
    SecretRotation,
    WebhookDelivery,
    WebhookInfo,
    WebhookRequest,
)
from adaptry_api.pages.settings.fields import days_of, text_of, words_of
from adaptry_api.pages.settings.section import ActionResult, Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import OF_NAMESPACE, Visit

_DELIVERIES = 50


class WebhooksPage(BaseModel):
    """The webhooks of a namespace, oldest first."""

    webhooks: tuple[WebhookInfo, ...]


class WebhookPage(BaseModel):
    """A webhook, and its deliveries, newest first."""

    webhook: WebhookInfo
    deliveries: Page[WebhookDelivery]


def _read(visit: Visit) -> WebhooksPage:
    return WebhooksPage(webhooks=visit.registry.webhooks.list(visit.place.namespace))


def _add(visit: Visit, fields: Fields) -> ActionResult:
    request = WebhookRequest(
        namespace=visit.place.namespace,
        url=text_of(fields, "url"),
        adapters=fields.get("adapters", "").strip() or "*",
        kinds=words_of(fields, "kinds"),
    )
    return _shown(visit.registry.webhooks.add(request))


def _shown(made: CreatedSecret) -> ActionResult:
    what = f"The secret that signs messages to {made.webhook.url}"
    return ActionResult(made, {"secret": {"what": what, "text": made.secret, "until": None}})


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = ("id", "url", "adapters", "kinds", "owner", "created_at", "failures", "disabled_at")
    return columns, (
        [" ".join(one.kinds) if column == "kinds" else getattr(one, column) for column in columns]
        for one in cast(WebhooksPage, value).webhooks
    )


def _one(visit: Visit) -> WebhookPage:
    webhook = visit.registry.webhooks.get(_id(visit))
    cursor = visit.query.get("cursor")
    return WebhookPage(
        webhook=webhook, deliveries=visit.registry.webhooks.deliveries(webhook.id, cursor, _DELIVERIES)
    )


def _id(visit: Visit) -> int:
    """The webhook of the address, if it is one of the namespace. Raises `NotFound`."""
    webhook = visit.registry.webhooks.get(visit.number("id"))
    if webhook.namespace != visit.place.namespace:
        raise NotFound(f"{visit.place.namespace} has no webhook {webhook.id}")
    return webhook.id


def _enable(visit: Visit, fields: Fields) -> None:
    visit.registry.webhooks.set_enabled(_id(visit), True)


def _disable(visit: Visit, fields: Fields) -> None:
    visit.registry.webhooks.set_enabled(_id(visit), False)


def _test(visit: Visit, fields: Fields) -> None:
    visit.registry.webhooks.test(_id(visit))


def _rotate(visit: Visit, fields: Fields) -> ActionResult:
    return _shown(visit.registry.webhooks.rotate(_id(visit), SecretRotation(hours=days_of(fields, "hours"))))


def _redeliver(visit: Visit, fields: Fields) -> None:
    visit.registry.webhooks.redeliver(_id(visit), text_of(fields, "message"))


def _remove(visit: Visit, fields: Fields) -> str:
    visit.registry.webhooks.remove(_id(visit))
    return f"{visit.place.address}/webhooks?done=remove"


def _confirm(value: BaseModel, fields: Fields) -> Confirmation | None:
    page = cast(WebhookPage, value)
    return Confirmation(
        f"Remove the webhook {page.webhook.id}?",
        f"Nothing more is sent to {page.webhook.url}, and the log of its deliveries is deleted.",
        "Remove the webhook",
        {},
    )


def _deliveries_table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = ("message", "event", "kind", "state", "created_at", "attempts", "tried_at", "status", "error")
    return columns, (
        [getattr(one, column) for column in columns] for one in cast(WebhookPage, value).deliveries.items
    )


def _names(visit: Visit) -> Mapping[str, object]:
    return {"webhooks_address": f"{visit.place.address}/webhooks"}


WEBHOOKS = Section(
    title="Webhooks",
    address=f"{OF_NAMESPACE}/webhooks",
    template="settings_webhooks.html",
    read=_read,
    actions={"add": _add},
    done={"remove": "The webhook is removed."},
    table=_table,
)
WEBHOOK = Section(
    title="Webhook",
    address=f"{OF_NAMESPACE}/webhooks/{{id}}",
    template="settings_webhook.html",
    read=_one,
    actions={
        "enable": _enable,
        "disable": _disable,
        "test": _test,
        "rotate": _rotate,
        "redeliver": _redeliver,
        "remove": _remove,
    },
    done={
        "enable": "New events are sent from now on.",
        "disable": "Nothing is sent until the webhook is enabled again.",
        "test": "A test message is on its way; reload the page to see the result.",
        "redeliver": "The message is being sent again; reload the page to see the result.",
    },
    confirms={"remove": _confirm},
    table=_deliveries_table,
    names=_names,
)
