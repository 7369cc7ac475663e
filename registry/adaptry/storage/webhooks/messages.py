"""A message to a webhook: a CloudEvent as JSON, signed as Standard Webhooks describes.

Sources: CloudEvents 1.0.2, JSON event format; the Standard Webhooks specification 1.0, symmetric signatures.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from adaptry import __version__
from adaptry.registry.records import Event
from adaptry.registry.webhooks import TEST_KIND
from adaptry.storage.catalog.webhook_deliveries import ClaimedDelivery

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32
_SOURCE = "urn:adaptry:registry"


def new_secret() -> str:
    """A signing secret in the form that libraries of Standard Webhooks read."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def body_of(claimed: ClaimedDelivery) -> bytes:
    """The body of a message: the same bytes at each attempt, as long as the owner's rights do not change."""
    event = claimed.event
    # `Any`: JSON.
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(event.seq) if event else claimed.message,
        "source": _SOURCE,
        "type": f"dev.adaptry.{event.kind if event else TEST_KIND}",
        "time": (event.at if event else claimed.created_at).isoformat(),
        "datacontenttype": "application/json",
        "data": event.model_dump(mode="json") if event else {"namespace": claimed.webhook.info.namespace},
    }
    if event is not None and event.name is not None:
        document["subject"] = _subject(event)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def headers_of(message: str, at: datetime, body: bytes, signing_secrets: Sequence[str]) -> dict[str, str]:
    """The headers of an attempt at that time, with a signature for each secret."""
    timestamp = str(int(at.timestamp()))
    signed = f"{message}.{timestamp}.".encode() + body
    return {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": f"adaptry/{__version__}",
        "webhook-id": message,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(secret, signed) for secret in signing_secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def _subject(event: Event) -> str:
    return f"{event.name}@{event.number}" if event.number is not None else str(event.name)
