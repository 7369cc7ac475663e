"""Webhooks of a server with real receivers, including slow, dead and misbehaving ones.

The receiver verifies with the library `standardwebhooks`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from adaptry.adapters.adapter import Adapter
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import PushOptions
from adaptry.registry.webhooks import WebhookRequest
from adaptry.testing.receivers import receiving
from adaptry_api.testing import Server

TONE = AdapterName.parse("acme/tone")
ALLOWED = ("127.0.0.0/8",)


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start(allow_outgoing=ALLOWED)


def test_a_receiver_gets_signed_events_that_its_library_verifies(
    server: Server, registry: HttpRegistry, tone: Adapter
) -> None:
    with receiving() as receiver:
        made = registry.webhooks.add(WebhookRequest(namespace="acme", url=receiver.url))
        version = push(registry, tone, TONE, options=PushOptions(alias="prod")).version
        messages = receiver.wait_for(3)

    for message in messages:
        assert Webhook(made.secret).verify(message.body, message.headers) == message.event
        assert message.headers["content-type"].startswith("application/cloudevents+json")
    types = [message.event["type"] for message in messages]
    assert types == [f"dev.adaptry.{kind}" for kind in ("adapter.created", "version.pushed", "alias.moved")]
    pushed = messages[1].event
    assert (pushed["specversion"], pushed["subject"]) == ("1.0", "acme/tone@1")
    assert datetime.fromisoformat(pushed["time"]).tzinfo is not None
    assert pushed["data"]["detail"]["digest"] == str(version.digest)
    with pytest.raises(WebhookVerificationError):
        Webhook(made.secret).verify(messages[0].body + b" ", messages[0].headers)
